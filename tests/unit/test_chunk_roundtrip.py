"""Frames: what was encoded is decoded, and what is not exactly that is found.

Every codec, every size around a boundary, and every byte of a header flipped.
"""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import chunk
from backy.domain.chunk import (
    FULL,
    HEADER,
    LZ4,
    MAX_PLAIN,
    RAW,
    ZERO,
    ZSTD,
    Encoder,
    check_frame,
    chunk_id,
    decode,
    encode_full,
    expand_fresh,
    parse_codec,
)
from backy.ground.errors import ChunkDamaged
from strategies import CODECS, plain_bytes, repeatable

SIZES = [1, 2, 511, 512, 513, 4095, 4096, 4097, 64 << 10]


def framed(plain: bytes, codec: str = "lz4") -> bytes:
    """A complete frame."""
    return b"".join(encode_full(chunk_id(plain), plain, Encoder(parse_codec(codec))))


def half_random(size: int) -> bytes:
    """Contents that compress to about a half, the same in every run."""
    noise = random.Random(size).randbytes(size // 2)
    return noise + b"text" * (size // 8) + bytes(size - len(noise) - 4 * (size // 8))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", SIZES)
def test_frame_round_trips_at_every_boundary_size(size: int, codec: str) -> None:
    """A chunk of any size comes back from any codec, also through the check before publication."""
    plain = half_random(size)
    ident = chunk_id(plain)
    frame = encode_full(ident, plain, Encoder(parse_codec(codec)))

    assert plain == decode(ident, b"".join(frame))
    assert [(plain, 0, size)] == expand_fresh(ident, frame, size)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_frame_round_trips_at_full_size(codec: str) -> None:
    """The largest chunk, 4 MiB, comes back from each codec."""
    plain = half_random(MAX_PLAIN)

    assert plain == decode(chunk_id(plain), framed(plain, codec))


@repeatable(60)
@given(plain=plain_bytes(20_000), codec=st.sampled_from(CODECS))
def test_frame_round_trips_for_any_contents(plain: bytes, codec: str) -> None:
    """Whatever bytes a chunk has, its frame decodes to them and never outgrows them by over a header."""
    frame = framed(plain, codec)

    assert plain == decode(chunk_id(plain), frame)
    assert len(frame) <= HEADER.size + len(plain)


@pytest.mark.parametrize(("codec", "number"), [("none", RAW), ("lz4", LZ4), ("zstd", ZSTD)])
def test_frame_names_the_codec_that_was_used(codec: str, number: int) -> None:
    """The header says how the payload is compressed, so codecs may be mixed in one store."""
    plain = bytes(range(256)) * 64

    assert number == check_frame(chunk_id(plain), framed(plain, codec)).codec


@pytest.mark.parametrize("codec", ["lz4", "zstd:19"])
def test_frame_of_incompressible_bytes_is_raw(codec: str) -> None:
    """What a codec would only make longer is stored as it is."""
    plain = random.Random(1).randbytes(5000)
    frame = framed(plain, codec)

    assert RAW == check_frame(chunk_id(plain), frame).codec
    assert plain == frame[HEADER.size :]


@pytest.mark.parametrize("at", range(HEADER.size))
def test_every_flipped_header_byte_is_found(at: int) -> None:
    """No byte of the header can change without `check_frame` seeing it, whichever bits change."""
    plain = half_random(4096)
    frame = bytearray(framed(plain))

    for mask in (0x01, 0x10, 0x80, 0xFF):
        frame[at] ^= mask
        with pytest.raises(ChunkDamaged):
            check_frame(chunk_id(plain), frame)
        frame[at] ^= mask


@repeatable(60)
@given(data=st.data(), codec=st.sampled_from(["none", "lz4", "zstd"]))
def test_every_flipped_bit_is_found_without_decoding(data: st.DataObject, codec: str) -> None:
    """A single bit that flips anywhere in a frame is found by the checksum alone."""
    plain = half_random(6000)
    frame = bytearray(framed(plain, codec))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8

    with pytest.raises(ChunkDamaged):
        check_frame(chunk_id(plain), frame)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 200, -1])
def test_frame_of_any_other_length_is_refused(length: int) -> None:
    """A frame that was cut anywhere, or that something follows, is damaged."""
    plain = half_random(4096)
    frame = framed(plain)
    other = frame + b"\0" if length < 0 else frame[:length]

    with pytest.raises(ChunkDamaged, match=r"has only|follow the header"):
        check_frame(chunk_id(plain), other)


def test_frame_under_another_id_is_refused_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunk files that were swapped show by their checksum; no codec sees their payload."""
    one, other = half_random(4096), half_random(4097)
    monkeypatch.setattr(chunk, "_expand", lambda *_: pytest.fail("it was decoded"))

    with pytest.raises(ChunkDamaged, match="checksum does not match"):
        decode(chunk_id(one), framed(other))


def test_frame_that_claims_another_id_is_refused_by_its_contents() -> None:
    """A forged checksum over the wrong id does not help: the decoded bytes have another id."""
    claimed = chunk_id(b"what the victim wrote")
    forged = b"".join(encode_full(claimed, b"what the attacker wrote", Encoder(parse_codec("none"))))

    check_frame(claimed, forged)
    with pytest.raises(ChunkDamaged, match="another id"):
        decode(claimed, forged)


def test_frame_longer_than_the_chunk_size_is_refused() -> None:
    """A frame that states more plain bytes than the store's chunk size is damaged before any work."""
    plain = half_random(8192)

    with pytest.raises(ChunkDamaged, match="claims 8192 bytes"):
        decode(chunk_id(plain), framed(plain), limit=4096)


def test_frame_of_an_unknown_version_is_refused() -> None:
    """A version that only a later backy writes is never guessed at."""
    plain = os.urandom(100)
    later = HEADER.pack(chunk.MAGIC, 2, RAW, FULL, 0, 100, 100, bytes(16), ZERO) + plain

    with pytest.raises(ChunkDamaged, match="version 2"):
        decode(chunk_id(plain), later)


def test_damage_names_the_chunk() -> None:
    """The error carries the chunk's id as hex, for tables and for the operator."""
    ident = chunk_id(b"x")

    with pytest.raises(ChunkDamaged) as caught:
        decode(ident, b"")

    assert ident.hex() == caught.value.chunk
    assert f"chunk {ident.hex()} is damaged: the file has only 0 bytes." == caught.value.message
