"""Deltas: a chunk as its changed 4 KiB blocks against a base chunk's plain bytes.

Delta contents, before compression, little-endian (doc/format.md, "Delta"):

    u32  number of blocks
    u32  laid: payload bytes of the deltas that lay on this base at this index before this one
    u32 * number: block numbers, strictly ascending, all inside the plain length
    the blocks, 4096 bytes each; the last block of the chunk may be shorter

The base is cut or extended with zeros to the plain length first, so that a resized image can lean
on it.

    >>> apply(encode(b"b" * 8192, b"a" * 9000, 0), b"a" * 9000, 8192) == b"b" * 8192
    True

Limits: pure; whoever decodes checks the identity of the result and of the base.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from operator import ge
from typing import NamedTuple, TypeAlias

BLOCK_SHIFT = 12
BLOCK = 1 << BLOCK_SHIFT

Buffer: TypeAlias = bytes | bytearray | memoryview

_HEAD = struct.Struct("<II")
_STRIDE = 16 * BLOCK


def max_length(plain_length: int) -> int:
    """The longest delta of a chunk of that length: every block changed."""
    return _HEAD.size + 4 * -(-plain_length // BLOCK) + plain_length


def changed_blocks(plain: Buffer, base: bytes) -> list[int]:
    """Numbers of the blocks that differ.

    Larger pieces first, since slices are copies and most are equal; halving would copy the whole ten
    times over.
    """
    found: list[int] = []
    for at in range(0, len(plain), _STRIDE):
        if bytes(plain[at : at + _STRIDE]) != base[at : at + _STRIDE]:
            first = at >> BLOCK_SHIFT
            found += changed_among(plain, base, range(first, first + (_STRIDE >> BLOCK_SHIFT)))
    return found


def changed_among(plain: Buffer, base: bytes, numbers: Iterable[int]) -> list[int]:
    """Those of the numbered blocks that differ, ascending; the base is as long as the chunk."""
    return [
        number
        for number in sorted(set(numbers))
        if bytes(plain[number << BLOCK_SHIFT : (number + 1) << BLOCK_SHIFT])
        != base[number << BLOCK_SHIFT : (number + 1) << BLOCK_SHIFT]
    ]


def encode(plain: Buffer, base: bytes, laid: int, numbers: Sequence[int] | None = None) -> bytes:
    """Delta contents that turn `base` into `plain`; `numbers` are its `changed_blocks`, if known."""
    if numbers is None:
        numbers = changed_blocks(plain, fit(base, len(plain)))
    return b"".join(
        [
            _HEAD.pack(len(numbers), laid),
            struct.pack(f"<{len(numbers)}I", *numbers),
            *(plain[first << BLOCK_SHIFT : stop << BLOCK_SHIFT] for first, stop in runs(numbers)),
        ]
    )


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges of those that follow each other.

    >>> list(runs([1, 2, 5]))
    [(1, 3), (5, 6)]
    """
    start = stop = -1
    for number in numbers:
        if number != stop:
            if start >= 0:
                yield start, stop
            start = number
        stop = number + 1
    if start >= 0:
        yield start, stop


class Head(NamedTuple):
    """What a delta says of itself: the blocks it holds, and what was `laid` before it (see above)."""

    numbers: tuple[int, ...]
    laid: int


def head(content: bytes) -> Head:
    """The head of contents that `apply` has accepted."""
    count, laid = _HEAD.unpack_from(content)
    return Head(struct.unpack_from(f"<{count}I", content, _HEAD.size), laid)


class Piece(NamedTuple):
    """`length` bytes of `source`, from `at` on."""

    source: bytes
    at: int
    length: int


def apply(content: bytes, base: bytes, plain_length: int) -> bytes:
    """Plain bytes of that length; ValueError for contents that `encode` would not have written."""
    # Put together from views, so that the chunk is copied once.
    found = pieces(content, base, plain_length)
    return b"".join([memoryview(source)[at : at + length] for source, at, length in found])


def pieces(content: bytes, base: bytes, plain_length: int) -> list[Piece]:
    """What `apply` puts together, in order, for whoever only compares it; ValueError as there."""
    numbers, at = _checked_numbers(content, plain_length)
    same = fit(base, plain_length)
    found: list[Piece] = []
    reached = 0
    for first, behind in runs(numbers):
        start, stop = first << BLOCK_SHIFT, min(behind << BLOCK_SHIFT, plain_length)
        found += (Piece(same, reached, start - reached), Piece(content, at, stop - start))
        at += stop - start
        reached = stop
    return [*found, Piece(same, reached, plain_length - reached)]


def _checked_numbers(content: bytes, plain_length: int) -> tuple[tuple[int, ...], int]:
    """The block numbers, and where the blocks begin; ValueError unless all of it fits together."""
    if len(content) < _HEAD.size:
        raise ValueError("its delta has no head")
    count, _laid = _HEAD.unpack_from(content)
    total = -(-plain_length // BLOCK)
    at = _HEAD.size + 4 * count
    if count > total or len(content) < at:
        raise ValueError(f"its delta claims {count} blocks")
    numbers = struct.unpack_from(f"<{count}I", content, _HEAD.size)
    if any(map(ge, numbers, numbers[1:])) or (numbers and numbers[-1] >= total):
        raise ValueError("its delta's block numbers are not ascending inside the chunk")
    wanted = count * BLOCK
    if numbers and numbers[-1] == total - 1:
        wanted += plain_length - total * BLOCK  # the last block ends with the chunk
    if len(content) - at < wanted:
        raise ValueError("its delta ends early")
    if len(content) - at > wanted:
        raise ValueError("its delta has bytes left over")
    return numbers, at


def fit(base: bytes, length: int) -> bytes:
    """A base as it counts for a chunk of that length: cut, or extended with zeros."""
    return base[:length] if len(base) >= length else base + bytes(length - len(base))
