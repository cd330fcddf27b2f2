"""T19: chunks that no encoder wrote, under checksums that hold, and bombs, are found in time."""

import struct
from collections.abc import Iterator
from typing import Any

import lz4.block
import pytest
import zstandard
from filetree import tree
from forged import forged_frame, put_chunk
from small_store import EPOCH, MemoryTarget, add_delta, restore_to

from backy.domain import chunk
from backy.domain.chunk import DELTA, LZ4, RAW, ZSTD, Encoder, chunk_id, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground.errors import BackyError
from backy.repository import layout
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T19")

PLAIN = b"plain".ljust(CHUNK, b"p")
IDENT = chunk_id(PLAIN)
BASE = b"base".ljust(CHUNK, b"b")
BASE_ID = chunk_id(BASE)
CHANGED = b"delta".ljust(CHUNK, b"b")
DELTA_ENTRY = Entry(chunk_id(CHANGED), BASE_ID)


def zstd(content: bytes, **options: Any) -> bytes:
    """A zstd frame with these compression options."""
    return zstandard.ZstdCompressor(**options).compress(content)


def zstd_stating(size: int, content: bytes) -> bytes:
    """A zstd frame of `content` whose header states another size: RFC 8878, 3.1.1.1."""
    plain = zstd(content, level=3)
    (field,) = [length for flag, length in ((0, 0), (1, 2), (2, 4), (3, 8)) if flag == plain[4] >> 6]
    blocks = plain[5 + (field or 1) :]
    # Content size in 8 bytes, single segment, no checksum and no dictionary.
    return plain[:4] + bytes([0xE0]) + struct.pack("<Q", size) + blocks


def lz4_bomb(size: int) -> bytes:
    """An lz4 block that expands to about `size` zeros: one literal, then a match without end."""
    return b"\x1f\x00\x01\x00" + b"\xff" * (size // 255) + b"\x00"


# Quick verify finds these: header fields are checked against each other and the file.
STRUCTURAL: dict[str, dict[str, Any]] = {
    "another magic": {"magic": b"bkCh"},
    "version 0": {"version": 0},
    "version 2": {"version": 2},
    "an unknown codec": {"codec": 3},
    "an unknown kind": {"kind": 2},
    "a block shift in a full chunk": {"shift": 12},
    "a base in a full chunk": {"base": BASE_ID},
    "a delta under a full name": {"kind": DELTA, "shift": 12, "base": BASE_ID},
    "no plain bytes": {"plain_length": 0, "payload": b""},
    "a byte more than a chunk": {"plain_length": CHUNK + 1, "payload": PLAIN + b"p"},
    "2^32-1 plain bytes": {"plain_length": 2**32 - 1},
    "2^32-1 payload bytes": {"payload_length": 2**32 - 1},
    "a payload byte less than stated": {"payload_length": CHUNK + 1},
    "a payload byte more than stated": {"payload_length": CHUNK - 1},
    "plain bytes shorter than its place": {"plain_length": CHUNK - 1, "payload": PLAIN[:-1]},
}
# Only decoding finds these: somebody sealed what was wrong before.
SEMANTIC: dict[str, dict[str, Any]] = {
    "other contents": {"payload": PLAIN[:-1] + b"q"},
    "zeros": {"payload": bytes(CHUNK)},
    "raw bytes shorter than stated": {"payload": PLAIN[:-1]},
    "raw bytes longer than stated": {"payload": PLAIN + b"p"},
    "an lz4 block of other contents": {
        "codec": LZ4,
        "payload": lz4.block.compress(BASE, store_size=False),
    },
    "no lz4 block": {"codec": LZ4, "payload": b""},
    "noise as lz4": {"codec": LZ4, "payload": bytes(range(256))},
    "an lz4 block that ends early": {
        "codec": LZ4,
        "payload": lz4.block.compress(PLAIN, store_size=False)[:-3],
    },
    "an lz4 block with its size": {"codec": LZ4, "payload": lz4.block.compress(PLAIN)},
    "an lz4 bomb": {"codec": LZ4, "payload": lz4_bomb(1 << 20)},
    "a zstd frame of other contents": {"codec": ZSTD, "payload": zstd(BASE, level=3)},
    "no zstd frame": {"codec": ZSTD, "payload": b""},
    "noise as zstd": {"codec": ZSTD, "payload": bytes(range(256))},
    "a zstd frame that ends early": {"codec": ZSTD, "payload": zstd(PLAIN, level=3)[:-3]},
    "a zstd frame of unknown size": {
        "codec": ZSTD,
        "payload": zstandard.ZstdCompressor(write_content_size=False).compress(PLAIN),
    },
    "a zstd frame that states no bytes": {"codec": ZSTD, "payload": zstd_stating(0, PLAIN)},
    "a zstd frame that states a byte less": {"codec": ZSTD, "payload": zstd_stating(CHUNK - 1, PLAIN)},
    "a zstd frame that states 2^63": {"codec": ZSTD, "payload": zstd_stating(2**63, PLAIN)},
    "a zstd frame that states 2^64-1": {"codec": ZSTD, "payload": zstd_stating(2**64 - 1, PLAIN)},
    "a zstd bomb": {"codec": ZSTD, "payload": zstd(bytes(1 << 28), level=3)},
    "a zstd bomb that states a chunk": {
        "codec": ZSTD,
        "payload": zstd_stating(CHUNK, bytes(1 << 26)),
    },
    "a skippable zstd frame": {
        "codec": ZSTD,
        "payload": b"\x50\x2a\x4d\x18" + struct.pack("<I", 8) + bytes(8),
    },
    "a zstd frame for a dictionary": {
        "codec": ZSTD,
        "payload": zstd(PLAIN, dict_data=zstandard.ZstdCompressionDict(PLAIN, dict_type=1)),
    },
}
# The contents of a delta, before compression: number of blocks, laid, numbers, blocks.
DELTAS: dict[str, bytes] = {
    "nothing": b"",
    "half a head": b"\1\0\0\0",
    "no blocks": struct.pack("<II", 0, 0),
    "2^32-1 blocks": struct.pack("<II", 2**32 - 1, 0) + CHANGED,
    "a block that is not there": struct.pack("<III", 1, 0, 0),
    "a block cut short": struct.pack("<III", 1, 0, 0) + CHANGED[:-1],
    "a byte left over": struct.pack("<III", 1, 0, 0) + CHANGED + b"!",
    "a block outside the chunk": struct.pack("<III", 1, 0, 1) + CHANGED,
    "block 2^32-1": struct.pack("<III", 1, 0, 2**32 - 1) + CHANGED,
    "a block twice": struct.pack("<IIII", 2, 0, 0, 0) + CHANGED * 2,
    "other contents": struct.pack("<III", 1, 0, 0) + BASE,
}


@pytest.fixture
def store(site: Site) -> Iterator[Site]:
    """One revision with the full chunk PLAIN and a delta; checks what forged chunks must never do."""
    add_delta(site, EPOCH, base=BASE, plain=CHANGED, rest=PLAIN)
    assert [] == site.verify().findings
    before = tree(site.job)
    yield site
    assert before == tree(site.job)


def check(site: Site, chunk_file: str, *, quick: bool) -> None:
    """Verify names this chunk, quick verify if it can, and nothing is restored."""
    assert [chunk_file] == [one.chunk for one in site.verify().findings]
    assert ([chunk_file] if quick else []) == [one.chunk for one in site.verify(quick=True).findings]
    target = MemoryTarget()
    with pytest.raises(BackyError):
        restore_to(site, "latest", target)
    assert not target.finished


def is_too_long(frame: bytes) -> bool:
    """Whether a file is longer than any that an encoder writes, which shows without decoding."""
    return len(frame) > 2 * CHUNK


@pytest.mark.parametrize("fields", STRUCTURAL.values(), ids=STRUCTURAL.keys())
def test_a_frame_with_impossible_fields_is_found(store: Site, fields: dict[str, Any]) -> None:
    """By quick verify too, whatever the checksum says."""
    put_chunk(store, IDENT.hex(), forged_frame(IDENT, **{"payload": PLAIN, **fields}))

    check(store, IDENT.hex(), quick=True)


@pytest.mark.parametrize("fields", SEMANTIC.values(), ids=SEMANTIC.keys())
def test_a_frame_with_other_contents_is_found(store: Site, fields: dict[str, Any]) -> None:
    """Bombs, contents cut short, contents of another chunk: only the id of the decoded bytes counts."""
    frame = forged_frame(IDENT, **fields)
    put_chunk(store, IDENT.hex(), frame)

    check(store, IDENT.hex(), quick=is_too_long(frame))


@pytest.mark.parametrize("codec", [RAW, LZ4, ZSTD])
@pytest.mark.parametrize("content", DELTAS.values(), ids=DELTAS.keys())
def test_a_delta_that_makes_no_sense_is_found(store: Site, codec: int, content: bytes) -> None:
    """Counts that lie, blocks outside the chunk or out of order, and what leads to other bytes."""
    payload = content
    if codec == LZ4:
        payload = lz4.block.compress(content, store_size=False)
    elif codec == ZSTD:
        payload = zstd(content, level=3)
    frame = forged_frame(DELTA_ENTRY.ident, payload, codec=codec, kind=DELTA, shift=12, base=BASE_ID)
    put_chunk(store, layout.chunk_name(DELTA_ENTRY), frame)

    check(store, layout.chunk_name(DELTA_ENTRY), quick=is_too_long(frame))


DELTA_FIELDS: dict[str, dict[str, Any]] = {
    "no base": {"base": bytes(32)},
    "itself as its base": {"base": DELTA_ENTRY.ident},
    "another base than its name's": {"base": IDENT},
    "another block size": {"shift": 16},
    "no block size": {"shift": 0},
    "a full chunk under a delta's name": {"kind": chunk.FULL, "shift": 0, "base": bytes(32)},
}


@pytest.mark.parametrize("fields", DELTA_FIELDS.values(), ids=DELTA_FIELDS.keys())
def test_a_delta_with_impossible_fields_is_found(store: Site, fields: dict[str, Any]) -> None:
    """By quick verify too."""
    usual = {"kind": DELTA, "shift": 12, "base": BASE_ID}
    payload = struct.pack("<III", 1, 0, 0) + CHANGED
    frame = forged_frame(DELTA_ENTRY.ident, payload, **{**usual, **fields})
    put_chunk(store, layout.chunk_name(DELTA_ENTRY), frame)

    check(store, layout.chunk_name(DELTA_ENTRY), quick=True)


def test_a_base_that_is_a_delta_itself_is_found(store: Site) -> None:
    """Deltas are one step deep, so a chain of them cannot be built."""
    payload = struct.pack("<III", 1, 0, 0) + BASE
    put_chunk(store, BASE_ID.hex(), forged_frame(BASE_ID, payload, kind=DELTA, shift=12, base=IDENT))

    check(store, layout.chunk_name(DELTA_ENTRY), quick=True)


def test_a_base_with_other_contents_is_found(store: Site) -> None:
    """Its own checksum holds, but its id does not."""
    put_chunk(store, BASE_ID.hex(), forged_frame(BASE_ID, b"x" * CHUNK))

    check(store, layout.chunk_name(DELTA_ENTRY), quick=False)


def test_another_chunks_whole_frame_is_found(store: Site) -> None:
    """The checksum covers the name, so a copied file shows without decoding."""
    frame = b"".join(chunk.encode_full(BASE_ID, BASE, Encoder(parse_codec("none"))))
    put_chunk(store, IDENT.hex(), frame)

    check(store, IDENT.hex(), quick=True)


def test_the_forgery_itself_is_sound(store: Site) -> None:
    """What these tests vary are frames that this version decodes."""
    put_chunk(store, IDENT.hex(), forged_frame(IDENT, PLAIN))
    payload = zstd_stating(CHUNK, PLAIN)
    assert [] == store.verify().findings

    put_chunk(store, IDENT.hex(), forged_frame(IDENT, payload, codec=ZSTD))
    assert [] == store.verify().findings
