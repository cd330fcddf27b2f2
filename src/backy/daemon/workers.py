"""Child processes: each backup, each expiry and each callback runs in one, which never outlives us.

    ended = await run_child(["backy", "-b", "/srv/backy/vm01", "backup", "daily"], "task-id")

Each child leads a process group of its own and ends on SIGTERM within a minute, or is killed with its
whole group. When the scheduler itself is gone, the kernel tells them:

- backy is told by BACKY_PARENT whose child it is, and has the kernel end it (`linux.end_with_parent`);
- an operator's program knows nothing of this, so a keeper stands before it (this module, run as a
  process), which gets that signal and kills the group, with all that the program has started.

Limits: keeps the last 4 KiB of what a child says, for the log. What a child leaves behind when it
ends by itself is not waited for.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Self

from backy.ground import linux

TERMINATION_SECONDS = 60.0
CALLBACK_SECONDS = 3600.0
_KEPT = 4096
_PIECE = 65536


class Ended(NamedTuple):
    """How a child ended; `code` is below 0 for a signal."""

    code: int
    said: str


def command() -> list[str]:
    """How to call backy: BACKY_CMD if it is set (backy 2.5), else this very installation."""
    given = os.environ.get("BACKY_CMD")
    # -P, since we work in the base directory: no file there may pass for a module.
    return shlex.split(given) if given else [sys.executable, "-P", "-m", "backy"]


async def run_child(words: Sequence[str], task: str) -> Ended:
    """Run backy to the end; cancelling ends the child first. OSError where it cannot be started."""
    return await _run(words, {"BACKY_PARENT": str(os.getpid()), "BACKY_TASK_ID": task}, b"")


async def run_program(
    words: Sequence[str], task: str, given: bytes, seconds: float = CALLBACK_SECONDS
) -> Ended:
    """As `run_child`, for an operator's program, which finds `given` on its standard input.

    TimeoutError, once it was ended, if it takes longer than `seconds`.
    """
    keeper = [sys.executable, "-P", "-m", "backy.daemon.workers", str(os.getpid())]
    try:
        async with asyncio.timeout(seconds):
            return await _run([*keeper, *words], {"BACKY_TASK_ID": task}, given)
    except TimeoutError:
        raise TimeoutError(f"it did not end within {seconds:.0f} s and was killed") from None


async def _run(words: Sequence[str], variables: Mapping[str, str], given: bytes) -> Ended:
    # Neither pipe is asyncio's: its `wait` would also wait for whoever else has one open.
    with _input(given) as standard_input, _LastWords() as listener:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=standard_input,
            stdout=listener.theirs,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **variables},
        )
        listener.listen()
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        return Ended(code, listener.said())


@contextmanager
def _input(given: bytes) -> Iterator[int]:
    """A file in memory, which no program can leave half read for us to wait for."""
    fd = os.memfd_create("backy-input")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(given)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class _LastWords:
    """A pipe that is read as it fills, so that no child ever waits for us; the end of it is kept."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        self._kept = b""
        self._listens = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hush()
        os.close(self._ours)
        if self.theirs >= 0:
            os.close(self.theirs)

    def listen(self) -> None:
        """Begin, once the child has its end of the pipe."""
        os.close(self.theirs)
        self.theirs = -1
        os.set_blocking(self._ours, False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        self._listens = True

    def said(self) -> str:
        """The last words of a child that has ended; what it wrote before lies in the pipe."""
        for _ in range(16):  # a pipe is no larger; someone it left behind may go on for ever
            if not self._read():
                break
        return self._kept.decode(errors="replace").strip()

    def _read(self) -> bool:
        try:
            piece = os.read(self._ours, _PIECE)
        except BlockingIOError:
            return False
        self._kept = (self._kept + piece)[-_KEPT:]
        if not piece:
            self._hush()
        return bool(piece)

    def _hush(self) -> None:
        if self._listens:
            asyncio.get_running_loop().remove_reader(self._ours)
            self._listens = False


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the whole group to end, wait, and kill what is left."""
    _signal(process, signal.SIGTERM)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), TERMINATION_SECONDS)
    finally:  # whoever is cancelled once more while waiting still leaves nobody behind
        _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def keep(parent: int, words: Sequence[str]) -> int:
    """Run a program until it ends, or `parent` does; its exit code, as a shell gives it."""

    def on_sigterm(*_: object) -> None:
        # The kernel's signal, or one to the whole group: then the program has it too, and may end.
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)

    # A handler, not SIG_IGN, which the program would inherit.
    signal.signal(signal.SIGTERM, on_sigterm)
    linux.end_with_parent(parent)
    if os.getppid() != parent:
        return 1
    try:
        code = subprocess.run(words, check=False).returncode  # noqa: S603 - the operator's own
    except OSError as error:
        print(f"{words[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - said to the scheduler
        return 127
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), sys.argv[2:]))
