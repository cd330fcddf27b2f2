"""The chunk writer: each chunk once, durable before it has a name, from any number of threads."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.domain.chunk import ChunkId, Encoder, chunk_id, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground import durable, failpoint
from backy.repository import layout
from backy.repository.chunks import ChunkWriter
from fakes import FakeStore, Steps

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


def test_stored_chunks_are_in_the_store_after_finish(store: FakeStore) -> None:
    """Every claimed chunk has its name, its frame and no write permission; nothing else is left."""
    before = os.umask(0o022)
    writer = new_writer(store)
    assert 5 == store_all(writer, range(5))
    writer.finish()
    os.umask(before)

    assert {layout.chunk_name(entry) for entry in ENTRIES[:5]} == store.names()
    for number in range(5):
        path = store.file(ENTRIES[number])
        assert b"".join(frame_of(number)) == path.read_bytes()
        assert 0o440 == stat.S_IMODE(path.stat().st_mode)
    assert [] == store.temporary.names()
    assert (5, sum(len(b"".join(frame_of(n))) for n in range(5))) == (
        writer.stored_files,
        writer.stored_bytes,
    )


def test_chunk_is_claimed_once(store: FakeStore) -> None:
    """While it is being stored, and after it was, a chunk is a hit."""
    writer = new_writer(store)

    assert [True, False] == [writer.claim(ENTRIES[0]) for _ in range(2)]
    writer.store(ENTRIES[0], frame_of(0))
    assert not writer.claim(ENTRIES[0])
    writer.finish()
    assert not new_writer(store).claim(ENTRIES[0])


def test_chunk_that_is_named_between_two_looks_is_not_claimed_again(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be written, and counted, twice."""
    writer = new_writer(store, batch_size=1)
    real = writer.has

    def has(entry: Entry) -> bool:
        found = real(entry)
        monkeypatch.setattr(writer, "has", real)
        assert 1 == store_all(writer, range(1))  # another thread, up to the name
        return found

    monkeypatch.setattr(writer, "has", has)

    assert not writer.claim(ENTRIES[0])
    assert 1 == writer.stored_files
    writer.finish()


def test_delta_and_full_form_of_a_chunk_are_different_files(store: FakeStore) -> None:
    """`ID`, `ID.BASE` and `ID.OTHER` never stand for each other."""
    ident = ENTRIES[0].ident
    forms = [Entry(ident), Entry(ident, BASE), Entry(ident, ENTRIES[1].ident)]
    writer = new_writer(store)

    assert [True] * 3 == [writer.claim(form) for form in forms]
    for form in forms:
        writer.store(form, [b"frame"])
    writer.finish()
    assert {layout.chunk_name(form) for form in forms} == store.names()


def test_chunk_in_the_trash_is_no_hit(store: FakeStore) -> None:
    """What was condemned may be purged before this run's revision exists: it is stored anew."""
    store.file(ENTRIES[0], "trash/gen").write_bytes(b"".join(frame_of(0)))

    assert new_writer(store).claim(ENTRIES[0])


def test_threads_store_each_chunk_once(store: FakeStore) -> None:
    """Four threads that meet the same chunks claim each of them exactly once together."""
    writer = new_writer(store, batch_size=1 << 30)
    claimed: list[int] = []
    together = threading.Barrier(4)

    def work() -> None:
        together.wait()
        claimed.append(store_all(writer, range(60)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish()

    assert (60, 60) == (sum(claimed), writer.stored_files)
    assert {layout.chunk_name(entry) for entry in ENTRIES} == store.names()


def test_threads_and_small_batches_name_every_chunk(store: FakeStore) -> None:
    """Batches that end while others are filled lose nothing and leave nothing behind."""
    writer = new_writer(store, batch_size=6000)
    threads = [threading.Thread(target=store_all, args=(writer, range(60))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish()

    assert {layout.chunk_name(entry) for entry in ENTRIES} == store.names()
    assert [] == store.temporary.names()


def test_batch_ends_by_its_bytes(store: FakeStore) -> None:
    """With batches of three chunks' bytes a third chunk brings the first three into the store."""
    writer = new_writer(store, batch_size=3 * len(b"".join(frame_of(0))))
    counts = []
    for number in range(7):
        store_all(writer, range(number, number + 1))
        counts.append(len(store.names()))
    writer.finish()

    assert [0, 0, 3, 3, 3, 6, 6] == counts
    assert 7 == len(store.names())


def test_memory_holds_names_of_open_batches_only(store: FakeStore) -> None:
    """However many chunks a run stores, only those without a name yet are remembered."""
    writer = new_writer(store, batch_size=10 * len(b"".join(frame_of(0))))
    most = 0
    for number in range(60):
        store_all(writer, range(number, number + 1))
        most = max(most, len(writer._unnamed))
    writer.finish()

    assert most <= 10
    assert (0, 0) == (len(writer._unnamed), len(writer._batches))


def test_names_come_after_the_sync_and_before_the_last_one(store: FakeStore) -> None:
    """Write, sync, link; and at the end one more sync, which makes all names last."""
    steps = Steps()
    failpoint.install(steps)
    writer = new_writer(store)
    store_all(writer, range(2))
    writer.finish()

    expected = ["open", "open", "write", "write", "sync", "link", "remove", "link", "remove", "sync"]
    assert expected == steps.verbs()


def test_names_of_other_writers_are_made_durable_too(store: FakeStore) -> None:
    """A run that stored nothing, because all was there, ends with a sync all the same."""
    store_all(other := new_writer(store), range(1))
    other.finish()
    steps = Steps()
    failpoint.install(steps)
    writer = new_writer(store)
    assert 0 == store_all(writer, range(1))
    writer.finish()

    assert ["open", "sync"] == steps.verbs()
