"""Child processes: each backup and each expiry runs in one, which never outlives the scheduler.

    code = await run_child(["backy", "-b", "/srv/backy/vm01", "backup", "daily"], "task-id")

Each child leads a process group of its own, is told whose it is by BACKY_PARENT (and has the kernel
end it when that process is gone: `linux.end_with_parent`), and ends on SIGTERM within a minute, or is
killed with its whole group.

Limits: keeps the last 4 KiB of what a child says, for the log.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TERMINATION_SECONDS = 60.0
_KEPT = 4096


class Ended(NamedTuple):
    """How a child ended; `code` is below 0 for a signal."""

    code: int
    said: str


def command() -> list[str]:
    """How to call backy: BACKY_CMD if it is set (backy 2.5), else this very installation."""
    given = os.environ.get("BACKY_CMD")
    return shlex.split(given) if given else [sys.executable, "-m", "backy"]


async def run_child(words: Sequence[str], task: str) -> Ended:
    """Run backy to the end; cancelling ends the child first. OSError where it cannot be started."""
    return await _run(words, {"BACKY_PARENT": str(os.getpid()), "BACKY_TASK_ID": task}, None)


async def run_program(words: Sequence[str], given: bytes) -> Ended:
    """As `run_child`, for an operator's program, which gets `given` on its standard input."""
    return await _run(words, {}, given)


async def _run(words: Sequence[str], variables: Mapping[str, str], given: bytes | None) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE if given is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **variables},
    )
    listener = asyncio.create_task(_last_words(process, given))
    try:
        said = await listener
        code = await process.wait()
    except asyncio.CancelledError:
        await _end(process)
        listener.cancel()
        raise
    return Ended(code, said)


async def _last_words(process: asyncio.subprocess.Process, given: bytes | None) -> str:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(given or b"")
            await process.stdin.drain()
        process.stdin.close()
    assert process.stdout is not None
    kept = b""
    while piece := await process.stdout.read(_KEPT):
        kept = (kept + piece)[-_KEPT:]
    return kept.decode(errors="replace").strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the whole group to end, wait, and kill what is left."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(process.wait()), TERMINATION_SECONDS)
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
