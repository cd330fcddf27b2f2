"""Maps on disk: written page by page in any order, and read back entry by entry."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import chunkmap
from backy.domain.chunk import ChunkId, chunk_id
from backy.domain.chunkmap import ENTRY_SIZE, HEADER, PAGE_ENTRIES, ZERO_PAGE, Entry, Layout, digest
from backy.domain.revision import MapDigest
from backy.ground.directory import Directory
from backy.repository.maps import MapReader, MapWriter, open_pinned
from fakes import fake_revision
from strategies import boundary_sizes, repeatable

C = 4096
PAGE_BYTES = C * PAGE_ENTRIES
UUID = fake_revision(1).uuid
BASES = [None, *(chunk_id(bytes([number])) for number in range(3))]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Directory]:
    """A job's directory with the record of UUID."""
    (tmp_path / f"{UUID}.rev").touch()
    with Directory.open(str(tmp_path)) as directory:
        yield directory


def ident_of(index: int) -> ChunkId:
    """Some id for a chunk."""
    return chunk_id(b"%d" % index)


def write(job: Directory, size: int, entries: dict[int, Entry], order: random.Random) -> MapDigest:
    """Write a map: indices announced in order, set in any order behind that."""
    (Path(job.path) / f"{UUID}.map").unlink(missing_ok=True)
    writer = MapWriter(job, UUID, "", Layout(C, size))
    waiting: list[int] = []
    for index in sorted(entries):
        writer.expect(index)
        waiting.append(index)
        while waiting and order.random() < 0.6:
            chosen = waiting.pop(order.randrange(len(waiting)))
            writer.set(chosen, entries[chosen])
    order.shuffle(waiting)
    for index in waiting:
        writer.set(index, entries[index])
    found = writer.seal()
    writer.link()
    writer.close()
    return found


def read(job: Directory, wanted: MapDigest) -> dict[int, Entry]:
    """All entries of a map that are not zero."""
    with open_pinned(job, UUID, wanted) as reader:
        return dict(reader.used())


@repeatable(40)
@given(
    size=st.integers(0, 3 * PAGE_BYTES + C),
    indices=st.sets(st.integers(0, 3 * PAGE_ENTRIES), max_size=30),
    base=st.sampled_from(BASES),
    order=st.randoms(use_true_random=False),
)
def test_map_round_trips(
    tmp_path: Path, size: int, indices: set[int], base: ChunkId | None, order: random.Random
) -> None:
    """Any chunks of an image of several pages, full or delta, set in any order, are read back."""
    (tmp_path / f"{UUID}.rev").touch()
    chunks = Layout(C, size).chunks
    entries = {
        index: Entry(ident_of(index), base if index % 3 else BASES[index % len(BASES)])
        for index in indices
        if index < chunks
    }
    with Directory.open(str(tmp_path)) as job:
        wanted = write(job, size, entries, order)
        assert dict(sorted(entries.items())) == read(job, wanted)
        assert list(entries) == [index for index in entries if index in read(job, wanted)]


@pytest.mark.parametrize("size", [*boundary_sizes(C), *boundary_sizes(PAGE_BYTES)[-9:]])
def test_map_of_every_boundary_size_round_trips(job: Directory, size: int) -> None:
    """The first and the last chunk of an image are kept, also where a page has only one entry."""
    chunks = Layout(C, size).chunks
    entries = {index: Entry(ident_of(index)) for index in {0, chunks - 1} if 0 <= index < chunks}
    wanted = write(job, size, entries, random.Random(1))

    assert size == wanted.image_size
    assert entries == read(job, wanted)


def test_empty_map_is_only_a_header(job: Directory) -> None:
    """An image of 0 bytes is an image."""
    wanted = write(job, 0, {}, random.Random(1))

    assert (HEADER.size, {}) == (wanted.size, read(job, wanted))


def test_map_file_is_header_pages_and_tables(job: Directory) -> None:
    """Pages that are zero are not stored; the page table says which; the bases come last."""
    base = chunk_id(b"base")
    entries = {0: Entry(ident_of(0)), 2 * PAGE_ENTRIES: Entry(ident_of(1), base)}
    wanted = write(job, 2 * PAGE_BYTES + C, entries, random.Random(1))
    content = (Path(job.path) / f"{UUID}.map").read_bytes()

    first = content[160 : 160 + PAGE_ENTRIES * ENTRY_SIZE]
    last = ident_of(1) + b"\1\0\0\0"
    assert ident_of(0) == first[:32]
    assert not any(first[32:])
    assert last + digest(first) + ZERO_PAGE + digest(last) + base == content[160 + len(first) :]
    assert wanted.size == len(content)
    assert wanted.root == digest(content[:160]).hex()


def test_base_that_many_deltas_lean_on_is_stored_once(job: Directory) -> None:
    """Entries point into the base table, each base is in it once."""
    bases = [chunk_id(b"one"), chunk_id(b"two")]
    entries = {index: Entry(ident_of(index), bases[index % 2]) for index in range(100)}
    wanted = write(job, 100 * C, entries, random.Random(1))

    with open_pinned(job, UUID, wanted) as reader:
        assert set(bases) == set(reader.bases)
        assert 2 == len(reader.bases)
        assert entries == dict(reader.used())


def test_sparse_map_of_a_large_image_is_small(job: Directory) -> None:
    """64 TiB of zeros with one chunk at the end take one page and the page table."""
    layout = Layout(4 << 20, 64 << 40)
    writer = MapWriter(job, UUID, "", layout)
    writer.expect(layout.chunks - 1)
    writer.set(layout.chunks - 1, Entry(ident_of(7)))
    wanted = writer.seal()
    writer.link()
    writer.close()

    assert HEADER.size + PAGE_ENTRIES * ENTRY_SIZE + 32 * layout.pages == wanted.size
    assert {layout.chunks - 1: Entry(ident_of(7))} == read(job, wanted)


def test_writer_holds_open_pages_only(job: Directory) -> None:
    """A map that is set in order needs one page of memory, however long it is."""
    writer = MapWriter(job, UUID, "", Layout(C, 8 * PAGE_BYTES))
    most = 0
    for index in range(0, 8 * PAGE_ENTRIES, 512):
        writer.expect(index)
        most = max(most, len(writer._pages))
        writer.set(index, Entry(ident_of(index)))
    writer.close()

    assert most <= 2


def test_page_waits_for_the_last_entry_that_was_announced(job: Directory) -> None:
    """A late entry of an early page is not lost, although later pages are complete by then."""
    writer = MapWriter(job, UUID, "", Layout(C, 3 * PAGE_BYTES))
    indices = [5, PAGE_ENTRIES + 5, 2 * PAGE_ENTRIES + 5]
    for index in indices:
        writer.expect(index)
    for index in reversed(indices):
        writer.set(index, Entry(ident_of(index)))
    wanted = writer.seal()
    writer.link()
    writer.close()

    assert {index: Entry(ident_of(index)) for index in indices} == read(job, wanted)


def test_maps_of_several_disks_lie_beside_each_other(job: Directory) -> None:
    """Each disk has its own file, and a disk's map is not read for another's."""
    digests = {}
    for number, disk in enumerate(["", "data", "root-1"]):
        writer = MapWriter(job, UUID, disk, Layout(C, C))
        writer.expect(0)
        writer.set(0, Entry(ident_of(number)))
        digests[disk] = writer.seal()
        writer.link()
        writer.close()

    for number, disk in enumerate(digests):
        with open_pinned(job, UUID, digests[disk]) as reader:
            assert {0: Entry(ident_of(number))} == dict(reader.used())
    assert [f"{UUID}.data.map", f"{UUID}.map", f"{UUID}.rev", f"{UUID}.root-1.map"] == job.names()


def test_map_that_is_closed_without_a_name_is_gone(job: Directory) -> None:
    """An interrupted backup leaves no map."""
    writer = MapWriter(job, UUID, "", Layout(C, C))
    writer.close()

    assert [f"{UUID}.rev"] == job.names()


def test_page_of_zeros_is_none(job: Directory) -> None:
    """A reader tells a page that is not stored from one that is, and gives single entries."""
    entries = {PAGE_ENTRIES + 3: Entry(ident_of(1), BASES[1])}
    wanted = write(job, 2 * PAGE_BYTES, entries, random.Random(1))

    with open_pinned(job, UUID, wanted) as reader:
        page = reader.page(1)
        assert reader.page(0) is None
        assert page is not None
        assert entries[PAGE_ENTRIES + 3] == reader.entry(page, 3)
        assert chunkmap.ZERO_ENTRY == reader.entry(page, 4)
        assert isinstance(reader, MapReader)
