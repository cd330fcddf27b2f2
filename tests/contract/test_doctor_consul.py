"""What `backy doctor` says of the agents through which VM hosts are asked to freeze guests."""

from backy.domain.config import JobConfig, SourceConfig
from backy.domain.diagnosis import Finding, Verdict
from backy.domain.handshake_settings import HandshakeSettings, parse_address
from backy.ground.clock import SystemClock
from backy.operation.doctor import Patient, examine
from backy.operation.doctor_consul import agents
from fakeconsul import FakeConsul, serving

TOKEN = "11111111-2222-4333-8444-555555555555"


def asked(consul: FakeConsul, token: str = TOKEN, *names: str) -> list[Finding]:
    """The findings for jobs that all ask the same."""
    one = HandshakeSettings("vm", token, parse_address(consul.address))
    return list(agents(dict.fromkeys(names or ("vm01",), one)))


def test_agent_that_answers_is_asked_once_for_all_jobs() -> None:
    """Hundreds of jobs have one agent."""
    with serving(TOKEN) as consul:
        found = asked(consul, TOKEN, "a", "b", "c", "d")

    assert [(Verdict.FINE, "consul of a, b, c, …")] == [(one.verdict, one.subject) for one in found]


def test_token_that_is_not_accepted_is_wrong_and_not_told() -> None:
    """The guest would not be frozen, night after night."""
    with serving(TOKEN) as consul:
        (found,) = asked(consul, "another-token")

    assert Verdict.WRONG is found.verdict
    assert "without a frozen guest" in found.text
    assert "another-token" not in found.text


def test_agent_that_is_not_there_is_wrong() -> None:
    """Its address is named."""
    with serving(TOKEN) as consul:
        address = consul.address
    (found,) = agents({"vm01": HandshakeSettings("vm", TOKEN, parse_address(address))})

    assert (Verdict.WRONG, True) == (found.verdict, str(parse_address(address)) in found.text)


def test_jobs_that_freeze_guests_have_their_agent_examined() -> None:
    """Those with a VM and a token; a job whose settings cannot be meant is wrong by itself."""
    with serving(TOKEN) as consul:
        vm = {"pool": "p", "image": "i", "vm": "vm01", "consul_acl_token": TOKEN}
        jobs = {
            "vm01": JobConfig(SourceConfig("rbd", {**vm, "consul-address": consul.address}), {}),
            "vm02": JobConfig(SourceConfig("rbd", {**vm, "consul-address": "http://"}), {}),
        }
        found = list(examine(Patient("/nowhere", "backy.conf", jobs), SystemClock()))
    by_subject = {one.subject: one.verdict for one in found}

    assert Verdict.FINE is by_subject["consul of vm01"]
    assert Verdict.WRONG is by_subject["job vm02"]
