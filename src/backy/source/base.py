"""What every source offers: a snapshot of an image, to be read by many threads.

    with source.snapshot(uuid) as snapshot:
        changes = snapshot.extents_since(Base(parent.uuid, parent.source))
        for extent in snapshot.extents(): …
            snapshot.read(buffer, offset, length)
        snapshot.consistency()
        …                                        the revision is committed
        snapshot.keep()

A snapshot carries the UUID of the revision that is made from it. The one of the newest complete
revision is kept, where the source has such, as what the next run asks for differences against;
`prune` removes others. What is ours stands in the repository (`repository.snapshots`), written before
a snapshot is made.

Limits: one disk; `group` puts those of a job together.
"""

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from backy.domain.chunkmap import NO_DISK
from backy.domain.extents import Extent
from backy.domain.revision import Consistency, SnapshotName, SourceIdentity
from backy.ground.linux import Buffer


class Owner(NamedTuple):
    """In whose name a source makes snapshots: the repository's id (a UUID), the job and the disk."""

    repository: str
    job: str
    disk: str = NO_DISK


class Base(NamedTuple):
    """The revision against which changes are asked for, and what its record says of the source."""

    revision: str
    source: SourceIdentity


class Confidence(enum.Enum):
    """How far an answer about changes may be relied on."""

    NONE = "none"  # nothing is known: everything has to be read
    HINT = "hint"  # whatever lies outside the extents is unchanged, says the source; to be audited


class Changes(NamedTuple):
    """What may have changed since a base: byte ranges, ascending, not overlapping.

    With Confidence.NONE there are no extents, and `why` says so in words for the operator, without
    a full stop: "the clone of the parent is gone".
    """

    confidence: Confidence
    extents: Sequence[Extent] = ()
    why: str = ""


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
        """What is being read, and the snapshot that `keep` would keep."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took to make, in which writers of the image may have waited."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences for the operator, each time."""
        ...

    @property
    def remark(self) -> str:
        """A sentence for the operator that is told once a job: why there is no frozen view, or ""."""
        ...

    @property
    def is_bound(self) -> bool:
        """Whether it may be something that lasts only as long as the guest is held still (`group`)."""
        ...

    def extents(self) -> Iterator[Extent]:
        """All extents, ascending, not overlapping; found while they are asked for."""
        ...

    def extents_since(self, base: Base) -> Changes:
        """What may have changed since a revision. SourceFailed only if the image cannot be read."""
        ...

    def read(self, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        """Fill `length` bytes of the buffer from `start`; SourceFailed. Thread-safe.

        `offset` and `start` are page-aligned.
        """
        ...

    def consistency(self) -> Consistency:
        """Asked after the last read, of all images: whether everything read belongs to one instant."""
        ...

    def keep(self) -> None:
        """Leave the snapshot for the next run; otherwise it goes with the end of the block."""
        ...


class Source(Protocol):
    """A configured source."""

    @property
    def image(self) -> str:
        """How messages and the operator's commands call what is backed up, such as a path."""
        ...

    @property
    def place(self) -> str:
        """Where its snapshots are made, as `prune` needs to know later; "" if it makes none.

        Shows the type: directories begin with a slash, places of others with `TYPE:`.
        """
        ...

    def live(self) -> AbstractContextManager[Snapshot]:
        """The image itself, to look at: it may change meanwhile, and nothing is kept. SourceRefused."""
        ...

    def snapshot(self, revision: str) -> AbstractContextManager[Snapshot]:
        """Begin a backup of that UUID; SourceRefused where this cannot be backed up."""
        ...

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> Collection[SnapshotName]:
        """Remove snapshots, given by their places: which of them are gone now.

        Those that cannot be removed stay, and are tried again by the next run; so do those in places of
        other types. They may be of disks that the job has no more.
        """
        ...
