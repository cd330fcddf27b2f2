"""The handshake with a VM's host: frozen, late, never, refused; and what is left in Consul afterwards.

The store is a stand-in or a real agent (consulsite), the host answers when the handshake waits, so that
nothing here takes time.
"""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.freeze_request import Fate, RequestOwner, fate, parse, request
from backy.domain.handshake_settings import HandshakeSettings, parse_address
from backy.domain.revision import Freeze
from backy.ground.errors import ConsulFailed, SourceFailed
from backy.source.consul import Consul
from backy.source.handshake import Handshake, Means, Store, connect
from consulsite import TOKEN, ConsulSite, consul_site
from fakeconsul import BROKEN, DROPPED, GARBAGE, REFUSED, Answer, Asked, always, only, silent
from strategies import repeatable
from vmhost import VmHost

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
UUID = "77777777-7777-4777-8777-777777777777"
NAME = f"backy-{UUID}"
OURS = RequestOwner("11111111-1111-4111-8111-111111111111", "vm01")
ELSEWHERE = RequestOwner("22222222-2222-4222-8222-222222222222", "vm01")
LATE = (
    "the guest of vm01 was not frozen (its host made no snapshot within 90 s), so this backup is "
    "crash-consistent"
)


class Disk:
    """An image with snapshots."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.snapshots: set[str] = set()
        self.settled: list[str] = []
        self.looks = 0
        self.when_looked: Callable[[], None] = lambda: None

    def has_snapshot(self, name: str) -> bool:
        """See `Awaited.has_snapshot`."""
        self.looks += 1
        self.when_looked()
        return name in self.snapshots

    def settle(self, name: str, *, is_there: bool = False) -> None:
        """See `Awaited.settle`."""
        assert is_there == (name in self.snapshots)
        self.settled.append(name)


class Outcome(NamedTuple):
    """What came of it, and what the operator was told."""

    freeze: Freeze
    told: str


class Scene:
    """One VM with its disks, a clock that moves only when somebody waits, and a host to be set up."""

    def __init__(self, consul: ConsulSite, *names: str) -> None:
        self.consul = consul
        self.disks = {name: Disk(f"rbd/vm01.{name}") for name in names or ("root",)}
        self.slept: list[float] = []
        self.each_wait: Callable[[], object] = lambda: None
        self.settings = HandshakeSettings(
            "vm01", consul.token, parse_address(consul.url), consul.prefix, 90, 2
        )

    def now(self) -> datetime:
        """The instant."""
        return NOW + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """How long everybody has waited."""
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        """Wait; then the world goes on."""
        self.slept.append(seconds)
        self.each_wait()

    def host(self, *, broken: bool = False) -> VmHost:
        """Its host, which makes snapshots of all disks."""
        return VmHost(self.consul, {"vm01"}, self.make, broken=broken)

    def make(self, _: str, name: str) -> None:
        """A snapshot of each disk."""
        for disk in self.disks.values():
            disk.snapshots.add(name)

    def handshake(self, way: Callable[[HandshakeSettings], Store] = connect) -> Handshake:
        """The handshake."""
        return Handshake(self.settings, OURS, self.disks, Means(self, self.sleep, way))

    def ask(self) -> Outcome:
        """A handshake from beginning to end."""
        with self.handshake().around("vm01", UUID, self.disks) as bracket:
            return Outcome(bracket.freeze, bracket.end())

    def settled(self) -> set[str]:
        """The snapshots that disks were told to take."""
        return {one for disk in self.disks.values() for one in disk.settled}


@pytest.fixture
def scene(consul: ConsulSite) -> Scene:
    """A VM with one disk and nobody who answers."""
    return Scene(consul)


def put(scene: Scene, name: str, value: bytes) -> None:
    """A key that somebody has left."""
    scene.consul.ask("PUT", scene.consul.key(name), body=value)


# ..Answered.......................................................................................


def test_host_that_answers_gives_a_frozen_guest(scene: Scene) -> None:
    """Its snapshot is taken, its request withdrawn, and there is nothing to tell."""
    host = scene.host()
    scene.each_wait = host.look

    outcome = scene.ask()

    assert (Freeze.GUEST_FROZEN, "") == (outcome.freeze, outcome.told)
    assert {NAME} == scene.settled()
    assert ["freeze vm01", f"snapshot {NAME}", "thaw vm01"] == host.did
    assert {} == scene.consul.entries()
    assert [2.0] == scene.slept


def test_request_says_what_hosts_and_later_runs_need(scene: Scene) -> None:
    """Under a key of its own below the prefix."""
    seen: list[dict[str, bytes]] = []

    def answer() -> None:
        seen.append(scene.consul.entries())
        scene.make("vm01", NAME)

    scene.each_wait = answer

    scene.ask()

    ((value,),) = [list(one.values()) for one in seen]
    expected = {"vm": "vm01", "snapshot": NAME, "owner": str(OURS), "time": "2026-11-01T12:00:00Z"}
    assert expected == json.loads(value)


def test_snapshots_of_all_disks_are_waited_for(consul: ConsulSite) -> None:
    """A host that knows of several disks finds them in the request."""
    scene = Scene(consul, "root", "data")
    images: list[list[str]] = []

    def answer() -> None:
        images.append(json.loads(next(iter(consul.entries().values())))["images"])
        (scene.disks["root"] if len(images) == 1 else scene.disks["data"]).snapshots.add(NAME)

    scene.each_wait = answer
    outcome = scene.ask()

    assert Freeze.GUEST_FROZEN is outcome.freeze
    assert [["rbd/vm01.root", "rbd/vm01.data"]] * 2 == images
    assert [2.0, 2.0] == scene.slept


def test_host_that_watches_consul_is_woken_by_the_request(scene: Scene) -> None:
    """In a thread of its own, through a blocking query, as real hosts do."""
    made = threading.Event()

    def make(vm: str, name: str) -> None:
        scene.make(vm, name)
        made.set()

    with VmHost(scene.consul, {"vm01"}, make).watching() as host:
        scene.each_wait = lambda: made.wait(10)
        outcome = scene.ask()

    assert (Freeze.GUEST_FROZEN, "") == outcome
    assert ["freeze vm01", f"snapshot {NAME}", "thaw vm01"] == host.did
    assert len(scene.slept) <= 1


# ..Not in time....................................................................................


def test_host_that_never_answers_is_left_after_the_limit(scene: Scene) -> None:
    """The request is gone, and our own snapshot has another name."""
    outcome = scene.ask()

    assert (Freeze.CRASH_CONSISTENT, LATE) == (outcome.freeze, outcome.told)
    assert {f"{NAME}-fallback"} == scene.settled()
    assert 90.0 == scene.monotonic()
    assert {} == scene.consul.entries()


def test_host_that_cannot_freeze_makes_no_snapshot_and_gives_the_fallback(scene: Scene) -> None:
    """Which looks like one that never answers."""
    host = scene.host(broken=True)
    scene.each_wait = host.look

    outcome = scene.ask()

    assert (Freeze.CRASH_CONSISTENT, LATE) == (outcome.freeze, outcome.told)
    assert ["could not freeze vm01"] == host.did


def test_snapshot_of_the_last_moment_counts(scene: Scene) -> None:
    """After the request was withdrawn, it looks once more; whatever comes later cannot collide."""
    disk = scene.disks["root"]

    def answer_once_withdrawn() -> None:
        if scene.monotonic() == 90.0 and not scene.consul.entries():
            scene.make("vm01", NAME)

    disk.when_looked = answer_once_withdrawn
    outcome = scene.ask()

    assert (Freeze.GUEST_FROZEN, "") == (outcome.freeze, outcome.told)
    assert {NAME} == scene.settled()


def test_some_disks_without_a_snapshot_are_all_without(consul: ConsulSite) -> None:
    """Or they would not be of one instant; the warning names those that are missing."""
    scene = Scene(consul, "root", "data", "swap")
    scene.each_wait = lambda: scene.disks["root"].snapshots.add(NAME)

    outcome = scene.ask()

    assert Freeze.CRASH_CONSISTENT is outcome.freeze
    assert "its host made no snapshot of data, swap within 90 s" in outcome.told
    assert {f"{NAME}-fallback"} == scene.settled()


def test_wait_is_cut_to_the_limit(scene: Scene) -> None:
    """An interval that does not divide it makes it no longer."""
    scene.settings = scene.settings._replace(timeout=5)
    scene.ask()

    assert [2.0, 2.0, 1.0] == scene.slept


# ..Consul that fails..............................................................................


FAULTS = {
    "403": (REFUSED, "it refuses the token (403)"),
    "garbage": (GARBAGE, "it does not answer as Consul does"),
    "dropped lines": (DROPPED, "the connection broke"),
    "500": (BROKEN, "it answers 500 (No cluster leader)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_consul_that_fails_gives_a_crash_consistent_backup_at_once(scene: Scene, name: str) -> None:
    """Nobody waits for a host that was not asked."""
    answer, why = FAULTS[name]
    scene.consul.fake.fault = always(answer)

    outcome = scene.ask()

    told = outcome.told
    assert Freeze.CRASH_CONSISTENT is outcome.freeze
    assert f"the guest of vm01 was not frozen (Consul at {scene.consul.fake.address}: {why})" in told
    assert TOKEN not in told
    assert [] == scene.slept
    assert {f"{NAME}-fallback"} == scene.settled()


def test_consul_that_is_too_slow_is_the_same(scene: Scene) -> None:
    """Each call has its time; what it may have done all the same is withdrawn, as far as that goes."""
    fake = scene.consul.fake
    fake.fault = silent(fake)

    def hastily(settings: HandshakeSettings) -> Store:
        assert settings.address is not None
        return Consul(settings.address, settings.token, timeout=0.1)

    with scene.handshake(hastily).around("vm01", UUID, scene.disks) as bracket:
        told = bracket.end()

    assert Freeze.CRASH_CONSISTENT is bracket.freeze
    assert "it does not answer within 0.1 s" in told
    assert ["GET", "GET", "DELETE"] == [one.method for one in fake.asked]


def test_nobody_at_the_address_is_the_same(scene: Scene) -> None:
    """Consul that is not there."""
    scene.settings = scene.settings._replace(address=parse_address("127.0.0.1:1"))

    outcome = scene.ask()

    assert Freeze.CRASH_CONSISTENT is outcome.freeze
    assert "it cannot be reached (Connection refused)" in outcome.told
    assert [] == scene.slept


def test_environment_that_names_no_address_is_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable's name."""
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "unix:///run/consul.sock")
    scene.settings = scene.settings._replace(address=None)

    outcome = scene.ask()

    assert Freeze.CRASH_CONSISTENT is outcome.freeze
    assert "CONSUL_HTTP_ADDR" in outcome.told


def test_certificates_that_are_not_there_are_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable's name."""
    monkeypatch.setenv("CONSUL_CACERT", "/nonexistent/ca.pem")

    outcome = scene.ask()

    assert Freeze.CRASH_CONSISTENT is outcome.freeze
    assert "CONSUL_CACERT does not name a file" in outcome.told


def test_request_that_may_have_come_to_consul_is_withdrawn(scene: Scene) -> None:
    """The answer to our PUT is lost, but not the PUT."""
    fake = scene.consul.fake

    def lose(asked: Asked) -> Answer:
        fake.answer(asked, b'{"vm": "vm01"}')
        return DROPPED

    fake.fault = only("PUT", lose)
    outcome = scene.ask()

    assert Freeze.CRASH_CONSISTENT is outcome.freeze
    assert {} == scene.consul.entries()
    assert [] == scene.slept


def test_request_that_cannot_be_withdrawn_is_told_and_left_to_the_next_run(scene: Scene) -> None:
    """A frozen guest stays one."""
    scene.each_wait = scene.host().look
    scene.consul.fake.fault = only("DELETE", always(REFUSED))

    first = scene.ask()
    left = scene.consul.entries()
    scene.consul.fake.fault = None
    second = scene.ask()

    assert (Freeze.GUEST_FROZEN, 1) == (first.freeze, len(left))
    assert "could not be withdrawn (Consul at" in first.told
    assert (Freeze.GUEST_FROZEN, "", {}) == (second.freeze, second.told, scene.consul.entries())


def test_list_that_is_refused_does_not_keep_the_host_from_being_asked(scene: Scene) -> None:
    """Some tokens may write and not list."""
    scene.each_wait = scene.host().look
    fake = scene.consul.fake
    fake.fault = lambda asked: REFUSED if "recurse=" in asked.target else None

    outcome = scene.ask()

    assert Freeze.GUEST_FROZEN is outcome.freeze
    assert "requests of earlier runs were not looked for (Consul at" in outcome.told


# ..The end in between.............................................................................


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), SourceFailed("/x", 0, "gone")])
def test_whatever_ends_the_wait_withdraws_the_request(scene: Scene, error: BaseException) -> None:
    """A signal, or disks that cannot be looked at; and it goes on its way."""

    def end() -> None:
        raise error

    scene.each_wait = end

    with pytest.raises(type(error)):
        scene.ask()
    assert {} == scene.consul.entries()


def test_what_was_not_told_goes_to_standard_error(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the backup fails before it asks."""
    with scene.handshake().around("vm01", UUID, scene.disks):
        pass

    assert f"warning: {LATE}\n" == capsys.readouterr().err


# ..What others have left..........................................................................


def test_requests_of_dead_runs_go_before_ours_comes(scene: Scene) -> None:
    """So that the guest is not frozen for nobody."""
    put(scene, "killed", request("vm01", "backy-a", OURS, NOW))
    put(scene, "ancient", request("vm01", "backy-b", ELSEWHERE, NOW - timedelta(hours=2)))
    host = scene.host()
    scene.each_wait = host.look

    scene.ask()

    assert {} == scene.consul.entries()
    assert ["freeze vm01", f"snapshot {NAME}", "thaw vm01"] == host.did


def test_calling_off_removes_requests_of_dead_runs_and_asks_nobody(scene: Scene) -> None:
    """Before their snapshots are removed, so that no host makes them again."""
    put(scene, "killed", request("vm01", "backy-a", OURS, NOW))
    put(scene, "other-job", request("vm01", "backy-b", ELSEWHERE, NOW))

    scene.handshake().call_off()

    assert ["other-job"] == list(scene.consul.entries())
    assert [] == scene.slept


def test_calling_off_fails_nothing(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """The handshake itself tells what is wrong with Consul."""
    scene.consul.fake.fault = always(BROKEN)
    scene.handshake().call_off()
    scene.settings = scene.settings._replace(address=parse_address("127.0.0.1:1"))
    scene.handshake().call_off()

    assert "" == capsys.readouterr().err


def test_other_jobs_requests_other_vms_and_garbage_stay(scene: Scene) -> None:
    """Two jobs may back up one VM; and a garbage key stops nobody."""
    others = {
        "other-job": request("vm01", "backy-c", ELSEWHERE, NOW - timedelta(minutes=1)),
        "other-vm": b'{"vm": "vm02", "snapshot": "backy-d"}',
        "garbage": b"\xff{",
        "empty": b"",
        "folder/": b"",
        "other-program": b'{"vm": "vm01", "snapshot": "nightly"}',
    }
    for name, value in others.items():
        put(scene, name, value)
    scene.each_wait = lambda: scene.make("vm01", NAME)

    outcome = scene.ask()

    assert (Freeze.GUEST_FROZEN, "") == (outcome.freeze, outcome.told)
    assert others == scene.consul.entries()


MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "vm": st.sampled_from(["vm01", "vm02", "", 1, None]),
        "snapshot": st.sampled_from(["backy-x", "nightly", "", 2, None]),
        "owner": st.sampled_from([str(ELSEWHERE), "me", 3, None, []]),
        "time": st.sampled_from(["2026-11-01T11:59:00Z", "2026-11-01T11:59:00", "soon", 4, None]),
        "images": st.sampled_from([[], ["a"], "a", [5]]),
        "more": st.none(),
    },
)
LEFT_BEHIND = st.one_of(st.binary(max_size=20), MEMBERS.map(lambda one: json.dumps(one).encode()))


@repeatable(40)
@given(values=st.lists(LEFT_BEHIND, max_size=4))
def test_whatever_lies_below_the_prefix_stops_nobody(values: list[bytes]) -> None:
    """And only what can be a dead request is removed."""
    with consul_site() as site:
        scene = Scene(site)
        left = {str(number): value for number, value in enumerate(values)}
        for name, value in left.items():
            put(scene, name, value)
        scene.each_wait = lambda: scene.make("vm01", NAME)

        outcome = scene.ask()

        undated = {
            name
            for name, value in left.items()
            if (found := parse(value)) and fate(found, "vm01", OURS, NOW) is Fate.UNDATED
        }
        assert (Freeze.GUEST_FROZEN, "") == outcome
        assert {name: value for name, value in left.items() if name not in undated} == site.entries()


def test_undated_requests_of_our_vm_go_once_the_host_has_answered_a_later_one(scene: Scene) -> None:
    """2.5 left such; its host has had them before ours."""
    put(scene, "legacy", b'{"vm": "vm01", "snapshot": "backy-Xyz"}')
    before: list[set[str]] = []

    def answer() -> None:
        before.append(set(scene.consul.entries()))
        scene.make("vm01", NAME)

    scene.each_wait = answer

    scene.ask()

    assert ["legacy" in one for one in before] == [True]
    assert {} == scene.consul.entries()


@pytest.mark.parametrize(("limit", "left"), [(90, True), (95, False)])
def test_undated_requests_stay_as_long_as_2_5_may_wait(scene: Scene, limit: int, *, left: bool) -> None:
    """If nobody answers, only their age tells."""
    put(scene, "legacy", b'{"vm": "vm01", "snapshot": "backy-Xyz"}')
    scene.settings = scene.settings._replace(timeout=limit)

    scene.ask()

    assert left is ("legacy" in scene.consul.entries())


def test_two_jobs_for_one_vm_do_not_disturb_each_other(scene: Scene) -> None:
    """The second begins, and ends, while the first waits."""
    second = Scene(scene.consul)
    owner = RequestOwner(ELSEWHERE.repository, "copy")
    other = f"backy-{uuid4()}"

    def make(vm: str, name: str) -> None:
        scene.make(vm, name)
        second.make(vm, name)

    host = VmHost(scene.consul, {"vm01"}, make)
    frozen: list[Freeze] = []

    def while_the_first_waits() -> None:
        second.each_wait = host.look
        handshake = second.handshake()._replace(owner=owner)
        with handshake.around("copy", other.removeprefix("backy-"), second.disks) as bracket:
            frozen.append(bracket.freeze)

    scene.each_wait = while_the_first_waits
    outcome = scene.ask()

    assert [Freeze.GUEST_FROZEN, Freeze.GUEST_FROZEN] == [*frozen, outcome.freeze]
    assert ({NAME}, {other}) == (scene.settled(), second.settled())
    assert {} == scene.consul.entries()


def test_consul_that_cannot_be_come_to_is_no_failure_of_the_backup(scene: Scene) -> None:
    """Whatever kind of store it is."""

    def nowhere(_: HandshakeSettings) -> Store:
        raise ConsulFailed("nowhere", "there is none")

    with scene.handshake(nowhere).around("vm01", UUID, scene.disks) as bracket:
        told = [bracket.end(), bracket.end()]

    assert Freeze.CRASH_CONSISTENT is bracket.freeze
    assert "(Consul at nowhere: there is none)" in told[0]
    assert "" == told[1]
