"""Delta frames: a chunk against a base, and the bases that are refused.

A delta is only as good as its base, so the base must be named, be another chunk, and be there.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import chunk, delta
from backy.domain.chunk import (
    DELTA,
    FULL,
    RAW,
    ZERO,
    ChunkId,
    Encoder,
    check_frame,
    chunk_id,
    decode,
    encode_delta,
    parse_codec,
)
from backy.ground.errors import ChunkDamaged, ChunkMissing
from strategies import CODECS, plain_bytes, repeatable

BASE_PLAIN = random.Random(5).randbytes(40_000)
BASE = chunk_id(BASE_PLAIN)


def delta_frame(
    plain: bytes, base_plain: bytes = BASE_PLAIN, codec: str = "lz4", laid: int = 0
) -> bytes:
    """A complete delta frame."""
    encoder = Encoder(parse_codec(codec))
    return b"".join(
        encode_delta(chunk_id(plain), plain, chunk_id(base_plain), base_plain, laid, encoder)
    )


def forged(ident: ChunkId, kind: int, base: ChunkId, shift: int, payload: bytes, length: int) -> bytes:
    """A frame with a good checksum over whatever it says."""
    return b"".join(chunk._frame(ident, RAW, kind, shift, length, payload, base))


@repeatable(60)
@given(plain=plain_bytes(20_000), base=plain_bytes(20_000), codec=st.sampled_from(CODECS))
def test_delta_frame_round_trips_for_any_plain_and_base(plain: bytes, base: bytes, codec: str) -> None:
    """A chunk comes back from its delta against any other chunk of any length, shorter or longer."""
    if plain == base:
        plain += b"!"
    asked: list[ChunkId] = []

    def read_base(ident: ChunkId) -> bytes:
        asked.append(ident)
        return base

    assert plain == decode(chunk_id(plain), delta_frame(plain, base, codec), read_base)
    assert [chunk_id(base)] == asked


def test_delta_frame_holds_changed_blocks_only() -> None:
    """One changed byte costs one block of 4 KiB, not the chunk."""
    plain = BASE_PLAIN[:5000] + b"!" + BASE_PLAIN[5001:]

    frame = delta_frame(plain)

    assert 4096 + 12 == check_frame(chunk_id(plain), frame).payload_length
    assert BASE == check_frame(chunk_id(plain), frame).base


def test_delta_frame_without_a_way_to_its_base_is_damaged() -> None:
    """Where only a full chunk may stand, such as for a base itself, a delta is damage."""
    plain = b"x" * 4096

    with pytest.raises(ChunkDamaged, match="a delta where a full chunk is needed"):
        decode(chunk_id(plain), delta_frame(plain))


def test_missing_base_is_told_as_what_it_is() -> None:
    """The error of whoever looks for the base passes through: the base is missing, not the delta bad."""

    def missing(ident: ChunkId) -> bytes:
        raise ChunkMissing(ident.hex())

    with pytest.raises(ChunkMissing) as caught:
        decode(chunk_id(b"x"), delta_frame(b"x"), missing)

    assert BASE.hex() == caught.value.chunk


def test_wrong_base_contents_are_found_by_the_identity() -> None:
    """A base that does not hold what it held when the delta was made gives another id."""
    plain = BASE_PLAIN[:5000] + b"!" + BASE_PLAIN[5001:]

    with pytest.raises(ChunkDamaged, match="another id"):
        decode(chunk_id(plain), delta_frame(plain), lambda _: bytes(40_000))


@pytest.mark.parametrize("which", ["zero", "own"])
def test_base_that_no_chunk_can_be_is_refused(which: str) -> None:
    """The zero id is no chunk, and a chunk that leans on itself would never be decoded."""
    plain = b"x" * 4096
    ident = chunk_id(plain)
    base = ZERO if which == "zero" else ident
    frame = forged(ident, DELTA, base, delta.BLOCK_SHIFT, delta.encode(plain, b"", 0), 4096)

    with pytest.raises(ChunkDamaged, match="names no usable base"):
        decode(ident, frame, lambda _: pytest.fail("the base was read"))


@pytest.mark.parametrize("shift", [0, 11, 13, 255])
def test_block_shift_other_than_4_kib_is_refused(shift: int) -> None:
    """Blocks have 4 KiB in this version of the format."""
    plain = b"x" * 4096
    frame = forged(chunk_id(plain), DELTA, BASE, shift, delta.encode(plain, b"", 0), 4096)

    with pytest.raises(ChunkDamaged, match="names no usable base"):
        decode(chunk_id(plain), frame, lambda _: BASE_PLAIN)


@pytest.mark.parametrize(("base", "shift"), [(BASE, 0), (ZERO, delta.BLOCK_SHIFT)])
def test_full_frame_that_names_a_base_is_refused(base: ChunkId, shift: int) -> None:
    """A full chunk leans on nothing, so neither field may say anything."""
    plain = b"x" * 4096
    frame = forged(chunk_id(plain), FULL, base, shift, plain, 4096)

    with pytest.raises(ChunkDamaged, match="a full chunk names a base"):
        decode(chunk_id(plain), frame)


@pytest.mark.parametrize(("codec", "kind"), [(3, FULL), (255, FULL), (RAW, 2), (RAW, 255)])
def test_unknown_codec_or_kind_is_refused(codec: int, kind: int) -> None:
    """What this version does not know is damage, never a guess."""
    plain = b"x" * 4096
    frame = b"".join(chunk._frame(chunk_id(plain), codec, kind, 0, 4096, plain, ZERO))

    with pytest.raises(ChunkDamaged, match="is not known"):
        decode(chunk_id(plain), frame, lambda _: BASE_PLAIN)


def test_delta_contents_that_no_encoder_wrote_are_damage() -> None:
    """The delta's own checks speak through ChunkDamaged, with the chunk's id."""
    ident = chunk_id(b"x" * 4096)
    frame = forged(ident, DELTA, BASE, delta.BLOCK_SHIFT, b"\xff" * 12, 4096)

    with pytest.raises(ChunkDamaged, match="claims 4294967295 blocks"):
        decode(ident, frame, lambda _: BASE_PLAIN)
