"""The part of a backup that concerns one disk: from its snapshot and its parent to its map.

    disk = DiskBackup(name, snapshot, parent, new_map, uuid, useless)
    disk.read(means, clock, progress)
    disk.said, disk.map                    for the record

What the source says has changed since the parent is read, and everything where it does not say; of the
rest, the audit's choice is.

Limits: nothing is committed here.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, TypeVar

from backy.domain.audit import Audit
from backy.domain.chunk import ChunkId, Codec
from backy.domain.chunkmap import NO_DISK
from backy.domain.revision import Disk, Reading, Stats
from backy.ground.clock import Clock
from backy.ground.errors import MapDamaged
from backy.operation import parallel
from backy.operation.hits import Findings, Hits
from backy.operation.parent import Parent
from backy.operation.progress import Progress
from backy.operation.reading import PagePlan, plan_changed, plan_whole
from backy.operation.work import HintWrong, Run
from backy.repository.chunks import ChunkReader, ChunkWriter
from backy.repository.maps import MapWriter
from backy.source.base import Base, Changes, Confidence, Snapshot

_Result = TypeVar("_Result")


class HintsUseless(Exception):
    """What the source of a disk says of changes cannot be used after all.

    `last_full`: it was wrong, and the revisions since that one rely on it.
    """

    def __init__(self, why: str, disk: str, last_full: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.disk = disk
        self.last_full = last_full


class Means(NamedTuple):
    """What the disks of one backup share."""

    writer: ChunkWriter
    reader: Callable[[], ChunkReader]
    codec: Codec
    hits: Hits | None
    findings: Findings
    lost: Collection[ChunkId]
    delta: bool


class DiskBackup:
    """One disk; `said` is what the record is to say of it, and `has_healed` as of a `Run`, once read."""

    def __init__(
        self,
        name: str,
        snapshot: Snapshot,
        parent: Parent,
        new_map: MapWriter,
        uuid: str,
        useless: HintsUseless | None,
    ) -> None:
        """`uuid` is the new revision's; `useless`: why no hint is to be used."""
        self.name = name
        self.parent = parent
        self.map = new_map
        self.has_healed = False
        self._snapshot = snapshot
        self._uuid = uuid
        self._useless = useless
        self._seconds = {"snapshot": round(snapshot.seconds, 3)}

    def read(self, means: Means, clock: Clock, progress: Progress) -> Disk:
        """Store what is new, and fill the map. HintsUseless where it has to begin again without hints.

        Also SourceFailed, StorageFailed, EncodingFault.
        """
        began = clock.monotonic()
        run = Run(
            self._snapshot,
            self.map,
            means.writer,
            means.reader,
            self.parent,
            means.codec,
            means.hits,
            means.findings,
            means.lost,
            delta=means.delta,
        )
        files, stored = means.writer.stored_files, means.writer.stored_bytes
        changes = self._timed(clock, "compare", lambda: self._changes(means.hits))
        reading = self._reading(changes)
        self._timed(clock, "read", lambda: self._carry_out(run, changes, reading, progress))
        self.has_healed = run.has_healed
        image, counts = self.map.layout, run.counts
        stats = Stats(
            duration=round(clock.monotonic() - began, 3),
            bytes_scanned=self._snapshot.data_size,
            bytes_changed=counts.changed,
            bytes_read=counts.read,
            bytes_audited=counts.audited,
            bytes_new=counts.new,
            bytes_written=means.writer.stored_bytes - stored,
            chunks=image.chunks,
            chunks_zero=image.chunks - counts.used,
            chunks_new=means.writer.stored_files - files,
            chunks_delta=counts.deltas,
            chunks_hit=counts.hit,
            chunks_inherited=counts.inherited,
            seconds=dict(self._seconds),
        )
        return Disk(
            source=self._snapshot.identity,
            stats=stats,
            reading=reading,
            consistency=self._snapshot.consistency(),
        )

    def _timed(self, clock: Clock, phase: str, work: Callable[[], _Result]) -> _Result:
        before = clock.monotonic()
        found = work()
        self._seconds[phase] = round(clock.monotonic() - before, 3)
        return found

    def _changes(self, hits: Hits | None) -> Changes:
        """What the source says, where it may be asked; otherwise why not."""
        revision, before = self.parent.revision, self.parent.disk
        if self._useless is not None:
            return Changes(Confidence.NONE, why=self._useless.why)
        if revision is None or before is None:
            return Changes(Confidence.NONE, why="there is no good revision to compare with")
        if hits is not None:
            return Changes(Confidence.NONE, why="the store is distrusted")
        if self.parent.layout != self.map.layout:
            return Changes(Confidence.NONE, why="the size of the image has changed")
        return self._snapshot.extents_since(Base(revision.uuid, before.source))

    def _reading(self, changes: Changes) -> Reading:
        revision, before = self.parent.revision, self.parent.disk
        if changes.confidence is Confidence.NONE or revision is None or before is None:
            useless = self._useless
            lied = useless is not None and useless.last_full is not None and useless.disk == self.name
            return Reading(last_full=self._uuid, why=changes.why, audit_failed=lied)
        last = before.reading or Reading(last_full=revision.uuid)
        return Reading(last_full=last.last_full, since=revision.uuid, runs=last.runs + 1)

    def _carry_out(self, run: Run, changes: Changes, reading: Reading, progress: Progress) -> None:
        snapshot, image, parent = self._snapshot, self.map.layout, self.parent
        plan: Iterator[PagePlan]
        if reading.since is None:
            total = snapshot.data_size
            plan = plan_whole(snapshot.extents(), image)
        else:
            total = sum(extent.length for extent in changes.extents)
            pages = (parent.page(number) for number in range(image.pages))
            audit = Audit(reading.last_full, reading.runs, _chunks_used(parent))
            plan = plan_changed(changes.extents, snapshot.extents(), pages, image, audit)
        progress.begin("backup" if self.name == NO_DISK else f"backup {self.name}", total)
        try:
            parallel.run(run.announced(plan), lambda: run.worker(progress))
        except HintWrong as wrong:
            of = "" if self.name == NO_DISK else f" of disk {self.name!r}"
            why = f"the source{of} called bytes at {wrong.offset} unchanged that have changed"
            raise HintsUseless(why, self.name, reading.last_full) from wrong
        except MapDamaged as error:
            raise HintsUseless("the map of the parent is damaged", self.name) from error
        finally:
            progress.end()


def _chunks_used(parent: Parent) -> int:
    """How many chunks of the parent are not zero, by its record."""
    if parent.disk is None:
        return 0
    stats = parent.disk.stats
    return max(stats.chunks - stats.chunks_zero, 0)
