"""Records, maps and chunks that no encoder would write, under checksums that hold.

    path.write_bytes(sealed_as(b'{"format": 1, …}'))
    forge_map(site, uuid, header, tail)

What an attacker who holds the disk, or a bug of another version, could leave.
"""

import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import blake3

from backy.domain import chunk, chunkmap, sealed
from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import Layout
from testsite import CHUNK, Site

FORGED = "11111111-1111-4111-8111-11111111abcd"


def sealed_as(document: bytes) -> bytes:
    """A document that `unseal` returns as it stands, whatever it is."""
    assert document.endswith(b"\n}")
    body = document[:-2]
    return body + sealed._MARK + sealed._checksum(body) + sealed._END


def record_of(**members: Any) -> dict[str, Any]:
    """A whole record as a dictionary, with some members replaced."""
    whole: dict[str, Any] = {
        "format": 1,
        "uuid": FORGED,
        "taken_at": "2026-11-01T03:00:00Z",
        "tags": {"daily": "schedule"},
        "trust": "trusted",
        "distrust": None,
        "consistency": "consistent",
        "parent": None,
        "maps": [{"disk": "", "size": 160, "root": "00" * 32, "image_size": 0}],
        "source": {"type": "file"},
        "stats": {"duration": 0.1, "bytes_read": 1, "bytes_written": 1, "chunks": 1},
    }
    return {**whole, **members}


def document_of(record: dict[str, Any]) -> bytes:
    """A record's JSON."""
    return json.dumps(record, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")


def put_record(site: Site, document: bytes, uuid: str = FORGED) -> Path:
    """Write a sealed record into the job."""
    path = site.job / f"{uuid}.rev"
    path.write_bytes(sealed_as(document))
    return path


def map_header(
    *,
    magic: bytes = chunkmap.MAGIC,
    version: int = 1,
    reserved: int = 0,
    revision: str = FORGED,
    disk: bytes = b"",
    chunk_size: int = CHUNK,
    image_size: int = CHUNK,
    chunks: int | None = None,
    stored_pages: int = 1,
    bases: int = 0,
    tail: bytes = b"",
) -> bytes:
    """A map's header with any counts; the digest is that of `tail`."""
    if chunks is None:
        chunks = -(-image_size // chunk_size) if chunk_size else 0
    return chunkmap.HEADER.pack(
        magic,
        version,
        reserved,
        UUID(revision).bytes,
        disk,
        chunk_size,
        image_size,
        chunks,
        stored_pages,
        bases,
        blake3.blake3(tail).digest(),
    )


def page_of(*entries: tuple[bytes, int]) -> bytes:
    """A page with these (id, base index) entries."""
    return b"".join(ident for ident, _ in entries) + b"".join(
        index.to_bytes(4, "little") for _, index in entries
    )


def put_map(site: Site, header: bytes, rest: bytes, *, image_size: int = CHUNK, hole: int = 0) -> None:
    """Write a map, and a record that vouches for it; behind the header may be a hole."""
    path = site.job / f"{FORGED}.map"
    path.write_bytes(header)
    os.truncate(path, len(header) + hole)
    with path.open("ab") as file:
        file.write(rest)
    described = {
        "disk": "",
        "size": path.stat().st_size,
        "root": blake3.blake3(header[: chunkmap.HEADER.size]).hexdigest(),
        "image_size": image_size,
    }
    put_record(site, document_of(record_of(maps=[described])))


def put_chunk_map(site: Site, *entries: tuple[bytes, int], bases: tuple[bytes, ...] = ()) -> None:
    """Write a sound map and record over entries that may be anything."""
    page = page_of(*entries)
    image = Layout(CHUNK, CHUNK * len(entries))
    tail = blake3.blake3(page).digest() + b"".join(bases)
    header = map_header(image_size=image.image_size, bases=len(bases), tail=tail)
    put_map(site, header, page + tail, image_size=image.image_size)


def forged_frame(
    ident: ChunkId,
    payload: bytes,
    *,
    magic: bytes = chunk.MAGIC,
    version: int = chunk.VERSION,
    codec: int = chunk.RAW,
    kind: int = chunk.FULL,
    shift: int = 0,
    plain_length: int = CHUNK,
    payload_length: int | None = None,
    base: bytes = chunk.ZERO,
) -> bytes:
    """A frame with any fields and contents; its checksum holds."""
    length = len(payload) if payload_length is None else payload_length

    def header(checksum: bytes) -> bytes:
        return chunk.HEADER.pack(
            magic, version, codec, kind, shift, plain_length, length, checksum, base
        )

    return header(chunk._checksum(ident, header(bytes(16)), payload)) + payload


def put_chunk(site: Site, name: str, frame: bytes) -> Path:
    """Write a chunk file under a name."""
    path = site.chunks / name[:2] / name
    path.unlink(missing_ok=True)
    path.write_bytes(frame)
    return path
