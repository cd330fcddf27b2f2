"""The log: what was done to a job, as lines for people and grep.

    2026-11-23T20:15:49Z [info     ] backup finished   job=vm01 revision=…

    with opened(path, asked_for=False, verbose=False) as log: log.info("backup finished", job="vm01")

Lines are written by a thread of their own, which is also the one to load structlog: that takes
0.08 s, and a backup of an unchanged image not many times that.

Limits: a job's own log that cannot be opened (a read-only mount) is done without; one that was
asked for by -l is an error. One that cannot be written any more is given up with a warning. Lines of
the last moment are lost to kill -9.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from typing import NamedTuple, TextIO

from backy.cli import edge
from backy.ground.clock import Clock, SystemClock
from backy.ground.errors import StorageFailed


class _Event(NamedTuple):
    """A line to be written; its time is that of the call."""

    level: str
    event: str
    fields: dict[str, object]


class Log:
    """Takes events; `close` waits until they are written."""

    def __init__(self, streams: list[TextIO], clock: Clock) -> None:
        self._clock = clock
        self._streams = streams
        self._events: SimpleQueue[_Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log")
        if streams:
            self._thread.start()

    def info(self, event: str, **fields: object) -> None:
        """What was done."""
        self._put("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What somebody should look at."""
        self._put("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What failed."""
        self._put("error", event, fields)

    def close(self) -> None:
        """Write what is left."""
        if self._streams:
            self._events.put(None)
            self._thread.join()

    def _put(self, level: str, event: str, fields: dict[str, object]) -> None:
        moment = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self._events.put(_Event(level, event, {"timestamp": moment, **fields}))

    def _write(self) -> None:
        streams = list(self._streams)
        try:
            render = _renderer()
        except (OSError, ImportError) as error:  # such as too many open files
            for stream in streams:
                _give_up(stream, error)
            return
        while (one := self._events.get()) is not None:
            line = render(one)
            for stream in list(streams):
                try:
                    stream.write(line + "\n")
                    stream.flush()
                except OSError as error:
                    streams.remove(stream)
                    _give_up(stream, error)


@contextmanager
def opened(path: str | None, *, asked_for: bool, verbose: bool) -> Iterator[Log]:
    """A log that appends to `path` (None: nowhere), and to stderr as well if `verbose`."""
    with ExitStack() as stack:
        streams: list[TextIO] = [sys.stderr] if verbose else []
        if path is not None:
            try:
                opener = None if asked_for else _open_own
                # A path in a line may be no UTF-8.
                file = open(path, "a", encoding="utf-8", errors="backslashreplace", opener=opener)  # noqa: SIM115 - the stack closes it
                streams.append(stack.enter_context(file))
            except OSError as error:
                if asked_for:
                    raise StorageFailed("open log", path, error.errno or 0) from error
        log = Log(streams, SystemClock())
        stack.callback(log.close)
        yield log


def _give_up(stream: TextIO, error: OSError | ImportError) -> None:
    """Do without a log that cannot be written: a restore on a full disk succeeds all the same."""
    with suppress(OSError):
        if stream is not sys.stderr:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            edge.say(f"warning: {stream.name}: {why}; no log is kept.")
            stream.close()


def _renderer() -> Callable[[_Event], str]:
    import structlog

    console = structlog.dev.ConsoleRenderer(colors=False)

    def render(one: _Event) -> str:
        document = {"level": one.level, "event": one.event, **one.fields}
        return str(console(None, one.level, document))

    return render


def _open_own(path: str, flags: int) -> int:
    """Open a job's log, which is never a link or a FIFO that someone put in its place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
