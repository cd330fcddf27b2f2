"""Where two files' blocks lie, and what follows for what has changed between them."""

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.extents import Extent
from backy.domain.placement import (
    LAST,
    MERGED,
    SHARED,
    UNWRITTEN,
    Pieces,
    Range,
    Ranges,
    differences,
    joined,
    pieces,
)
from strategies import repeatable

B = 4096
BLOCKS = 24
# linux/fiemap.h: UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL; the
# others are not known to anybody yet.
DOUBTFUL = [0x2, 0x4, 0x8, 0x80, 0x100, 0x200, 0x400, 0x10, 0x4000, 0x8000_0000]


class Block(NamedTuple):
    """One block of a file: where it lies, if it is not a hole, and with which flags."""

    physical: int | None
    flags: int = 0


def blocks() -> st.SearchStrategy[Block]:
    """Blocks that often lie where another file's lie: few places, few flags."""
    harmless = st.sampled_from([0, 0, SHARED, MERGED | SHARED, LAST])
    placed = st.builds(Block, st.integers(0, 40), harmless)
    doubtful = st.builds(Block, st.integers(0, 3), st.sampled_from(DOUBTFUL))
    unwritten = st.builds(Block, st.integers(0, 40), st.just(UNWRITTEN | SHARED))
    return st.one_of(placed, placed, st.just(Block(None)), unwritten, doubtful)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Block], list[tuple[int, int, int, int]]]:
    """A file as blocks, and the same as extents, which end where they must or anywhere else."""
    runs = draw(st.lists(st.tuples(blocks(), st.integers(1, 6)), max_size=8))
    found = [
        Block(None if block.physical is None else block.physical + n, block.flags)
        for block, length in runs
        for n in range(length)
    ][:BLOCKS]
    extents: list[tuple[int, int, int, int]] = []
    for number, block in enumerate(found):
        if block.physical is None:
            continue
        at, physical = number * B, block.physical * B
        glued = draw(st.booleans())
        if extents and glued:
            logical, first, length, flags = extents[-1]
            if (logical + length, first + length, flags) == (at, physical, block.flags):
                extents[-1] = (logical, first, length + B, flags)
                continue
        extents.append((at, physical, B, block.flags))
    return found + [Block(None)] * (BLOCKS - len(found)), extents


def may_differ(old: Block, new: Block) -> bool:
    """The rule for one block, word by word."""
    for one in (old, new):
        if one.physical is not None and any(one.flags & flag for flag in DOUBTFUL):
            return True
    old_place, new_place = (
        None if one.physical is None or one.flags & UNWRITTEN else one.physical for one in (old, new)
    )
    return old_place != new_place


@repeatable(400)
@given(old=files(), new=files(), edges=st.tuples(st.integers(0, BLOCKS), st.integers(0, BLOCKS)))
def test_what_may_differ_is_found_block_by_block(
    old: tuple[list[Block], list[tuple[int, int, int, int]]],
    new: tuple[list[Block], list[tuple[int, int, int, int]]],
    edges: tuple[int, int],
) -> None:
    """However extents are cut, exactly the blocks that do not lie at the same place are reported."""
    start, stop = sorted(edges)
    found = differences(pieces(old[1], start * B, stop * B), pieces(new[1], start * B, stop * B))

    expected = [n for n in range(start, stop) if may_differ(old[0][n], new[0][n])]
    assert expected == [n for first, last in found for n in range(first // B, -(-last // B))]
    assert all(first < last for first, last in found)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("flag", DOUBTFUL)
def test_doubtful_blocks_are_never_the_same(flag: int) -> None:
    """Compressed, inline, unwritten data, and whatever a newer kernel may invent, is read."""
    one = pieces([(0, 7 * B, 2 * B, flag | SHARED)], 0, 2 * B)

    assert [(0, 2 * B)] == differences(one, one)


def test_preallocated_space_is_a_hole() -> None:
    """It reads as zeros wherever it lies."""
    one, other = pieces([(0, 7 * B, B, UNWRITTEN)], 0, B), pieces([], 0, B)

    assert [] == differences(one, other)


def test_extents_are_cut_at_the_size() -> None:
    """What lies behind the end of the image is not part of it, and its last block is cut."""
    one, other = pieces([(0, 0, 3 * B, 0)], 0, B + 5), pieces([(0, 9 * B, 3 * B, 0)], 0, B + 5)

    assert [(0, B + 5)] == differences(one, other)


@pytest.mark.parametrize(
    "extents",
    [
        [(B, 0, B, 0), (0, B, B, 0)],
        [(0, 0, 2 * B, 0), (B, 0, B, 0)],
        [(0, 0, 0, 0)],
    ],
)
def test_a_kernel_that_contradicts_itself_is_not_believed(
    extents: list[tuple[int, int, int, int]],
) -> None:
    """Extents that go back, overlap or are empty are no answer."""
    with pytest.raises(ValueError, match="an extent at"):
        pieces(extents, 0, 4 * B)


def test_nothing_differs_from_itself() -> None:
    """The same places are the same bytes, though shared and cut differently."""
    one = pieces([(0, 8 * B, 4 * B, SHARED)], 0, 4 * B)
    other = pieces([(0, 8 * B, B, 0), (B, 9 * B, 3 * B, LAST)], 0, 4 * B)

    assert [] == differences(one, other)


@repeatable(100)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=20), st.integers(0, 5))
def test_joined_ranges_cover_the_same_and_gaps_no_longer_than_allowed(
    drawn: list[tuple[int, int]], gap: int
) -> None:
    """Joining adds only gaps of at most that length, and leaves only longer ones."""
    ranges: list[Range] = [(start, start + length) for start, length in drawn]
    found = joined(ranges, gap)

    before = {n for start, stop in ranges for n in range(start, stop)}
    after = {n for start, stop in found for n in range(start, stop)}
    assert before <= after
    assert all(other[0] - one[1] > gap for one, other in itertools.pairwise(found))
    assert all(
        min((n - m for m in before if m < n), default=gap + 1)
        + min((m - n for m in before if m > n), default=gap + 1)
        <= gap + 1
        for n in after - before
    )


def test_too_many_ranges_become_fewer_that_cover_them() -> None:
    """Memory is bounded: near ranges become one, and nothing that changed is left out."""
    collected = Ranges(limit=10)
    for number in range(100):
        collected.add([(number * 3 * B, number * 3 * B + B)])

    found = collected.extents()
    covered = {n for one in found for n in range(one.offset // B, (one.offset + one.length) // B)}
    assert len(found) <= 10
    assert {number * 3 for number in range(100)} <= covered


def test_few_ranges_stay_as_they_are() -> None:
    """Only those that touch, at the edge of a window, are one."""
    collected = Ranges()
    collected.add([(0, B), (2 * B, 3 * B)])
    collected.add([(3 * B, 4 * B)])

    assert [Extent(0, B), Extent(2 * B, 2 * B)] == collected.extents()


def test_pieces_say_where_and_how_far_from_there() -> None:
    """A piece is a range and its distance from the disk's."""
    assert Pieces([(B, 2 * B, 4 * B)], [(3 * B, 4 * B)]) == pieces(
        [(B, 5 * B, B, 0), (3 * B, B, B, 8)], 0, 4 * B
    )
