"""Encoding a chunk, and proving that it comes back, before it may get a name.

    frame = proven_frame(ident, buffer, length, encoder)
    frame = proven_delta(ident, buffer, length, ground, numbers, encoder)

An encoder, a memory or a CPU that errs is found here; otherwise only a restore would tell. The buffer is
hashed once more, since what flipped in it after the first time was encoded, and compares as equal.

Limits: the buffer's first bytes are the chunk's.
"""

from collections.abc import Sequence

from backy.domain import chunk
from backy.domain.chunk import ChunkId, Encoder
from backy.ground import linux
from backy.ground.errors import ChunkDamaged, EncodingFault
from backy.repository.chunks import Ground


def proven_frame(
    ident: ChunkId, buffer: linux.Buffer, length: int, encoder: Encoder
) -> list[chunk.Buffer]:
    """The frame of the buffer's chunk, proven to expand to its bytes: EncodingFault otherwise."""
    frame = chunk.encode_full(ident, buffer.view[:length], encoder)
    _prove(ident, frame, buffer, length, encoder)
    return frame


def proven_delta(
    ident: ChunkId,
    buffer: linux.Buffer,
    length: int,
    ground: Ground,
    numbers: Sequence[int],
    encoder: Encoder,
) -> list[chunk.Buffer]:
    """The frame of the buffer's chunk as blocks `numbers` of a proven base: EncodingFault as above."""
    frame = chunk.encode_delta(
        ident, buffer.view[:length], ground.base, ground.base_plain, ground.laid, encoder, numbers
    )
    _prove(ident, frame, buffer, length, encoder, ground.base_plain)
    return frame


def _prove(
    ident: ChunkId,
    frame: list[chunk.Buffer],
    buffer: linux.Buffer,
    length: int,
    encoder: Encoder,
    base_plain: bytes | None = None,
) -> None:
    try:
        fresh = chunk.expand_fresh(ident, frame, length, base_plain)
    except ChunkDamaged as error:
        raise EncodingFault(ident.hex(), str(encoder.codec)) from error
    if not linux.equal(buffer, length, fresh) or chunk.chunk_id(buffer.view[:length]) != ident:
        raise EncodingFault(ident.hex(), str(encoder.codec))
