"""A revision: one completed backup, as its record on disk states it.

    >>> revision = Revision(
    ...     uuid="00000000-0000-4000-8000-000000000000", taken_at=datetime(2026, 11, 1, tzinfo=UTC),
    ...     tags={"daily": Origin.SCHEDULE}, maps=(), source=SourceIdentity(type="file"), stats=Stats(),
    ... )
    >>> parse(serialise(revision)) == revision
    True

The record is a sealed JSON document (`sealed`), strict: an unknown member or another format number
means that a newer version wrote it, and then nothing is done with it.

Limits: pure; times are aware UTC, sizes bytes, durations seconds.
"""

import enum
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from backy.domain import sealed
from backy.domain.chunkmap import NO_DISK
from backy.domain.names import check_disk_name, check_tag_name
from backy.ground.errors import NameRefused

RECORD_FORMAT = 1


class Trust(enum.Enum):
    """How far the contents are believed."""

    TRUSTED = "trusted"
    DISTRUSTED = "distrusted"
    VERIFIED = "verified"


class Distrust(enum.Enum):
    """Why a revision is distrusted: what may clear it depends on this."""

    STORE = "store"  # damage in the store; cleared by verify
    SOURCE = "source"  # a change hint lied, or the operator said so; cleared by comparison only


class Origin(enum.Enum):
    """Where a tag came from, which decides when it may go."""

    SCHEDULE = "schedule"
    FORCED = "forced"
    MANUAL = "manual"


class Consistency(enum.Enum):
    """Whether the image is one instant of its source."""

    CONSISTENT = "consistent"
    TORN = "torn"  # the source changed while it was read


class Freeze(enum.Enum):
    """What became of asking a guest to hold still while its disks were frozen."""

    GUEST_FROZEN = "guest-frozen"
    CRASH_CONSISTENT = "crash-consistent"  # it did not, so the disks are as after a power cut


class MapDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The chunk map of one disk: its file's size, its root digest, and the image's size."""

    disk: str
    size: int
    root: str
    image_size: int


class View(enum.Enum):
    """Through what the image was seen while it was read."""

    IN_PLACE = "in-place"  # the image itself, which may change meanwhile
    CLONE = "clone"  # a copy of one instant that shares its blocks
    SNAPSHOT = "snapshot"  # one that the storage itself has made


class SnapshotName(NamedTuple):
    """Which snapshot: of which revision, and of which of its disks."""

    revision: str
    disk: str = NO_DISK


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The snapshot that was kept for the next comparison, and what shows that nobody touched it.

    A clone has a path, an inode and a change time; a storage's own snapshot a name and a `number`.
    `older`: how many snapshots its image had that were older than this one, where that is known.
    """

    path: str
    inode: int | None = None
    changed_ns: int | None = None
    number: int | None = None
    older: int | None = None
    size: int


class SourceIdentity(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """What was read, so that a later run can tell whether it is still the same thing."""

    type: str
    path: str | None = None
    inode: int | None = None
    changed_ns: int | None = None
    size: int | None = None
    view: View | None = None
    kept: Kept | None = None
    # Of an image in Ceph, whose names may come to other things: the ids of cluster, pool and image.
    cluster: str | None = None
    pool: int | None = None
    image: str | None = None


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How much of the image was read, and on what the rest relies.

    `since`: only what had changed since that revision; otherwise everything, because of `why`.
    `last_full`: the newest revision, this one included, that read everything, and `runs` since it.
    `audit_failed`: everything was read because what a source said of changes proved to be wrong.
    """

    last_full: str
    since: str | None = None
    runs: int = 0
    why: str = ""
    audit_failed: bool = False


class Stats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the backup did: bytes, seconds, chunk counts.

    Bytes *scanned* are those of the image that may hold data; *changed*, those that differ from the
    parent, or that the source says may; *read*, those read from the source, *audited* ones included;
    *new*, the plain bytes of chunks that were stored; *written*, the bytes that they take.
    """

    duration: float = 0.0
    bytes_scanned: int = 0
    bytes_changed: int = 0
    bytes_read: int = 0
    bytes_audited: int = 0
    bytes_new: int = 0
    bytes_written: int = 0
    chunks: int = 0
    chunks_zero: int = 0
    chunks_new: int = 0
    chunks_delta: int = 0
    chunks_hit: int = 0
    chunks_inherited: int = 0
    seconds: dict[str, float] = {}


def summed(all_of: Iterable[Stats]) -> Stats:
    """Of several disks together; seconds add up too, since one disk is read after the other."""
    listed = list(all_of)
    counts = {
        name: sum(getattr(one, name) for one in listed)
        for name in Stats.__struct_fields__
        if name not in ("duration", "seconds")
    }
    seconds: dict[str, float] = {}
    for one in listed:
        for phase, took in one.seconds.items():
            seconds[phase] = round(seconds.get(phase, 0.0) + took, 3)
    return Stats(duration=sum(one.duration for one in listed), seconds=seconds, **counts)


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a backup says of one of its disks."""

    source: SourceIdentity
    stats: Stats
    reading: Reading | None = None
    consistency: Consistency = Consistency.CONSISTENT


class Revision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One completed backup.

    Of an image without disks it has `source` and perhaps `reading`; otherwise `disks` has them, one for
    each map. `consistency` and `stats` are those of all disks together.
    """

    format: int = RECORD_FORMAT
    uuid: str
    taken_at: datetime
    tags: dict[str, Origin]
    trust: Trust = Trust.TRUSTED
    distrust: Distrust | None = None
    consistency: Consistency = Consistency.CONSISTENT
    parent: str | None = None
    maps: tuple[MapDigest, ...]
    source: SourceIdentity | None = None
    stats: Stats
    reading: Reading | None = None
    freeze: Freeze | None = None
    disks: dict[str, Disk] | None = None
    # Bytes that cannot be restored now: a cache of what `repository.damage` computes.
    damaged: int = 0

    @property
    def image_size(self) -> int:
        """Bytes of all its disks together."""
        return sum(one.image_size for one in self.maps)

    def disk(self, name: str) -> Disk | None:
        """What it says of a disk, by its name; None if it does not have that."""
        if self.disks is not None:
            return self.disks.get(name)
        if name != NO_DISK or self.source is None:
            return None
        return Disk(
            source=self.source, stats=self.stats, reading=self.reading, consistency=self.consistency
        )

    @property
    def readings(self) -> list[Reading]:
        """How its disks were read, as far as it says so."""
        found = [self.reading] if self.disks is None else [one.reading for one in self.disks.values()]
        return [one for one in found if one is not None]

    @property
    def is_distrusted(self) -> bool:
        """Whether its contents are not believed."""
        return self.trust is Trust.DISTRUSTED

    @property
    def blames_store(self) -> bool:
        """Whether it is distrusted because of the store, whose chunks in doubt may be anybody's."""
        return self.is_distrusted and self.distrust is Distrust.STORE

    @property
    def is_good(self) -> bool:
        """Whether it may be a parent, and counts: neither distrusted nor damaged; torn ones do."""
        return not self.is_distrusted and not self.damaged

    def with_trust(self, trust: Trust, distrust: Distrust | None = None) -> "Revision":
        """The same revision, believed otherwise; `distrust` is the reason of DISTRUSTED."""
        return msgspec.structs.replace(self, trust=trust, distrust=distrust)

    def with_damage(self, damaged: int) -> "Revision":
        """The same revision with so many bytes lost; what has lost any is verified no more."""
        same = self.without_proof() if damaged else self
        return msgspec.structs.replace(same, damaged=damaged)

    def without_proof(self) -> "Revision":
        """The same revision, verified no more; otherwise believed as before."""
        return self.with_trust(Trust.TRUSTED) if self.trust is Trust.VERIFIED else self

    def with_tags(self, tags: dict[str, Origin]) -> "Revision":
        """The same revision under other tags."""
        return msgspec.structs.replace(self, tags=tags)


def serialise(revision: Revision) -> bytes:
    """The record's bytes."""
    document = msgspec.to_builtins(revision)
    # As records were before there were such members.
    if not revision.damaged:
        del document["damaged"]
    for name in ("source", "reading", "freeze", "disks"):
        if document[name] is None:
            del document[name]
    return sealed.seal(msgspec.json.encode(document))


class UnknownFormat(ValueError):
    """A whole record that another version wrote; `found` names the difference."""


def parse(content: bytes) -> Revision:
    """The revision of a record; UnknownFormat, or ValueError with the reason."""
    document = sealed.unseal(content)
    try:
        revision = _decode(document)
    except msgspec.ValidationError as error:
        # The checksum holds, so this is what somebody meant to write.
        raise UnknownFormat(f"a record with other members ({error})") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if revision.format != RECORD_FORMAT:
        raise UnknownFormat(f"record format {revision.format}")
    if str(UUID(revision.uuid)) != revision.uuid:
        raise ValueError(f"its UUID {revision.uuid!r} is not written in the usual form")
    if revision.taken_at.tzinfo is None:
        raise ValueError("its time has no zone")
    try:
        taken_at = revision.taken_at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("its time is outside all calendars") from error
    _check_names(revision)
    if revision.damaged < 0:
        raise ValueError("it claims less than no damage")
    for one in revision.maps:
        if len(bytes.fromhex(one.root)) != 32 or one.size < 0 or one.image_size < 0:
            raise ValueError("it describes an impossible map")
    return msgspec.structs.replace(revision, taken_at=taken_at)


def _check_names(revision: Revision) -> None:
    """A disk's name becomes part of a file's, a tag's goes to terminals: ValueError for others."""
    disks = [one.disk for one in revision.maps]
    if len(set(disks)) != len(disks):
        raise ValueError("it describes two maps of one disk")
    try:
        for disk in filter(None, disks):
            check_disk_name(disk)
        for tag in revision.tags:
            check_tag_name(tag)
    except NameRefused as error:
        raise ValueError(f"{error.name!r} is no {error.kind} name") from error
    if revision.disks is None:
        if revision.source is None:
            raise ValueError("it does not say what was read")
        return
    if revision.source is not None or revision.reading is not None:
        raise ValueError("it speaks of one image and of several disks")
    if set(revision.disks) != set(disks):
        raise ValueError("its disks are not those of its maps")


def _decode(document: bytes) -> Revision:
    return msgspec.json.decode(document, type=Revision)
