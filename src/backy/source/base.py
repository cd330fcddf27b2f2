"""What every source offers: a snapshot of an image, to be read by many threads.

    with source.snapshot() as snapshot:
        for extent in snapshot.extents(): …
            snapshot.read(buffer, offset, length)
        snapshot.consistency()

Limits: one disk a source so far; changed extents come with the sources that know them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from backy.domain.revision import Consistency, SourceIdentity
from backy.ground.linux import Buffer


class Extent(NamedTuple):
    """A range of bytes that may hold data; what lies in no extent reads as zeros."""

    offset: int
    length: int


class Snapshot(Protocol):
    """A view of the image during one backup."""

    @property
    def size(self) -> int:
        """Bytes of the image; does not change."""
        ...

    @property
    def data_size(self) -> int:
        """An estimate of the bytes in all extents, for progress."""
        ...

    @property
    def identity(self) -> SourceIdentity:
        """What is being read."""
        ...

    def extents(self) -> Iterator[Extent]:
        """All extents, ascending, not overlapping; found while they are asked for."""
        ...

    def read(self, buffer: Buffer, offset: int, length: int) -> None:
        """Fill the first `length` bytes; `offset` is page-aligned. SourceFailed. Thread-safe."""
        ...

    def consistency(self) -> Consistency:
        """Asked once, after the last read: whether everything read belongs to one instant."""
        ...


class Source(Protocol):
    """A configured source."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Begin a backup; SourceRefused where this cannot be backed up."""
        ...
