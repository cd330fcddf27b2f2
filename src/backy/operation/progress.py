"""How long work tells how far it is; the command line decides how it looks.

Limits: `advance` is called from many threads; a total is an estimate and may be passed.
"""

from typing import Protocol


class Progress(Protocol):
    """Told of the bytes, or other units, that are done."""

    def begin(self, what: str, total: int, unit: str = "") -> None:
        """A phase starts, such as "backup", with about `total` bytes, or other units, to do."""
        ...

    def advance(self, length: int) -> None:
        """So many more are done. Thread-safe."""
        ...

    def end(self) -> None:
        """The phase is over."""
        ...


class NoProgress:
    """Says nothing."""

    def begin(self, what: str, total: int, unit: str = "") -> None:
        """See `Progress.begin`."""

    def advance(self, length: int) -> None:
        """See `Progress.advance`."""

    def end(self) -> None:
        """See `Progress.end`."""
