"""`backy client` where something else listens in the scheduler's place: it is told, and told no more.

Each stranger is a real server that says the same to everybody; the commands run in this process.

Limits: whatever listens there gets the token, as it is sent with the first request.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from in_process import Outcome, backy

from backy.daemon import client
from daemonsite import CLIENT_TOKEN, DaemonSite

COMMANDS = (
    ("client", "jobs"),
    ("client", "status"),
    ("client", "run", "vm"),
    ("client", "runall"),
    ("client", "reload"),
    ("client", "check"),
    ("reload",),
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


class Stranger:
    """Something that listens where the scheduler should, and says the same to everybody."""

    def __init__(self, answer: bytes, *, repeated: bool = False) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._repeated = repeated
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with closing(connection):
                try:
                    self.heard.append(connection.recv(65536))
                    connection.sendall(self._answer)
                    while self._repeated:
                        connection.sendall(b" " * 65536)
                except OSError:
                    continue

    @contextmanager
    def there(self) -> Iterator["Stranger"]:
        """While it listens."""
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._thread.join()


def page(body: bytes, kind: bytes = b"application/json") -> bytes:
    """A well-formed answer."""
    return HEAD.replace(b"application/json", kind) + b"Content-Length: %d\r\n\r\n" % len(body) + body


ENTRY = {
    **dict.fromkeys(("job", "sla", "status", "last_tags", "next_tags", "manual_tags"), "x"),
    **dict.fromkeys(("sla_overdue", "problem_reports", "unsynced_revs", "local_revs"), 0),
    **dict.fromkeys(("last_time", "next_time", "last_duration")),
}
STRANGE = {
    "hangs up": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "noise": bytes(range(256)) * 300,
    "a line without end": b"HTTP/1.1 200 " + b"x" * 200_000,
    "cut": HEAD + b"Content-Length: 100\r\n\r\n[",
    "wrong chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a page": page(b"<html>It works!</html>", b"text/html"),
    "nothing": page(b""),
    "an object": page(b"{}"),
    "text": page(b'"jobs"'),
    "other objects": page(b'[{"name": "vm"}]'),
    "numbers": page(b"[1, 2]"),
    "another type": page(json.dumps([{**ENTRY, "sla_overdue": "long"}]).encode()),
    "deep": page(b"[" * 100_000),
    "no UTF-8": page(b'["\xff\xfe"]'),
    "not there": b"HTTP/1.1 404 Not Found\r\n\r\nsorry",
    "its own error": b'HTTP/1.1 500 Oops\r\nContent-Length: 12\r\n\r\n{"error": 1}',
    "a bad error": b"HTTP/1.1 400 Oops\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/\r\n\r\n",
}


def ask_stranger(folder: Path, port: int, *words: str) -> Outcome:
    """A command whose configuration points there; it must not tell the token, whatever it meets."""
    config = folder / "client.conf"
    url = f"http://127.0.0.1:{port}"
    config.write_text(json.dumps({"api": {"cli-default": {"url": url, "token": CLIENT_TOKEN}}}))
    done = backy("-c", str(config), *words)
    assert CLIENT_TOKEN not in done.out + done.err
    return done


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_something_else_that_listens_there_is_no_scheduler(tmp_path: Path, answer: bytes) -> None:
    """One sentence and code 1, or UNKNOWN; nothing is taken for done, the token goes no further."""
    with Stranger(b"HTTP/1.1 204 \r\n\r\n").there() as other:
        found = answer.replace(b"{port}", str(other.port).encode())
        with Stranger(found).there() as stranger:
            for words in COMMANDS:
                done = ask_stranger(tmp_path, stranger.port, *words)
                code, who = (3, "UNKNOWN") if "check" in words else (1, "backy")
                said, other_said = (done.out, done.err) if code == 3 else (done.err, done.out)
                assert (code, "") == (done.code, other_said), words
                assert said.startswith(f"{who}: the scheduler at http://127.0.0.1:{stranger.port}: ")
                assert 1 == said.count("\n")
                assert said[:-1].isprintable()
    assert [] == other.heard


def test_names_of_a_stranger_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Nor its sentences."""
    evil = "\x1b[2J\x9bvm\nOK"
    texts = dict.fromkeys(("job", "sla", "status", "last_tags"), evil)
    with Stranger(page(json.dumps([{**ENTRY, **texts}]).encode())).there() as stranger:
        for word, code in (("jobs", 0), ("status", 0), ("check", 2)):
            done = ask_stranger(tmp_path, stranger.port, "client", word)
            assert (code, 2) == (done.code, done.out.count("\n"))
            assert done.out.replace("\n", "").isprintable()
    refusal = json.dumps({"error": evil + "x" * 10_000}).encode()
    refused = b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(refusal) + refusal
    with Stranger(refused).there() as stranger:
        done = ask_stranger(tmp_path, stranger.port, "client", "jobs")
        assert (1, True) == (done.code, done.err[:-1].isprintable())
        assert len(done.err) < 1000


def test_an_answer_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its size, and by its time."""
    endless = HEAD + b"\r\n["
    monkeypatch.setattr(client, "_MAX_ANSWER", 1 << 20)
    with Stranger(endless, repeated=True).there() as stranger:
        done = ask_stranger(tmp_path, stranger.port, "client", "jobs")
        assert (1, True) == (done.code, "it does not answer as a scheduler (ValueError)" in done.err)

        monkeypatch.setattr(client, "_SECONDS_IN_ALL", 0.0)
        done = ask_stranger(tmp_path, stranger.port, "client", "jobs")
        assert (1, True) == (done.code, "it does not answer as a scheduler (timed out)" in done.err)


def test_one_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten seconds in earnest."""
    assert 10.0 == client._SECONDS
    monkeypatch.setattr(client, "_SECONDS", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        done = ask_stranger(tmp_path, silent.getsockname()[1], "client", "run", "vm")
    assert (1, True) == (done.code, "it does not answer as a scheduler (timed out)" in done.err)


def test_a_url_with_tls_to_a_port_without_is_told(tmp_path: Path) -> None:
    """In the words of TLS."""
    with Stranger(b"HTTP/1.1 400 Bad\r\n\r\n").there() as stranger:
        config = tmp_path / "client.conf"
        place = {"url": f"https://127.0.0.1:{stranger.port}", "token": CLIENT_TOKEN}
        config.write_text(json.dumps({"api": {"cli-default": place}}))
        done = backy("-c", str(config), "client", "jobs")
    assert (1, True) == (done.code, "SSL" in done.err)
    assert "Operation not permitted" not in done.err


def test_a_proxy_of_the_environment_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the request nor the token."""
    site = DaemonSite(tmp_path)
    site.configure(api={"port": site.port})
    with site.running(), Stranger(page(b"[]")).there() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        done = backy("-c", str(site.config), "client", "--json", "status")
    assert {"waiting for deadline": 3} == json.loads(done.out)
    assert [] == proxy.heard
