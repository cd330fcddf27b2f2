"""What a snapshot may do at once, for speed, beyond what all of them do one by one.

    bulk.read_parts(snapshot, buffer, parts)
    for extent in bulk.extents(snapshot, step): …

Without it the same is done with the means of every `Snapshot`.

Limits: as of `Snapshot.read` and `Snapshot.extents`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from backy.domain.extents import Extent
from backy.ground.linux import Buffer
from backy.ground.manyreads import Part
from backy.source.base import Snapshot


@runtime_checkable
class Bulk(Protocol):
    """What a snapshot offers if it can."""

    def read_parts(self, buffer: Buffer, parts: Sequence[Part]) -> None:
        """Fill ascending parts of the buffer; SourceFailed. Thread-safe."""
        ...

    def coarse_extents(self, step: int) -> Iterator[Extent]:
        """As `Snapshot.extents`, but they may go on to the next multiple of `step`."""
        ...


def read_parts(snapshot: Snapshot, buffer: Buffer, parts: Sequence[Part]) -> None:
    """Fill ascending parts of the buffer; SourceFailed."""
    if isinstance(snapshot, Bulk):
        snapshot.read_parts(buffer, parts)
        return
    for offset, length, start in parts:
        snapshot.read(buffer, offset, length, start)


def extents(snapshot: Snapshot, step: int) -> Iterator[Extent]:
    """Extents for whoever takes `step` bytes at once, and need not know of holes inside these."""
    return snapshot.coarse_extents(step) if isinstance(snapshot, Bulk) else snapshot.extents()
