"""Two inputs of 4 MiB with the same XXH3-128, made in a second: why that is no identity.

    twin(victim, chosen)      `chosen`, with 128 bytes near its end that steer XXH3's state

XXH3 of long inputs adds each 64-byte stripe to eight accumulators: the plain words, and products of
the two halves of word XOR secret (xxHash's doc/xxhash_spec.md, "XXH3 Algorithm Overview"). A half
that equals the secret's makes its product zero, so two stripes of which one has the low halves set
so and the other the high ones add exactly any wanted number to each accumulator. From there on the
twin ends like the victim, and so does everything that is computed from it: XXH3-64 and XXH3-128,
the default secret, no seed.
"""

import struct

STRIPE, LANES, BLOCK_STRIPES = 64, 8, 16
_LOW, _ALL = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_PRIME32_1, _PRIME32_2, _PRIME32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_PRIME64 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8"
    "fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb17"
    "0ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def twin(victim: bytes, chosen: bytes) -> bytes:
    """`chosen` with two stripes changed and its last ones taken from `victim`; its XXH3 is `victim`'s.

    Both are equally long, a multiple of 1024 bytes, more than one block.
    """
    stripes = len(victim) // STRIPE
    at = stripes - 4  # two stripes to steer, and behind them two that are the victim's
    wanted = accumulate(victim, at + 2)
    found = accumulate(chosen, at)
    first, second = _steering([(b - a) & _ALL for a, b in zip(found, wanted, strict=True)], at)
    return chosen[: at * STRIPE] + first + second + victim[(at + 2) * STRIPE :]


def accumulate(content: bytes, stripes: int) -> list[int]:
    """The eight accumulators after that many stripes."""
    state = [
        _PRIME32_3,
        _PRIME64[0],
        _PRIME64[1],
        _PRIME64[2],
        _PRIME64[3],
        _PRIME32_2,
        _PRIME64[4],
        _PRIME32_1,
    ]
    for number in range(stripes):
        words = struct.unpack_from("<8Q", content, number * STRIPE)
        for lane, (word, key) in enumerate(zip(words, _keys(number), strict=True)):
            mixed = word ^ key
            state[lane ^ 1] += word
            state[lane] += (mixed & _LOW) * (mixed >> 32)
        if number % BLOCK_STRIPES == BLOCK_STRIPES - 1:
            state = _scramble(state)
    return [one & _ALL for one in state]


def _scramble(state: list[int]) -> list[int]:
    """What happens at the end of each block of 1024 bytes."""
    keys = struct.unpack_from("<8Q", _SECRET, len(_SECRET) - STRIPE)
    low = (one & _ALL for one in state)
    return [(((one ^ one >> 47) ^ key) * _PRIME32_1) & _ALL for one, key in zip(low, keys, strict=True)]


def _keys(number: int) -> tuple[int, ...]:
    """The secret's words for a stripe."""
    return struct.unpack_from("<8Q", _SECRET, number % BLOCK_STRIPES * 8)


def _steering(differences: list[int], at: int) -> tuple[bytes, bytes]:
    """Two stripes, for places `at` and `at + 1` of one block, that add these differences."""
    first, second = [], []
    for lane in range(LANES):
        difference = differences[lane ^ 1]
        low_of_first = _keys(at)[lane] & _LOW
        high_of_second = _keys(at + 1)[lane] >> 32
        low_of_second = (difference - low_of_first) & _LOW
        rest = (difference - low_of_first - low_of_second - (high_of_second << 32)) & _ALL
        first.append(rest | low_of_first)
        second.append(high_of_second << 32 | low_of_second)
    return struct.pack("<8Q", *first), struct.pack("<8Q", *second)
