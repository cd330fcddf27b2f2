"""How much of a request, how long, and how many: what no client can take from the scheduler.

Limits: what takes minutes is tried in this process with shorter times; the sizes are the real ones.
"""

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from backy.daemon import api, connections
from backy.daemon.api import MAX_BODY
from backy.daemon.connections import MAX_CONNECTIONS, close_slow, limited
from daemonsite import PATIENCE, TOKEN, Daemon, DaemonSite, Said, exchange, serving

TAGS = "/v1/backups/left/revs/last/tags"
HEAD = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\n"
GET = f"GET /v1/jobs HTTP/1.1\r\n{HEAD}\r\n".encode()
EDIT = {"old_tags": ["none of these"], "new_tags": ["manual:x"]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One scheduler for the tests here that change nothing; one of its jobs has a name for patterns."""
    site = DaemonSite(tmp_path_factory.mktemp("limits"))
    source = {"type": "file", "filename": str(site.site.image)}
    site.configure(jobs={name: {"source": source, "schedule": "rarely"} for name in ("vm", "a" * 40)})
    with site.running() as running:
        yield running


def padded(size: int) -> bytes:
    """A tag edit of this many bytes that matches nothing."""
    body = json.dumps(EDIT).encode()
    return body + b" " * (size - len(body))


# ..Sizes.....................................................................................


def test_a_body_has_at_most_64_kib(daemon: Daemon) -> None:
    """By its length, in chunks, and when it is expanded."""
    fits, more = padded(MAX_BODY), padded(MAX_BODY + 1)

    def in_chunks(body: bytes) -> bytes:
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return daemon.send(
            f"PUT {TAGS} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + sent
        )

    def packed(body: bytes) -> int:
        headers = {"Content-Encoding": "gzip"}
        return daemon.ask("PUT", TAGS, gzip.compress(body), headers=headers).status

    assert (412, 413) == (daemon.ask("PUT", TAGS, fits).status, daemon.ask("PUT", TAGS, more).status)
    assert (b"412", b"413") == (in_chunks(fits).split()[1], in_chunks(more).split()[1])
    assert (412, 413, 413) == (packed(fits), packed(more), packed(bytes(50_000_000)))
    assert "Request Entity Too Large" == daemon.ask("PUT", TAGS, more).error


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 4\r\nContent-Encoding: gzip\r\n\r\nabcd",
        "Content-Length: 4\r\n\r\nabcd",
        "Content-Length: 4\r\nContent-Type: text/html; charset=nonsense\r\n\r\n\xff\xfe\x00\xff",
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(daemon: Daemon, headers: str) -> None:
    """400 in JSON, whether its encoding or its content is wrong."""
    answer = daemon.send(f"PUT {TAGS} HTTP/1.1\r\n{HEAD}{headers}".encode("latin-1"))

    assert b"400" == answer.split()[1]
    assert ["error"] == list(json.loads(answer.rpartition(b"\r\n\r\n")[2]))


def test_the_head_of_a_request_is_limited(daemon: Daemon) -> None:
    """Line, each header, and how many; it is answered at once, and the scheduler lives on."""
    heads = {
        "path": f"GET /v1/jobs?{'x' * 9000} HTTP/1.1\r\n{HEAD}\r\n",
        "header": f"GET /v1/jobs HTTP/1.1\r\n{HEAD}X: {'x' * 9000}\r\n\r\n",
        "name": f"GET /v1/jobs HTTP/1.1\r\n{HEAD}{'x' * 9000}: x\r\n\r\n",
    }
    many = "".join(f"X-{number}: x\r\n" for number in range(200))
    heads["headers"] = f"GET /v1/jobs HTTP/1.1\r\n{HEAD}{many}\r\n"

    assert dict.fromkeys(heads, b"400") == {
        what: daemon.send(head.encode()).split()[1] for what, head in heads.items()
    }
    assert 200 == daemon.ask("GET", "/v1/jobs").status


def test_a_body_is_asked_for_and_nothing_else_expected(daemon: Daemon) -> None:
    """100-continue is answered by an invitation, any other expectation by 417 in JSON."""
    expecting = f"PUT {TAGS} HTTP/1.1\r\n{HEAD}Content-Length: 9\r\nExpect: "

    assert daemon.send(f"{expecting}100-continue\r\n\r\n".encode()).startswith(b"HTTP/1.1 100 Continue")
    refused = daemon.send(f"{expecting}wonders\r\n\r\n".encode())
    assert b"417" == refused.split()[1]
    assert refused.endswith(b'{"error": "nothing but 100-continue can be expected"}')


# ..Times.....................................................................................


def test_a_pattern_that_takes_for_ever_is_given_up(daemon: Daemon) -> None:
    """After half a second, and the next request is answered as ever."""
    began = time.monotonic()
    refused = daemon.ask("GET", "/v1/status?filter=(a|a)*b")
    took = time.monotonic() - began

    assert (400, True) == (refused.status, "takes for ever" in refused.error)
    assert api.MATCH_SECONDS <= took < PATIENCE / 2
    assert 2 == len(daemon.ask("GET", "/v1/status").document)


class Racing:
    """A clock of which each look at it takes a minute and a second."""

    def __init__(self) -> None:
        self._looks = 0

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        self._looks += 1
        return self._looks * (connections.MAX_SECONDS + 1)


def alone(
    site: DaemonSite,
    scene: Callable[[web.Server], Awaitable[None]],
    *,
    log: Said | None = None,
    change: Callable[[web.Application], object] = lambda _: None,
) -> None:
    """Play a scene with the API in this process."""

    async def play() -> None:
        """Serve on a loop of its own, and play the scene."""
        async with serving(site, log or Said(), change=change) as server, asyncio.timeout(PATIENCE):
            await scene(server)

    asyncio.run(play())


def test_a_request_whose_body_does_not_come_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408 in JSON after the limit, which is 30 seconds in earnest."""
    site = DaemonSite(tmp_path)
    assert 30.0 == api.MAX_SECONDS
    monkeypatch.setattr(api, "MAX_SECONDS", 0.05)

    async def scene(_: web.Server) -> None:
        """Send a head that promises a body, and wait for the end."""
        head = f"PUT {TAGS} HTTP/1.1\r\n{HEAD}Content-Length: 50\r\n\r\n{{"
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head.encode())
        answer = await reader.readuntil(b"}")
        writer.close()
        assert b"408" == answer.split()[1]
        assert answer.endswith(b'{"error": "the request took too long"}')

    alone(site, scene)


@pytest.mark.parametrize("sent", [b"", b"GET /v1/jobs HT", GET[:-2], b"\r\n"])
def test_a_connection_without_a_whole_request_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Whatever of its head has come; after a minute by the scheduler's clock."""
    site = DaemonSite(tmp_path)
    monkeypatch.setattr(connections, "_PERIOD", 0.01)

    async def scene(server: web.Server) -> None:
        """Send what is no whole request, and wait for the end."""
        watch = asyncio.create_task(close_slow(server, Racing()))
        assert b"" == await exchange(site.port, sent)
        watch.cancel()

    alone(site, scene)


# ..Numbers...................................................................................


def test_a_connection_is_for_one_request(daemon: Daemon) -> None:
    """Whatever the answer; so one that stays open for long is one that never asked."""
    for token in (TOKEN, None):
        for method, path in (
            ("GET", "/v1/jobs"),
            ("GET", "/nothing"),
            ("PUT", "/v1/jobs"),
            ("PUT", TAGS),
        ):
            assert "close" == daemon.ask(method, path, token=token).headers["Connection"]
    answers = daemon.send(GET + GET)
    assert 1 == answers.count(b"HTTP/1.1 ")


def test_connections_beyond_a_number_are_closed_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next is served as soon as one of the others has gone."""
    site = DaemonSite(tmp_path)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)

    async def scene(server: web.Server) -> None:
        """Hold as many connections as there may be, and ask once more."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(limited(server), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        with closing(listener), ExitStack() as idle:
            for _ in range(3):
                idle.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            assert b"" == await status_of(port)
            idle.close()
            while b"200" != await status_of(port):
                assert len(server.connections) <= 3

    async def status_of(port: int) -> bytes:
        """The status that a request gets; nothing where it is closed at once."""
        with suppress(ConnectionResetError):
            return (await exchange(port, GET))[9:12]
        return b""

    alone(site, scene)


def test_the_scheduler_itself_has_that_number(tmp_path: Path) -> None:
    """So that clients cannot take all descriptors that backups need; the others go on as they were."""
    site = DaemonSite(tmp_path)
    with site.running() as daemon, ExitStack() as idle:
        for _ in range(MAX_CONNECTIONS):
            idle.enter_context(closing(socket.create_connection(("127.0.0.1", site.port), PATIENCE)))
        with suppress(ConnectionError):
            assert b"" == daemon.send(GET)
        idle.close()


# ..What should not happen....................................................................


def test_bug_in_a_route_is_told_to_the_log_and_not_to_the_client(tmp_path: Path) -> None:
    """500 in JSON; where the system refuses, 503 with its reason."""
    site, log = DaemonSite(tmp_path), Said()

    async def broken(_: web.Request) -> web.Response:
        """A route with a bug."""
        raise ZeroDivisionError("inner matters")

    async def full(_: web.Request) -> web.Response:
        """A route whose disk is full."""
        raise OSError(28, "No space left on device", "/inner/path")

    def change(app: web.Application) -> None:
        app.router.add_get("/broken", broken)
        app.router.add_get("/full", full)

    async def scene(_: web.Server) -> None:
        """Ask both routes."""
        bug = await exchange(site.port, GET.replace(b"/v1/jobs", b"/broken"))
        disk = await exchange(site.port, GET.replace(b"/v1/jobs", b"/full"))
        assert b"500" == bug.split()[1]
        assert bug.endswith(b'{"error": "internal error, please report it"}')
        assert b"503" == disk.split()[1]
        assert disk.endswith(b'{"error": "No space left on device"}')

    alone(site, scene, log=log, change=change)
    ((level, event, fields),) = log.events
    assert ("error", "internal error, please report it") == (level, event)
    assert {"path": "/broken", "error": "ZeroDivisionError('inner matters')"} == fields


def test_what_is_no_http_is_told_by_its_kind_only(tmp_path: Path) -> None:
    """One line of the log for each, without what was sent."""
    site, log = DaemonSite(tmp_path), Said()

    async def scene(_: web.Server) -> None:
        """Send what is no HTTP."""
        assert b"400" == (await exchange(site.port, GET.replace(b"Bearer ", b"Bearer \x01"))).split()[1]

    alone(site, scene, log=log)
    assert [("warning", "request not understood", {"error": "BadHttpMessage"})] == log.events
