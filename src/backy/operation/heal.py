"""Healing: lost chunks are stored anew from a source that still has their content.

    healed = heal(repository, job, revision, {disk: snapshot}, user, codec)
    healed = heal(repository, job, revision, {disk: snapshot}, user, codec, unread=True)

A chunk's id proves its content, so the source may have changed, or change meanwhile: what hashes to
the id is the chunk, at whatever time it was read. What replaces a damaged chunk is always full. With
`unread` all that the revision needs is read, and what the disk does not give is lost, too; the new chunk
takes its place in one step.

Limits: the caller is a registered user; content that has moved to another offset or disk is not looked
for.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import chain, islice
from typing import NamedTuple

from backy.domain.chunk import ChunkId, Codec, Encoder, chunk_id
from backy.domain.chunkmap import Entry
from backy.domain.revision import Revision
from backy.ground import linux
from backy.ground.errors import JobMissing, RevisionGone, SourceFailed
from backy.operation.encode import proven_frame
from backy.operation.trust import open_reports
from backy.repository import damage
from backy.repository import history as histories
from backy.repository.chunks import ChunkWriter
from backy.repository.damage import Lost
from backy.repository.repository import Job, Repository
from backy.repository.users import User
from backy.source.base import Snapshot

_REMEMBERED = 250_000


def lost_chunks(repository: Repository, job: Job) -> set[ChunkId]:
    """Chunks that damaged revisions lack: of this job, and of those that open cases are known to hurt.

    Whoever stores one of them anew stores it in full, since each revision may have it in another form.
    At most a quarter of a million.
    """
    hurt = {one.job for report in open_reports(repository) for one in report.revisions}
    found: set[ChunkId] = set()
    for name in sorted({job.name, *hurt}):
        with suppress(JobMissing), repository.job(name) as opened:
            for revision in histories.load(opened.directory).revisions:
                if revision.damaged:
                    with suppress(RevisionGone):
                        lost = damage.lost_of(repository.chunks, opened.directory, revision)
                        left = _REMEMBERED - len(found)
                        found.update(islice((one.entry.ident for one in lost if one.entry), left))
    return found


class LostRange(NamedTuple):
    """A byte range of a disk that cannot be restored."""

    disk: str
    offset: int
    length: int


class Healed(NamedTuple):
    """How many chunks were stored anew, and what is still lost."""

    chunks: int
    left: tuple[LostRange, ...]


def heal(
    repository: Repository,
    job: Job,
    revision: Revision,
    snapshots: Mapping[str, Snapshot],
    user: User,
    codec: Codec,
    *,
    unread: bool = False,
) -> Healed:
    """Store what a revision has lost and its disks still have; RevisionGone, StorageFailed.

    `unread`: also what the disk of the store does not give.
    """
    left: list[LostRange] = []
    stored: set[Entry] = set()
    buffer = linux.Buffer(repository.format.chunk_size)
    encoder = Encoder(codec)
    with ExitStack() as stack:
        writer = ChunkWriter(repository.chunks, user.temporary)
        stack.callback(writer.abandon)
        found = damage.lost_of(repository.chunks, job.directory, revision)
        if unread:
            found = chain(found, damage.unread_of(repository, job.directory, revision))
        for lost in found:
            if lost.entry is None or not _read(snapshots.get(lost.disk), lost, buffer):
                left.append(LostRange(lost.disk, lost.offset, lost.length))
                continue
            full = Entry(lost.entry.ident)
            if full not in stored:
                frame = proven_frame(full.ident, buffer, lost.length, encoder)
                if writer.claim(full):
                    writer.store(full, frame)
                elif lost.is_there:
                    writer.replace(full, frame)
            stored.add(full)
        if stored:
            writer.finish()
    return Healed(len(stored), tuple(_joined(left)))


def _read(snapshot: Snapshot | None, lost: Lost, buffer: linux.Buffer) -> bool:
    """Whether the buffer holds the lost chunk now, from its place in the source."""
    if lost.entry is None or snapshot is None or lost.offset + lost.length > snapshot.size:
        return False
    try:
        snapshot.read(buffer, lost.offset, lost.length)
    except SourceFailed:
        return False
    return chunk_id(buffer.view[: lost.length]) == lost.entry.ident


def _joined(ranges: list[LostRange]) -> Iterator[LostRange]:
    """Ranges without their seams."""
    joined: LostRange | None = None
    for one in ranges:
        if joined is not None and (one.disk, one.offset) == (joined.disk, joined.offset + joined.length):
            joined = joined._replace(length=joined.length + one.length)
            continue
        if joined is not None:
            yield joined
        joined = one
    if joined is not None:
        yield joined
