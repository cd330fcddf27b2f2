"""Verify: is everything there that the selected revisions need, and is it what it was?

    findings = verify(repository, [(name, history, revisions)], progress, quick=False)

Every chunk and every map is read past the page cache. Chunks are decoded (a delta with its base) and
hashed, shared ones once; `quick` proves only the frames' checksums. Structure is proven too: each
record, each map and each of its pages, and that no map lacks its record.

What is found is a result, not an error. A revision that is forgotten meanwhile is no finding. A want of
descriptors or memory says nothing of the store, so it ends all (StorageFailed).

Limits: chunks are taken in passes by their id, so that memory holds at most a quarter of a million ids;
jobs and maps are opened one at a time, so that their number costs no descriptors.
"""

import enum
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from typing import NamedTuple

from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import Entry
from backy.domain.revision import MapDigest, Revision
from backy.ground.errors import (
    OF_THE_PROCESS,
    ChunkDamaged,
    ChunkMissing,
    ChunkUnreadable,
    DamageError,
    JobMissing,
    MapDamaged,
    MapUnreadable,
    RevisionGone,
    StorageFailed,
)
from backy.operation import parallel
from backy.operation.progress import Progress
from backy.repository.chunks import ChunkReader
from backy.repository.history import History
from backy.repository.layout import chunk_name
from backy.repository.maps import MapReader, open_pinned
from backy.repository.repository import Repository

IDS_A_PASS = 250_000
_TOGETHER = 32


class Kind(enum.Enum):
    """What is wrong."""

    RECORD = "record"
    MAP = "map"
    CHUNK = "chunk"


class Finding(NamedTuple):
    """One thing that is wrong with one revision; `ranges` are (offset, length) in bytes."""

    kind: Kind
    job: str
    revision: str
    disk: str
    chunk: str | None
    ranges: tuple[tuple[int, int], ...]
    why: str


def blames_base(entry: Entry, error: DamageError) -> bool:
    """Whether what is wrong with a chunk is the base that it stands on."""
    return (
        entry.base is not None
        and isinstance(error, (ChunkMissing, ChunkDamaged, ChunkUnreadable))
        and error.chunk == entry.base.hex()
    )


def said_of(entry: Entry, error: DamageError) -> str:
    """What is wrong with a chunk, in words: of a delta, also if it is the base that is to blame."""
    of_base = blames_base(entry, error)
    return f"its delta stands on a bad base: {error.message}" if of_base else error.message


def refuse_own_fault(error: DamageError) -> None:
    """Raise StorageFailed where a chunk could not be read for want of descriptors or memory.

    That is a fault of this process, or of its host, and says nothing of the chunk.
    """
    if isinstance(error, ChunkUnreadable) and error.code in OF_THE_PROCESS:
        raise StorageFailed("read", f"chunk {error.chunk}", error.code) from error


class Selected(NamedTuple):
    """A job, by its name, and which of its revisions to verify."""

    job: str
    history: History
    revisions: Sequence[Revision]


class Result(NamedTuple):
    """Findings by job, revision and offset, and how much was looked at.

    `proven` are the revisions, as (job, UUID), of which everything was read and is good; `unread` those
    of which something could not be read: it may be good, it may be bad; `denied`, among these, those of
    which the disk did not give a chunk. Others are damaged.
    """

    findings: list[Finding]
    revisions: int
    chunks: int
    proven: frozenset[tuple[str, str]]
    unread: frozenset[tuple[str, str]]
    denied: frozenset[tuple[str, str]]


def verify(
    repository: Repository, selection: Sequence[Selected], progress: Progress, *, quick: bool
) -> Result:
    """Prove everything that the selected revisions need; StorageFailed."""
    findings = [finding for one in selection for finding in _structure(one)]
    maps = _Maps(repository, selection)
    maps.check()
    listed = maps.usable()
    entries = sum(one.entries for one in listed)
    passes = max(1, -(-entries // IDS_A_PASS))
    chunks = 0
    progress.begin("verify", entries * repository.format.chunk_size)
    try:
        for number in range(passes):
            found = _Pass(number, passes, maps)
            chunks += found.chunks
            progress.advance(found.repeated * repository.format.chunk_size)
            findings += found.verify(repository, progress, quick)
    finally:
        progress.end()
    findings += maps.findings
    findings.sort(key=lambda one: (one.job, one.revision, one.disk, one.ranges))
    selected = {(one.job, revision.uuid) for one in selection for revision in one.revisions}
    bad = {(one.job, one.revision) for one in findings}
    proven = frozenset(selected - bad - maps.unread)
    unread, denied = frozenset(maps.unread), frozenset(maps.denied)
    return Result(findings, len(selected), chunks, proven, unread, denied)


def _structure(selected: Selected) -> Iterator[Finding]:
    """Records that cannot be read or name no map, and maps whose record is gone."""
    name = selected.job
    for unreadable in selected.history.unreadable:
        yield Finding(Kind.RECORD, name, unreadable.uuid, "", None, (), unreadable.error.message)
    for uuid in selected.history.lost:
        why = "its map is there, but its record is gone, and it was not forgotten"
        yield Finding(Kind.RECORD, name, uuid, "", None, (), why)
    for revision in selected.revisions:
        if not revision.maps:
            yield Finding(Kind.RECORD, name, revision.uuid, "", None, (), "its record names no map")


class _Map:
    """One map to be verified; `entries` counts its chunks that are not zero, once looked at."""

    def __init__(self, job: str, revision: Revision, wanted: MapDigest) -> None:
        self.job = job
        self.revision = revision.uuid
        self.wanted = wanted
        self.entries = 0

    @property
    def owner(self) -> tuple[str, str]:
        """Job and revision."""
        return self.job, self.revision

    def open(self, repository: Repository) -> MapReader:
        try:
            with repository.job(self.job) as job:
                return open_pinned(job.directory, self.revision, self.wanted, fresh=True)
        except JobMissing as error:
            raise RevisionGone(self.revision) from error
        except StorageFailed as error:
            if error.code in OF_THE_PROCESS:
                raise
            raise MapUnreadable(error.path, os.strerror(error.code)) from error

    def finding(
        self, kind: Kind, chunk: str | None, ranges: Sequence[tuple[int, int]], why: str
    ) -> Finding:
        return Finding(kind, self.job, self.revision, self.wanted.disk, chunk, tuple(ranges), why)


class _Maps:
    """All maps that are to be verified; one that fails, at whatever look, is used no more.

    `findings` say why. `unread` are the revisions of which something was not read: of one that was
    forgotten that is no finding, but nobody may say either that it is good. `denied`: see `Result`.
    """

    def __init__(self, repository: Repository, selection: Sequence[Selected]) -> None:
        self._repository = repository
        self.findings: list[Finding] = []
        self.unread: set[tuple[str, str]] = set()
        self.denied: set[tuple[str, str]] = set()
        self._maps = [
            _Map(one.job, revision, wanted)
            for one in selection
            for revision in one.revisions
            for wanted in revision.maps
        ]

    def usable(self) -> list[_Map]:
        """Those that have not failed so far."""
        return list(self._maps)

    def check(self) -> None:
        """Prove every page, and count the entries."""
        for one in self.usable():
            with self._failing(one), one.open(self._repository) as reader:
                for number, _ in reader.stored():
                    page = reader.page(number)
                    one.entries += sum(1 for _ in page.used()) if page is not None else 0

    def needs(self, low: int, high: int) -> Iterator[tuple[_Map, tuple[int, int], "_Need"]]:
        """(map, byte range, need) of every chunk in a part of the id space."""
        for one in self.usable():
            with self._failing(one), one.open(self._repository) as reader:
                for index, entry in reader.used():
                    if low <= int.from_bytes(entry.ident[:2], "big") < high:
                        offset = index * reader.layout.chunk_size
                        length = reader.layout.length_of(index)
                        yield one, (offset, length), _Need(entry, length)

    @contextmanager
    def _failing(self, one: _Map) -> Iterator[None]:
        """Take a map out that fails inside the block."""
        try:
            yield
        except RevisionGone:
            self._maps.remove(one)
            self.unread.add(one.owner)
        except MapDamaged as error:
            self._maps.remove(one)
            if isinstance(error, MapUnreadable):
                self.unread.add(one.owner)
            whole = [(0, one.wanted.image_size)] if one.wanted.image_size else []
            self.findings.append(one.finding(Kind.MAP, None, whole, error.message))


class _Need(NamedTuple):
    """A chunk as an image needs it: of that plain length."""

    entry: Entry
    length: int


def _by_base(needs: Iterable[_Need]) -> Iterator[list[_Need]]:
    """Chunks with the deltas on them, for one reader, which so reads a base once; not too many."""

    def base(need: _Need) -> ChunkId:
        return need.entry.base or need.entry.ident

    for _, group in groupby(sorted(needs, key=lambda need: (base(need), need.entry.ident)), base):
        while some := list(islice(group, _TOGETHER)):
            yield some


class _Pass:
    """The chunks of one part of the id space, and what is wrong with them."""

    def __init__(self, number: int, passes: int, maps: _Maps) -> None:
        self._low = number * 65536 // passes
        self._high = (number + 1) * 65536 // passes
        self._maps = maps
        self._lock = threading.Lock()
        self._bad: dict[_Need, DamageError] = {}
        self._wanted: set[_Need] = set()
        self.repeated = 0
        for _, _, need in maps.needs(self._low, self._high):
            if need in self._wanted:
                self.repeated += 1
            self._wanted.add(need)
        self.chunks = len(self._wanted)

    def verify(self, repository: Repository, progress: Progress, quick: bool) -> list[Finding]:
        """Look at every chunk once, a base together with its deltas; then say whom it hurts."""

        def prover() -> Callable[[list[_Need]], None]:
            chunks = ChunkReader(repository.chunks, repository.format.chunk_size, fresh=True)
            look = chunks.check_frame if quick else chunks.prove

            def prove(needs: list[_Need]) -> None:
                for need in needs:
                    try:
                        if look(need.entry) != need.length:
                            raise ChunkDamaged(chunk_name(need.entry), "its length is not its place's")
                    except DamageError as error:
                        refuse_own_fault(error)
                        with self._lock:
                            self._bad[need] = error
                    progress.advance(repository.format.chunk_size)

            return prove

        parallel.run(_by_base(self._wanted), prover)
        return self._findings()

    def _findings(self) -> list[Finding]:
        if not self._bad:
            return []
        ranges: dict[tuple[_Map, _Need], list[tuple[int, int]]] = {}
        # Opening the maps again drops those that were forgotten meanwhile, whose chunks may be gone.
        for one, span, need in self._maps.needs(self._low, self._high):
            if need in self._bad:
                ranges.setdefault((one, need), []).append(span)
                error = self._bad[need]
                if isinstance(error, ChunkUnreadable):
                    self._maps.unread.add(one.owner)
                    if error.blames_disk:
                        self._maps.denied.add(one.owner)
        return [
            one.finding(Kind.CHUNK, chunk_name(need.entry), spans, said_of(need.entry, self._bad[need]))
            for (one, need), spans in ranges.items()
        ]
