"""The chunk reader: proven bytes from the store or the trash, or an error that says what is there."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backy.domain import chunk
from backy.domain.chunk import Encoder, chunk_id, encode_delta, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground.directory import Directory
from backy.ground.errors import ChunkDamaged, ChunkMissing
from backy.ground.pagecache import UncachedFile
from backy.repository import layout
from backy.repository.chunks import ChunkReader
from fakes import FakeStore

C = 16384
BASE_PLAIN = random.Random(1).randbytes(C)
PLAIN = BASE_PLAIN[:5000] + b"changed" + BASE_PLAIN[5007:]
BASE = Entry(chunk_id(BASE_PLAIN))
FULL = Entry(chunk_id(PLAIN))
DELTA = Entry(FULL.ident, BASE.ident)
ENCODER = Encoder(parse_codec("lz4"))

FRAMES = {
    BASE: b"".join(encode_full(BASE.ident, BASE_PLAIN, ENCODER)),
    FULL: b"".join(encode_full(FULL.ident, PLAIN, ENCODER)),
    DELTA: b"".join(encode_delta(FULL.ident, PLAIN, BASE.ident, BASE_PLAIN, 0, ENCODER)),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    """A store without chunks."""
    found = FakeStore(tmp_path / "chunks", [FULL.ident, BASE.ident])
    yield found
    found.close()


def put(store: FakeStore, *entries: Entry, where: str = "") -> None:
    """Write the right frames, in the store or in a generation of the trash."""
    for entry in entries:
        store.file(entry, where).write_bytes(FRAMES[entry])


def reader_of(store: FakeStore, *, fresh: bool = False) -> ChunkReader:
    """A reader for chunks of C bytes."""
    return ChunkReader(store.chunks, C, fresh=fresh)


def flip(path: Path, at: int = 70) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def put_directory(path: Path) -> None:
    """Leave a directory in place of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("fresh", [False, True])
def test_full_and_delta_chunks_are_read(store: FakeStore, fresh: bool) -> None:
    """Both forms give the plain bytes, in any order, from one reader."""
    put(store, *FRAMES)
    reader = reader_of(store, fresh=fresh)

    found = [reader.read(entry) for entry in (DELTA, FULL, BASE, DELTA)]
    assert [PLAIN, PLAIN, BASE_PLAIN, PLAIN] == found


def test_base_is_decoded_once_for_a_row_of_deltas(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deltas on the same base that are read one after the other read that base once."""
    put(store, *FRAMES)
    opened: list[str] = []
    real = Directory.open_file

    def noting(directory: Directory, name: str) -> int:
        opened.append(name)
        return real(directory, name)

    monkeypatch.setattr(Directory, "open_file", noting)
    reader = reader_of(store)
    for _ in range(3):
        reader.read(DELTA)

    assert [layout.chunk_path(DELTA)] * 3 == [name for name in opened if name != layout.chunk_path(BASE)]
    assert 1 == opened.count(layout.chunk_path(BASE))


def test_base_is_read_once_for_itself_and_its_deltas(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever proves a base and then what lies on it, or the other way round, has it read once."""
    put(store, *FRAMES)
    opened: list[str] = []
    real = Directory.open_file

    def noting(directory: Directory, name: str) -> int:
        opened.append(name)
        return real(directory, name)

    monkeypatch.setattr(Directory, "open_file", noting)
    for order in ((BASE, DELTA, DELTA), (DELTA, DELTA, BASE)):
        reader = reader_of(store)
        assert [C] * 3 == [reader.prove(entry) for entry in order]

    assert 2 == opened.count(layout.chunk_path(BASE))
    assert 4 == opened.count(layout.chunk_path(DELTA))


@pytest.mark.parametrize("trashed", [(FULL,), (DELTA,), (BASE,), (DELTA, BASE), (FULL, DELTA, BASE)])
def test_condemned_chunk_is_read_from_the_trash(store: FakeStore, trashed: tuple[Entry, ...]) -> None:
    """Until it is purged, a condemned chunk is still there for readers, whichever part it is."""
    for entry in FRAMES:
        put(store, entry, where="trash/gen2" if entry in trashed else "")
    (store.path / "trash/gen1").mkdir()
    (store.path / "trash/sealed").touch()

    assert [PLAIN, PLAIN] == [reader_of(store).read(entry) for entry in (DELTA, FULL)]


def test_chunk_that_is_rescued_between_the_looks_is_found(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Store, trash, store again: collection may link a chunk back just behind the first look."""
    put(store, FULL, where="trash/gen")

    def rescue(_reader: ChunkReader, _path: str) -> None:
        store.file(FULL, "trash/gen").rename(store.file(FULL))

    monkeypatch.setattr(ChunkReader, "_open_condemned", rescue)

    assert PLAIN == reader_of(store).read(FULL)


@pytest.mark.parametrize("entry", [FULL, DELTA])
def test_chunk_that_is_nowhere_is_missing(store: FakeStore, entry: Entry) -> None:
    """The error names the very file that the entry means."""
    with pytest.raises(ChunkMissing) as caught:
        reader_of(store).read(entry)

    assert layout.chunk_name(entry) == caught.value.chunk


def test_store_without_a_trash_has_missing_chunks_only(store: FakeStore) -> None:
    """Where there is no trash, or a link in its place, a chunk is missing and nothing worse."""
    (store.path / "trash").rmdir()
    with pytest.raises(ChunkMissing):
        reader_of(store).read(FULL)
    (store.path / "trash").symlink_to("/tmp")
    with pytest.raises(ChunkMissing):
        reader_of(store).read(FULL)


@pytest.mark.parametrize("harm", ["missing", "damaged", "base missing", "base damaged", "no file"])
def test_reader_falls_back_from_a_bad_delta_to_the_full_chunk(store: FakeStore, harm: str) -> None:
    """What replaces a damaged chunk is always full, so that is where a reader looks next."""
    put(store, *FRAMES)
    harms: dict[str, Callable[[], object]] = {
        "missing": store.file(DELTA).unlink,
        "damaged": lambda: flip(store.file(DELTA)),
        "base missing": store.file(BASE).unlink,
        "base damaged": lambda: flip(store.file(BASE)),
        "no file": lambda: put_directory(store.file(DELTA)),
    }
    harms[harm]()

    assert PLAIN == reader_of(store).read(DELTA)


@pytest.mark.parametrize("full", ["missing", "damaged"])
def test_delta_is_reported_where_the_full_chunk_is_no_better(store: FakeStore, full: str) -> None:
    """The error is the delta's own: it is what the map names."""
    put(store, DELTA, BASE)
    flip(store.file(DELTA))
    if full == "damaged":
        put(store, FULL)
        flip(store.file(FULL))

    with pytest.raises(ChunkDamaged):
        reader_of(store).read(DELTA)


@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_reader_reads_past_the_page_cache(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    """Proof about the disk is asked of the disk, for deltas and for their bases."""
    put(store, DELTA, BASE)
    asked: list[bool] = []
    real = UncachedFile.read

    def noting(file: UncachedFile, *words: Any, fresh: bool = False) -> int:
        asked.append(fresh)
        return real(file, *words, fresh=fresh)

    monkeypatch.setattr(UncachedFile, "read", noting)
    reader_of(store, fresh=fresh).read(DELTA)

    assert [fresh] * 2 == asked


def test_check_of_a_frame_does_not_decode(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick check reads header and checksum of a delta and of its base, and expands nothing."""
    put(store, *FRAMES)
    monkeypatch.setattr(chunk, "_expand", lambda *_: pytest.fail("it was decoded"))

    for entry in FRAMES:
        reader_of(store).check_frame(entry)


@pytest.mark.parametrize("look", [ChunkReader.check_frame, ChunkReader.prove])
def test_proof_is_about_the_very_file(
    store: FakeStore, look: Callable[[ChunkReader, Entry], None]
) -> None:
    """A damaged delta is damaged although a good full chunk could replace it; a missing one is not."""
    put(store, *FRAMES)
    flip(store.file(DELTA))
    with pytest.raises(ChunkDamaged):
        look(reader_of(store), DELTA)

    store.file(DELTA).unlink()
    look(reader_of(store), DELTA)
    store.file(FULL).unlink()
    with pytest.raises(ChunkMissing):
        look(reader_of(store), DELTA)


@pytest.mark.parametrize("look", [ChunkReader.check_frame, ChunkReader.prove])
def test_proof_of_a_delta_covers_its_base(
    store: FakeStore, look: Callable[[ChunkReader, Entry], None]
) -> None:
    """A delta is worth nothing without its base."""
    put(store, DELTA, BASE)
    look(reader_of(store), DELTA)
    flip(store.file(BASE))

    with pytest.raises(ChunkDamaged):
        look(reader_of(store), DELTA)


@pytest.mark.parametrize("look", [ChunkReader.check_frame, ChunkReader.prove])
def test_full_chunk_stands_for_a_delta_without_its_base(
    store: FakeStore, look: Callable[[ChunkReader, Entry], int]
) -> None:
    """As for `read`; a bad base that was moved aside is no finding for what has been stored anew."""
    put(store, DELTA, FULL)

    assert len(PLAIN) == look(reader_of(store), DELTA)

    store.file(FULL).unlink()
    with pytest.raises(ChunkMissing) as caught:
        look(reader_of(store), DELTA)
    assert BASE.ident.hex() == caught.value.chunk
