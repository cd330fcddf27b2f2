"""Damage of revisions: computed from what is in the store, and kept in their records as a cache.

An entry of a map is *lost* while the file that it names, or its base, is neither in the store nor in
the trash, and no full chunk of its id is either. So a chunk in quarantine is lost, and one that a
backup stored anew is not any more. While a case of the quarantine is open, a copy of its chunk in the
trash does not count: purge links it back only where the name is free, and it may have been taken by
the bad file when purge looked (tests/model/collection_quarantine.py).

    for found in needing(repository, {entry}): …      who needs these chunks, in all jobs
    refresh(chunks, job, uuid)                        make a record say what is lost now

Maps are read past the page cache, which still has the good bytes after a failed write.

Limits: presence only; whether a file holds what it should is for verify to find out. A record is
edited under `.history`, and what is lost is computed there, so that no older answer overwrites a
newer one; where nothing is lost and none was, nothing is written.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import NamedTuple

from backy.domain.chunkmap import PAGE_ENTRIES, Entry
from backy.domain.revision import MapDigest, Revision
from backy.ground import durable
from backy.ground.directory import Directory
from backy.ground.errors import (
    ChunkDamaged,
    ChunkMissing,
    ChunkUnreadable,
    FormatUnknown,
    HistoryBusy,
    JobMissing,
    MapDamaged,
    MapUnreadable,
    RecordDamaged,
    RevisionGone,
    StorageFailed,
)
from backy.ground.tries import Tries
from backy.repository import history as histories
from backy.repository import layout, quarantine
from backy.repository.chunks import ChunkReader
from backy.repository.maps import MapReader, open_pinned
from backy.repository.quarantine import Hurt
from backy.repository.repository import Repository

# Of one chunk in one image; who needs all of them asks verify.
MAX_RANGES = 1000
_PAGES_REMEMBERED = 200_000


class Lost(NamedTuple):
    """A chunk of an image that cannot be restored now; of a damaged map, all of it without entry.

    `is_there`: its file is, but the disk does not give it.
    """

    disk: str
    offset: int
    length: int
    entry: Entry | None
    is_there: bool = False


class Needing(NamedTuple):
    """A revision that needs one of the chunks asked for, and where."""

    chunk: Entry
    hurt: Hurt


def lost_of(chunks: Directory, job: Directory, revision: Revision) -> Iterator[Lost]:
    """What of a revision cannot be restored now, by disk and offset; RevisionGone."""
    there = _Presence(chunks)
    for wanted in revision.maps:
        try:
            with open_pinned(job, revision.uuid, wanted, fresh=True) as reader:
                for index, entry in reader.used():
                    if not there.has(entry):
                        offset = index * reader.layout.chunk_size
                        length = reader.layout.length_of(index)
                        yield Lost(wanted.disk, offset, length, entry)
        except MapDamaged:
            if wanted.image_size:
                yield Lost(wanted.disk, 0, wanted.image_size, None)


def unread_of(repository: Repository, job: Directory, revision: Revision) -> Iterator[Lost]:
    """What of a revision the disk of the store does not give, by reading all of it; RevisionGone.

    StorageFailed if something cannot be read for another reason, which passes. What is damaged or
    missing is verify's to find.
    """
    chunks = ChunkReader(repository.chunks, repository.format.chunk_size, fresh=True)
    for wanted in revision.maps:
        with suppress(MapDamaged), open_pinned(job, revision.uuid, wanted, fresh=True) as reader:
            for index, entry in reader.used():
                try:
                    chunks.read(entry)
                except ChunkUnreadable as error:
                    if not error.blames_disk:
                        raise StorageFailed("read", f"chunk {error.chunk}", error.code) from error
                    offset = index * reader.layout.chunk_size
                    length = reader.layout.length_of(index)
                    yield Lost(wanted.disk, offset, length, entry, is_there=True)
                except (ChunkDamaged, ChunkMissing):
                    continue


def is_readable(job: Directory, revision: Revision, wanted: MapDigest) -> bool:
    """Whether the system can read a map, be it damaged or not; RevisionGone."""
    try:
        with open_pinned(job, revision.uuid, wanted, fresh=True) as reader:
            for number in range(reader.layout.pages):
                reader.page(number)
    except MapUnreadable:
        return False
    except MapDamaged:
        return True
    return True


def refresh(chunks: Directory, job: Directory, uuid: str, *, failed: bool = False) -> Revision:
    """Have a record say how much of its revision is lost now; RevisionGone and what an edit raises.

    `failed`: something of it proved to be bad or could not be read just now, so it is verified no more,
    whatever is there.
    """

    def change(revision: Revision) -> Revision:
        lost = sum(one.length for one in lost_of(chunks, job, revision))
        after = revision.with_damage(min(lost, revision.image_size))
        return after.without_proof() if failed else after

    before = histories.read(job, uuid)
    if not (failed or before.damaged or any(lost_of(chunks, job, before))):
        # Mostly so, and there is nothing to write: nobody need wait while a large image is looked for.
        durable.sync_directory(job)
        return before
    # Verify runs beside everything, also beside an edit that is frozen.
    return histories.edit(job, uuid, change, patient=False)


def refresh_all(repository: Repository, wanted: Callable[[Revision], bool]) -> list[Revision]:
    """`refresh` the revisions of all jobs that `wanted` says, and return them.

    A job in which that fails keeps no other from it. StorageFailed, HistoryBusy.
    """
    found: list[Revision] = []
    tries = Tries(StorageFailed, HistoryBusy)
    for name in repository.directories():
        with tries.one():
            found += refresh_job(repository, name, wanted)
    tries.end()
    return found


def refresh_job(repository: Repository, name: str, wanted: Callable[[Revision], bool]) -> list[Revision]:
    """`refresh` the revisions of one job that `wanted` says; none if it is gone. As `refresh_all`."""
    found = []
    with suppress(JobMissing), repository.job(name) as job:
        for revision in _now_and_later(job.directory):
            if wanted(revision):
                with suppress(RevisionGone, RecordDamaged, FormatUnknown):
                    found.append(refresh(repository.chunks, job.directory, revision.uuid))
    return found


def _now_and_later(job: Directory) -> Iterator[Revision]:
    """All revisions of a job, then those that were committed while the caller dealt with these.

    A backup that commits meanwhile looks at its parent's record, which is marked by then or is not.
    """
    seen: set[str] = set()
    while fresh := [one for one in histories.load(job).revisions if one.uuid not in seen]:
        seen.update(one.uuid for one in fresh)
        yield from fresh


def needing(
    repository: Repository, suspects: Collection[Entry], asked: set[tuple[str, str]] | None = None
) -> Iterator[Needing]:
    """Whom these chunks hurt: the revisions of all jobs that are there now.

    Those that are in `asked`, as (job, UUID), are left out, and all others put there.

    A base hurts whoever has a delta on it. Jobs and histories are listed here and not before, since a
    revision that is committed later looks into the quarantine itself. A job that cannot be read keeps no
    other from being looked at: StorageFailed at the end.
    """
    if not suspects:
        return
    tries = Tries(StorageFailed)
    for name in repository.directories():
        with tries.one(), suppress(JobMissing), repository.job(name) as job:
            unhurt: set[bytes] = set()
            for revision in histories.load(job.directory).revisions:
                if asked is not None:
                    if (name, revision.uuid) in asked:
                        continue
                    asked.add((name, revision.uuid))
                for wanted in revision.maps:
                    with (
                        suppress(RevisionGone, MapDamaged),
                        open_pinned(job.directory, revision.uuid, wanted) as reader,
                    ):
                        for suspect, ranges in _ranges(reader, suspects, unhurt).items():
                            hurt = Hurt(
                                job=name, revision=revision.uuid, disk=wanted.disk, ranges=tuple(ranges)
                            )
                            yield Needing(suspect, hurt)
    tries.end()


def _ranges(
    reader: MapReader, suspects: Collection[Entry], unhurt: set[bytes]
) -> dict[Entry, list[tuple[int, int]]]:
    """Where an image needs the suspects; neighbours are one range."""
    found: dict[Entry, list[tuple[int, int]]] = {}
    if len(unhurt) > _PAGES_REMEMBERED:
        unhurt.clear()
    for number, digest in reader.stored():
        # Pages of one digest need the same chunks, except that their bases are the map's.
        if digest in unhurt:
            continue
        page = reader.page(number)
        hurt = False
        for slot, ident, index in page.used() if page is not None else ():
            base = reader.bases[index - 1] if index else None
            hit = [one for one in _needed(Entry(ident, base)) if one in suspects]
            hurt = hurt or bool(hit)
            at = number * PAGE_ENTRIES + slot
            for one in hit:
                _add(
                    found.setdefault(one, []), at * reader.layout.chunk_size, reader.layout.length_of(at)
                )
        if not hurt and not reader.bases:
            unhurt.add(digest)
    return found


def _needed(entry: Entry) -> tuple[Entry, ...]:
    if entry.base is None:
        return (entry,)
    # The full chunk may stand for the delta, where that is gone.
    return (entry, Entry(entry.base), Entry(entry.ident))


def _add(ranges: list[tuple[int, int]], offset: int, length: int) -> None:
    if ranges and sum(ranges[-1]) == offset:
        ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
    elif len(ranges) < MAX_RANGES:
        ranges.append((offset, length))


class _Presence:
    """Whether chunks can be read from somewhere; looks as a reader does: store, trash, store."""

    def __init__(self, chunks: Directory) -> None:
        self._chunks = chunks

    def has(self, entry: Entry) -> bool:
        if entry.base is None:
            return self._is_there(entry)
        return (self._is_there(entry) and self._is_there(Entry(entry.base))) or self._is_there(
            Entry(entry.ident)
        )

    def _is_there(self, entry: Entry) -> bool:
        path = layout.chunk_path(entry)
        if self._chunks.has(path):
            return True
        if self._in_trash(entry) and not quarantine.holds_open(self._chunks, entry):
            return True
        return self._chunks.has(path)

    def _in_trash(self, entry: Entry) -> bool:
        name = layout.chunk_name(entry)
        with self._chunks.enter(layout.TRASH) as trash:
            for generation in trash.names():
                # A stray file there is no generation.
                with suppress(NotADirectoryError):
                    if trash.has(f"{generation}/{name}"):
                        return True
        return False
