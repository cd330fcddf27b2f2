"""Runs the command line with one failpoint armed; a script, never imported by backy.

    python crashrunner.py REQUEST           one run in this process, as after any exec
    python crashrunner.py serve             a request a line on stdin, a reply a line on stdout

The server has imported backy once and forks for each run, which costs milliseconds. A request is a
JSON object: `argv`, and optionally `at` and `action` (at the N-th step: `kill`, `stop`, or the name
of an errno to raise), `every` (at the N-th step and all later ones), `after` (seconds until a kill from
outside), `limits` (resource name to value), `batch_size`, `threads`, `reserve_size`. Or `resume`: the
pid of a run that was stopped.

A reply holds `state` (`exited`, `killed`, `stopped`), `code`, `pid`, `out`, `err`, `steps` and
`peak` (resident memory in bytes).

Limits: a run that takes over a minute is ended by SIGALRM, which shows as `killed`.
"""

import errno
import functools
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import threading
import traceback
from typing import Any

import backy.cli.bar_progress
import backy.cli.log
import backy.cli.progress
import backy.domain.config  # noqa: F401
from backy.cli import init
from backy.cli.main import COMMANDS
from backy.cli.main import run as run_command_line
from backy.ground import failpoint
from backy.operation import parallel
from backy.repository import chunks, repository

PATIENCE = 60

Request = dict[str, Any]


class Hook:
    """Writes every step down, and acts at the N-th."""

    def __init__(self, request: Request, steps: int) -> None:
        self._at = request.get("at", 0)
        self._every = request.get("every", False)
        self._action = request.get("action", "kill")
        self._steps = steps
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, step: str) -> None:
        with self._lock:
            self._count += 1
            count = self._count
            if self._steps >= 0:
                os.write(self._steps, step.encode() + b"\n")
        if count == self._at or (self._every and 0 < self._at < count):
            self._act()

    def _act(self) -> None:
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            code = getattr(errno, self._action)
            raise OSError(code, os.strerror(code))


def run(request: Request, steps: int = -1) -> None:
    """Run the command line as the request says; ends the process."""
    for name, value in request.get("limits", {}).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    chunks.BATCH_SIZE = request.get("batch_size", chunks.BATCH_SIZE)
    parallel.THREADS = request.get("threads", parallel.THREADS)
    if "reserve_size" in request:
        smaller = functools.partial(repository.create, reserve_size=request["reserve_size"])
        vars(init)["create"] = smaller
    signal.alarm(PATIENCE)
    failpoint.install(Hook(request, steps))
    sys.argv = ["backy", *request["argv"]]
    run_command_line()


class Server:
    """Forks for each request, and remembers the runs that are stopped."""

    def __init__(self) -> None:
        self._stopped: dict[int, tuple[int, int, int]] = {}

    def reply(self, request: Request) -> dict[str, Any]:
        """Start or resume a run, and wait until it ends or stops."""
        if "resume" in request:
            pid = request["resume"]
            files = self._stopped.pop(pid)
            os.kill(pid, signal.SIGCONT)
        else:
            out, err, steps = files = (os.memfd_create("out"), os.memfd_create("err"), _steps())
            pid = os.fork()
            if pid == 0:
                _be_the_run(request, out, err, steps)
            if "after" in request:
                _kill_after(pid, request["after"])
        _, status, usage = os.wait4(pid, os.WUNTRACED)
        reply = {"pid": pid, "peak": usage.ru_maxrss * 1024, **_state(status)}
        for name, fd in zip(("out", "err", "steps"), files, strict=True):
            reply[name] = os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
            if reply["state"] != "stopped":
                os.close(fd)
        if reply["state"] == "stopped":
            self._stopped[pid] = files
        return reply

    def end_all(self) -> None:
        """Leave no stopped run behind."""
        for pid in self._stopped:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _kill_after(pid: int, seconds: float) -> None:
    """Kill a run at that time, unless it has ended by then."""
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _steps() -> int:
    return os.memfd_create("steps")


def _state(status: int) -> dict[str, Any]:
    if os.WIFSTOPPED(status):
        return {"state": "stopped", "code": 0}
    if os.WIFSIGNALED(status):
        return {"state": "killed", "code": os.WTERMSIG(status)}
    return {"state": "exited", "code": os.WEXITSTATUS(status)}


def _be_the_run(request: Request, out: int, err: int, steps: int) -> None:
    """The forked child: like a fresh process, except for its imports."""
    code = 70
    try:
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        run(request, steps)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    except BaseException:  # noqa: BLE001 - a traceback on stderr is what the tests look for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Answer requests until stdin ends."""
    for listed in COMMANDS.values():
        importlib.import_module(f"backy.cli.{listed.module}")
    gc.freeze()  # so that a fork copies fewer pages
    server = Server()
    try:
        for line in sys.stdin:
            reply = json.dumps(server.reply(json.loads(line)))
            sys.stdout.write(reply + "\n")
            sys.stdout.flush()
    finally:
        server.end_all()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        run(json.loads(sys.argv[1]))
