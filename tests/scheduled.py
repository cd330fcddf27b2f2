"""A real scheduler on real jobs, as a child process of the test.

    with Scheduled(tmp_path, jobs=3) as daemon:
        daemon.request("vm0"); daemon.wait_for("backup finished", job="vm0")

Its log comes as JSON lines through a pipe, which is how tests wait without sleeping. `hold` makes the
next backup of a job block at its first step (it is real backy with a failpoint), so that a test can
do something while a child surely runs.

Limits: waits at most a minute for anything.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SECONDS = 60.0

_CHILD = """
import os, sys
from backy.ground import failpoint
def hold(step, folder={folder!r}):
    job = os.path.basename(sys.argv[sys.argv.index("-b") + 1])
    flag = os.path.join(folder, "hold-" + job)
    if "backup" in sys.argv and os.path.exists(flag):
        os.unlink(flag)
        with open(os.path.join(folder, "held"), "w") as told:
            told.write(str(os.getpid()))
        with open(os.path.join(folder, "go-on")) as gate:
            gate.read()
failpoint.install(hold)
from backy.cli.main import run
run()
"""


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Scheduled:
    """`backy scheduler` with a configuration of its own below `folder`."""

    def __init__(self, folder: Path, *, jobs: int = 3, workers: int = 3) -> None:
        self.folder = folder
        self.base = folder / "backups"
        self.config = folder / "backy.conf"
        self.called = folder / "called"
        self.names = [f"vm{n}" for n in range(jobs)]
        self.options: tuple[str, ...] = ()
        self.port = free_port()
        self.workers = workers
        self.events: list[dict[str, Any]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.base.mkdir()
        for name in ("held", "go-on"):
            os.mkfifo(folder / name)
        (folder / "child.py").write_text(_CHILD.format(folder=str(folder)))
        for name in ("completed", "failed"):
            program = folder / name
            program.write_text(
                f'#!/bin/sh\necho "{name} $1" >> {self.called}\ncat > {folder}/{name}.yaml\n'
            )
            program.chmod(0o755)
        self.configure()

    def configure(self, text: str | None = None, *, interval: str = "1d") -> None:
        """Write the configuration: `text`, or one of the jobs in `names`."""
        self.config.write_text(self._document(interval) if text is None else text)

    def _document(self, interval: str) -> str:
        jobs = {}
        for name in self.names:
            image = self.folder / f"{name}.raw"
            if not image.exists():
                image.write_bytes(name.encode() * 5000)
            jobs[name] = {"schedule": "default", "source": {"type": "file", "filename": str(image)}}
        general = {
            "base-dir": str(self.base),
            "worker-limit": self.workers,
            "backup-completed-callback": str(self.folder / "completed"),
            "backup-failed-callback": str(self.folder / "failed"),
        }
        return json.dumps(
            {
                "global": general,
                "api": {"port": self.port},
                "schedules": {"default": {"daily": {"interval": interval, "keep": 3}}},
                "jobs": jobs,
            }
        )

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.launch()
        self.wait_for("scheduler started")

    def launch(self) -> None:
        """Start it."""
        environment = {**os.environ, "BACKY_CMD": f"{sys.executable} {self.folder / 'child.py'}"}
        words = ["-c", str(self.config), "-v", "--log-format", "json", *self.options, "scheduler"]
        # Without a buffer, since poll(2) does not see what lies in one.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backy", *words], bufsize=0, stderr=subprocess.PIPE, env=environment
        )

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """The next event of this kind with these fields; those before it are kept in `events`."""
        assert self.process is not None
        assert self.process.stderr is not None
        deadline = time.monotonic() + SECONDS
        poll = select.poll()
        poll.register(self.process.stderr, select.POLLIN)
        while poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            line = self.process.stderr.readline()
            if not line:
                break
            found = json.loads(line) if line.startswith(b"{") else {"event": line.decode()}
            self.events.append(found)
            if found["event"] == event and fields.items() <= found.items():
                return dict(found)
        raise AssertionError(f"no {event!r} with {fields}: {self.events}")

    def client(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `backy client …`."""
        return self.backy("client", *words)

    def backy(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command with this configuration."""
        command = [sys.executable, "-m", "backy", "-c", str(self.config), *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)

    def request(self, name: str) -> None:
        """Have a job run now."""
        done = self.client("run", name)
        assert (0, "") == (done.returncode, done.stderr)

    def hold(self, name: str) -> int:
        """Have a job run, and block at its first step; returns the child's process id."""
        (self.folder / f"hold-{name}").touch()
        self.request(name)
        return int((self.folder / "held").read_text())

    def revisions(self, name: str) -> int:
        """How many revisions a job has."""
        return len(list((self.base / name).glob("*.rev")))

    def left_running(self) -> list[str]:
        """Command lines of children of this daemon that still run."""
        assert self.process is not None
        mark = f"BACKY_PARENT={self.process.pid}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; returns its exit code."""
        assert self.process is not None
        assert self.process.stderr is not None
        self.process.send_signal(number)
        code = self.process.wait(SECONDS)
        for line in self.process.stderr:
            if line.startswith(b"{"):
                self.events.append(json.loads(line))
        self.process.stderr.close()
        return code

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.end()


def ended(pid: int) -> bool:
    """Whether a process ends within a minute and a half: one that hangs is ended after a minute."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(1.5 * SECONDS * 1000))
    finally:
        os.close(fd)
