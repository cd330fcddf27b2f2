"""The chunk reader on files that are not what their names promise: told apart, and never returned."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backy.domain.chunk import Encoder, chunk_id, encode_delta, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground.errors import ChunkDamaged, ChunkUnreadable
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


ODD: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "directory": Path.mkdir,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "link to the chunk": lambda path: path.symlink_to("../good"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", ODD)
def test_anything_but_a_file_in_place_of_a_chunk_is_damage(store: FakeStore, kind: str) -> None:
    """A FIFO does not block, and a link is not followed, not even to the right bytes."""
    (store.path / "good").write_bytes(FRAMES[FULL])
    ODD[kind](store.file(FULL))

    with pytest.raises(ChunkDamaged, match="not a regular file"):
        reader_of(store).read(FULL)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has only 0 bytes"),
        (FRAMES[FULL][:63], "has only 63 bytes"),
        (FRAMES[FULL][:-1], "follow the header"),
        (FRAMES[FULL] + b"\0", "follow the header"),
        (FRAMES[FULL] + bytes(4 * C), "its file has"),
        (FRAMES[BASE], "checksum"),
        (bytes(len(FRAMES[FULL])), "does not begin like a chunk"),
        (FRAMES[DELTA], "header and its name differ"),
    ],
)
def test_file_with_other_contents_is_damage(store: FakeStore, content: bytes, why: str) -> None:
    """Empty, cut, extended, swapped and zeroed files are told apart, without a large allocation."""
    store.file(FULL).write_bytes(content)

    with pytest.raises(ChunkDamaged, match=why):
        reader_of(store).read(FULL)


@pytest.mark.parametrize("frame", [FRAMES[FULL], FRAMES[BASE]])
def test_full_frame_under_a_delta_name_is_damage(store: FakeStore, frame: bytes) -> None:
    """The name says which base a file leans on, and the header must agree."""
    put(store, BASE)
    store.file(DELTA).write_bytes(frame)

    with pytest.raises(ChunkDamaged):
        reader_of(store).read(DELTA)


def test_delta_on_another_base_than_its_name_says_is_damage(store: FakeStore) -> None:
    """A delta that was renamed to another base is refused before any base is read."""
    other = Entry(FULL.ident, chunk_id(b"other"))
    put(store, BASE)
    store.file(other).write_bytes(FRAMES[DELTA])

    with pytest.raises(ChunkDamaged, match="header and its name differ"):
        reader_of(store).read(other)


def test_chunk_of_a_larger_store_is_damage(store: FakeStore) -> None:
    """A frame may not have more plain bytes than the store's chunks have."""
    plain = bytes(range(256)) * 128
    entry = Entry(chunk_id(plain))
    store.file(entry).write_bytes(b"".join(encode_full(entry.ident, plain, ENCODER)))

    with pytest.raises(ChunkDamaged, match="claims 32768 bytes"):
        reader_of(store).read(entry)


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.EACCES])
def test_failure_of_the_system_is_no_proof_of_damage(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """What could not be read may be fine: that is another error, with the errno."""
    put(store, FULL)

    def fail(*_: Any, **__: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(UncachedFile, "read", fail)
    with pytest.raises(ChunkUnreadable) as caught:
        reader_of(store).read(FULL)

    assert (layout.chunk_name(FULL), code) == (caught.value.chunk, caught.value.code)
