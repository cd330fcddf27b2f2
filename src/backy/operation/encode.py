"""Encoding a chunk, and proving that it comes back, before it may get a name.

    frame = proven_frame(ident, buffer, length, encoder)
    frame = proven_delta(ident, plain, ground, numbers, encoder)

An encoder, a memory or a CPU that errs is found here; otherwise only a restore would tell.

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
    try:
        fresh = chunk.expand_fresh(ident, frame, length)
    except ChunkDamaged as error:
        raise EncodingFault(ident.hex(), str(encoder.codec)) from error
    if len(fresh) != length or not linux.equal(buffer, fresh):
        raise EncodingFault(ident.hex(), str(encoder.codec))
    return frame


def proven_delta(
    ident: ChunkId, plain: bytes, ground: Ground, numbers: Sequence[int], encoder: Encoder
) -> list[chunk.Buffer]:
    """The frame of a chunk as its blocks `numbers`, proven by its id: EncodingFault otherwise."""
    frame = chunk.encode_delta(
        ident, plain, ground.base, ground.base_plain, ground.laid, encoder, numbers
    )
    try:
        chunk.decode(ident, b"".join(frame), lambda _: ground.base_plain)
    except ChunkDamaged as error:
        raise EncodingFault(ident.hex(), str(encoder.codec)) from error
    return frame
