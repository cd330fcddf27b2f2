"""Delta contents: encode and apply are inverse, and apply believes nothing."""

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.delta import (
    BLOCK,
    apply,
    changed_among,
    changed_blocks,
    encode,
    max_length,
    runs,
)
from strategies import boundary_sizes, plain_bytes, repeatable

BASE = bytes(range(256)) * 64  # 16 KiB, four blocks


def contents(count: int, numbers: list[int], blocks: bytes, laid: int = 0) -> bytes:
    """Delta contents as a liar writes them."""
    return struct.pack("<II", count, laid) + struct.pack(f"<{len(numbers)}I", *numbers) + blocks


@repeatable(150)
@given(plain=plain_bytes(30_000, least=0), base=plain_bytes(30_000, least=0))
def test_apply_undoes_encode_for_any_lengths(plain: bytes, base: bytes) -> None:
    """Whatever lengths a chunk and its base have, the delta turns the base into the chunk."""
    content = encode(plain, base, 0)

    assert plain == apply(content, base, len(plain))
    assert len(content) <= max_length(len(plain))


@pytest.mark.parametrize("size", boundary_sizes(8192))
@pytest.mark.parametrize("base_size", [0, 1, 4095, 4096, 4097, 12288])
def test_apply_undoes_encode_at_every_boundary(size: int, base_size: int) -> None:
    """Chunks and bases that end in, before and behind a block's end are no exception."""
    plain, base = b"p" * size, b"b" * base_size

    assert plain == apply(encode(plain, base, 0), base, size)


@repeatable(100)
@given(plain=plain_bytes(30_000), base=plain_bytes(30_000))
def test_changed_blocks_are_those_that_differ(plain: bytes, base: bytes) -> None:
    """Halving finds the same blocks as looking at each of them, in ascending order."""
    fitted = base[: len(plain)].ljust(len(plain), b"\0")
    ends = range(0, len(plain), BLOCK)

    expected = [at // BLOCK for at in ends if plain[at : at + BLOCK] != fitted[at : at + BLOCK]]
    assert expected == changed_blocks(plain, fitted)


@repeatable(100)
@given(plain=plain_bytes(30_000), base=plain_bytes(30_000), more=st.sets(st.integers(0, 7)))
def test_a_view_and_known_blocks_give_the_same_delta(plain: bytes, base: bytes, more: set[int]) -> None:
    """Blocks that may have changed are enough, and the chunk may lie in a buffer."""
    fitted = base[: len(plain)].ljust(len(plain), b"\0")
    candidates = {*changed_blocks(plain, fitted), *more}
    view = memoryview(bytearray(plain))

    numbers = changed_among(view, fitted, candidates)
    assert changed_blocks(plain, fitted) == numbers
    assert encode(plain, base, 7) == encode(view, base, 7, numbers)


@repeatable(100)
@given(numbers=st.sets(st.integers(0, 30)))
def test_runs_are_the_same_numbers(numbers: set[int]) -> None:
    """In order, with a gap between one run and the next."""
    found = list(runs(sorted(numbers)))

    assert sorted(numbers) == [number for start, stop in found for number in range(start, stop)]
    assert all(stop < following for (_, stop), (following, _) in pairwise(found))


def test_equal_contents_need_no_block() -> None:
    """A delta against itself is only a head."""
    assert contents(0, [], b"") == encode(BASE, BASE, 0)


def test_laid_bytes_are_kept_in_the_head() -> None:
    """The second number says what already leans on the base; it changes nothing in the result."""
    content = encode(b"x" * 5000, BASE, 123_456)

    assert 123_456 == struct.unpack_from("<II", content)[1]
    assert b"x" * 5000 == apply(content, BASE, 5000)


def test_longest_delta_has_every_block() -> None:
    """`max_length` is reached by a chunk without any block in common with its base."""
    plain = b"\xff" * 10_000

    assert max_length(10_000) == len(encode(plain, bytes(10_000), 0))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no head"),
        (b"1234567", "no head"),
        (contents(1, [], b""), "claims 1 blocks"),
        (contents(5, [0, 1, 2, 3, 4], bytes(5 * BLOCK)), "claims 5 blocks"),
        (contents(1_000_000_000, [0], bytes(BLOCK)), "claims 1000000000 blocks"),
        (contents(2**32 - 1, [0], bytes(BLOCK)), "claims 4294967295 blocks"),
        (contents(2, [1, 0], bytes(2 * BLOCK)), "not ascending"),
        (contents(2, [1, 1], bytes(2 * BLOCK)), "not ascending"),
        (contents(1, [4], bytes(BLOCK)), "not ascending inside"),
        (contents(1, [2**32 - 1], bytes(BLOCK)), "not ascending inside"),
        (contents(1, [0], bytes(BLOCK - 1)), "ends early"),
        (contents(2, [0, 1], bytes(BLOCK)), "ends early"),
        (contents(1, [0], b""), "ends early"),
        (contents(1, [0], bytes(BLOCK + 1)), "left over"),
        (contents(0, [], b"\0"), "left over"),
        (contents(0, [0], b""), "left over"),
    ],
)
def test_contents_that_no_encoder_wrote_are_refused(content: bytes, why: str) -> None:
    """Numbers that descend, repeat or lie outside are refused, and contents too short or too long."""
    with pytest.raises(ValueError, match=why):
        apply(content, BASE, len(BASE))


def test_last_block_has_the_rest_of_the_chunk() -> None:
    """The last block of a chunk is as short as the chunk leaves it, neither longer nor shorter."""
    base = bytes(5000)

    assert bytes(4096) + b"x" * 904 == apply(contents(1, [1], b"x" * 904), base, 5000)
    with pytest.raises(ValueError, match="left over"):
        apply(contents(1, [1], b"x" * 4096), base, 5000)
    with pytest.raises(ValueError, match="ends early"):
        apply(contents(1, [1], b"x" * 903), base, 5000)


def test_claim_of_a_billion_blocks_costs_no_memory() -> None:
    """A number in the head is compared before anything of its size is made."""
    content = contents(1_000_000_000, [0], b"")
    tracemalloc.start()
    with pytest.raises(ValueError, match="claims"):
        apply(content, BASE, len(BASE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1 << 20


@repeatable(150)
@given(
    head=st.tuples(st.integers(0, 6), st.integers(0, 2**32 - 1)),
    numbers=st.lists(st.integers(0, 5), max_size=5),
    length=st.integers(0, 5 * BLOCK),
    plain_length=st.integers(1, 4 * BLOCK),
)
def test_apply_gives_the_plain_length_or_a_value_error(
    head: tuple[int, int], numbers: list[int], length: int, plain_length: int
) -> None:
    """Hostile contents never give bytes of another length, and never another exception."""
    content = contents(head[0], numbers, b"x" * length, head[1])
    try:
        plain = apply(content, BASE, plain_length)
    except ValueError:
        return

    assert plain_length == len(plain)
