"""Which parts of a buffer a sparse target writes: all that is not zero, and hardly more."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.ground.linux import Buffer
from backy.target.sparse import BLOCK, data_runs, used_blocks
from strategies import boundary_sizes, plain_bytes, repeatable

SIZE = 64 * BLOCK


def filled(content: bytes) -> Buffer:
    """A buffer that holds this, then 0xFF to its end, so that reading too far shows."""
    buffer = Buffer(SIZE)
    buffer.fill(content + b"\xff" * (buffer.size - len(content)))
    return buffer


def written(content: bytes) -> bytes:
    """A file of zeros into which the runs of a buffer were written."""
    target = bytearray(len(content))
    for start, length in data_runs(filled(content), len(content)):
        target[start : start + length] = content[start : start + length]
    return bytes(target)


def blocks_of(pattern: list[int]) -> bytes:
    """One block for each number, of that byte."""
    return b"".join(bytes([value]) * BLOCK for value in pattern)


@repeatable(150)
@given(content=plain_bytes(SIZE, least=0))
def test_runs_give_the_contents_on_a_file_of_zeros(content: bytes) -> None:
    """What the runs leave out is zero, so that the target equals the buffer."""
    assert content == written(content)


@pytest.mark.parametrize("size", boundary_sizes(BLOCK))
def test_runs_end_with_the_length(size: int) -> None:
    """Bytes behind the length are not looked at and not written."""
    assert b"x" * size == written(b"x" * size)
    assert [] == list(data_runs(filled(bytes(size)), size))


@repeatable(150)
@given(pattern=st.lists(st.sampled_from([0, 0, 1, 255]), max_size=64))
def test_runs_are_ascending_and_waste_at_most_one_percent(pattern: list[int]) -> None:
    """Runs are apart, in order, aligned, and hold at most 1 % zero blocks."""
    content = blocks_of(pattern)
    runs = list(data_runs(filled(content), len(content)))
    blocks = sum(length // BLOCK for _, length in runs)

    assert all(start % BLOCK == 0 < length for start, length in runs)
    assert all(one[0] + one[1] < other[0] for one, other in pairwise(runs))
    assert blocks <= 1.01 * sum(1 for value in pattern if value)


@repeatable(150)
@given(content=plain_bytes(SIZE, least=0))
def test_used_blocks_are_those_with_any_byte(content: bytes) -> None:
    """A block is used if any of its bytes is not zero, the last and shorter one too."""
    expected = [any(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]

    assert expected == [bool(one) for one in used_blocks(filled(content), len(content))]


@pytest.mark.parametrize("at", [0, 1, 7, 8, 9, BLOCK // 2, BLOCK - 1])
def test_single_byte_anywhere_makes_a_block_used(at: int) -> None:
    """The quick look at a block's first word misses nothing."""
    content = bytearray(3 * BLOCK)
    content[BLOCK + at] = 1

    assert [(BLOCK, BLOCK)] == list(data_runs(filled(bytes(content)), len(content)))


def test_short_gap_in_long_data_is_written() -> None:
    """One zero block among hundreds is cheaper written than skipped."""
    buffer = Buffer(300 * BLOCK)
    buffer.fill(b"x" * 150 * BLOCK + bytes(BLOCK) + b"x" * 149 * BLOCK)

    assert [(0, 300 * BLOCK)] == list(data_runs(buffer, 300 * BLOCK))
