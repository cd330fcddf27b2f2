"""The log: what was done to a job, as lines for people and grep.

    2026-11-23T20:15:49Z [info     ] backup finished   job=vm01 revision=…

    with opened(path, asked_for=False, verbose=False) as log: log.info("backup finished", job="vm01")

With --log-format json a line is one JSON object. A log that was rotated away is opened anew.

    >>> as_text(Event("2026-11-23T20:15:49Z", "info", "backup finished", {"job": "vm 1"}))
    '2026-11-23T20:15:49Z [info     ] backup finished                job="vm 1"'

Whoever logs writes the line, in this thread: see doc/adr/0018-log.md.

Limits: a job's own log that cannot be opened (a read-only mount) is done without; one that was
asked for by -l is an error. One that cannot be written any more is given up with a warning.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, TextIO

from backy.cli import edge
from backy.ground.clock import Clock, SystemClock
from backy.ground.errors import StorageFailed

# A value of these characters needs no quotes to be told from what stands around it.
_PLAIN = re.compile(r"[!#-<>-~]+")


class Event(NamedTuple):
    """A line to be written; `moment` is that of the call."""

    moment: str
    level: str
    event: str
    fields: Mapping[str, object]


def as_text(one: Event) -> str:
    """A line for people and grep: time, level, event, then key=value in the order of the keys."""
    said = one.event if one.event.isprintable() else json.dumps(one.event)
    values = " ".join(f"{key}={_text(value)}" for key, value in sorted(one.fields.items()))
    return f"{one.moment} [{one.level:9}] {said:30} {values}".rstrip()


def as_json(one: Event) -> str:
    """A JSON object, in ASCII; a value that is no JSON is its text."""
    document = {"level": one.level, "event": one.event, "timestamp": one.moment, **one.fields}
    return json.dumps(document, default=str)


def _text(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class Log:
    """Writes events at once, from any thread."""

    def __init__(
        self, streams: list["_Stream"], clock: Clock, *, json_lines: bool, fields: Mapping[str, object]
    ) -> None:
        """`fields` go into every line."""
        self._clock = clock
        self._streams = streams
        self._render = as_json if json_lines else as_text
        self._fields = dict(fields)
        self._lock = threading.Lock()

    def info(self, event: str, **fields: object) -> None:
        """What was done."""
        self._put("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What somebody should look at."""
        self._put("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What failed."""
        self._put("error", event, fields)

    def _put(self, level: str, event: str, fields: dict[str, object]) -> None:
        moment = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        line = self._render(Event(moment, level, event, {**fields, **self._fields}))
        with self._lock:
            for stream in list(self._streams):
                try:
                    stream.write(line + "\n")
                except OSError as error:
                    self._streams.remove(stream)
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
    json_lines: bool = False,
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
        yield Log(streams, SystemClock(), json_lines=json_lines, fields=fields or {})


def _give_up(stream: _Stream, error: OSError) -> None:
    """Do without a log that cannot be written: a restore on a full disk succeeds all the same."""
    with suppress(OSError):
        if stream.name != "stderr":
            edge.say(f"warning: {stream.name}: {os.strerror(error.errno or 0)}; no log is kept.")
            stream.close()


def _open_own(path: str, flags: int) -> int:
    """Open a job's log, which is never a link or a FIFO that someone put in its place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
