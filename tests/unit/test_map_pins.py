"""Maps as pins: who uses a map holds its lock, and who comes too late learns that it is gone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry, Layout
from backy.domain.revision import MapDigest
from backy.ground import locks
from backy.ground.directory import Directory
from backy.ground.errors import MapDamaged, RevisionGone
from backy.repository import layout
from backy.repository.maps import MapWriter, open_pinned
from fakes import fake_revision

C = 4096
UUID, OTHER = fake_revision(1).uuid, fake_revision(2).uuid
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


def look(job: Directory, wanted: MapDigest, uuid: str = UUID) -> list[tuple[int, Entry]]:
    """Open a map and read all of it."""
    with open_pinned(job, uuid, wanted) as reader:
        return list(reader.used())


def lockable(path: Path) -> bool:
    """Whether somebody else gets the file's lock alone, as garbage collection would ask."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return locks.try_exclusive(fd)
    finally:
        os.close(fd)


def test_open_map_is_pinned(job: Directory) -> None:
    """While a map is being read nobody gets its lock alone; other readers are welcome."""
    wanted = put_map(job)
    assert lockable(map_path(job))
    with open_pinned(job, UUID, wanted), open_pinned(job, UUID, wanted):
        assert not lockable(map_path(job))

    assert lockable(map_path(job))


def test_new_map_is_pinned_from_before_it_has_a_name(job: Directory) -> None:
    """From the moment that a map can be seen it is locked, until its writer closes it."""
    writer = MapWriter(job, UUID, "", Layout(C, C))
    assert not _relockable(writer)
    writer.seal()
    writer.link()
    assert not lockable(map_path(job))
    writer.close()

    assert lockable(map_path(job))


def _relockable(writer: MapWriter) -> bool:
    return lockable(Path(f"/proc/self/fd/{writer._file.fd}"))


def test_map_that_cannot_be_opened_is_not_left_pinned(job: Directory) -> None:
    """After an error the pin and the descriptor are gone."""
    wanted = put_map(job)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MapDamaged):
        open_pinned(job, OTHER, wanted)
    with pytest.raises(MapDamaged):
        open_pinned(job, UUID, put_map(job, OTHER))

    assert before == len(os.listdir("/proc/self/fd"))
    assert lockable(map_path(job))


def test_forgotten_revision_is_gone(job: Directory) -> None:
    """Without a record its map is nobody's any more, whether it is still there or not."""
    wanted = put_map(job)
    os.unlink(job.file_path(f"{UUID}.rev"))
    with pytest.raises(RevisionGone):
        look(job, wanted)
    map_path(job).unlink()

    with pytest.raises(RevisionGone):
        look(job, wanted)


@pytest.mark.parametrize("gone", [[".rev"], [".rev", ".map"], [".map"]])
def test_revision_that_goes_while_it_is_opened_is_gone(
    job: Directory, monkeypatch: pytest.MonkeyPatch, gone: list[str]
) -> None:
    """Forgotten, or reaped, between open and lock: the pin came too late and is not used."""
    wanted = put_map(job)
    real = locks.try_shared

    def late(fd: int) -> bool:
        for suffix in gone:
            os.unlink(job.file_path(UUID + suffix))
        return real(fd)

    monkeypatch.setattr(locks, "try_shared", late)
    with pytest.raises(RevisionGone):
        look(job, wanted)


def test_nobody_waits_for_a_collector_that_holds_a_map(job: Directory) -> None:
    """It holds maps without a record only, so this one is on its way out; a frozen one blocks nobody."""
    wanted = put_map(job)
    fd = os.open(map_path(job), os.O_RDONLY)
    try:
        assert locks.try_exclusive(fd)
        with pytest.raises(RevisionGone):
            look(job, wanted)
    finally:
        os.close(fd)
