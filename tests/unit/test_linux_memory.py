"""Buffers: page-aligned memory, compared and filled by libc, against Python's own slices."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.ground import linux
from backy.ground.linux import PAGE, Buffer, differing, equal, is_zero
from strategies import plain_bytes, repeatable

SIZE = 4 * PAGE


def filled(content: bytes) -> Buffer:
    """A buffer that holds this, then 0xFF to its end, so that reading too far shows."""
    buffer = Buffer(SIZE)
    buffer.fill(content + b"\xff" * (buffer.size - len(content)))
    return buffer


@pytest.mark.parametrize(
    ("asked", "size"), [(0, PAGE), (1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (4 << 20, 4 << 20)]
)
def test_buffer_has_whole_aligned_pages(asked: int, size: int) -> None:
    """Direct I/O needs whole pages at page addresses; new ones are zero."""
    buffer = Buffer(asked)

    assert (size, size, 0) == (buffer.size, len(buffer.view), buffer.address % PAGE)
    assert bytes(size) == bytes(buffer.view)


@repeatable(200)
@given(content=plain_bytes(SIZE, least=0), start=st.integers(0, SIZE), length=st.integers(0, SIZE))
def test_is_zero_agrees_with_looking_at_each_byte(content: bytes, start: int, length: int) -> None:
    """The comparison of a range with itself shifted by one finds exactly the ranges of zeros."""
    start = min(start, len(content))
    length = min(length, len(content) - start)

    assert (not any(content[start : start + length])) is is_zero(filled(content), length, start)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, PAGE - 1, PAGE, PAGE + 1, SIZE])
def test_one_bit_anywhere_is_not_zero(length: int) -> None:
    """The first, the middle and the last byte of a range count."""
    for at in {0, length // 2, length - 1}:
        content = bytearray(length)
        content[at] = 0x80
        assert not is_zero(filled(bytes(content)), length)
    assert is_zero(filled(bytes(length)), length)


def test_nothing_is_zero() -> None:
    """An empty range holds no byte that is not zero, even at the buffer's end."""
    assert is_zero(filled(b"x"), 0)
    assert is_zero(filled(b"x"), 0, SIZE)


@repeatable(200)
@given(content=plain_bytes(SIZE), cuts=st.lists(st.integers(0, SIZE), max_size=6))
def test_equal_finds_the_same_bytes_in_pieces(content: bytes, cuts: list[int]) -> None:
    """What is cut out of the buffer is found, however it is cut and wherever the pieces come from."""
    whole = bytes(filled(content).view)
    stops = sorted(cuts)
    pieces = [
        (b"?" + whole[start:stop] + b"?", 1, stop - start) for start, stop in pairwise([0, *stops])
    ]

    assert equal(filled(content), max([0, *cuts]), pieces)


@repeatable(200)
@given(content=plain_bytes(SIZE), other=plain_bytes(300, least=0), cut=st.integers(0, 300))
def test_equal_agrees_with_comparing_slices(content: bytes, other: bytes, cut: int) -> None:
    """Two pieces are equal exactly when the slice of their length is."""
    whole = bytes(filled(content).view)
    cut = min(cut, len(other))
    pieces = [(other, 0, cut), (other, cut, len(other) - cut)]

    assert (whole[: len(other)] == other) is equal(filled(content), len(other), pieces)


@pytest.mark.parametrize("length", [PAGE - 1, PAGE + 1])
def test_equal_wants_pieces_of_just_that_length(length: int) -> None:
    """Pieces that end early or late prove nothing, though all their bytes are right."""
    assert not equal(Buffer(SIZE), length, [(bytes(PAGE), 0, PAGE)])


def test_equal_does_not_look_behind_the_buffer_or_a_piece() -> None:
    """What is longer than the buffer, or than the bytes given, is not equal, and is not compared."""
    assert not equal(Buffer(SIZE), SIZE + 1, [(bytes(SIZE + 1), 0, SIZE + 1)])
    assert not equal(Buffer(SIZE), PAGE, [(bytes(PAGE), 1, PAGE)])


@contextmanager
def short(size: int) -> Iterator[None]:
    """Have up to that many bytes copied in place, and more by libc."""
    with mock.patch.object(linux, "_SHORT", size):
        yield


SHORT = st.sampled_from([0, 100, SIZE])


@repeatable(100)
@given(content=plain_bytes(SIZE), one=st.integers(0, SIZE), other=st.integers(0, SIZE), most=SHORT)
def test_clear_zeroes_a_range_only(content: bytes, one: int, other: int, most: int) -> None:
    """The bytes before and behind a cleared range stay."""
    start, stop = sorted((one, other))
    buffer = filled(content)
    before = bytes(buffer.view)
    with short(most):
        buffer.clear(start, stop)

    assert before[:start] + bytes(stop - start) + before[stop:] == bytes(buffer.view)


@repeatable(100)
@given(
    content=plain_bytes(300, least=0),
    start=st.integers(0, SIZE - 300),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
    most=SHORT,
)
def test_fill_copies_to_its_place_only(content: bytes, start: int, kind: type, most: int) -> None:
    """The bytes before and behind what was filled stay."""
    buffer = filled(b"")
    with short(most):
        buffer.fill(kind(content), start)

    expected = bytearray(b"\xff" * SIZE)
    expected[start : start + len(content)] = content
    assert bytes(expected) == bytes(buffer.view)


@pytest.mark.parametrize(("length", "start"), [(SIZE + 1, 0), (1, SIZE), (10, SIZE - 9), (1 << 20, 0)])
def test_fill_beyond_the_end_is_refused(length: int, start: int) -> None:
    """Memory behind the buffer is somebody else's."""
    with pytest.raises(ValueError, match="do not fit"):
        Buffer(SIZE).fill(bytes(length), start)


@repeatable(100)
@given(content=plain_bytes(SIZE), cuts=st.sets(st.integers(0, SIZE)), most=SHORT)
def test_fill_around_leaves_the_holes(content: bytes, cuts: set[int], most: int) -> None:
    """The law is: everything copied, and what is in a hole put back; holes may lie behind the end."""
    ends = sorted(cuts)
    holes = list(zip(ends[::2], ends[1::2], strict=False))
    buffer = filled(b"")
    with short(most):
        buffer.fill_around(content, holes)

    expected = bytearray(content + b"\xff" * (SIZE - len(content)))
    for start, stop in holes:
        expected[start:stop] = b"\xff" * (stop - start)
    assert bytes(expected) == bytes(buffer.view)


def test_fill_around_beyond_the_end_is_refused() -> None:
    """Whatever the holes are."""
    with pytest.raises(ValueError, match="do not fit"):
        Buffer(SIZE).fill_around(bytes(SIZE + 1), [(0, SIZE + 1)])


@repeatable(200)
@given(
    content=plain_bytes(SIZE),
    changes=st.lists(st.tuples(st.integers(0, SIZE), st.binary(max_size=40))),
    block=st.sampled_from([64, 100, PAGE]),
)
def test_differing_finds_what_comparing_each_block_finds(
    content: bytes, changes: list[tuple[int, bytes]], block: int
) -> None:
    """Larger pieces first makes no difference, nor does what lies behind the other."""
    other = bytearray(content)
    for at, change in changes:
        other[at : at + len(change)] = change
    other = other[: len(content)]

    expected = [
        at // block
        for at in range(0, len(other), block)
        if content[at : at + block] != other[at : at + block]
    ]
    assert expected == differing(filled(content), bytes(other), block)


def test_differing_does_not_look_behind_the_buffer() -> None:
    """What is longer cannot be compared."""
    with pytest.raises(ValueError, match="are not in"):
        differing(Buffer(SIZE), bytes(SIZE + 1), PAGE)
