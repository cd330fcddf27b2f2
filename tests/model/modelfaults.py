"""Faults for tests in one process: steps that fail, a kill that is simulated, a source that fails.

    with armed(killing(3)): site.backup()        raises Killed at the third step
    with armed(failing(3, errno.EIO)): …         an OSError there
    with recorded() as steps: …                  all steps, in order

A simulated kill is an exception that nothing catches, and after it no step happens any more; the
descriptors are closed and the locks dropped, as the kernel does it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backy.ground import failpoint
from backy.ground.errors import SourceFailed
from backy.ground.linux import Buffer
from backy.source.base import Snapshot
from backy.source.file import FileSource

Hook = Callable[[str], None]


class Killed(BaseException):
    """The process is dead from here on."""


def failing(at: int, error: int, *, every: bool = False) -> Hook:
    """The N-th step raises an OSError, and with `every` all later ones."""
    count = 0

    def hook(step: str) -> None:
        nonlocal count
        count += 1
        if count == at or (every and count > at):
            raise OSError(error, os.strerror(error))

    return hook


def killing(at: int) -> Hook:
    """From the N-th step on nothing happens any more; 0 for never."""
    count = 0

    def hook(step: str) -> None:
        nonlocal count
        count += 1
        if 0 < at <= count:
            raise Killed

    return hook


@contextmanager
def armed(hook: Hook) -> Iterator[None]:
    """The hook is in place inside the block."""
    failpoint.install(hook)
    try:
        yield
    finally:
        failpoint.install(None)


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The steps inside the block."""
    steps: list[str] = []
    with armed(steps.append):
        yield steps


class FailingSource(FileSource):
    """An image of which the N-th read fails."""

    def __init__(self, path: str, at: int) -> None:
        super().__init__(path)
        self._left = at

    @contextmanager
    def snapshot(self, revision: str) -> Iterator[Snapshot]:
        """As of any file, until the N-th read."""
        with super().snapshot(revision) as found:
            real = found.read

            def read(buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
                self._left -= 1
                if self._left <= 0:
                    raise SourceFailed(self.path, offset, "a bad sector")
                real(buffer, offset, length, start)

            # Only this instance fails, which mypy takes for a mistake.
            found.read = read  # type: ignore[method-assign]
            yield found
