"""The chunk writer when things go wrong: no failure leaves a name over bytes that are not there."""

import errno
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from backy.domain.chunk import ChunkId, Encoder, chunk_id, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground import durable, failpoint, linux
from backy.ground.errors import RepositoryRefused, StorageFailed
from backy.repository import layout
from backy.repository.chunks import ChunkWriter, check_fanout
from fakes import FailAt, FakeStore

PLAINS = [f"chunk {number}".encode() * 50 for number in range(60)]
ENTRIES = [Entry(chunk_id(plain)) for plain in PLAINS]
BASE = ChunkId(b"\xbb" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    """An empty store."""
    found = FakeStore(tmp_path / "chunks", [entry.ident for entry in ENTRIES])
    yield found
    found.close()


def new_writer(store: FakeStore, batch_size: int = 1 << 20) -> ChunkWriter:
    """A writer on the user's folder."""
    return ChunkWriter(store.chunks, store.temporary, batch_size)


def frame_of(number: int) -> list[durable.Bytes]:
    """The frame of one of PLAINS."""
    return list(encode_full(ENTRIES[number].ident, PLAINS[number], Encoder(parse_codec("none"))))


def store_all(writer: ChunkWriter, numbers: range) -> int:
    """Claim and store; returns how many were claimed."""
    claimed = 0
    for number in numbers:
        if writer.claim(ENTRIES[number]):
            writer.store(ENTRIES[number], frame_of(number))
            claimed += 1
    return claimed


@pytest.mark.parametrize("which", [1, 2])
def test_lost_write_fails_the_run(store: FakeStore, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """An error of a batch's sync names nothing of it; one of the last sync fails the run as well."""
    calls: list[int] = []

    def syncfs(fd: int) -> None:
        calls.append(fd)
        if len(calls) == which:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(linux, "syncfs", syncfs)
    writer = new_writer(store)
    store_all(writer, range(3))
    with pytest.raises(StorageFailed):
        writer.finish()
    writer.abandon()

    assert (0 if which == 1 else 3) == len(store.names())
    assert [] == store.temporary.names()


@pytest.mark.parametrize("step", range(1, 13))
def test_run_that_fails_anywhere_leaves_whole_chunks_only(store: FakeStore, step: int) -> None:
    """After a failure at any step the run's folder is empty, and what has a name is complete."""
    failpoint.install(FailAt(step, errno.ENOSPC))
    writer = None
    try:
        writer = new_writer(store)
        store_all(writer, range(3))
        writer.finish()
    except StorageFailed as error:
        failpoint.install(None)
        assert errno.ENOSPC == error.code  # noqa: PT017 - later steps do not fail
        if writer is not None:
            writer.abandon()

    frames = {layout.chunk_name(ENTRIES[n]): b"".join(frame_of(n)) for n in range(3)}
    assert [] == store.temporary.names()
    for name in store.names():
        assert frames[name] == (store.path / name[:2] / name).read_bytes()


def test_abandoned_run_leaves_nothing(store: FakeStore) -> None:
    """What has no name yet is removed, of open and of full batches."""
    writer = new_writer(store)
    store_all(writer, range(4))
    writer.abandon()

    assert (set(), []) == (store.names(), store.temporary.names())


def test_chunk_that_someone_else_named_meanwhile_stays(store: FakeStore) -> None:
    """Two runs that store the same chunk end with one file, the first one's."""
    one, other = new_writer(store), new_writer(store)
    for writer in (one, other):
        assert writer.claim(ENTRIES[0])
    one.store(ENTRIES[0], frame_of(0))
    one.finish()
    inode = (store.file(ENTRIES[0])).stat().st_ino
    other.store(ENTRIES[0], frame_of(0))
    other.finish()

    assert inode == (store.file(ENTRIES[0])).stat().st_ino
    assert [] == store.temporary.names()


@pytest.mark.parametrize("part", ["00", "ab", "ff", "tmp", "users", "trash", "quarantine"])
def test_store_with_a_missing_or_foreign_part_is_refused(tmp_path: Path, part: str) -> None:
    """A folder that is gone stops who writes before he starts, a link out of the store everybody."""
    store = FakeStore(tmp_path / "whole")
    check_fanout(store.chunks, whole=True)
    (store.path / part).rename(store.path / "moved")
    for kind in ("missing", "link", "file"):
        if kind == "link":
            (store.path / part).symlink_to("moved")
        elif kind == "file":
            (store.path / part).unlink()
            (store.path / part).touch()
        for whole in (True, False):
            refused = whole or kind != "missing"
            with (
                pytest.raises(RepositoryRefused, match=f"{part} is not a directory")
                if refused
                else nullcontext()
            ):
                check_fanout(store.chunks, whole=whole)
    store.close()


def replaced(store: FakeStore) -> tuple[ChunkWriter, bytes]:
    """A writer on a store with a file of a chunk that is to be replaced, and what that file has."""
    store.file(ENTRIES[0]).write_bytes(b"nobody can read this")
    return new_writer(store), b"nobody can read this"


def test_a_file_that_the_disk_does_not_give_is_replaced_in_one_step(store: FakeStore) -> None:
    """By a new file of the same name, which counts as stored; nothing is left beside it."""
    writer, _ = replaced(store)
    held = os.open(store.file(ENTRIES[0]), os.O_RDONLY)
    try:
        writer.replace(ENTRIES[0], frame_of(0))
        writer.finish()
        assert os.fstat(held).st_nlink == 0
    finally:
        os.close(held)

    content = b"".join(frame_of(0))
    assert content == store.file(ENTRIES[0]).read_bytes()
    assert (1, len(content)) == (writer.stored_files, writer.stored_bytes)
    assert [] == store.temporary.names()


@pytest.mark.parametrize("step", range(1, 5))
def test_a_replacement_that_fails_leaves_the_old_file(store: FakeStore, step: int) -> None:
    """Creating, writing, syncing and naming the new one come before the one step that counts."""
    writer, before = replaced(store)
    failpoint.install(FailAt(step, errno.ENOSPC))
    with pytest.raises(StorageFailed):
        writer.replace(ENTRIES[0], frame_of(0))
    failpoint.install(None)
    writer.abandon()

    assert before == store.file(ENTRIES[0]).read_bytes()
    assert [] == store.temporary.names()


def test_a_replacement_that_cannot_be_moved_leaves_nothing_beside_it(store: FakeStore) -> None:
    """The old file is there as before."""
    writer, before = replaced(store)

    def fail(step: str) -> None:
        if step.startswith("move "):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    failpoint.install(fail)
    with pytest.raises(StorageFailed):
        writer.replace(ENTRIES[0], frame_of(0))
    failpoint.install(None)
    writer.abandon()

    assert before == store.file(ENTRIES[0]).read_bytes()
    assert [] == store.temporary.names()


def test_what_a_killed_replacement_leaves_is_a_chunk_s_file(store: FakeStore) -> None:
    """Of a dead writer's folder collection removes chunk files, and nothing else."""
    writer, _ = replaced(store)
    left: list[str] = []

    def look(step: str) -> None:
        if step.startswith("move "):
            left.extend(store.temporary.names())

    failpoint.install(look)
    writer.replace(ENTRIES[0], frame_of(0))
    failpoint.install(None)
    writer.abandon()

    assert [True] == [layout.is_chunk_name(name) for name in left]
