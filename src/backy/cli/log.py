"""The log: what was done to a job, as lines for people and grep.

    2026-11-23T20:15:49Z [info     ] backup finished   job=vm01 revision=…

    with opened(path, verbose=False) as log: log.info("backup finished", job="vm01")

Limits: a job's own log that cannot be opened (a read-only mount) is done without; one that was
asked for by -l is an error.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger

from backy.ground.errors import StorageFailed


class _Lines:
    """Writes each line to every stream, at once."""

    def __init__(self, streams: list[TextIO]) -> None:
        self._streams = streams

    def msg(self, message: str) -> None:
        for stream in self._streams:
            stream.write(message + "\n")
            stream.flush()

    debug = info = warning = error = msg


@contextmanager
def opened(path: str | None, *, asked_for: bool, verbose: bool) -> Iterator[FilteringBoundLogger]:
    """A logger that appends to `path` (None: nowhere), and to stderr as well if `verbose`."""
    with ExitStack() as stack:
        streams: list[TextIO] = [sys.stderr] if verbose else []
        if path is not None:
            try:
                opener = None if asked_for else _open_own
                file = open(path, "a", encoding="utf-8", opener=opener)  # noqa: SIM115 - the stack closes it
                streams.append(stack.enter_context(file))
            except OSError as error:
                if asked_for:
                    raise StorageFailed("open log", path, error.errno or 0) from error
        logger: FilteringBoundLogger = structlog.wrap_logger(
            _Lines(streams),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.dev.ConsoleRenderer(colors=False),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        yield logger


def _open_own(path: str, flags: int) -> int:
    """A job's log is never a link or a FIFO that someone put in its place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
