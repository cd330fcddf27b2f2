"""Known answers: what a chunk's id and frame are, byte for byte, for whoever writes another reader.

The ids are from BLAKE3's and the digests from xxHash's own test vectors; the frame was written down
by hand from the format's table.
"""

import blake3
import pytest
import xxhash

from backy.domain import chunk
from backy.domain.chunk import ZERO, Codec, Encoder, chunk_id, encode_full, parse_codec

PLAIN = b"backy"
IDENT = "deb4681004df38af93eccc1b1911dc0bc4bba55c5b9a7255df439e7a6b09f756"
CHECKSUM = "34c8a190b837d76d539cac836c2212f9"


@pytest.mark.parametrize(
    ("plain", "ident"),
    [
        (b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (b"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        (PLAIN, IDENT),
    ],
)
def test_chunk_id_is_the_blake3_of_the_plain_bytes(plain: bytes, ident: str) -> None:
    """A chunk's id is BLAKE3-256 of its plain bytes, as the reference implementation computes it."""
    assert ident == chunk_id(plain).hex()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_chunk_id_does_not_depend_on_the_kind_of_buffer(kind: type) -> None:
    """Bytes, bytearrays and views of the same contents have the same id."""
    assert IDENT == chunk_id(kind(PLAIN)).hex()


def test_chunk_id_of_zeros_is_not_the_zero_id() -> None:
    """The 32 zero bytes are a sign and no hash: zeros that are hashed all the same have another id."""
    assert ZERO == bytes(32)
    assert ZERO != chunk_id(bytes(4096))


@pytest.mark.parametrize(
    ("content", "digest"),
    [(b"", "99aa06d3014798d86001c324468d497f"), (b"abc", "06b05ab6733a618578af5f94892f3950")],
)
def test_xxh3_digest_is_the_canonical_one(content: bytes, digest: str) -> None:
    """The checksum library gives XXH3-128 in its canonical form, the high half first."""
    assert digest == xxhash.xxh3_128(content).digest().hex()


def test_frame_of_codec_none_is_what_the_format_says() -> None:
    """Header and payload of an uncompressed full chunk are these bytes and no others."""
    frame = b"".join(encode_full(chunk_id(PLAIN), PLAIN, Encoder(Codec(chunk.RAW))))

    fields = [
        b"bkCH",  # magic
        b"\x01",  # version
        b"\x00",  # codec: raw
        b"\x00",  # kind: full
        b"\x00",  # block shift
        b"\x05\x00\x00\x00",  # plain length
        b"\x05\x00\x00\x00",  # payload length
        bytes.fromhex(CHECKSUM),
        bytes(32),  # no base
    ]
    assert b"".join(fields) + PLAIN == frame
    assert 64 == chunk.HEADER.size == len(b"".join(fields))


def test_frame_checksum_runs_over_id_header_and_payload() -> None:
    """The checksum is XXH3-128 over the id, the header with a checksum of zeros, and the payload."""
    header = bytes.fromhex("626b4348 01 00 00 00 05000000 05000000") + bytes(16) + bytes(32)

    digest = xxhash.xxh3_128(bytes.fromhex(IDENT) + header + PLAIN).digest()

    assert CHECKSUM == digest.hex()


def test_delta_frame_names_its_base_and_its_blocks() -> None:
    """A delta's header has kind 1, block shift 12 and the base; its payload the changed block."""
    base_plain = b"a" * 4096 + b"b" * 4096
    plain = b"a" * 4096 + b"c" * 100
    base = chunk_id(base_plain)

    header, payload = chunk.encode_delta(
        chunk_id(plain), plain, base, base_plain, 7, Encoder(Codec(chunk.RAW))
    )

    expected = bytes.fromhex("01000000 07000000 01000000") + b"c" * 100
    assert expected == payload
    assert bytes.fromhex("626b4348 01 00 01 0c 64100000 70000000") == bytes(header[:16])
    assert base == bytes(header[32:])


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("none", Codec(chunk.RAW)),
        ("lz4", Codec(chunk.LZ4)),
        ("zstd", Codec(chunk.ZSTD, 3)),
        ("zstd:-7", Codec(chunk.ZSTD, -7)),
        ("zstd:19", Codec(chunk.ZSTD, 19)),
    ],
)
def test_codec_names_are_read_and_written(text: str, codec: Codec) -> None:
    """Each codec of the configuration has one meaning, and says it in the same words."""
    assert codec == parse_codec(text)
    assert codec == parse_codec(str(codec))


@pytest.mark.parametrize(
    "text",
    ["", "LZ4", "lz4 ", "none:1", "lz4:1", "zstd:", "zstd:0", "zstd:20", "zstd:-8", "zstd:x", "gzip"],
)
def test_codec_outside_the_list_is_refused(text: str) -> None:
    """Any other word, level or spelling is a ValueError that lists what there is."""
    with pytest.raises(ValueError, match="is none of lz4, none, zstd, zstd:LEVEL"):
        parse_codec(text)


def test_id_has_256_bits() -> None:
    """Ids are not cut short: half of BLAKE3's output could be collided offline."""
    assert chunk.ID_SIZE == len(chunk_id(PLAIN)) == blake3.blake3(b"").digest_size
