"""The log: what was done to a job, as lines for people and grep.

    2026-11-23T20:15:49Z [info     ] backup finished   job=vm01 revision=…

    with opened(path, asked_for=False, verbose=False) as log: log.info("backup finished", job="vm01")

With --log-format json a line is one JSON object. A log that was rotated away is opened anew.

Lines are written by a thread of their own, which is also the one to load structlog: that takes
0.08 s, and a backup of an unchanged image not many times that.

Limits: a job's own log that cannot be opened (a read-only mount) is done without; one that was
asked for by -l is an error. One that cannot be written any more is given up with a warning. Lines of
the last moment are lost to kill -9.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
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

    def __init__(
        self, streams: list["_Stream"], clock: Clock, *, as_json: bool, fields: Mapping[str, object]
    ) -> None:
        """`fields` go into every line."""
        self._clock = clock
        self._streams = streams
        self._as_json = as_json
        self._fields = dict(fields)
        self._events: SimpleQueue[_Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log")

    def start(self) -> None:
        """Begin to write; `close` must be sure to come, or the process would never end."""
        if self._streams:
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
            with suppress(RuntimeError):  # a signal came while it was being started; it ends by itself
                self._thread.join()

    def _put(self, level: str, event: str, fields: dict[str, object]) -> None:
        moment = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self._events.put(_Event(level, event, {"timestamp": moment, **fields, **self._fields}))

    def _write(self) -> None:
        streams = list(self._streams)
        try:
            render = _renderer(as_json=self._as_json)
        except (OSError, ImportError) as error:  # such as too many open files
            for stream in streams:
                _give_up(stream, error)
            return
        while (one := self._events.get()) is not None:
            line = render(one)
            for stream in list(streams):
                try:
                    stream.write(line + "\n")
                except OSError as error:
                    streams.remove(stream)
                    _give_up(stream, error)


class _Stream:
    """Where lines go: stderr, or a file that is opened anew once its path names another or none."""

    def __init__(self, path: str | None, *, asked_for: bool) -> None:
        """OSError if the file cannot be opened; None is stderr."""
        self.name = path or "stderr"
        self._path = path
        self._opener = None if asked_for else _open_own
        self._file: TextIO = sys.stderr if path is None else self._open(path)

    def write(self, text: str) -> None:
        if self._path is not None and self._is_rotated(self._path):
            file = self._open(self._path)
            self._file.close()
            self._file = file
        self._file.write(text)
        self._file.flush()

    def close(self) -> None:
        if self._path is not None:
            self._file.close()

    def _open(self, path: str) -> TextIO:
        # A path in a line may be no UTF-8.
        return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=self._opener)

    def _is_rotated(self, path: str) -> bool:
        try:
            return not os.path.samestat(os.stat(path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True


@contextmanager
def opened(
    path: str | None,
    *,
    asked_for: bool,
    verbose: bool,
    as_json: bool = False,
    fields: Mapping[str, object] | None = None,
) -> Iterator[Log]:
    """A log that appends to `path` (None: nowhere), and to stderr as well if `verbose`."""
    with ExitStack() as stack:
        streams = [_Stream(None, asked_for=True)] if verbose else []
        if path is not None:
            try:
                stream = _Stream(path, asked_for=asked_for)
            except OSError as error:
                if asked_for:
                    raise StorageFailed("open log", path, error.errno or 0) from error
            else:
                stack.callback(stream.close)
                streams.append(stream)
        log = Log(streams, SystemClock(), as_json=as_json, fields=fields or {})
        stack.callback(log.close)
        log.start()
        yield log


def _give_up(stream: _Stream, error: OSError | ImportError) -> None:
    """Do without a log that cannot be written: a restore on a full disk succeeds all the same."""
    with suppress(OSError):
        if stream.name != "stderr":
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            edge.say(f"warning: {stream.name}: {why}; no log is kept.")
            stream.close()


def _renderer(*, as_json: bool) -> Callable[[_Event], str]:
    import structlog

    renderer = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )

    def render(one: _Event) -> str:
        document = {"level": one.level, "event": one.event, **one.fields}
        return str(renderer(None, one.level, document))

    return render


def _open_own(path: str, flags: int) -> int:
    """Open a job's log, which is never a link or a FIFO that someone put in its place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
