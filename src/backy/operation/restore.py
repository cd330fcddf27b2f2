"""Restore: from a disk of a revision to a target, every chunk proven on the way.

    bad = restore(repository, job, revision, target, progress, keep_going=False, read_back=False)

Each chunk is decoded and hashed before a byte of it is written. At the first that is missing or bad
the restore stops with its byte range (ImageDamaged); with `keep_going` the range is filled with
zeros, and all such ranges are returned.

What an interrupted restore has left in the target, where that keeps it, is compared with the map's ids
and not written again.

The revision's map is pinned meanwhile, so forgetting it or collecting garbage takes nothing away.

Limits: one disk a call.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import PAGE_ENTRIES, Entry, Layout
from backy.domain.revision import Revision
from backy.ground import linux
from backy.ground.errors import (
    ChunkDamaged,
    DamageError,
    ImageDamaged,
    MapDamaged,
    ReadBackDiffers,
    TargetRefused,
)
from backy.operation import parallel
from backy.operation.progress import Progress
from backy.operation.select import choose_disk
from backy.repository import layout
from backy.repository.chunks import ChunkReader
from backy.repository.maps import MapReader, open_pinned
from backy.repository.repository import Job, Repository
from backy.target.base import Target
from backy.target.file import FileTarget


class BadRange(NamedTuple):
    """A byte range that could not be restored, and why."""

    offset: int
    length: int
    why: str


class Piece(NamedTuple):
    """A range of the image: a chunk, zeros (no entry), or what a damaged map says nothing about."""

    offset: int
    length: int
    entry: Entry | None
    lost: DamageError | None = None


def restore(
    repository: Repository,
    job: Job,
    revision: Revision,
    target: Target,
    progress: Progress,
    *,
    keep_going: bool,
    read_back: bool,
    disk: str | None = None,
) -> list[BadRange]:
    """Write the image of a disk, which has to be named where there are several.

    Returns the bad ranges, ascending (empty without `keep_going`). Raises OptionRefused for the disk,
    ImageDamaged, MapDamaged (nothing can be restored), RevisionGone, TargetError, ReadBackDiffers.
    """
    wanted = choose_disk(revision, disk)
    if wanted is None:
        raise MapDamaged(job.directory.file_path(revision.uuid), "its record names no map")
    if isinstance(target, FileTarget) and _is_own(target.path, repository):
        raise TargetRefused(target.path, "it lies in the repository, whose files are backy's own")
    with ExitStack() as stack:
        reader = stack.enter_context(open_pinned(job.directory, revision.uuid, wanted))
        image = reader.layout
        stack.callback(target.close)
        target.begin(image.image_size, f"{revision.uuid}/{wanted.root}")
        bad = _BadRanges(keep_going, target.path if target.in_place else "")
        threads = 1 if target.in_order else parallel.THREADS

        def writer() -> Callable[[Piece], None]:
            chunks = ChunkReader(repository.chunks, image.chunk_size)
            return _Writer(chunks, target, bad, linux.Buffer(image.chunk_size), progress)

        progress.begin("restore", image.image_size)
        try:
            parallel.run(plan_pieces(reader), writer, threads)
        finally:
            progress.end()
        target.finish()
        if read_back:
            _read_back(reader, target, bad, progress)
        return bad.ascending()


def _is_own(path: str, repository: Repository) -> bool:
    """Whether a path without links is, or would be, a file of the store, a job or the repository itself.

    What else lies in the repository's directory is the operator's: there may be no space but there.
    """
    base, chunks = (os.fstat(one.fd) for one in (repository.base, repository.chunks))
    below, folder = path, os.path.dirname(path)
    while below != folder:
        with suppress(OSError):
            found = os.stat(folder)
            if os.path.samestat(found, chunks):
                return True
            if os.path.samestat(found, base):
                return os.path.lexists(path) if below == path else layout.is_job(os.listdir(below))
        below, folder = folder, os.path.dirname(folder)
    return False


def plan_pieces(reader: MapReader) -> Iterator[Piece]:
    """The whole image in order: a piece for each chunk, one for each run of zero chunks in a page."""
    for number in range(reader.layout.pages):
        yield from _page_pieces(reader, reader.layout, number)


def _page_pieces(reader: MapReader, image: Layout, number: int) -> Iterator[Piece]:
    first = number * PAGE_ENTRIES
    stop = first + image.entries_of(number)
    at = first
    try:
        page = reader.page(number)
    except MapDamaged as error:
        yield _range(image, first, stop)._replace(lost=error)
        return
    for slot, _, _ in page.used() if page is not None else ():
        index = first + slot
        if at < index:
            yield _range(image, at, index)
        assert page is not None
        yield _range(image, index, index + 1)._replace(entry=reader.entry(page, slot))
        at = index + 1
    if at < stop:
        yield _range(image, at, stop)


def _range(image: Layout, first: int, stop: int) -> Piece:
    """Chunks `first` to `stop` as a piece of zeros."""
    offset = first * image.chunk_size
    return Piece(offset, min(stop * image.chunk_size, image.image_size) - offset, None)


class _BadRanges:
    """Collects what could not be restored, or stops at the first."""

    def __init__(self, keep_going: bool, incomplete: str) -> None:
        """`incomplete` is the target's path, if it is left with a part of the image."""
        self._keep_going = keep_going
        self._incomplete = incomplete
        self._lock = threading.Lock()
        self._found: dict[int, BadRange] = {}

    def add(self, piece: Piece, error: DamageError) -> None:
        """Note a bad piece; ImageDamaged unless going on."""
        why = error.message
        if not self._keep_going:
            raise ImageDamaged(piece.offset, piece.length, why, self._incomplete) from error
        with self._lock:
            self._found[piece.offset] = BadRange(piece.offset, piece.length, why)

    def has(self, piece: Piece) -> bool:
        """Whether this piece was bad."""
        return piece.offset in self._found

    def ascending(self) -> list[BadRange]:
        """All of them, by offset."""
        return [self._found[offset] for offset in sorted(self._found)]


class _Writer:
    """One thread's reader and buffer; called with pieces."""

    def __init__(
        self,
        chunks: ChunkReader,
        target: Target,
        bad: _BadRanges,
        buffer: linux.Buffer,
        progress: Progress,
    ) -> None:
        self._chunks = chunks
        self._target = target
        self._bad = bad
        self._buffer = buffer
        self._progress = progress

    def __call__(self, piece: Piece) -> None:
        if self._is_there(piece):
            self._progress.advance(piece.length)
            return
        plain = self._plain(piece)
        if plain is None:
            self._target.zero(piece.offset, piece.length)
        else:
            self._buffer.fill(plain)
            self._target.write(self._buffer, piece.offset, piece.length)
        self._progress.advance(piece.length)

    def _is_there(self, piece: Piece) -> bool:
        """Whether an earlier restore has brought this chunk to the target."""
        if piece.entry is None or piece.offset + piece.length > self._target.taken_up:
            return False
        have = self._target.read_back(self._buffer, piece.offset, piece.length)
        return have == piece.length and chunk_id(self._buffer.view[:have]) == piece.entry.ident

    def _plain(self, piece: Piece) -> bytes | None:
        """A chunk's bytes; None for zeros and for what cannot be restored."""
        try:
            if piece.lost is not None:
                raise piece.lost
            if piece.entry is None:
                return None
            plain = self._chunks.read(piece.entry)
            if len(plain) != piece.length:
                raise ChunkDamaged(piece.entry.ident.hex(), "its length is not its place's")
        except DamageError as error:
            self._bad.add(piece, error)
            return None
        return plain


def _read_back(reader: MapReader, target: Target, bad: _BadRanges, progress: Progress) -> None:
    """Compare what the target returns with the ids of the map; ReadBackDiffers."""
    image = reader.layout

    def checker() -> Callable[[Piece], None]:
        buffer = linux.Buffer(image.chunk_size)

        def check(piece: Piece) -> None:
            if piece.entry is None and target.is_hole(piece.offset, piece.length):
                progress.advance(piece.length)
                return
            for at in range(piece.offset, piece.offset + piece.length, image.chunk_size):
                length = min(image.chunk_size, piece.offset + piece.length - at)
                same = target.read_back(buffer, at, length) == length
                if piece.entry is None:
                    same = same and linux.is_zero(buffer, length)
                else:
                    same = same and chunk_id(buffer.view[:length]) == piece.entry.ident
                if not same:
                    raise ReadBackDiffers(target.path, at, length)
                progress.advance(length)

        return check

    progress.begin("read back", image.image_size)
    try:
        parallel.run((one for one in plan_pieces(reader) if not bad.has(one)), checker)
    finally:
        progress.end()
