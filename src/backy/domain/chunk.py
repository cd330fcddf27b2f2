"""Chunks: their identity, and the frame that a chunk file holds.

A chunk id is the BLAKE3-256 of the plain bytes; 32 zero bytes stand for a chunk of zeros, which is
never stored. It is a cryptographic hash because chunks of all tenants share one store: for XXH3 and
Murmur a second preimage of 4 MiB takes under a second, and a tenant who plants one would own
another's restore (doc/threat-model.md).

A frame is a 64-byte header and a payload (doc/format.md, "Frame"):

    offset  0  4  magic "bkCH"           8  4  plain length
            4  1  version (1)           12  4  payload length
            5  1  codec                 16 16  XXH3-128 over id, header with this field zero, payload
            6  1  kind                  32 32  id of the base (delta), or zeros
            7  1  block shift

    >>> frame = encode_full(ident := chunk_id(b"x" * 5000), b"x" * 5000, Encoder(parse_codec("lz4")))
    >>> decode(ident, b"".join(frame)) == b"x" * 5000
    True

The checksum covers the id, so a frame under another chunk's name shows without decoding; only
`decode` proves identity. Decoding never allocates more than the plain length that the header
states, and that is checked against `limit` first.

Limits: plain length 1 byte to 4 MiB; an Encoder belongs to one thread.
"""

import re
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, NewType, TypeVar

import blake3
import xxhash
import zstandard

from backy.domain import delta
from backy.ground import lz4blocks
from backy.ground.errors import ChunkDamaged

ChunkId = NewType("ChunkId", bytes)
Laid = TypeVar("Laid")

ID_SIZE = 32
ZERO = ChunkId(bytes(ID_SIZE))
MAX_PLAIN = 4 << 20
MAX_FRAME = 64 + delta.max_length(MAX_PLAIN)

HEADER = struct.Struct("<4sBBBBII16s32s")
MAGIC = b"bkCH"
VERSION = 1
FULL, DELTA = 0, 1
RAW, LZ4, ZSTD = 0, 1, 2

_NO_CHECKSUM = bytes(16)
_LEVEL = re.compile(r"-?[1-9][0-9]?")
# 13 % less time than 1 for 2 % more bytes, on a Debian image; compression bounds a full backup.
_LZ4_ACCELERATION = 2
_ZSTD_MAX_WINDOW = 8 << 20

Buffer = delta.Buffer


class Codec(NamedTuple):
    """How payloads are compressed: a codec number of the frame, and zstd's level."""

    number: int
    level: int = 0

    def __str__(self) -> str:
        if self.number == ZSTD:
            return f"zstd:{self.level}"
        return "lz4" if self.number == LZ4 else "none"


def parse_codec(text: str) -> Codec:
    """`lz4`, `none`, `zstd` (level 3) or `zstd:LEVEL` with -7 to 19; ValueError otherwise."""
    name, colon, level = text.partition(":")
    if text == "lz4":
        return Codec(LZ4)
    if text == "none":
        return Codec(RAW)
    if name == "zstd":
        number = 3
        if colon:
            number = int(level) if _LEVEL.fullmatch(level) else 0
        if -7 <= number <= 19 and number != 0:
            return Codec(ZSTD, number)
    raise ValueError(f"{text!r} is none of lz4, none, zstd, zstd:LEVEL with a level of -7 to 19")


def chunk_id(plain: Buffer) -> ChunkId:
    """Identity of a chunk that is not all zero."""
    return ChunkId(blake3.blake3(plain).digest())


class Encoder:
    """Compresses and decompresses payloads; belongs to one thread."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._zstd = (
            zstandard.ZstdCompressor(level=codec.level, write_content_size=True)
            if codec.number == ZSTD
            else None
        )

    def compress(self, content: Buffer) -> tuple[int, Buffer]:
        """(codec number, payload); raw where compression does not make it smaller."""
        if self.codec.number == LZ4:
            packed = lz4blocks.compress(content, _LZ4_ACCELERATION)
        elif self._zstd is not None:
            packed = self._zstd.compress(content)
        else:
            return RAW, content
        if len(packed) >= len(content):
            return RAW, content
        return self.codec.number, packed


class Header(NamedTuple):
    """A frame's header, its fields checked for range but not yet against the payload."""

    codec: int
    kind: int
    block_shift: int
    plain_length: int
    payload_length: int
    checksum: bytes
    base: ChunkId


def encode_full(ident: ChunkId, plain: Buffer, encoder: Encoder) -> list[Buffer]:
    """Frame of a whole chunk as header and payload, to be written one after the other."""
    codec, payload = encoder.compress(plain)
    return _frame(ident, codec, FULL, 0, len(plain), payload, ZERO)


def encode_delta(
    ident: ChunkId,
    plain: Buffer,
    base: ChunkId,
    base_plain: bytes,
    laid: int,
    encoder: Encoder,
    numbers: Sequence[int] | None = None,
) -> list[Buffer]:
    """Frame of a chunk as its 4 KiB blocks that differ from `base_plain`.

    `laid` is the sum of the payload bytes of the deltas that already lean on that base at this index
    (`operation.store` says what for); `numbers` are the blocks that differ, if they are known.
    """
    content = delta.encode(plain, base_plain, laid, numbers)
    codec, payload = encoder.compress(content)
    return _frame(ident, codec, DELTA, delta.BLOCK_SHIFT, len(plain), payload, base)


def parse_header(ident: ChunkId, frame: Buffer, limit: int = MAX_PLAIN) -> Header:
    """The header of a complete frame; ChunkDamaged for anything that no encoder wrote."""
    if len(frame) < HEADER.size:
        raise _damaged(ident, f"the file has only {len(frame)} bytes")
    magic, version, *fields = HEADER.unpack_from(frame)
    header = Header(*fields)
    if magic != MAGIC:
        raise _damaged(ident, "it does not begin like a chunk")
    if version != VERSION:
        raise _damaged(ident, f"its frame version {version} is not known")
    if header.codec not in (RAW, LZ4, ZSTD) or header.kind not in (FULL, DELTA):
        raise _damaged(ident, f"codec {header.codec} or kind {header.kind} is not known")
    if not 1 <= header.plain_length <= limit:
        raise _damaged(ident, f"it claims {header.plain_length} bytes")
    if header.payload_length != len(frame) - HEADER.size:
        raise _damaged(
            ident,
            f"{len(frame) - HEADER.size} bytes follow the header, not {header.payload_length}",
        )
    if header.kind == FULL and (header.base != ZERO or header.block_shift):
        raise _damaged(ident, "a full chunk names a base")
    if header.kind == DELTA and (
        header.base in (ZERO, ident) or header.block_shift != delta.BLOCK_SHIFT
    ):
        raise _damaged(ident, "a delta names no usable base")
    return header


def check_frame(ident: ChunkId, frame: Buffer, limit: int = MAX_PLAIN) -> Header:
    """`parse_header`, and the checksum over id, header and payload: what `verify --quick` proves."""
    header = parse_header(ident, frame, limit)
    view = memoryview(frame)
    if _checksum(ident, view[: HEADER.size], view[HEADER.size :]) != header.checksum:
        raise _damaged(ident, "its checksum does not match")
    return header


def decode(
    ident: ChunkId,
    frame: Buffer,
    read_base: Callable[[ChunkId], bytes] | None = None,
    limit: int = MAX_PLAIN,
) -> bytes:
    """Plain bytes of a frame, proven to be those of `ident`.

    `read_base` gives the proven plain bytes of a base id; without it a delta is damaged. Raises
    ChunkDamaged, and whatever `read_base` raises.
    """
    return decode_whole(ident, frame, read_base, limit).plain


class Decoded(NamedTuple):
    """Plain bytes, and of a delta: the blocks in which it may differ from its base, and what is `laid`.

    That is the payload bytes of deltas on that base at this index, its own included.
    """

    plain: bytes
    numbers: tuple[int, ...] = ()
    laid: int = 0


def decode_whole(
    ident: ChunkId,
    frame: Buffer,
    read_base: Callable[[ChunkId], bytes] | None = None,
    limit: int = MAX_PLAIN,
) -> Decoded:
    """As `decode`, with what the next delta on the same base has to know."""
    header = check_frame(ident, frame, limit)
    payload = memoryview(frame)[HEADER.size :]
    if header.kind == FULL:
        found = Decoded(_expand(ident, header.codec, payload, header.plain_length, header.plain_length))
    else:
        if read_base is None:
            raise _damaged(ident, "a delta where a full chunk is needed")
        base_plain = read_base(header.base)
        bound = delta.max_length(header.plain_length)
        content = _expand(ident, header.codec, payload, None, bound)
        plain = _laid(delta.apply, ident, content, base_plain, header.plain_length)
        numbers, laid = delta.head(content)
        found = Decoded(plain, numbers, laid + header.payload_length)
    if chunk_id(found.plain) != ident:
        raise _damaged(ident, "its contents have another id")
    return found


def expand_fresh(
    ident: ChunkId, frame: list[Buffer], length: int, base_plain: bytes | None = None
) -> list[delta.Piece]:
    """What a frame that was just encoded expands to, for the comparison before it may get a name.

    Proves the codec's work only; the caller compares with the plain bytes. A delta is laid on
    `base_plain`; its pieces are not put together, since they are only looked at. Raises ChunkDamaged.
    """
    header = Header(*HEADER.unpack(frame[0])[2:])
    payload = memoryview(frame[1])
    if base_plain is None:
        return [delta.Piece(_expand(ident, header.codec, payload, length, length), 0, length)]
    content = _expand(ident, header.codec, payload, None, delta.max_length(length))
    return _laid(delta.pieces, ident, content, base_plain, length)


def _laid(
    lay: Callable[[bytes, bytes, int], Laid], ident: ChunkId, content: bytes, base: bytes, length: int
) -> Laid:
    try:
        return lay(content, base, length)
    except ValueError as error:
        raise _damaged(ident, str(error)) from error


def _frame(
    ident: ChunkId, codec: int, kind: int, shift: int, length: int, payload: Buffer, base: ChunkId
) -> list[Buffer]:
    def header(checksum: bytes) -> bytes:
        return HEADER.pack(MAGIC, VERSION, codec, kind, shift, length, len(payload), checksum, base)

    return [header(_checksum(ident, header(_NO_CHECKSUM), payload)), payload]


def _checksum(ident: ChunkId, header: Buffer, payload: Buffer) -> bytes:
    """XXH3-128 (canonical, big-endian digest) over id, the header with a zero checksum, payload."""
    state = xxhash.xxh3_128(ident)
    state.update(header[:16])
    state.update(_NO_CHECKSUM)
    state.update(header[32:])
    state.update(payload)
    return state.digest()


def _expand(ident: ChunkId, codec: int, payload: memoryview, length: int | None, bound: int) -> bytes:
    """Decompress into at most `bound` bytes, exactly `length` where it is given."""
    if codec == RAW:
        plain = bytes(payload)
    else:
        try:
            expand = _expand_zstd if codec == ZSTD else lz4blocks.decompress
            plain = expand(payload, bound)
        except (ValueError, zstandard.ZstdError) as error:
            raise _damaged(ident, f"it does not decompress ({error})") from error
    if len(plain) > bound or (length is not None and len(plain) != length):
        raise _damaged(ident, f"it decompresses to {len(plain)} bytes instead of {length or bound}")
    return plain


def _expand_zstd(payload: memoryview, bound: int) -> bytes:
    """python-zstandard ignores max_output_size when the frame states its size: so check that first."""
    parameters = zstandard.get_frame_parameters(payload)
    if parameters.content_size > bound:
        raise ValueError("its stated size is unknown or too large")
    if parameters.window_size > _ZSTD_MAX_WINDOW and parameters.window_size > bound:
        raise ValueError("its window is too large")
    return zstandard.ZstdDecompressor().decompress(payload, max_output_size=bound)


def _damaged(ident: ChunkId, why: str) -> ChunkDamaged:
    return ChunkDamaged(ident.hex(), why)
