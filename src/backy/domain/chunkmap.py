"""The chunk map: which chunks, in order, make an image of a given size.

File layout, little-endian (doc/format.md, "Map"):

    header, 160 bytes    magic, version, revision, disk, chunk size, image size, counts, tail digest
    stored pages         4096 entries each (the last page of the map may be shorter): all chunk ids,
                         then for each its index into the base table (u32; 0 = a full chunk,
                         n = the delta against base n - 1)
    page table           one BLAKE3 a page, in order; 32 zero bytes = a page of zero chunks, not stored
    base table           the base ids

The header's BLAKE3 is the map's *root*, and what the revision's record holds: it covers the tail
(page table and base table), which covers the pages. So a reader proves what it reads page by page,
and neither reading nor writing holds more than one page in memory.

    >>> layout = Layout(chunk_size=4096, image_size=10_000)
    >>> layout.chunks, layout.pages, layout.length_of(2)
    (3, 1, 1808)

Limits: pure; `repository.maps` reads and writes the file.
"""

import re
import struct
from array import array
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple
from uuid import UUID

import blake3

from backy.domain.chunk import ID_SIZE, MAX_PLAIN, ZERO, ChunkId

PAGE_ENTRIES = 4096
ENTRY_SIZE = ID_SIZE + 4
MAGIC = b"bkMAP\r\n\0"
VERSION = 1
HEADER = struct.Struct("<8sHH4x16s32sQQQII32s32x")
NO_DISK = ""
MIN_CHUNK, MAX_CHUNK = 4096, MAX_PLAIN
MAX_IMAGE = 1 << 56
MAX_TAIL = 128 << 20  # what a reader holds in memory; four million bases
# Of an image that is backed up: its page table takes half of that, which leaves room for bases.
MAX_CHUNKS = MAX_TAIL // 2 // 32 * PAGE_ENTRIES

DIGEST_SIZE = 32
ZERO_PAGE = bytes(DIGEST_SIZE)
_NOT_ZERO = re.compile(rb"[^\0]")
_DIGEST_OF_ZEROS = blake3.blake3(bytes(PAGE_ENTRIES * ENTRY_SIZE)).digest()


class Entry(NamedTuple):
    """One chunk of an image: its id, and the base that its stored form leans on (None: full)."""

    ident: ChunkId
    base: ChunkId | None = None


ZERO_ENTRY = Entry(ZERO)


class Layout(NamedTuple):
    """How an image of `image_size` bytes falls into chunks and pages."""

    chunk_size: int
    image_size: int

    @property
    def chunks(self) -> int:
        """Number of chunks; 0 for an empty image."""
        return -(-self.image_size // self.chunk_size)

    @property
    def pages(self) -> int:
        """Number of pages."""
        return -(-self.chunks // PAGE_ENTRIES)

    def length_of(self, index: int) -> int:
        """Bytes of chunk `index`; only the last may be shorter than the chunk size."""
        return min(self.chunk_size, self.image_size - index * self.chunk_size)

    def entries_of(self, page: int) -> int:
        """Number of entries of page `page`."""
        return min(PAGE_ENTRIES, self.chunks - page * PAGE_ENTRIES)


class Header(NamedTuple):
    """The fixed part of a map; `stored_pages` and `bases` are counts."""

    revision: UUID
    disk: str
    layout: Layout
    stored_pages: int
    bases: int
    tail_digest: bytes

    @property
    def tail_length(self) -> int:
        """Bytes of page table and base table."""
        return self.layout.pages * DIGEST_SIZE + self.bases * ID_SIZE


def pack_header(header: Header) -> bytes:
    """The header's bytes; `root` of them is what a record holds."""
    layout = header.layout
    return HEADER.pack(
        MAGIC,
        VERSION,
        0,
        header.revision.bytes,
        header.disk.encode("ascii"),
        layout.chunk_size,
        layout.image_size,
        layout.chunks,
        header.stored_pages,
        header.bases,
        header.tail_digest,
    )


def root(header: bytes) -> bytes:
    """The digest that covers the whole map."""
    return digest(header)


def digest(content: bytes | bytearray) -> bytes:
    """BLAKE3-256."""
    return blake3.blake3(content).digest()


def unpack_header(content: bytes) -> Header:
    """The header; ValueError for anything that `pack_header` would not have written."""
    if len(content) < HEADER.size:
        raise ValueError(f"it has only {len(content)} bytes")
    magic, version, reserved, revision, disk, chunk_size, size, chunks, stored, bases, tail = (
        HEADER.unpack_from(content)
    )
    if magic != MAGIC:
        raise ValueError("it does not begin like a chunk map")
    if version != VERSION or reserved:
        raise ValueError(f"its version {version} is not known")
    if not MIN_CHUNK <= chunk_size <= MAX_CHUNK or chunk_size & (chunk_size - 1):
        raise ValueError(f"its chunk size is {chunk_size}")
    layout = Layout(chunk_size, size)
    if size > MAX_IMAGE or chunks != layout.chunks or stored > layout.pages or bases > chunks:
        raise ValueError("its counts do not fit together")
    if layout.pages * DIGEST_SIZE + bases * ID_SIZE > MAX_TAIL:
        raise ValueError("its tables are too large")
    name = disk.rstrip(b"\0")
    if not name.isascii():
        raise ValueError("its disk name is not ASCII")
    header = Header(UUID(bytes=revision), name.decode("ascii"), layout, stored, bases, tail)
    if pack_header(header) != content[: HEADER.size]:
        raise ValueError("its header has bytes that mean nothing")
    return header


class Page:
    """4096 entries (the last page of a map: fewer) as they are stored, read or being filled."""

    def __init__(self, entries: int, content: bytes | None = None) -> None:
        """An empty page of zero chunks, or the stored `content`; ValueError for a wrong length."""
        self.entries = entries
        if content is not None and len(content) != entries * ENTRY_SIZE:
            raise ValueError("a page is cut short")
        self.content = bytearray(entries * ENTRY_SIZE if content is None else content)

    def ident(self, slot: int) -> ChunkId:
        """Chunk id in `slot`."""
        return ChunkId(bytes(self.content[slot * ID_SIZE : (slot + 1) * ID_SIZE]))

    def base_index(self, slot: int) -> int:
        """Index into the base table in `slot`; 0 for a full chunk."""
        at = self.entries * ID_SIZE + slot * 4
        return int.from_bytes(self.content[at : at + 4], "little")

    @property
    def idents(self) -> bytes:
        """All chunk ids, one behind the other."""
        return bytes(self.content[: self.entries * ID_SIZE])

    def set(self, slot: int, ident: ChunkId, base_index: int) -> None:
        """Fill one slot."""
        self.content[slot * ID_SIZE : (slot + 1) * ID_SIZE] = ident
        at = self.entries * ID_SIZE + slot * 4
        self.content[at : at + 4] = base_index.to_bytes(4, "little")

    def inherited(self, besides: Collection[int], renumber: Callable[[int], int]) -> "Page":
        """A copy for another map: `besides` are slots left zero; `renumber` gives base indices there."""
        page = Page(self.entries, bytes(self.content))
        for slot in besides:
            page.set(slot, ZERO, 0)
        at = self.entries * ID_SIZE
        if any(page.content[at:]):
            bases = array("I", [renumber(one) if one else 0 for one in array("I", page.content[at:])])
            page.content[at:] = bases.tobytes()
        return page

    def used(self) -> Iterator[tuple[int, ChunkId, int]]:
        """(slot, id, base index) of all chunks that are not zero, in order."""
        content = bytes(self.content)
        ids = self.entries * ID_SIZE
        bases = array("I", content[ids:]) if any(content[ids:]) else None
        for slot in range(self.entries):
            ident = content[slot * ID_SIZE : (slot + 1) * ID_SIZE]
            if ident != ZERO:
                yield slot, ChunkId(ident), bases[slot] if bases else 0

    @property
    def is_zero(self) -> bool:
        """Whether no slot is filled, so that the page is not stored."""
        return not any(self.content)

    def check(self, bases: int) -> None:
        """ValueError where an entry points outside a base table of `bases` ids or a zero has one.

        A page of zeros is refused too: nobody stores one.
        """
        if self.is_zero:
            raise ValueError("it stores a page of zeros")
        indices = array("I", bytes(self.content[self.entries * ID_SIZE :]))
        highest = max(indices, default=0)
        if highest > bases:
            raise ValueError("an entry points outside the base table")
        if highest and any(index and self.ident(slot) == ZERO for slot, index in enumerate(indices)):
            raise ValueError("a zero chunk has a base")


def split_tail(header: Header, tail: bytes) -> "tuple[array[int], list[ChunkId]]":
    """(numbers of the stored pages, base ids); ValueError where tail and header do not fit together.

    Runs of pages that are not stored are passed over at once: as holes, millions of them cost nothing.
    """
    if len(tail) != header.tail_length or digest(tail) != header.tail_digest:
        raise ValueError("its page table does not match its header")
    cut = header.layout.pages * DIGEST_SIZE
    stored = array("Q")
    at = 0
    while (found := _NOT_ZERO.search(tail, at, cut)) is not None:
        number = found.start() // DIGEST_SIZE
        stored.append(number)
        at = (number + 1) * DIGEST_SIZE
        if tail[at - DIGEST_SIZE : at] == _DIGEST_OF_ZEROS:
            # As holes, billions of them would cost a forger nothing, and whoever reads them hours.
            raise ValueError("it stores a page of zeros")
    if len(stored) != header.stored_pages:
        raise ValueError("its page table does not match its count")
    bases = [ChunkId(tail[at : at + ID_SIZE]) for at in range(cut, len(tail), ID_SIZE)]
    if len(set(bases)) != len(bases) or ZERO in bases:
        raise ValueError("its base table names a base twice or none")
    return stored, bases
