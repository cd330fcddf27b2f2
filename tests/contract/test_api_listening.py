"""Where the API listens, and where the tokens do not go: logs, command lines, environments, errors.

Limits: what a proxy in front of it logs is the proxy's.
"""

import json
import os
import secrets
import socket
from contextlib import closing
from pathlib import Path

import pytest

from daemonsite import CLIENT_TOKEN, OTHER_TOKEN, TOKEN, Daemon, DaemonSite, free_port, local_token
from testsite import run_backy

LISTENING = "0A"
SHORT = "7-chars"
WRONG = "token-that-somebody-tries"


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses on which a process accepts connections, by the kernel's tables."""
    links = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                address, port = fields[1].split(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [(None, {"127.0.0.1"}), ("127.0.0.1, ::1", {"127.0.0.1", "::1"}), ("127.0.0.2", {"127.0.0.2"})],
)
def test_it_listens_on_loopback_unless_told_otherwise(
    tmp_path: Path, addresses: str | None, expected: set[str]
) -> None:
    """Also without any token, and nowhere else."""
    site = DaemonSite(tmp_path)
    section = {"port": site.port} if addresses is None else {"port": site.port, "addrs": addresses}
    site.configure(api=section)
    with site.running() as daemon:
        assert {(address, site.port) for address in expected} == listening(daemon.pid)


@pytest.mark.parametrize("addresses", ["0.0.0.0", "::", "192.0.2.1", "127.0.0.1, 0.0.0.0"])
def test_it_does_not_listen_beyond_this_host_without_a_token(tmp_path: Path, addresses: str) -> None:
    """Code 1 and the key, before anything is opened; a token that is too short is none."""
    site = DaemonSite(tmp_path)
    for tokens in ({}, {SHORT: "somebody"}):
        site.configure(api={"port": site.port, "addrs": addresses, "tokens": tokens})
        done = run_backy("-c", str(site.config), "scheduler")

        assert 1 == done.returncode
        assert "api.tokens: listening beyond this host needs at least one token" in done.stderr
        assert SHORT not in done.stderr
        assert not (site.site.base / ".api-token").exists()


def test_with_a_token_it_may_listen_everywhere(tmp_path: Path) -> None:
    """The other half of the rule: who has the token is answered, and others are not."""
    site = DaemonSite(tmp_path)
    site.configure(api={"port": site.port, "addrs": "0.0.0.0", "tokens": {TOKEN: "tests"}})
    with site.running() as daemon:
        assert {("0.0.0.0", site.port)} == listening(daemon.pid)
        assert 200 == daemon.ask("GET", "/v1/jobs").status
        assert 401 == daemon.ask("GET", "/v1/jobs", token=None).status


@pytest.mark.parametrize("what", ["taken", "not ours"])
def test_an_address_that_cannot_be_had_is_told(tmp_path: Path, what: str) -> None:
    """In one sentence with address and port, and the scheduler ends instead of working unseen."""
    site = DaemonSite(tmp_path)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1] if what == "taken" else free_port()
        address = "127.0.0.1" if what == "taken" else "192.0.2.1"
        site.configure(api={"port": port, "addrs": address, "tokens": {TOKEN: "tests"}})
        done = run_backy("-c", str(site.config), "scheduler")

    assert 1 == done.returncode
    assert f"the API cannot listen on {address} port {port}: " in done.stderr.splitlines()[-1]


def heads(token: str) -> list[bytes]:
    """Requests with a token that break off, break rules or are no HTTP."""
    start = b"PUT /v1/backups/left/revs/last/tags HTTP/1.1\r\nHost: x\r\n"
    bearer = b"Authorization: Bearer " + token.encode()
    return [
        start + bearer + b"\x01x\r\n\r\n",
        start + bearer * 500 + b"\r\n\r\n",
        start + bearer + b"\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        start + bearer + b"\r\nContent-Length: x\r\n\r\n",
        start + bearer + b"\r\nExpect: " + token.encode() + b"\r\n\r\n",
        start + bearer + b"\r\nTransfer-Encoding: chunked\r\n\r\nzz" + token.encode() + b"\r\n\r\n",
        start + bearer + b"\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        bearer + b"\r\n\r\n",
        b"GET /v1/jobs?token=" + token.encode() + b"\r\n" + bearer + b"\r\n\r\n",
    ]


def use_everything(daemon: Daemon, tokens: list[str]) -> list[str]:
    """Requests with all kinds of mistakes, and a run; all that was answered."""
    answers = [daemon.send(head) for token in tokens for head in heads(token)]
    for token in tokens:
        for method, path, body in (
            ("GET", f"/v1/status?filter=[&token={token}", None),
            ("POST", "/v1/jobs/nobody/run", None),
            ("POST", "/v1/jobs/fresh/run", None),
            ("PUT", "/v1/backups/left/revs/last/tags", b"{"),
            ("PUT", "/v1/backups/vm/revs/last/tags", b"{}"),
            ("DELETE", "/v1/jobs", None),
            ("GET", "/nothing", None),
        ):
            answers.append(daemon.ask(method, path, body, token=token).body)
    daemon.wait_for("backup finished")
    return [answer.decode(errors="replace") for answer in answers]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_tokens_are_in_no_log_no_command_line_and_no_error(tmp_path: Path, log_format: str) -> None:
    """Neither right nor wrong ones, after requests with all kinds of mistakes and a broken reload."""
    site = DaemonSite(tmp_path)
    log = tmp_path / "scheduler.log"
    rest = site.config.read_text()
    with site.running("-l", str(log), "--log-format", log_format) as daemon:
        tokens = [TOKEN, OTHER_TOKEN, WRONG, local_token(site.site.base)]
        answers = use_everything(daemon, tokens)
        site.config.write_text(rest.replace(f"{OTHER_TOKEN}: others", f"{OTHER_TOKEN}: [others]"))
        refused = daemon.ask("POST", "/v1/reload")
        process = Path(f"/proc/{daemon.pid}")
        shown = [(process / "cmdline").read_text(), (process / "environ").read_text()]

    assert (409, True) == (refused.status, "api.tokens" in refused.error)
    logs = [log.read_text(), "".join(daemon.lines), *job_logs(site)]
    assert "request" in logs[0]
    assert "backup finished" in logs[0]
    found = [
        (token, text)
        for token in (*tokens, CLIENT_TOKEN)
        # What is no HTTP is answered with a part of itself, to who sent it; nobody else sees it.
        for text in (*logs, *shown, refused.error, *(one for one in answers if one.startswith("{")))
        if token in text
    ]
    assert [] == found


def job_logs(site: DaemonSite) -> list[str]:
    """What the backups of all jobs wrote."""
    return [one.read_text() for one in site.site.base.glob("*/backy.log")]


def test_what_was_asked_cannot_forge_lines_of_the_log(tmp_path: Path) -> None:
    """Line ends and controls of a path stand there encoded, in both formats."""
    site = DaemonSite(tmp_path)
    forged = f"2026-01-01T00:00:00Z [error] {secrets.token_hex(4)}"
    path = "/v1/jobs/a%0A" + forged.replace(" ", "%20") + "%1B%5B2J%C2%9B%00%FF/run"
    for log_format in ("text", "json"):
        log = tmp_path / log_format
        with site.running("-l", str(log), "--log-format", log_format) as daemon:
            assert 404 == daemon.ask("POST", path).status
        lines = log.read_text().splitlines()
        (line,) = [one for one in lines if "%0A" in one]
        assert line.isprintable()
        assert not [one for one in lines if one.startswith(forged)]
        if log_format == "json":
            assert "tests" == json.loads(line)["client"]
