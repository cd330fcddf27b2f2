"""Backup: from the snapshots of a job's disks to a committed revision.

    revision = backup(repository, job, group, tags, Coding(codec, delta=True), clock, progress)

Order (doc/design.md, "Writing"): register as a user; note and take the snapshots; pin a parent for each
disk; disk by disk ask the source what has changed since, read, hash, look up, encode, decode and
compare, store in durable batches; make all names last; maps; record: the commit; keep the snapshots,
remove older ones. An error or a kill anywhere before the commit, on whatever disk, leaves every
completed revision as it was and nothing visible.

Where a source says what has changed, only that is read (`disk`), and what it calls unchanged is the
parent's; some of that is read all the same (`domain.audit`). If it proves to be wrong, every revision
that relied on it for that disk is distrusted, and everything is read at once.

After the commit it looks whether a chunk that it leans on was moved aside meanwhile (`aftermath`).

Limits: one disk is read after the other.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

import msgspec

from backy.domain.chunk import Codec
from backy.domain.chunkmap import MAX_CHUNKS, NO_DISK, Layout
from backy.domain.revision import (
    Consistency,
    Disk,
    Distrust,
    MapDigest,
    Origin,
    Revision,
    Trust,
    summed,
)
from backy.ground.clock import Clock
from backy.ground.errors import RevisionGone, SourceRefused
from backy.ground.units import format_size
from backy.operation.aftermath import Aftermath
from backy.operation.disk import DiskBackup, HintsUseless, Means
from backy.operation.heal import lost_chunks
from backy.operation.hits import Findings, Hits
from backy.operation.kept import KeptSnapshots
from backy.operation.parent import believed_parent
from backy.operation.progress import Progress
from backy.repository import history as histories
from backy.repository import trust
from backy.repository.chunks import ChunkReader, ChunkWriter
from backy.repository.maps import MapWriter
from backy.repository.repository import Job, Repository, check_writable_here
from backy.repository.users import User, registered
from backy.source.group import Group, Snapshots


class Coding(NamedTuple):
    """How new chunks are stored: the codec, and whether as deltas where that is smaller."""

    codec: Codec
    delta: bool = True


def _tell_warnings(opened: list[Snapshots], tell: Callable[[str], None]) -> None:
    for snapshots in opened:
        for text in snapshots.warnings:
            tell(text)
        for snapshot in snapshots.disks.values():
            for text in snapshot.warnings:
                tell(text)


def _say_nothing(_: str) -> None:
    pass


def backup(
    repository: Repository,
    job: Job,
    group: Group,
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
        kept = KeptSnapshots(job, group, taken_at, tell)
        kept.prepare(uuid)
        opened: list[Snapshots] = []
        stack.callback(_tell_warnings, opened, tell)
        snapshots = stack.enter_context(group.snapshot(uuid))
        opened.append(snapshots)
        if snapshots.remark and not kept.are_known:
            tell(snapshots.remark)
        for disk, snapshot in snapshots.disks.items():
            if snapshot.remark and disk not in kept.were_read_in_place:
                tell(snapshot.remark)
        start = _Start(uuid, taken_at, started, dict(tags), coding)
        attempt = _Attempt(repository, job, user, snapshots, start, clock, progress, tell, kept.bases)
        try:
            revision = attempt.make()
        except HintsUseless as useless:
            if useless.last_full is not None:
                _distrust_hinted(job, useless.disk, useless.last_full, tell)
            whole = "the whole image is" if useless.disk == NO_DISK else "all disks are"
            tell(f"{useless.why}, so {whole} read")
            revision = attempt.make(useless)
        for snapshot in snapshots.disks.values():
            if snapshot.identity.kept is not None:
                snapshot.keep()
        kept.tidy(uuid)
        return revision


class _Start(NamedTuple):
    """What is settled before the first byte is read."""

    uuid: str
    taken_at: datetime
    started: float
    tags: dict[str, Origin]
    coding: Coding


class _Attempt:
    """The way from open snapshots to a commit, with hints or without."""

    def __init__(
        self,
        repository: Repository,
        job: Job,
        user: User,
        snapshots: Snapshots,
        start: _Start,
        clock: Clock,
        progress: Progress,
        tell: Callable[[str], None],
        bases: Mapping[str, str | None],
    ) -> None:
        self._repository = repository
        self._job = job
        self._user = user
        self._snapshots = snapshots
        self._start = start
        self._clock = clock
        self._progress = progress
        self._tell = tell
        self._bases = bases
        # A newer version may have set a requirement between our opening and our registration.
        self._chunk_size = repository.read_format().chunk_size
        self._findings = Findings(repository)

    def make(self, useless: HintsUseless | None = None) -> Revision:
        """Commit a revision; `HintsUseless` where it has to begin again without hints."""
        repository, job, codec = self._repository, self._job, self._start.coding.codec
        with ExitStack() as stack:
            disks = [self._begun(stack, name, useless) for name in self._snapshots.disks]
            # After the parents were looked at, since that may have distrusted the store.
            hits = None
            if trust.is_distrusted_by(repository.chunks, job.directory):
                hits = Hits(repository, self._findings)
            writer = ChunkWriter(repository.chunks, self._user.temporary)
            stack.callback(writer.abandon)
            means = Means(
                writer,
                lambda: ChunkReader(repository.chunks, self._chunk_size),
                codec,
                hits,
                self._findings,
                lost_chunks(repository, job),
                self._start.coding.delta,
            )
            said = {one.name: one.read(means, self._clock, self._progress) for one in disks}
            committing = self._clock.monotonic()
            writer.finish()
            maps = tuple(one.map.seal() for one in disks)
            commit = round(self._clock.monotonic() - committing, 3)
            revision = self._revision(maps, disks[0].parent.uuid, said, commit)
            if hits is not None and hits.unread:
                revision = revision.with_trust(Trust.DISTRUSTED, Distrust.STORE)
                self._tell("chunks that are needed cannot be read, so this revision is distrusted")
                stack.enter_context(trust.distrusting(repository.chunks))
            histories.commit(job.directory, revision, [one.map for one in disks])
            Aftermath(repository, job, revision, self._clock, self._tell).look(
                self._snapshots.disks,
                self._user,
                codec,
                self._findings,
                list(dict.fromkeys(uuid for one in disks for uuid in one.parent.bad)),
                {one.parent.uuid for one in disks if one.parent.uuid is not None},
                has_healed=any(one.has_healed for one in disks),
            )
            return revision

    def _begun(self, stack: ExitStack, name: str, useless: HintsUseless | None) -> DiskBackup:
        """A disk with its parent pinned and its map begun, until the stack ends."""
        job, snapshot = self._job, self._snapshots.disks[name]
        image = Layout(self._chunk_size, snapshot.size)
        if image.chunks > MAX_CHUNKS:
            most = format_size(MAX_CHUNKS * self._chunk_size)
            why = f"it has {format_size(snapshot.size)}; an image that is backed up has at most {most}"
            raise SourceRefused(snapshot.identity.path or snapshot.identity.type, why)
        # Only what is a snapshot itself can be compared with one.
        base = self._bases[name] if snapshot.identity.kept is not None else None
        parent = stack.enter_context(
            believed_parent(
                self._repository,
                job,
                name,
                self._chunk_size,
                self._start.taken_at,
                self._tell,
                preferred=base,
            )
        )
        new_map = MapWriter(job.directory, self._start.uuid, name, image)
        stack.callback(new_map.close)
        return DiskBackup(name, snapshot, parent, new_map, self._start.uuid, useless)

    def _revision(
        self, maps: tuple[MapDigest, ...], parent: str | None, said: dict[str, Disk], commit: float
    ) -> Revision:
        """The record; `commit` are the seconds that it took to make the chunks last."""
        stats = summed(one.stats for one in said.values())
        consistent = all(one.consistency is Consistency.CONSISTENT for one in said.values())
        alone = said.get(NO_DISK)
        return Revision(
            uuid=self._start.uuid,
            taken_at=self._start.taken_at,
            tags=self._start.tags,
            consistency=Consistency.CONSISTENT if consistent else Consistency.TORN,
            parent=parent,
            maps=maps,
            source=alone.source if alone else None,
            stats=msgspec.structs.replace(
                stats,
                duration=round(self._clock.monotonic() - self._start.started, 3),
                seconds={**stats.seconds, "commit": commit},
            ),
            reading=alone.reading if alone else None,
            freeze=self._snapshots.freeze,
            disks=None if alone else said,
        )


def _distrust_hinted(job: Job, disk: str, last_full: str, tell: Callable[[str], None]) -> None:
    """Distrust what relied on the hints of a disk's source since a full read."""
    count = 0
    for one in histories.load(job.directory).revisions:
        found = one.disk(disk)
        reading = None if found is None else found.reading
        if reading is not None and reading.since and reading.last_full == last_full:
            with suppress(RevisionGone):
                trust.distrust(job.directory, one.uuid, Distrust.SOURCE)
                count += 1
    tell(
        f"what the source says of changes was wrong: {count} revisions that relied on it are distrusted"
    )
