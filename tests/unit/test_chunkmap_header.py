"""A map's header: known answer, and what is refused although its digest may be right."""

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import chunkmap
from backy.domain.chunk import ID_SIZE
from backy.domain.chunkmap import Header, Layout, digest, pack_header, root, unpack_header
from strategies import disk_names, repeatable

REVISION = UUID("00112233-4455-6677-8899-aabbccddeeff")
HEADER = Header(REVISION, "root", Layout(4096, 10_000), 1, 2, bytes(range(32)))

OFFSETS = {
    "magic": 0,
    "version": 8,
    "flags": 10,
    "padding": 12,
    "revision": 16,
    "disk": 32,
    "chunk size": 64,
    "image size": 72,
    "chunks": 80,
    "stored pages": 88,
    "bases": 92,
    "tail": 96,
    "reserved": 128,
}


def changed(field: str, content: bytes) -> bytes:
    """HEADER's bytes with other bytes at a field's place."""
    header = bytearray(pack_header(HEADER))
    at = OFFSETS[field]
    header[at : at + len(content)] = content
    return bytes(header)


def test_header_is_what_the_format_says() -> None:
    """The 160 bytes of a map's header are these and no others."""
    fields = [
        b"bkMAP\r\n\0",  # magic
        b"\x01\0",  # version
        b"\0\0\0\0\0\0",
        bytes.fromhex("00112233445566778899aabbccddeeff"),  # revision
        b"root".ljust(32, b"\0"),  # disk
        b"\0\x10\0\0\0\0\0\0",  # chunk size
        b"\x10\x27\0\0\0\0\0\0",  # image size
        b"\x03\0\0\0\0\0\0\0",  # chunks
        b"\x01\0\0\0",  # stored pages
        b"\x02\0\0\0",  # bases
        bytes(range(32)),  # tail digest
        bytes(32),  # reserved
    ]

    assert b"".join(fields) == pack_header(HEADER)
    assert 160 == chunkmap.HEADER.size


def test_root_is_the_blake3_of_the_header() -> None:
    """The digest that a record holds is BLAKE3-256 of the header's 160 bytes."""
    expected = "8a547f5cfced143da714f9ca69d07bfd1e3e2b9c90d6947714af2bb55ddeda94"

    assert expected == root(pack_header(HEADER)).hex()
    assert expected == digest(pack_header(HEADER)).hex()


@repeatable(80)
@given(
    revision=st.uuids(),
    disk=disk_names(),
    shift=st.integers(12, 22),
    size=st.integers(0, 1 << 46),
    tail=st.binary(min_size=32, max_size=32),
    data=st.data(),
)
def test_header_round_trips(
    revision: UUID, disk: str, shift: int, size: int, tail: bytes, data: st.DataObject
) -> None:
    """Every header that a map can have is read back as it was written."""
    layout = Layout(1 << shift, size)
    stored = data.draw(st.integers(0, min(layout.pages, 2**32 - 1)))
    room = (chunkmap.MAX_TAIL - layout.pages * chunkmap.DIGEST_SIZE) // ID_SIZE
    bases = data.draw(st.integers(0, min(layout.chunks, room)))
    header = Header(revision, disk, layout, stored, bases, tail)

    assert header == unpack_header(pack_header(header))


def test_header_of_the_longest_disk_name_round_trips() -> None:
    """A disk name may fill its field to the last byte."""
    header = HEADER._replace(disk="d" * 32)

    assert header == unpack_header(pack_header(header))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "only 0 bytes"),
        (pack_header(HEADER)[:159], "only 159 bytes"),
        (changed("magic", b"bkMAP\n\n\0"), "does not begin like"),
        (changed("version", b"\x02"), "version 2 is not known"),
        (changed("version", b"\0\0"), "version 0 is not known"),
        (changed("flags", b"\x01"), "version 1 is not known"),
        (changed("padding", b"\x01"), "bytes that mean nothing"),
        (changed("padding", b"\0\0\0\x80"), "bytes that mean nothing"),
        (changed("reserved", b"\x01"), "bytes that mean nothing"),
        (changed("reserved", bytes(31) + b"\x80"), "bytes that mean nothing"),
        (changed("disk", b"\xff"), "not ASCII"),
        (changed("disk", "ß".encode()), "not ASCII"),
    ],
)
def test_header_that_nobody_wrote_is_refused(content: bytes, why: str) -> None:
    """Short, foreign, newer and dirty headers are ValueErrors with the reason."""
    with pytest.raises(ValueError, match=why):
        unpack_header(content)


@pytest.mark.parametrize("size", [0, 1, 512, 2048, 4095, 4097, 12288, 8 << 20, 2**32, 2**63, 2**64 - 1])
def test_chunk_size_out_of_range_is_refused(size: int) -> None:
    """A chunk size is a power of two from 4 KiB to 4 MiB."""
    with pytest.raises(ValueError, match=f"chunk size is {size}"):
        unpack_header(changed("chunk size", struct.pack("<Q", size)))


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("image size", struct.pack("<Q", 2**63)),
        ("image size", struct.pack("<Q", 2**64 - 1)),
        ("image size", struct.pack("<Q", chunkmap.MAX_IMAGE + 1)),
        ("image size", struct.pack("<Q", 4096)),
        ("image size", struct.pack("<Q", 3 * 4096 + 1)),
        ("chunks", struct.pack("<Q", 0)),
        ("chunks", struct.pack("<Q", 2)),
        ("chunks", struct.pack("<Q", 4)),
        ("chunks", struct.pack("<Q", 10**9)),
        ("chunks", struct.pack("<Q", 2**64 - 1)),
        ("stored pages", struct.pack("<I", 2)),
        ("stored pages", struct.pack("<I", 2**32 - 1)),
        ("bases", struct.pack("<I", 4)),
        ("bases", struct.pack("<I", 10**9)),
        ("bases", struct.pack("<I", 2**32 - 1)),
    ],
)
def test_counts_that_lie_are_refused(field: str, number: bytes) -> None:
    """Sizes and counts that contradict each other are refused before anything is made of them."""
    with pytest.raises(ValueError, match="counts do not fit"):
        unpack_header(changed(field, number))


@repeatable(200)
@given(at=st.integers(0, 159), mask=st.integers(1, 255))
def test_any_other_header_is_read_differently_or_refused(at: int, mask: int) -> None:
    """No byte of a header is ignored: flipped, it changes what is read or is refused."""
    content = bytearray(pack_header(HEADER))
    content[at] ^= mask
    try:
        found = unpack_header(bytes(content))
    except ValueError:
        return

    assert HEADER != found
    assert bytes(content) == pack_header(found)
