"""Maps that are damaged, swapped or hostile: MapDamaged, at once, and nothing else."""

import errno
import os
import uuid as uuids
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import chunkmap
from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import PAGE_ENTRIES, Entry, Header, Layout, Page, digest
from backy.domain.revision import MapDigest
from backy.ground.directory import Directory
from backy.ground.errors import MapDamaged
from backy.repository import layout
from backy.repository.maps import MapWriter, open_pinned
from fakes import fake_revision
from strategies import repeatable

C = 4096
UUID, OTHER = fake_revision(1).uuid, fake_revision(2).uuid
REVISION = uuids.UUID(UUID)
ONE, TWO = chunk_id(b"one"), chunk_id(b"two")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Directory]:
    """A job's directory with the records of two revisions."""
    for uuid in (UUID, OTHER):
        (tmp_path / f"{uuid}.rev").touch()
    with Directory.open(str(tmp_path)) as directory:
        yield directory


def put_map(job: Directory, uuid: str = UUID) -> MapDigest:
    """A small map: chunk 0 full, chunk 1 zero, chunk 2 a delta."""
    writer = MapWriter(job, uuid, "", Layout(C, 3 * C))
    for index, entry in ((0, Entry(chunk_id(uuid.encode()))), (2, Entry(ONE, TWO))):
        writer.expect(index)
        writer.set(index, entry)
    found = writer.seal()
    writer.link()
    writer.close()
    return found


def map_path(job: Directory, uuid: str = UUID) -> Path:
    """Path of a map."""
    return Path(job.path) / layout.map_name(uuid)


def overwrite(path: Path, content: bytes | bytearray) -> None:
    """Change a read-only file in place."""
    path.chmod(0o600)
    path.write_bytes(content)


def look(job: Directory, wanted: MapDigest, uuid: str = UUID) -> list[tuple[int, Entry]]:
    """Open a map and read all of it."""
    with open_pinned(job, uuid, wanted) as reader:
        return list(reader.used())


def test_every_flipped_byte_of_a_map_is_found(job: Directory) -> None:
    """Header, pages, page table and base table: one byte anywhere is found on the way through."""
    wanted = put_map(job)
    content = map_path(job).read_bytes()
    found = []
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 0x01
        overwrite(map_path(job), changed)
        try:
            look(job, wanted)
        except MapDamaged:
            found.append(at)

    assert list(range(len(content))) == found


@pytest.mark.parametrize("length", [0, 1, 159, 160, 161, -33, -1])
def test_map_of_another_length_is_damaged(job: Directory, length: int) -> None:
    """Cut at any place, or longer than the record says."""
    wanted = put_map(job)
    content = map_path(job).read_bytes()
    for changed in (content[:length], content + b"\0"):
        overwrite(map_path(job), changed)
        with pytest.raises(MapDamaged, match=f"instead of {wanted.size}"):
            look(job, wanted)


def test_swapped_maps_are_found(job: Directory) -> None:
    """Two good maps under each other's names belong to neither record: not the wrong day's image."""
    digests = {uuid: put_map(job, uuid) for uuid in (UUID, OTHER)}
    map_path(job).rename(map_path(job).with_suffix(".tmp"))
    map_path(job, OTHER).rename(map_path(job))
    map_path(job).with_suffix(".tmp").rename(map_path(job, OTHER))

    for uuid, wanted in digests.items():
        with pytest.raises(MapDamaged, match="not the map that its record describes"):
            look(job, wanted, uuid)


def test_map_of_another_revision_is_refused_even_by_its_own_digest(job: Directory) -> None:
    """A record that describes another revision's map does not get it."""
    wanted = put_map(job, OTHER)
    map_path(job, OTHER).rename(map_path(job))

    with pytest.raises(MapDamaged, match="belongs to another revision"):
        look(job, wanted)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (str, "it is missing"),
        (os.mkfifo, "Invalid argument"),
        (Path.mkdir, "Invalid argument"),
        (lambda path: path.symlink_to("/etc/passwd"), "symbolic links"),
    ],
)
def test_anything_but_a_file_in_place_of_a_map_is_damage(
    job: Directory, make: Callable[[Path], object], why: str
) -> None:
    """A map that is missing, a FIFO, a directory or a link is told as damage, at once."""
    wanted = put_map(job)
    map_path(job).unlink()
    make(map_path(job))

    with pytest.raises(MapDamaged, match=why):
        look(job, wanted)


def test_map_that_cannot_be_read_is_told(job: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error names its reason."""
    wanted = put_map(job)

    def fail(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(MapDamaged, match="Input/output error"):
        look(job, wanted)


def forge(job: Directory, header: Header, pages: bytes, tail: bytes) -> MapDigest:
    """A map and the record's entry for it, with good digests over whatever they say."""
    packed = chunkmap.pack_header(header._replace(tail_digest=digest(tail)))
    path = map_path(job)
    path.unlink(missing_ok=True)
    path.write_bytes(packed + pages + tail)
    size = len(packed + pages + tail)
    image_size = header.layout.image_size
    return MapDigest(disk=header.disk, size=size, root=digest(packed).hex(), image_size=image_size)


def test_hostile_entries_with_good_digests_are_damage(job: Directory) -> None:
    """An entry that points outside the base table is refused when its page is read."""
    page = Page(3)
    page.set(0, ONE, 2)
    header = Header(REVISION, "", Layout(C, 3 * C), 1, 1, b"")
    wanted = forge(job, header, bytes(page.content), digest(bytes(page.content)) + TWO)

    with pytest.raises(MapDamaged, match="outside the base table"):
        look(job, wanted)


@repeatable(60)
@given(
    chunk_size=st.sampled_from([0, 512, 4096, 4097, 8192, 4 << 20, 8 << 20]),
    image_size=st.sampled_from([0, 1, C, 3 * C, PAGE_ENTRIES * C + 1, 1 << 56, (1 << 63) - 1]),
    stored=st.sampled_from([0, 1, 2, 2**32 - 1]),
    bases=st.sampled_from([0, 1, 3, 2**32 - 1]),
    pages=st.binary(max_size=120),
    tail=st.binary(max_size=120),
    disk=st.sampled_from(["", "data"]),
)
def test_hostile_map_with_good_digests_is_damage_or_empty(
    tmp_path: Path,
    chunk_size: int,
    image_size: int,
    stored: int,
    bases: int,
    pages: bytes,
    tail: bytes,
    disk: str,
) -> None:
    """Any header, pages and tables under matching digests are a MapDamaged at once, or hold nothing."""
    (tmp_path / f"{UUID}.rev").touch()
    try:
        header = Header(REVISION, "", Layout(chunk_size, image_size), stored, bases, b"")
        chunkmap.pack_header(header)
    except ZeroDivisionError:
        return
    with Directory.open(str(tmp_path)) as job:
        wanted = forge(job, header, pages, tail)
        described = MapDigest(disk=disk, size=wanted.size, root=wanted.root, image_size=image_size)
        try:
            assert [] == look(job, described)
        except MapDamaged as error:
            assert error.message  # noqa: PT017 - either is right
