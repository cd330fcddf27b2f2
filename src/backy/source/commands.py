"""The operator's commands around a job's snapshots: to freeze a guest, or to make one with LVM or ZFS.

    with Commands("fsfreeze …", "fsfreeze -u …").around(job, revision, disks) as bracket:
        …                                                         the snapshots are made
        why = bracket.end()

`post` runs once, whatever happens: after `pre` failed or took too long, after an error or a signal, and
at the end of the block at the latest. It has to cope with a `pre` that did nothing. What would end us
while it runs waits for its end, within the same limit: a `post` that is cut short leaves a guest frozen.

Each is a line for /bin/sh, in a process group of its own, with nothing on standard input. It may take
`timeout` seconds; then its whole group is killed. The end of what it says goes to our standard error.
Both find BACKY_JOB, BACKY_REVISION and BACKY_SOURCE, the path of the image, in their environment. Where
a job has several disks, BACKY_SOURCE has a line for each, and BACKY_DISKS their names, with blanks
between them, in the same order.

Limits: a process that a command leaves behind is not waited for. If backy itself is killed (SIGKILL),
`post` does not run.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from backy.domain.revision import Freeze
from backy.ground.errors import SourceRefused
from backy.source.base import Source

_KEPT = 4096
_PIECE = 65536
_SHOWN = 200
_SHELL = "/bin/sh"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Commands(NamedTuple):
    """What to run before and after the snapshots, and for how many seconds each at most."""

    pre: str | None = None
    post: str | None = None
    timeout: int = 60

    def call_off(self) -> bool:
        """See `Quiesce.call_off`: commands end with their run, or make what the next one expects."""
        return True

    @contextmanager
    def around(self, job: str, revision: str, disks: Mapping[str, Source]) -> Iterator["Bracket"]:
        """Run `pre`, and `post` at the end of the block at the latest; SourceRefused if `pre` fails."""
        images = [source.image for source in disks.values()]
        environment = {
            "BACKY_JOB": job,
            "BACKY_REVISION": revision,
            "BACKY_SOURCE": "\n".join(images),
            "BACKY_DISKS": " ".join(disks),
        }
        bracket = Bracket(self, environment)
        try:
            if self.pre is not None and (why := _run("pre-snapshot", self.pre, bracket)):
                raise SourceRefused(", ".join(images), f"{why}, so nothing was backed up")
            yield bracket
        finally:
            try:
                _tell(bracket.end())
            finally:
                _tell(bracket.end())  # a signal may have come on the way to the first


class Bracket:
    """What is open from `pre` to `post`.

    `post` has a thread of its own, since signals raise exceptions in the main thread only.
    """

    freeze: Freeze | None = None  # what the commands do is theirs to know

    def __init__(self, commands: Commands, environment: dict[str, str]) -> None:
        self.commands = commands
        self.environment = environment
        self._claim = threading.Lock()
        self._done = threading.Event()
        self._why = ""

    def end(self) -> str:
        """Run `post` if that has not happened yet: why it failed, the first time, or "".

        A signal's exception is raised after that.
        """
        if self.commands.post is None:
            return ""
        late: BaseException | None = None
        while not self._done.is_set():
            try:
                threading.Thread(target=self._run_once, name="post-snapshot").start()
                self._done.wait()
            except RuntimeError:  # there is no room for a thread
                self._run_once()
            except BaseException as error:  # noqa: BLE001 - raised below
                late = error
        if late is not None:
            raise late
        why, self._why = self._why, ""
        return why

    def _run_once(self) -> None:
        """Run `post` in whichever thread comes first; never released, so it does so once."""
        if self.commands.post is None or not self._claim.acquire(blocking=False):
            return
        try:
            self._why = _run("post-snapshot", self.commands.post, self)
        finally:
            self._done.set()


def _run(name: str, line: str, bracket: Bracket) -> str:
    """Run a command and show what it says last: why it failed, or ""."""
    timeout = bracket.commands.timeout
    try:
        said, code = _end_of(line, bracket.environment, timeout)
    except OSError as error:
        return f"the {name} command cannot be run: {os.strerror(error.errno or 0)}"
    lines = _lines(said)
    for one in lines:
        _say(f"{name}: {one}")
    if code is None:
        return f"the {name} command took longer than {timeout} s and was killed"
    if not code:
        return ""
    how = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
    last = f" ({lines[-1][:_SHOWN]})" if lines else ""
    return f"the {name} command {how}{last}"


def _end_of(line: str, variables: Mapping[str, str], timeout: int) -> tuple[bytes, int | None]:
    """Run a command: the end of what it said, and its code: below 0 for a signal, None if late."""
    environment = {**os.environ, **variables}
    environment.pop("BACKY_PARENT", None)  # says whose child we are
    ours, theirs = os.pipe()
    # A signal between its start and our first line after that would leave it running.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        pid = os.posix_spawn(
            _SHELL,
            [_SHELL, "-c", line],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs, 1),
                (os.POSIX_SPAWN_DUP2, theirs, 2),
            ],
            setsid=True,
            setsigmask=before,
        )
        status = None
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            said, in_time = _listened(pid, ours, timeout)
            if in_time:
                status = os.waitpid(pid, 0)[1]
        finally:
            if status is None:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for _ in range(16):  # a pipe is no larger
            said = (said + _piece(ours))[-_KEPT:]
        return said, None if status is None else os.waitstatus_to_exitcode(status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(ours)
        os.close(theirs)


def _listened(pid: int, pipe: int, timeout: int) -> tuple[bytes, bool]:
    """Wait until a process ends: the end of what it said so far, and whether it ended in time.

    Others that have the pipe are not waited for.
    """
    deadline = time.monotonic() + timeout
    os.set_blocking(pipe, False)
    said = b""
    ended = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        poller.register(pipe, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(left * 1000))
            if pipe in ready:
                said = (said + _piece(pipe))[-_KEPT:]
            if ended in ready:
                return said, True
        return said, False
    finally:
        os.close(ended)


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


def _tell(why: str) -> None:
    if why:
        _say(f"warning: {why}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - sources have no log, and the scheduler's has this
