"""The operator's commands around a snapshot: to freeze a guest, or to make a snapshot with LVM or ZFS.

    with Commands("fsfreeze …", "fsfreeze -u …").around(path, job, revision) as bracket:
        …                                                         the snapshot is made
        why = bracket.end()

`post` runs once, whatever happens: after `pre` failed or took too long, after an error or a signal, and
at the end of the block at the latest. It has to cope with a `pre` that did nothing.

Each is a line for /bin/sh, in a process group of its own, with nothing on standard input. It may take
`timeout` seconds; then its whole group is killed. The end of what it says goes to our standard error.
Both find BACKY_JOB, BACKY_REVISION and BACKY_SOURCE, the path of the image, in their environment.

Limits: a process that a command leaves behind is not waited for. If backy itself is killed (SIGKILL),
`post` does not run.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from backy.ground.errors import SourceRefused

_KEPT = 4096
_PIECE = 65536
_SHOWN = 200


class Commands(NamedTuple):
    """What to run before and after a snapshot, and for how many seconds each at most."""

    pre: str | None = None
    post: str | None = None
    timeout: int = 60

    @contextmanager
    def around(self, path: str, job: str, revision: str) -> Iterator["Bracket"]:
        """Run `pre`, and `post` at the end of the block at the latest; SourceRefused if `pre` fails."""
        bracket = Bracket(self, {"BACKY_JOB": job, "BACKY_REVISION": revision, "BACKY_SOURCE": path})
        try:
            if self.pre is not None and (why := _run("pre-snapshot", self.pre, bracket)):
                raise SourceRefused(path, f"{why}, so nothing was backed up")
            yield bracket
        finally:
            if why := bracket.end():
                _say(f"warning: {why}")


class Bracket:
    """What is open from `pre` to `post`."""

    def __init__(self, commands: Commands, environment: dict[str, str]) -> None:
        self.commands = commands
        self.environment = environment
        self._ended = False

    def end(self) -> str:
        """Run `post` if that has not happened yet: why it failed, or ""."""
        if self._ended or self.commands.post is None:
            return ""
        self._ended = True
        return _run("post-snapshot", self.commands.post, self)


def _run(name: str, line: str, bracket: Bracket) -> str:
    """Run a command and show what it says last: why it failed, or ""."""
    timeout = bracket.commands.timeout
    ours, theirs = os.pipe()
    try:
        with open(theirs, "wb") as output:
            environment = {**os.environ, **bracket.environment}
            environment.pop("BACKY_PARENT", None)  # says whose child we are
            process = subprocess.Popen(  # noqa: S603 - the operator's own
                ["/bin/sh", "-c", line],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        said, in_time = _waited(process, ours, timeout)
    except OSError as error:
        return f"the {name} command cannot be run: {os.strerror(error.errno or 0)}"
    finally:
        os.close(ours)
    lines = _lines(said)
    for one in lines:
        _say(f"{name}: {one}")
    if not in_time:
        return f"the {name} command took longer than {timeout} s and was killed"
    code = process.returncode
    if not code:
        return ""
    how = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
    last = f" ({lines[-1][:_SHOWN]})" if lines else ""
    return f"the {name} command {how}{last}"


def _waited(process: subprocess.Popen[bytes], pipe: int, timeout: int) -> tuple[bytes, bool]:
    """Wait until it ends: the end of what it said, and whether it ended in time; else it is killed.

    Others that have the pipe are not waited for.
    """
    deadline = time.monotonic() + timeout
    os.set_blocking(pipe, False)
    said = b""
    ended = os.pidfd_open(process.pid)
    try:
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        poller.register(pipe, select.POLLIN)
        in_time = False
        while not in_time and (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(left * 1000))
            in_time = ended in ready
            if pipe in ready:
                piece = _piece(pipe)
                said = (said + piece)[-_KEPT:]
                if not piece:
                    poller.unregister(pipe)
    finally:
        os.close(ended)
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for _ in range(16):  # a pipe is no larger
        said = (said + _piece(pipe))[-_KEPT:]
    return said, in_time


def _piece(pipe: int) -> bytes:
    """What lies in a pipe; empty at its end, or if nothing does."""
    with suppress(BlockingIOError):
        return os.read(pipe, _PIECE)
    return b""


def _lines(said: bytes) -> list[str]:
    """Lines that are fit for a terminal and a log."""
    text = said.decode(errors="replace")
    lines = ["".join(one if one.isprintable() else "?" for one in line) for line in text.splitlines()]
    return [line for line in lines if line.strip()]


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - sources have no log, and the scheduler's has this
