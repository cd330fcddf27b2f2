"""A scheduler as a real process on a small repository, for tests of its API.

    with DaemonSite(tmp_path).running() as daemon: daemon.ask("GET", "/v1/status").document
    async with serving(site, log) as server: …      the API alone, in this process

Its jobs have a schedule of ten years, so that none starts by itself; `vm` is backed up and `fresh`
has an image, `sick` has none. The directories `left` and `spare` are configured no longer.

Limits: everything that the scheduler says goes through a thread that keeps all lines.
"""

import asyncio
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from aiohttp import web

from backy.daemon.api import Api
from backy.daemon.notify import Notifier
from backy.daemon.service import Service
from backy.domain.settings import Settings, parse_settings
from backy.ground.clock import Clock, SystemClock
from backy.repository.repository import Repository
from testsite import Site

TOKEN = "token-of-the-tests"
OTHER_TOKEN = "token-of-another-client?"
CLIENT_TOKEN = "token-of-the-command-line"
PATIENCE = 30.0
SCHEDULE = {"daily": {"interval": "520w", "keep": 3}}


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a refusal, which says nothing else."""
        assert "application/json" == self.headers["Content-Type"].partition(";")[0], self
        document = self.document
        assert ["error"] == list(document)
        return str(document["error"])


class DaemonSite:
    """The repository and the configuration file."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.config = folder / "backy.conf"
        self.port = free_port()
        self.site.image.write_bytes(b"image" * 1000)
        for name in ("left", "spare"):
            self.site.add_job(name, self.site.image)
        self.configure()
        for name in ("vm", "left", "left"):
            self.site.backup(job=name)

    def configure(self, **sections: object) -> None:
        """Write the configuration; `sections` come on top."""
        images = {"vm": self.site.image, "fresh": self.site.image, "sick": self.site.folder / "none"}
        document = {
            "global": {"base-dir": str(self.site.base), "worker-limit": 2},
            "api": {
                "port": self.port,
                "tokens": {TOKEN: "tests", OTHER_TOKEN: "others"},
                "cli-default": {"token": CLIENT_TOKEN},
            },
            "schedules": {"rarely": SCHEDULE},
            "jobs": {
                name: {"source": {"type": "file", "filename": str(path)}, "schedule": "rarely"}
                for name, path in images.items()
            },
        }
        self.config.write_text(yaml.safe_dump({**document, **sections}))

    def settings(self) -> Settings:
        """What the configuration file says."""
        return parse_settings(self.config.read_text(), str(self.config)).complete()

    @contextmanager
    def running(self, *options: str) -> Iterator["Daemon"]:
        """The scheduler, from when it answers until it has ended by SIGTERM."""
        process = subprocess.Popen(
            [sys.executable, "-m", "backy", "-c", str(self.config), "-v", *options, "scheduler"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        daemon = Daemon(self, process)
        try:
            daemon.wait_for("scheduler started")
            yield daemon
            assert process.poll() is None, daemon.lines
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                daemon.reader.join(PATIENCE)
                process.communicate()
        assert 0 == process.returncode, daemon.lines


class Daemon:
    """A running scheduler."""

    def __init__(self, on: DaemonSite, process: "subprocess.Popen[str]") -> None:
        self.on = on
        self.lines: list[str] = []
        self._process = process
        self._fresh: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line)
            self._fresh.put(line)
        self._fresh.put(None)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.on.port}"

    def wait_for(self, *parts: str) -> str:
        """The next line of its log with all these parts; without one it fails."""
        while (line := self._fresh.get(timeout=PATIENCE)) is not None:
            if all(part in line for part in parts):
                return line
        raise AssertionError(self.lines)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, whose path goes out as it stands."""
        sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.on.port, timeout=PATIENCE)
        with closing(connection):
            connection.request(method, path, body, {**sent, **(headers or {})})
            found = connection.getresponse()
            return Answer(found.status, dict(found.getheaders()), found.read())

    def send(self, content: bytes) -> bytes:
        """Bytes that no client library would send; the begin of what comes back."""
        with closing(socket.create_connection(("127.0.0.1", self.on.port), PATIENCE)) as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(content)
            return connection.recv(4096)


class Route(NamedTuple):
    """A route of the application; `path` has braces for its parameters."""

    method: str
    path: str

    def at(self, name: str, spec: str = "last") -> str:
        """Its path for one job and revision."""
        return self.path.replace("{name}", name).replace("{spec}", spec)


def routes() -> list[Route]:
    """All that the application answers, by its own table."""
    # Making the application asks nothing of the service.
    app = Api(cast("Service", None), SystemClock(), {}, Said()).application()
    found = app.router.routes()
    return [Route(one.method, one.resource.canonical) for one in found if one.resource is not None]


class Said:
    """A log that keeps what it is told, as (level, event, fields)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        """See `Log`."""
        self.events.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        """See `Log`."""
        self.events.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        """See `Log`."""
        self.events.append(("error", event, fields))


@asynccontextmanager
async def serving(
    site: DaemonSite,
    log: Said,
    *,
    clock: Clock | None = None,
    change: Callable[[web.Application], object] = lambda _: None,
) -> AsyncIterator[web.Server]:
    """The API on `site.port` in this process, with jobs that do not run; `change` may add routes."""
    settings, clock = site.settings(), clock or SystemClock()
    with Repository.open(str(site.site.base)) as repository:
        service = Service(settings, site.settings, repository, clock, log, Notifier.of_environment({}))
        app = Api(service, clock, settings.api.tokens, log).application()
        change(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", site.port).start()
            assert runner.server is not None
            yield runner.server
        finally:
            await runner.cleanup()


async def exchange(port: int, content: bytes) -> bytes:
    """What a server of this process answers, up to the end of the connection."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            writer.write(content)
            return await reader.read()


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local_token(base: Path) -> str:
    """What the scheduler left for clients of this host."""
    path = base / ".api-token"
    assert 0o600 == os.stat(path).st_mode & 0o777
    return path.read_text()
