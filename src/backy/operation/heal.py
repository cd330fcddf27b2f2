"""Healing: lost chunks are stored anew from a source that still has their content.

    healed = heal(repository, job, revision, snapshot, user, codec)

A chunk's id proves its content, so the source may have changed, or change meanwhile: what hashes to
the id is the chunk, at whatever time it was read. What replaces a damaged chunk is always full.

Limits: the caller is a registered user; one disk; content that has moved to another offset is not
looked for.
"""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from typing import NamedTuple

from backy.domain.chunk import ChunkId, Codec, Encoder, chunk_id
from backy.domain.chunkmap import NO_DISK, Entry
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


class Healed(NamedTuple):
    """How many chunks were stored anew, and the (offset, length) in bytes of what is still lost."""

    chunks: int
    left: tuple[tuple[int, int], ...]


def heal(
    repository: Repository,
    job: Job,
    revision: Revision,
    snapshot: Snapshot,
    user: User,
    codec: Codec,
) -> Healed:
    """Store what a revision has lost and the source still has; RevisionGone, StorageFailed."""
    left: list[tuple[int, int]] = []
    stored: set[Entry] = set()
    buffer = linux.Buffer(repository.format.chunk_size)
    encoder = Encoder(codec)
    with ExitStack() as stack:
        writer = ChunkWriter(repository.chunks, user.temporary)
        stack.callback(writer.abandon)
        for lost in damage.lost_of(repository.chunks, job.directory, revision):
            if lost.entry is None or not _read(snapshot, lost, buffer):
                left.append((lost.offset, lost.length))
                continue
            full = Entry(lost.entry.ident)
            if full not in stored and writer.claim(full):
                frame = proven_frame(full.ident, buffer, lost.length, encoder)
                writer.store(full, frame)
            stored.add(full)
        if stored:
            writer.finish()
    return Healed(len(stored), tuple(_joined(left)))


def _read(snapshot: Snapshot, lost: Lost, buffer: linux.Buffer) -> bool:
    """Whether the buffer holds the lost chunk now, from its place in the source."""
    if lost.entry is None or lost.disk != NO_DISK or lost.offset + lost.length > snapshot.size:
        return False
    try:
        snapshot.read(buffer, lost.offset, lost.length)
    except SourceFailed:
        return False
    return chunk_id(buffer.view[: lost.length]) == lost.entry.ident


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges without their seams."""
    at = -1
    length = 0
    for offset, more in ranges:
        if at + length == offset and length:
            length += more
            continue
        if length:
            yield at, length
        at, length = offset, more
    if length:
        yield at, length
