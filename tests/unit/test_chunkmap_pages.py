"""Layout arithmetic against brute force, pages, and tables that lie."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.chunk import ZERO, ChunkId
from backy.domain.chunkmap import (
    DIGEST_SIZE,
    ENTRY_SIZE,
    PAGE_ENTRIES,
    ZERO_PAGE,
    Header,
    Layout,
    Page,
    digest,
    split_tail,
)
from strategies import boundary_sizes, chunk_ids, repeatable

C = 4096
ONE, TWO = ChunkId(b"\x01" * 32), ChunkId(b"\x02" * 32)


def counted_lengths(layout: Layout) -> list[int]:
    """Chunk lengths found by cutting pieces off the image, one after the other."""
    lengths, left = [], layout.image_size
    while left > 0:
        lengths.append(min(layout.chunk_size, left))
        left -= lengths[-1]
    return lengths


@pytest.mark.parametrize("size", [*boundary_sizes(C), *boundary_sizes(C * PAGE_ENTRIES)])
def test_layout_agrees_with_cutting_pieces(size: int) -> None:
    """Counts and lengths of chunks and pages are those of cutting the image up piece by piece."""
    layout = Layout(C, size)
    lengths = counted_lengths(layout)
    pages = [lengths[at : at + PAGE_ENTRIES] for at in range(0, len(lengths), PAGE_ENTRIES)]

    assert len(lengths) == layout.chunks
    assert len(pages) == layout.pages
    assert lengths[-2:] == [layout.length_of(index) for index in range(layout.chunks)][-2:]
    assert [len(page) for page in pages] == [layout.entries_of(page) for page in range(layout.pages)]


@repeatable(100)
@given(shift=st.integers(12, 22), size=st.integers(0, 1 << 56))
def test_layout_covers_the_image_exactly(shift: int, size: int) -> None:
    """All chunks but the last are whole, the last is not empty, and together they are the image."""
    layout = Layout(1 << shift, size)
    if size == 0:
        assert (0, 0) == (layout.chunks, layout.pages)
        return
    last = layout.length_of(layout.chunks - 1)

    assert size == (layout.chunks - 1) * layout.chunk_size + last
    assert 1 <= last <= layout.chunk_size
    assert layout.chunks == (layout.pages - 1) * PAGE_ENTRIES + layout.entries_of(layout.pages - 1)


@repeatable(60)
@given(
    entries=st.integers(1, PAGE_ENTRIES),
    found=st.dictionaries(
        st.integers(0, PAGE_ENTRIES - 1), st.tuples(chunk_ids(), st.integers(0, 9)), max_size=20
    ),
)
def test_page_keeps_what_is_set(entries: int, found: dict[int, tuple[ChunkId, int]]) -> None:
    """Entries are read back one by one and as a walk in order, also from the stored bytes."""
    kept = {slot: entry for slot, entry in sorted(found.items()) if slot < entries}
    page = Page(entries)
    for slot, (ident, base) in kept.items():
        page.set(slot, ident, base)
    stored = Page(entries, bytes(page.content))

    assert entries * ENTRY_SIZE == len(page.content)
    assert [(slot, *entry) for slot, entry in kept.items()] == list(stored.used())
    assert list(kept.values()) == [(stored.ident(slot), stored.base_index(slot)) for slot in kept]
    assert (not kept) == stored.is_zero


def test_page_is_all_ids_and_then_all_base_indices() -> None:
    """The bytes of a page are its ids, then its little-endian base indices."""
    page = Page(2)
    page.set(1, ONE, 0x0102)

    assert bytes(32) + ONE + bytes(4) + b"\x02\x01\0\0" == bytes(page.content)


def test_empty_page_has_no_used_entries() -> None:
    """A page of zero chunks is zero, and a walk over it finds nothing."""
    assert Page(7).is_zero
    assert [] == list(Page(7).used())


@pytest.mark.parametrize("length", [0, ENTRY_SIZE, 2 * ENTRY_SIZE - 1, 2 * ENTRY_SIZE + 1])
def test_page_of_another_length_is_refused(length: int) -> None:
    """A stored page has exactly its entries' bytes."""
    with pytest.raises(ValueError, match="cut short"):
        Page(2, bytes(length))


@pytest.mark.parametrize(
    ("ident", "base", "bases", "why"),
    [
        (ONE, 3, 2, "outside the base table"),
        (ONE, 1, 0, "outside the base table"),
        (ONE, 2**32 - 1, 2, "outside the base table"),
        (ZERO, 1, 2, "zero chunk has a base"),
    ],
)
def test_page_with_impossible_entries_is_refused(
    ident: ChunkId, base: int, bases: int, why: str
) -> None:
    """An entry may name only a base that is in the table, and a zero chunk none."""
    page = Page(3)
    page.set(0, TWO, 0)
    page.set(2, ident, base)

    with pytest.raises(ValueError, match=why):
        page.check(bases)


def test_stored_page_of_zeros_is_refused() -> None:
    """Pages of zeros are not stored, so that a map's file cannot be a cheap hole of any size."""
    with pytest.raises(ValueError, match="page of zeros"):
        Page(3).check(0)


def test_page_with_bases_in_the_table_is_fine() -> None:
    """Full chunks, deltas and zeros may be mixed."""
    page = Page(3)
    page.set(0, ONE, 0)
    page.set(2, TWO, 2)

    page.check(2)


def tail_header(tail: bytes, *, pages: int, stored: int, bases: int) -> Header:
    """A header whose digest is right for this tail."""
    layout = Layout(C, pages * PAGE_ENTRIES * C)
    return Header(UUID(int=0), "", layout, stored, bases, digest(tail))


def test_tail_is_taken_apart_into_stored_pages_and_bases() -> None:
    """The page table comes first, then the base table, each 32 bytes an item."""
    page = digest(b"page")
    tail = page + ZERO_PAGE + bytes(31) + b"x" + ONE + TWO
    stored, bases = split_tail(tail_header(tail, pages=3, stored=2, bases=2), tail)

    assert ([0, 2], [ONE, TWO]) == (list(stored), bases)


@pytest.mark.parametrize(
    ("tail", "stored", "bases", "why"),
    [
        (digest(b"p") + ONE, 0, 1, "does not match its count"),
        (ZERO_PAGE + ONE, 1, 1, "does not match its count"),
        (digest(b"p") + ONE + ONE, 1, 2, "twice or none"),
        (digest(b"p") + ZERO, 1, 1, "twice or none"),
        (digest(b"p") + ONE, 1, 0, "does not match its header"),
        (digest(b"p") + ONE, 1, 2, "does not match its header"),
        (b"", 0, 0, "does not match its header"),
    ],
)
def test_tail_that_lies_is_refused(tail: bytes, stored: int, bases: int, why: str) -> None:
    """A tail with a good digest and wrong counts, doubled bases or a zero base is refused."""
    with pytest.raises(ValueError, match=why):
        split_tail(tail_header(tail, pages=1, stored=stored, bases=bases), tail)


@pytest.mark.parametrize("at", [0, 31, 32, 63])
def test_flipped_byte_of_a_tail_is_found(at: int) -> None:
    """The header's digest covers every byte of both tables."""
    tail = bytearray(digest(b"p") + ONE)
    header = tail_header(bytes(tail), pages=1, stored=1, bases=1)
    tail[at] ^= 1

    with pytest.raises(ValueError, match="does not match its header"):
        split_tail(header, bytes(tail))
    assert 2 * DIGEST_SIZE == header.tail_length
