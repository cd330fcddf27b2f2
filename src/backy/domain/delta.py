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

BLOCK_SHIFT = 12
BLOCK = 1 << BLOCK_SHIFT

_HEAD = struct.Struct("<II")


def max_length(plain_length: int) -> int:
    """The longest delta of a chunk of that length: every block changed."""
    return _HEAD.size + 4 * -(-plain_length // BLOCK) + plain_length


def changed_blocks(plain: bytes, base: bytes) -> list[int]:
    """Numbers of the blocks that differ; found by halving, since equal halves compare fastest."""
    found: list[int] = []
    ranges = [(0, -(-len(plain) // BLOCK))]
    while ranges:
        first, last = ranges.pop()
        if plain[first * BLOCK : last * BLOCK] == base[first * BLOCK : last * BLOCK]:
            continue
        if last - first == 1:
            found.append(first)
            continue
        middle = (first + last) // 2
        ranges += [(middle, last), (first, middle)]
    return found


def encode(plain: bytes, base: bytes, laid: int) -> bytes:
    """Delta contents that turn `base` into `plain`."""
    fitted = _fit(base, len(plain))
    numbers = changed_blocks(plain, fitted)
    blocks = (plain[number << BLOCK_SHIFT : (number + 1) << BLOCK_SHIFT] for number in numbers)
    return b"".join(
        [_HEAD.pack(len(numbers), laid), struct.pack(f"<{len(numbers)}I", *numbers), *blocks]
    )


def apply(content: bytes, base: bytes, plain_length: int) -> bytes:
    """Plain bytes of that length; ValueError for contents that `encode` would not have written."""
    if len(content) < _HEAD.size:
        raise ValueError("its delta has no head")
    count, _laid = _HEAD.unpack_from(content)
    total = -(-plain_length // BLOCK)
    if count > total or len(content) < _HEAD.size + 4 * count:
        raise ValueError(f"its delta claims {count} blocks")
    numbers = struct.unpack_from(f"<{count}I", content, _HEAD.size)
    plain = bytearray(_fit(base, plain_length))
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


def _fit(base: bytes, length: int) -> bytes:
    return base[:length] if len(base) >= length else base + bytes(length - len(base))
