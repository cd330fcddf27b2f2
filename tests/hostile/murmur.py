"""Two inputs with the same MurmurHash3 x64 128: one block is enough, since every step has an inverse.

    twin(victim, chosen)      `chosen`, with 16 bytes near its end that steer MurmurHash3's state
    murmur3(content, seed)    the hash itself, as MurmurHash3.cpp of SMHasher writes it down

Each block of 16 bytes changes a state of 16 bytes by multiplications with odd numbers, rotations, sums
and XOR. So for any two states there is the one block that leads from the first to the second. From
there on the twin ends like the victim, and so does what is computed from it, for each seed another.
"""

import struct
from collections.abc import Iterator

BLOCK = 16
_ALL = 0xFFFFFFFFFFFFFFFF
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
_ADD1, _ADD2 = 0x52DCE729, 0x38495AB5
_FIFTH = pow(5, -1, 1 << 64)
_C1_INVERSE, _C2_INVERSE = pow(_C1, -1, 1 << 64), pow(_C2, -1, 1 << 64)


def twin(victim: bytes, chosen: bytes) -> bytes:
    """`chosen` with one block changed and its last ones taken from `victim`; its hash is `victim`'s.

    Both are equally long, a multiple of 16 bytes, of more than three blocks. The seed is 0.
    """
    at = len(victim) - 3 * BLOCK  # one block to steer, and behind it two that are the victim's
    block = _steering(state(chosen[:at]), state(victim[: at + BLOCK]))
    return chosen[:at] + block + victim[at + BLOCK :]


def murmur3(content: bytes, seed: int = 0) -> bytes:
    """MurmurHash3 x64 128 of any bytes."""
    whole = len(content) // BLOCK * BLOCK
    h1, h2 = state(content[:whole], seed)
    k1, k2 = struct.unpack("<2Q", content[whole:].ljust(BLOCK, b"\0"))
    h1 ^= _mixed(k1, _C1, 31, _C2) ^ len(content)
    h2 ^= _mixed(k2, _C2, 33, _C1) ^ len(content)
    h1 = (h1 + h2) & _ALL
    h2 = (h2 + h1) & _ALL
    h1, h2 = _finished(h1), _finished(h2)
    h1 = (h1 + h2) & _ALL
    return struct.pack("<2Q", h1, (h2 + h1) & _ALL)


def state(content: bytes, seed: int = 0) -> tuple[int, int]:
    """What the hash holds after these whole blocks."""
    h1 = h2 = seed
    for k1, k2 in _blocks(content):
        h1 ^= _mixed(k1, _C1, 31, _C2)
        h1 = ((_left(h1, 27) + h2) * 5 + _ADD1) & _ALL
        h2 ^= _mixed(k2, _C2, 33, _C1)
        h2 = ((_left(h2, 31) + h1) * 5 + _ADD2) & _ALL
    return h1, h2


def _steering(found: tuple[int, int], wanted: tuple[int, int]) -> bytes:
    """The block that leads from one state to the other: `state`'s steps, backwards."""
    (h1, h2), (w1, w2) = found, wanted
    first = _left((w1 - _ADD1) * _FIFTH - h2 & _ALL, 64 - 27) ^ h1
    second = _left((w2 - _ADD2) * _FIFTH - w1 & _ALL, 64 - 31) ^ h2
    return struct.pack(
        "<2Q",
        _mixed(first, _C2_INVERSE, 64 - 31, _C1_INVERSE),
        _mixed(second, _C1_INVERSE, 64 - 33, _C2_INVERSE),
    )


def _blocks(content: bytes) -> Iterator[tuple[int, int]]:
    return struct.iter_unpack("<2Q", content)


def _mixed(word: int, before: int, bits: int, after: int) -> int:
    return _left(word * before & _ALL, bits) * after & _ALL


def _left(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _ALL


def _finished(word: int) -> int:
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & _ALL
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & _ALL
    return word ^ word >> 33
