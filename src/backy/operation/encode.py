"""Encoding a chunk, and proving that it comes back, before it may get a name.

    frame = proven_frame(ident, buffer, length, encoder)

An encoder, a memory or a CPU that errs is found here; otherwise only a restore would tell.

Limits: full chunks; the buffer's first bytes are the chunk's.
"""

from backy.domain import chunk
from backy.domain.chunk import ChunkId, Encoder
from backy.ground import linux
from backy.ground.errors import ChunkDamaged, EncodingFault


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
