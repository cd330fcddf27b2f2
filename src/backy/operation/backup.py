"""Backup: from a source's snapshot to a committed revision.

    revision = backup(repository, job, source, tags, Coding(codec, delta=True), clock, progress)

Order (doc/design.md, "Writing"): register as a user; note and take the snapshot; pin a parent; ask the
source what has changed since; read, hash, look up, encode, decode and compare, store in durable
batches; make all names last; maps; record: the commit; keep the snapshot, remove older ones. An error
or a kill anywhere before the commit leaves every completed revision as it was and nothing visible.

Where the source says what has changed, only that is read (`reading`), and what it calls unchanged is
the parent's; some of that is read all the same (`domain.audit`). If it proves to be wrong, every
revision that relied on it is distrusted, and everything is read at once.

After the commit it looks whether a chunk that it leans on was moved aside meanwhile (`aftermath`).

Limits: one disk.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import NamedTuple, TypeVar
from uuid import uuid4

from backy.domain.audit import Audit
from backy.domain.chunk import Codec
from backy.domain.chunkmap import NO_DISK, Layout
from backy.domain.revision import Distrust, Origin, Reading, Revision, Stats, Trust, View
from backy.ground.clock import Clock
from backy.ground.errors import MapDamaged, RecordDamaged, RevisionGone, StorageFailed
from backy.operation import parallel
from backy.operation.aftermath import Aftermath
from backy.operation.heal import lost_chunks
from backy.operation.hits import Findings, Hits
from backy.operation.parent import Parent, believed_parent
from backy.operation.progress import Progress
from backy.operation.reading import PagePlan, plan_changed, plan_whole
from backy.operation.work import HintWrong, Run
from backy.repository import history as histories
from backy.repository import snapshots, trust
from backy.repository.chunks import ChunkReader, ChunkWriter
from backy.repository.maps import MapWriter
from backy.repository.repository import Job, Repository, check_writable_here
from backy.repository.users import User, registered
from backy.source import bulk
from backy.source.base import Base, Changes, Confidence, Snapshot, Source

_Result = TypeVar("_Result")


class Coding(NamedTuple):
    """How new chunks are stored: the codec, and whether as deltas where that is smaller."""

    codec: Codec
    delta: bool = True


def _tell_warnings(opened: list[Snapshot], tell: Callable[[str], None]) -> None:
    for snapshot in opened:
        for text in snapshot.warnings:
            tell(text)


def _say_nothing(_: str) -> None:
    pass


def backup(
    repository: Repository,
    job: Job,
    source: Source,
    tags: Mapping[str, Origin],
    coding: Coding,
    clock: Clock,
    progress: Progress,
    tell: Callable[[str], None] = _say_nothing,
) -> Revision:
    """Make one revision and return it as committed; `tell` is told what the operator should know.

    Raises JobBusy, SourceError, StorageFailed, EncodingFault; then nothing is left but what garbage
    collection removes. RevisionDamaged: it was made, and marked as damaged.
    """
    check_writable_here(repository.base)
    started = clock.monotonic()
    taken_at = clock.now()
    with ExitStack() as stack:
        stack.enter_context(job.backing_up())
        user = stack.enter_context(registered(repository.chunks, job.name, taken_at))
        uuid = str(uuid4())
        ours = _Ours(job, source, tell)
        ours.prepare(uuid)
        opened: list[Snapshot] = []
        stack.callback(_tell_warnings, opened, tell)
        snapshot = stack.enter_context(source.snapshot(uuid))
        opened.append(snapshot)
        if snapshot.remark and not ours.were_read_in_place:
            tell(snapshot.remark)
        start = _Start(uuid, taken_at, started, dict(tags), coding)
        attempt = _Attempt(repository, job, user, snapshot, start, clock, progress, tell, ours.base)
        try:
            revision = attempt.make()
        except _HintsUselessError as useless:
            if useless.last_full is not None:
                _distrust_hinted(job, useless.last_full, tell)
            tell(f"{useless.why}, so the whole image is read")
            revision = attempt.make(useless)
        if snapshot.identity.kept is not None:
            snapshot.keep()
            ours.tidy(uuid)
        return revision


class _Start(NamedTuple):
    """What is settled before the first byte is read."""

    uuid: str
    taken_at: datetime
    started: float
    tags: dict[str, Origin]
    coding: Coding


class _HintsUselessError(Exception):
    """What the source says of changes cannot be used after all.

    `last_full`: it was wrong, and the revisions since that one rely on it.
    """

    def __init__(self, why: str, last_full: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.last_full = last_full


class _Attempt:
    """The way from an open snapshot to a commit, with hints or without."""

    def __init__(
        self,
        repository: Repository,
        job: Job,
        user: User,
        snapshot: Snapshot,
        start: _Start,
        clock: Clock,
        progress: Progress,
        tell: Callable[[str], None],
        base: str | None,
    ) -> None:
        self._repository = repository
        self._job = job
        self._user = user
        self._snapshot = snapshot
        self._start = start
        self._clock = clock
        self._progress = progress
        self._tell = tell
        # Only what is a snapshot itself can be compared with one.
        self._base = base if snapshot.identity.kept is not None else None
        # A newer version may have set a requirement between our opening and our registration.
        self._image = Layout(repository.read_format().chunk_size, snapshot.size)
        self._findings = Findings(repository)
        self._seconds = {"snapshot": round(snapshot.seconds, 3)}

    def make(self, useless: _HintsUselessError | None = None) -> Revision:
        """Commit a revision; `_HintsUselessError` where it has to begin again without hints."""
        repository, job, snapshot = self._repository, self._job, self._snapshot
        with ExitStack() as stack:
            parent = stack.enter_context(
                believed_parent(repository, job, self._image.chunk_size, self._tell, self._base)
            )
            hits = None
            if trust.is_distrusted(repository.chunks):
                hits = Hits(repository, self._findings)
            changes = self._timed("compare", lambda: self._changes(parent, hits, useless))
            reading = self._reading(parent, changes, useless)
            new_map = MapWriter(job.directory, self._start.uuid, NO_DISK, self._image)
            stack.callback(new_map.close)
            writer = ChunkWriter(repository.chunks, self._user.temporary)
            stack.callback(writer.abandon)
            run = Run(
                snapshot,
                new_map,
                writer,
                lambda: ChunkReader(repository.chunks, self._image.chunk_size),
                parent,
                self._start.coding.codec,
                hits,
                self._findings,
                lost_chunks(repository, job),
                delta=self._start.coding.delta,
            )
            self._timed("read", lambda: self._read(run, changes, reading))
            consistency = snapshot.consistency()
            committing = self._clock.monotonic()
            run.writer.finish()
            sealed = new_map.seal()
            self._seconds["commit"] = round(self._clock.monotonic() - committing, 3)
            revision = Revision(
                uuid=self._start.uuid,
                taken_at=self._start.taken_at,
                tags=self._start.tags,
                consistency=consistency,
                parent=parent.uuid,
                maps=(sealed,),
                source=snapshot.identity,
                stats=self._stats(run),
                reading=reading,
            )
            if hits is not None and hits.unread:
                revision = revision.with_trust(Trust.DISTRUSTED, Distrust.STORE)
                self._tell("chunks that are needed cannot be read, so this revision is distrusted")
                stack.enter_context(trust.distrusting(repository.chunks))
            histories.commit(job.directory, revision, [new_map])
            after = Aftermath(repository, job, revision, self._clock, self._tell)
            after.look(
                snapshot,
                self._user,
                self._start.coding.codec,
                self._findings,
                parent.bad,
                has_healed=run.has_healed,
            )
            return revision

    def _timed(self, phase: str, work: Callable[[], _Result]) -> _Result:
        before = self._clock.monotonic()
        found = work()
        passed = self._seconds.get(phase, 0.0) + self._clock.monotonic() - before
        self._seconds[phase] = round(passed, 3)
        return found

    def _changes(self, parent: Parent, hits: Hits | None, useless: _HintsUselessError | None) -> Changes:
        """What the source says, where it may be asked; otherwise why not."""
        if useless is not None:
            return Changes(Confidence.NONE, why=useless.why)
        if parent.revision is None:
            return Changes(Confidence.NONE, why="there is no good revision to compare with")
        if hits is not None:
            return Changes(Confidence.NONE, why="the store is distrusted")
        if parent.layout != self._image:
            return Changes(Confidence.NONE, why="the size of the image has changed")
        return self._snapshot.extents_since(Base(parent.revision.uuid, parent.revision.source))

    def _reading(self, parent: Parent, changes: Changes, useless: _HintsUselessError | None) -> Reading:
        if changes.confidence is Confidence.NONE or parent.revision is None:
            return Reading(
                last_full=self._start.uuid,
                why=changes.why,
                audit_failed=useless is not None and useless.last_full is not None,
            )
        before = parent.revision.reading or Reading(last_full=parent.revision.uuid)
        return Reading(last_full=before.last_full, since=parent.revision.uuid, runs=before.runs + 1)

    def _read(self, run: Run, changes: Changes, reading: Reading) -> None:
        snapshot, progress = self._snapshot, self._progress
        plan: Iterator[PagePlan]
        used = bulk.extents(snapshot, self._image.chunk_size)
        if reading.since is None:
            total = snapshot.data_size
            plan = plan_whole(used, self._image)
        else:
            total = sum(extent.length for extent in changes.extents)
            pages = (run.parent.page(number) for number in range(self._image.pages))
            audit = Audit(reading.last_full, reading.runs, _chunks_used(run.parent))
            plan = plan_changed(changes.extents, used, pages, self._image, audit)
        progress.begin("backup", total)
        try:
            parallel.run(run.announced(plan), lambda: run.worker(progress))
        except HintWrong as wrong:
            why = f"the source called bytes at {wrong.offset} unchanged that have changed"
            raise _HintsUselessError(why, reading.last_full) from wrong
        except MapDamaged as error:
            raise _HintsUselessError("the map of the parent is damaged") from error
        finally:
            progress.end()

    def _stats(self, run: Run) -> Stats:
        counts = run.counts
        return Stats(
            duration=round(self._clock.monotonic() - self._start.started, 3),
            bytes_scanned=self._snapshot.data_size,
            bytes_changed=counts.changed,
            bytes_read=counts.read,
            bytes_audited=counts.audited,
            bytes_new=counts.new,
            bytes_written=run.writer.stored_bytes,
            chunks=self._image.chunks,
            chunks_zero=self._image.chunks - counts.used,
            chunks_new=run.writer.stored_files,
            chunks_delta=counts.deltas,
            chunks_hit=counts.hit,
            chunks_inherited=counts.inherited,
            seconds=dict(self._seconds),
        )


def _chunks_used(parent: Parent) -> int:
    """How many chunks of the parent are not zero, by its record."""
    if parent.revision is None:
        return 0
    stats = parent.revision.stats
    return max(stats.chunks - stats.chunks_zero, 0)


def _distrust_hinted(job: Job, last_full: str, tell: Callable[[str], None]) -> None:
    """Distrust what relied on a source's hints since a full read."""
    count = 0
    for one in histories.load(job.directory).revisions:
        if one.reading is not None and one.reading.since and one.reading.last_full == last_full:
            with suppress(RevisionGone):
                trust.distrust(job.directory, one.uuid, Distrust.SOURCE)
                count += 1
    tell(
        f"what the source says of changes was wrong: {count} revisions that relied on it are distrusted"
    )


class _Ours:
    """The snapshots of the source that this job has made, as far as its list can be read.

    `base` is the newest revision that has one and may be a parent. Its snapshot stays until a revision
    with a newer one is complete.
    """

    def __init__(self, job: Job, source: Source, tell: Callable[[str], None]) -> None:
        self._job = job
        self._source = source
        self._tell = tell
        revisions = histories.load(job.directory).revisions
        self.were_read_in_place = bool(revisions) and revisions[-1].source.view is View.IN_PLACE
        with_snapshot = [one.uuid for one in revisions if one.source.kept is not None and one.is_good]
        self.base = with_snapshot[-1] if with_snapshot else None

    def prepare(self, uuid: str) -> None:
        """Remove what dead runs have left, and say that we are about to make one; StorageFailed."""
        known: dict[str, str] = {}
        try:
            known = snapshots.listed(self._job.directory)
        except RecordDamaged as error:
            self._tell(f"{error.message} Snapshots that it listed are left alone.")
        gone = self._source.prune({one: place for one, place in known.items() if one != self.base})
        if self._source.place or known:
            left = {one: place for one, place in known.items() if one not in gone}
            snapshots.note(self._job.directory, uuid, self._source.place, left)

    def tidy(self, uuid: str) -> None:
        """After the commit: remove all but the new one; what fails is tried by the next run."""
        try:
            known = snapshots.listed(self._job.directory)
            gone = self._source.prune({one: place for one, place in known.items() if one != uuid})
            snapshots.strike(self._job.directory, gone)
        except (RecordDamaged, StorageFailed) as error:
            self._tell(error.message)
