"""Payloads that lie about their size are refused in bounded memory.

All frames here have a good checksum: they are what an attacker with write access to the store, or a
faulty encoder, would leave. The zstd and lz4 streams are built by hand from their formats.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import chunk
from backy.domain.chunk import DELTA, FULL, LZ4, RAW, ZERO, ZSTD, ChunkId, chunk_id, decode
from backy.domain.delta import BLOCK_SHIFT
from backy.ground.errors import ChunkDamaged
from strategies import repeatable

PLAIN = bytes(range(256)) * 32  # 8192 bytes
IDENT = chunk_id(PLAIN)
HUGE = 512 << 20
ALLOWED = 24 << 20

_ZSTD_MAGIC = bytes.fromhex("28b52ffd")


def forged(
    codec: int, payload: bytes, *, plain_length: int = len(PLAIN), kind: int = FULL, base: ChunkId = ZERO
) -> bytes:
    """A frame for PLAIN's id with a good checksum over whatever it says."""
    shift = BLOCK_SHIFT if kind == DELTA else 0
    return b"".join(chunk._frame(IDENT, codec, kind, shift, plain_length, payload, base))


def zstd_frame(stated: int | None, window_log: int, blocks: list[bytes]) -> bytes:
    """A zstd frame (RFC 8878, 3.1.1): window of 2**window_log bytes, stated content size or none."""
    descriptor = 0x00 if stated is None else 0xC0
    size = b"" if stated is None else stated.to_bytes(8, "little")
    return _ZSTD_MAGIC + bytes([descriptor, (window_log - 10) << 3]) + size + b"".join(blocks)


def raw_block(content: bytes) -> bytes:
    """The last block of a frame, uncompressed."""
    return (len(content) << 3 | 1).to_bytes(3, "little") + content


def repeated_blocks(count: int) -> list[bytes]:
    """Blocks of four bytes that expand to 128 KiB each, and a last one."""
    return [(131072 << 3 | 2).to_bytes(3, "little") + b"x"] * count + [raw_block(b"")]


def lz4_run(size: int) -> bytes:
    """An lz4 block of about size / 255 bytes that expands to `size` bytes or a little more."""
    return b"\x1f\0\x01\0" + b"\xff" * (size // 255 + 1) + b"\0" + b"\x50" + b"tails"


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail if the block needs more than ALLOWED bytes beyond what this process has now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # forget the peak
    before = _status("VmRSS")
    yield
    assert _status("VmHWM") - before < ALLOWED


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(f"{name}:"))


def test_hand_made_streams_are_understood() -> None:
    """The builders here make valid streams, so what is refused below is refused for its size."""
    small = zstd_frame(len(PLAIN), 10, [raw_block(PLAIN)])

    assert PLAIN == decode(IDENT, forged(ZSTD, small))
    assert 300 <= len(lz4.block.decompress(lz4_run(300), uncompressed_size=1000))


def test_zstd_window_of_8_mib_is_accepted() -> None:
    """The largest window that the format allows can be read."""
    assert PLAIN == decode(IDENT, forged(ZSTD, zstd_frame(len(PLAIN), 23, [raw_block(PLAIN)])))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(zstd_frame(HUGE, 23, repeated_blocks(4096)), id="states 512 MiB and has them"),
        pytest.param(zstd_frame(HUGE, 23, [raw_block(PLAIN)]), id="states 512 MiB and has 8 KiB"),
        pytest.param(zstd_frame(2**64 - 1, 23, [raw_block(PLAIN)]), id="states the largest number"),
        pytest.param(zstd_frame(2**64 - 2, 23, [raw_block(PLAIN)]), id="states the error number"),
        pytest.param(zstd_frame(None, 23, [raw_block(PLAIN)]), id="states nothing"),
        pytest.param(zstd_frame(None, 23, repeated_blocks(4096)), id="states nothing and is a bomb"),
        pytest.param(zstd_frame(len(PLAIN), 23, repeated_blocks(4096)), id="states 8 KiB and is a bomb"),
        pytest.param(zstd_frame(len(PLAIN) - 1, 23, [raw_block(PLAIN)]), id="states one byte less"),
        pytest.param(zstd_frame(len(PLAIN), 23, [raw_block(PLAIN[1:])]), id="has one byte less"),
        pytest.param(zstd_frame(0, 23, [raw_block(b"")]), id="is empty"),
        pytest.param(zstd_frame(len(PLAIN), 24, [raw_block(PLAIN)]), id="wants a window of 16 MiB"),
        pytest.param(zstd_frame(len(PLAIN), 41, [raw_block(PLAIN)]), id="wants a window of 2 TiB"),
        pytest.param(bytes.fromhex("502a4d18 00000010") + bytes(99), id="is a skippable frame"),
        pytest.param(_ZSTD_MAGIC, id="is only a magic number"),
        pytest.param(b"", id="is nothing"),
    ],
)
def test_zstd_payload_that_lies_is_refused_in_bounded_memory(payload: bytes) -> None:
    """A zstd stream of any other size than the header's, or with a huge window, is damage."""
    with bounded_memory(), pytest.raises(ChunkDamaged, match="decompress"):
        decode(IDENT, forged(ZSTD, payload))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(lz4_run(HUGE), id="expands to 512 MiB"),
        pytest.param(lz4.block.compress(PLAIN + b"x", store_size=False), id="one byte more"),
        pytest.param(lz4.block.compress(PLAIN[1:], store_size=False), id="one byte less"),
        pytest.param(lz4.block.compress(PLAIN, store_size=True), id="a size in front"),
        pytest.param(b"\xff" * 1000, id="a length that never ends"),
        pytest.param(b"\x1f\0\xff\xff\0", id="a match before the beginning"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_lz4_payload_that_lies_is_refused_in_bounded_memory(payload: bytes) -> None:
    """An lz4 block that expands to any other size than the header's is damage."""
    with bounded_memory(), pytest.raises(ChunkDamaged, match="decompress"):
        decode(IDENT, forged(LZ4, payload))


@pytest.mark.parametrize("plain_length", [0, chunk.MAX_PLAIN + 1, 2**31, 2**32 - 1])
def test_plain_length_out_of_range_is_refused(plain_length: int) -> None:
    """No frame may claim nothing, or more than 4 MiB."""
    with bounded_memory(), pytest.raises(ChunkDamaged, match=f"claims {plain_length} bytes"):
        decode(IDENT, forged(RAW, PLAIN, plain_length=plain_length))


@pytest.mark.parametrize("length", [1, len(PLAIN) - 1, len(PLAIN) + 1, chunk.MAX_PLAIN])
def test_raw_payload_of_another_length_is_refused(length: int) -> None:
    """An uncompressed payload has exactly the plain length."""
    with pytest.raises(ChunkDamaged, match=f"{len(PLAIN)} bytes instead of {length}"):
        decode(IDENT, forged(RAW, PLAIN, plain_length=length))


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        (ZSTD, zstd_frame(64 << 20, 23, repeated_blocks(512))),
        (ZSTD, zstd_frame(None, 23, repeated_blocks(512))),
        (LZ4, lz4_run(64 << 20)),
        (RAW, bytes(16384)),
    ],
)
def test_delta_that_expands_beyond_its_chunk_is_refused(codec: int, payload: bytes) -> None:
    """Delta contents may be no longer than a delta of all blocks."""
    base = chunk_id(b"base")
    frame = forged(codec, payload, kind=DELTA, base=base)

    with bounded_memory(), pytest.raises(ChunkDamaged, match="decompress"):
        decode(IDENT, frame, lambda _: b"base")


@repeatable(80)
@given(codec=st.sampled_from([RAW, LZ4, ZSTD]), payload=st.binary(max_size=300), delta=st.booleans())
def test_any_payload_is_decoded_or_damaged(codec: int, payload: bytes, *, delta: bool) -> None:
    """No payload makes the decoder do anything but return the right bytes or say ChunkDamaged."""
    kind, base = (DELTA, chunk_id(b"base")) if delta else (FULL, ZERO)
    content = payload if codec != ZSTD else _ZSTD_MAGIC + payload
    with pytest.raises(ChunkDamaged):
        decode(IDENT, forged(codec, content, kind=kind, base=base), lambda _: b"base")
