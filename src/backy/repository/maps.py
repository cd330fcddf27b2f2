"""Chunk maps on disk: a writer that needs one page of memory, and a reader that pins.

The map is a pin: whoever uses one holds a shared lock on its inode, and garbage collection unlinks
no map that it cannot lock alone. A new map is locked before it has a name. So a revision may be
forgotten while it is restored, and its chunks stay until the restore ends; a reader needs no new
file and works on a full or read-only disk.

    with open_pinned(job, revision, revision.maps[0]) as map:
        for index, entry in map.used(): …

Limits: every page is proven by its digest when it is read (MapDamaged; MapUnreadable is one, too); a
reader may be shared by threads, a writer takes indices in ascending order (`expect`) and entries in any
(`set`).
"""

import errno
import os
import threading
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from backy.domain import chunkmap
from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import Entry, Header, Layout, Page
from backy.domain.revision import MapDigest
from backy.ground import durable, linux, locks
from backy.ground.directory import Directory
from backy.ground.errors import (
    OF_THE_PROCESS,
    MapDamaged,
    MapUnreadable,
    RevisionGone,
    StorageFailed,
)
from backy.ground.pagecache import UncachedFile
from backy.repository import layout

# Of a new map: what its table takes in memory, some 50 MiB, and a terabyte of deltas. Beyond, new chunks
# are stored in full, which gives the places of bases free again.
MAX_BASES = 250_000

_NOT_A_FILE = (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)


class _MapFile:
    """An open map file; with `fresh` its bytes come from the disk, past the page cache."""

    def __init__(self, fd: int, path: str, *, fresh: bool) -> None:
        """Take over `fd`."""
        self.fd = fd
        self.path = path
        self._uncached = UncachedFile(fd) if fresh else None

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that are there; MapDamaged, MapUnreadable, StorageFailed."""
        try:
            content = self._read(offset, length)
        except OSError as error:
            raise _failure(self.path, error) from error
        if len(content) != length:
            raise MapDamaged(self.path, "it ends early")
        return content

    def _read(self, offset: int, length: int) -> bytes:
        if self._uncached is None:
            return os.pread(self.fd, length, offset)
        begin = offset // linux.PAGE * linux.PAGE
        end = offset + length
        buffer = linux.Buffer(-(-(end - begin) // linux.PAGE) * linux.PAGE)
        done = self._uncached.read(buffer, begin, end - begin, fresh=True)
        return bytes(buffer.view[offset - begin : done])

    def close(self) -> None:
        """Close the file and drop the pin."""
        if self.fd >= 0:
            if self._uncached is not None:
                self._uncached.close()
            else:
                os.close(self.fd)
            self.fd = -1


class MapReader:
    """An open, pinned map whose header and tables have been proven."""

    def __init__(self, file: _MapFile, header: Header, tail: bytes) -> None:
        """Take over `file`; `open_pinned` is the way to get one."""
        self.path = file.path
        self.header = header
        self.layout = header.layout
        self._file = file
        self._tail = tail
        self._stored, self.bases = chunkmap.split_tail(header, tail)
        # Only the last page of a map may be shorter than the others.
        last = self._stored[-1:]
        missing = sum(chunkmap.PAGE_ENTRIES - header.layout.entries_of(number) for number in last)
        self.tail_offset = _offset(len(self._stored)) - missing * chunkmap.ENTRY_SIZE

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """(number, digest) of the pages that are not zeros, in order."""
        for number in self._stored:
            yield number, self._digest(number)

    def _digest(self, number: int) -> bytes:
        at = number * chunkmap.DIGEST_SIZE
        return self._tail[at : at + chunkmap.DIGEST_SIZE]

    def page(self, number: int) -> Page | None:
        """A page, proven; None for one of zero chunks. MapDamaged."""
        place = bisect_left(self._stored, number)
        if place == len(self._stored) or self._stored[place] != number:
            return None
        entries = self.layout.entries_of(number)
        content = self._file.read(_offset(place), entries * chunkmap.ENTRY_SIZE)
        if chunkmap.digest(content) != self._digest(number):
            raise MapDamaged(self.path, f"page {number} does not match its digest")
        page = Page(entries, content)
        try:
            page.check(len(self.bases))
        except ValueError as error:
            raise MapDamaged(self.path, str(error)) from error
        return page

    def entry(self, page: Page, slot: int) -> Entry:
        """One entry of a page of this map."""
        index = page.base_index(slot)
        return Entry(page.ident(slot), self.bases[index - 1] if index else None)

    def used(self) -> Iterator[tuple[int, Entry]]:
        """(chunk index, entry) of all chunks that are not zero, in order."""
        for number, _ in self.stored():
            page = self.page(number)
            assert page is not None
            for slot, ident, index in page.used():
                base = self.bases[index - 1] if index else None
                yield number * chunkmap.PAGE_ENTRIES + slot, Entry(ident, base)

    def close(self) -> None:
        """Close the file and drop the pin."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _offset(place: int) -> int:
    """Where a stored page begins in the file, by its place among them."""
    return chunkmap.HEADER.size + place * chunkmap.PAGE_ENTRIES * chunkmap.ENTRY_SIZE


def open_pinned(job: Directory, uuid: str, wanted: MapDigest, *, fresh: bool = False) -> MapReader:
    """The map that a record describes, locked; MapDamaged, or RevisionGone if forgotten meanwhile.

    StorageFailed for want of descriptors or memory, from the reader too: it says nothing of the map.

    With `fresh` it is read past the page cache, as proof about the disk needs.
    """
    name = layout.map_name(uuid, wanted.disk)
    path = job.file_path(name)
    try:
        fd = job.open_file(name)
    except OSError as error:
        _refuse_forgotten(job, uuid)
        raise _not_opened(path, error) from error
    file = _MapFile(fd, path, fresh=fresh)
    try:
        # Only a collector holds one alone, and only a map without a record.
        if not locks.try_shared(fd) or not locks.still_named(fd):
            raise RevisionGone(uuid)
        _refuse_forgotten(job, uuid)
        return _proven(file, uuid, wanted)
    except BaseException:
        file.close()
        raise


def open_found(job: Directory, name: str) -> MapReader:
    """A map as it is found, without a record to prove it by and not pinned; MapDamaged.

    FileNotFoundError if it is gone. For collection, which alone removes maps.
    """
    path = job.file_path(name)
    try:
        fd = job.open_file(name)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _not_opened(path, error) from error
    file = _MapFile(fd, path, fresh=False)
    try:
        content = file.read(0, chunkmap.HEADER.size)
        parsed = layout.parse_map_name(name)
        uuid, disk = parsed if parsed is not None else ("", "")
        return _read_tables(file, content, uuid, disk, os.fstat(fd).st_size)
    except BaseException:
        file.close()
        raise


def _not_opened(path: str, error: OSError) -> MapDamaged | StorageFailed:
    """What it means that a map could not be opened: it is not there, is no file, or nobody knows."""
    if error.errno == errno.ENOENT:
        return MapDamaged(path, "it is missing")
    if error.errno in _NOT_A_FILE:
        return MapDamaged(path, os.strerror(error.errno))
    return _failure(path, error)


def _failure(path: str, error: OSError) -> MapUnreadable | StorageFailed:
    """What it means that the system does not give a map's bytes; StorageFailed says nothing of them."""
    if error.errno in OF_THE_PROCESS:
        return StorageFailed("read", path, error.errno)
    return MapUnreadable(path, os.strerror(error.errno or 0))


def _refuse_forgotten(job: Directory, uuid: str) -> None:
    if not job.has(uuid + layout.RECORD):
        raise RevisionGone(uuid)


def _proven(file: _MapFile, uuid: str, wanted: MapDigest) -> MapReader:
    path, size = file.path, os.fstat(file.fd).st_size
    if size != wanted.size:
        raise MapDamaged(path, f"it has {size} bytes instead of {wanted.size}")
    content = file.read(0, chunkmap.HEADER.size)
    if chunkmap.root(content).hex() != wanted.root:
        raise MapDamaged(path, "it is not the map that its record describes")
    reader = _read_tables(file, content, uuid, wanted.disk, size)
    if reader.layout.image_size != wanted.image_size:
        raise MapDamaged(path, "its image size is not its record's")
    return reader


def _read_tables(file: _MapFile, content: bytes, uuid: str, disk: str, size: int) -> MapReader:
    """The map whose header is `content`, its tables proven by it; MapDamaged."""
    try:
        header = chunkmap.unpack_header(content)
        if (header.revision, header.disk) != (UUID(uuid), disk):
            raise ValueError("it belongs to another revision or disk")
        if header.tail_length > size:
            raise ValueError("its tables are longer than itself")
        tail = file.read(size - header.tail_length, header.tail_length)
        reader = MapReader(file, header, tail)
        if reader.tail_offset + header.tail_length != size:
            raise ValueError("its pages and its size differ")
    except ValueError as error:
        raise MapDamaged(file.path, str(error)) from error
    return reader


class _OpenPage:
    """A page that is being filled, with the number of entries that are still to come."""

    def __init__(self, entries: int) -> None:
        self.page = Page(entries)
        self.awaited = 0


class MapWriter:
    """Writes one map page by page into a file without a name.

    Each index that will not stay as it is is announced by `expect`, in ascending order, and given by
    `set` in any. A page is zero in the beginning, or begins as a parent's by `inherit`, before anything
    of it is announced. Pages go to the file as soon as they are complete.
    """

    def __init__(self, job: Directory, uuid: str, disk: str, image: Layout) -> None:
        self.layout = image
        self._uuid = UUID(uuid)
        self._disk = disk
        self._name = layout.map_name(uuid, disk)
        self._lock = threading.Lock()
        self._pages: dict[int, _OpenPage] = {}
        if image.chunks > chunkmap.MAX_CHUNKS:
            raise ValueError(f"an image of {image.image_size} bytes is too large")
        self._digests = bytearray(image.pages * chunkmap.DIGEST_SIZE)
        self._stored = 0
        self._bases: dict[ChunkId, int] = {}
        self._frontier = 0
        self._file = durable.UnnamedFile(job)
        locks.wait_shared(self._file.fd)
        self._file.append(bytes(chunkmap.HEADER.size))

    def expect(self, index: int) -> None:
        """Announce that `index` will be set; not below the highest announced so far."""
        number = index // chunkmap.PAGE_ENTRIES
        with self._lock:
            if number not in self._pages:
                self._frontier = number
                self._pages[number] = _OpenPage(self.layout.entries_of(number))
                self._write_complete()
            self._pages[number].awaited += 1

    def inherit(
        self, number: int, page: Page, bases: Sequence[ChunkId], besides: Collection[int]
    ) -> None:
        """Begin a page as that of a parent with the same layout and the base table `bases`.

        The slots `besides` are zero until they are set. Only bases that the page still needs get into
        this map.
        """
        with self._lock:
            own = _OpenPage(self.layout.entries_of(number))
            own.page = page.inherited(besides, lambda index: self._base(bases[index - 1]))
            self._frontier = number
            self._pages[number] = own
            self._write_complete()

    def takes_base(self, ident: ChunkId) -> bool:
        """Whether a delta on that base may still get into this map."""
        return ident in self._bases or len(self._bases) < MAX_BASES

    def _base(self, ident: ChunkId) -> int:
        return self._bases.setdefault(ident, len(self._bases) + 1)

    def set(self, index: int, entry: Entry) -> None:
        """Fill an announced index."""
        number, slot = divmod(index, chunkmap.PAGE_ENTRIES)
        with self._lock:
            base = 0 if entry.base is None else self._base(entry.base)
            page = self._pages[number]
            page.page.set(slot, entry.ident, base)
            page.awaited -= 1
            if number < self._frontier:
                self._write_complete()

    def _write_complete(self) -> None:
        """Write the oldest open pages that nothing is awaited for, in ascending order."""
        for number in sorted(self._pages):
            if number >= self._frontier or self._pages[number].awaited:
                break
            page = self._pages.pop(number).page
            if not page.is_zero:
                at = number * chunkmap.DIGEST_SIZE
                self._digests[at : at + chunkmap.DIGEST_SIZE] = chunkmap.digest(bytes(page.content))
                self._file.append(page.content)
                self._stored += 1

    def seal(self) -> MapDigest:
        """Write the rest and bring the file to the disk; every announced index has been set."""
        self._frontier = self.layout.pages
        self._write_complete()
        self._digests += b"".join(self._bases)
        self._file.append(self._digests)
        header = chunkmap.pack_header(
            Header(
                self._uuid,
                self._disk,
                self.layout,
                self._stored,
                len(self._bases),
                chunkmap.digest(self._digests),
            )
        )
        chunkmap.unpack_header(header)  # what could not be read must not be written
        self._file.overwrite(0, header)
        self._file.sync()
        return MapDigest(
            disk=self._disk,
            size=self._file.length,
            root=chunkmap.root(header).hex(),
            image_size=self.layout.image_size,
        )

    def link(self) -> None:
        """Name the sealed map, still locked: until `close` it is a pin."""
        self._file.link(self._name)

    def close(self) -> None:
        """Drop the pin; a map without a name is gone."""
        self._file.close()
