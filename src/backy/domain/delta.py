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
from collections.abc import Iterable, Sequence
from typing import NamedTuple

BLOCK_SHIFT = 12
BLOCK = 1 << BLOCK_SHIFT

_HEAD = struct.Struct("<II")
_STRIDE = 16 * BLOCK


def max_length(plain_length: int) -> int:
    """The longest delta of a chunk of that length: every block changed."""
    return _HEAD.size + 4 * -(-plain_length // BLOCK) + plain_length


def changed_blocks(plain: bytes, base: bytes) -> list[int]:
    """Numbers of the blocks that differ.

    Larger pieces first, since slices are copies and most are equal; halving would copy the whole ten
    times over.
    """
    found: list[int] = []
    for at in range(0, len(plain), _STRIDE):
        if plain[at : at + _STRIDE] == base[at : at + _STRIDE]:
            continue
        blocks = range(at, min(at + _STRIDE, len(plain)), BLOCK)
        found += [
            one >> BLOCK_SHIFT for one in blocks if plain[one : one + BLOCK] != base[one : one + BLOCK]
        ]
    return found


def changed_among(plain: bytes, base: bytes, numbers: Iterable[int]) -> list[int]:
    """Those of the numbered blocks that differ, ascending; the base is as long as the chunk."""
    return [
        number
        for number in sorted(set(numbers))
        if plain[number << BLOCK_SHIFT : (number + 1) << BLOCK_SHIFT]
        != base[number << BLOCK_SHIFT : (number + 1) << BLOCK_SHIFT]
    ]


def encode(plain: bytes, base: bytes, laid: int, numbers: Sequence[int] | None = None) -> bytes:
    """Delta contents that turn `base` into `plain`; `numbers` are its `changed_blocks`, if known."""
    if numbers is None:
        numbers = changed_blocks(plain, fit(base, len(plain)))
    blocks = (plain[number << BLOCK_SHIFT : (number + 1) << BLOCK_SHIFT] for number in numbers)
    return b"".join(
        [_HEAD.pack(len(numbers), laid), struct.pack(f"<{len(numbers)}I", *numbers), *blocks]
    )


class Head(NamedTuple):
    """What a delta says of itself: the blocks it holds, and what was `laid` before it (see above)."""

    numbers: tuple[int, ...]
    laid: int


def head(content: bytes) -> Head:
    """The head of contents that `apply` has accepted."""
    count, laid = _HEAD.unpack_from(content)
    return Head(struct.unpack_from(f"<{count}I", content, _HEAD.size), laid)


def apply(content: bytes, base: bytes, plain_length: int) -> bytes:
    """Plain bytes of that length; ValueError for contents that `encode` would not have written."""
    if len(content) < _HEAD.size:
        raise ValueError("its delta has no head")
    count, _laid = _HEAD.unpack_from(content)
    total = -(-plain_length // BLOCK)
    if count > total or len(content) < _HEAD.size + 4 * count:
        raise ValueError(f"its delta claims {count} blocks")
    numbers = struct.unpack_from(f"<{count}I", content, _HEAD.size)
    plain = bytearray(fit(base, plain_length))
    at, previous = _HEAD.size + 4 * count, -1
    for number in numbers:
        if not previous < number < total:
            raise ValueError("its delta's block numbers are not ascending inside the chunk")
        start = number << BLOCK_SHIFT
        length = min(BLOCK, plain_length - start)
        if len(content) < at + length:
            raise ValueError("its delta ends early")
        plain[start : start + length] = content[at : at + length]
        at, previous = at + length, number
    if at != len(content):
        raise ValueError("its delta has bytes left over")
    return bytes(plain)


def fit(base: bytes, length: int) -> bytes:
    """A base as it counts for a chunk of that length: cut, or extended with zeros."""
    return base[:length] if len(base) >= length else base + bytes(length - len(base))
