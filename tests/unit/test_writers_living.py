"""Writers: who lives is known by a lock, and only what the dead left is removed."""

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.ground import failpoint, locks
from backy.ground.directory import Directory
from backy.repository import users
from backy.repository.users import Writer, bury, living, registered, strangers
from fakes import FakeStore

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
DEAD = "00000000-0000-4000-8000-00000000dead"
CHUNK = chunk_id(b"chunk").hex()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    """An empty store."""
    store = FakeStore(tmp_path / "chunks")
    (store.path / "tmp/user").rmdir()
    yield store
    store.close()


def leave(store: FakeStore, *files: str, name: str = DEAD) -> Path:
    """What a writer that was killed left: its file, and its folder with these files."""
    (store.path / "users" / name).write_text('{"job": "vm"}\n')
    folder = store.path / "tmp" / name
    folder.mkdir()
    for file in files:
        (folder / file).write_text("unnamed")
    return folder


# ..Who lives..................................................................................


def test_a_registered_writer_lives_until_it_ends(store: FakeStore) -> None:
    """With the job, process and time of its note."""
    with registered(store.chunks, "vm", NOW) as user:
        assert [Writer(user.name, "vm", os.getpid(), NOW)] == living(store.chunks)

    assert [] == living(store.chunks)


def test_looking_disturbs_nobody(store: FakeStore) -> None:
    """Any number of times, the writer goes on living and its lock is its own."""
    with registered(store.chunks, "vm", NOW) as user:
        for _ in range(3):
            assert [user.name] == [one.name for one in living(store.chunks)]


def test_who_left_a_file_without_a_lock_is_dead(store: FakeStore) -> None:
    """However it died, and however young the file is."""
    leave(store)

    assert [] == living(store.chunks)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"rotten",
        b"[]",
        b"{}",
        b'{"job": 1}',
        b'{"job": "x", "pid": 1e999, "since": ""}',
        b"[" * 4096,
    ],
)
def test_a_writer_whose_note_cannot_be_read_lives_all_the_same(store: FakeStore, note: bytes) -> None:
    """The lock decides; the job is not known."""
    path = store.path / "users" / DEAD
    path.write_bytes(note)
    with path.open() as file:
        assert locks.try_exclusive(file.fileno())

        assert [(DEAD, "", 0)] == [one[:3] for one in living(store.chunks)]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_user_whose_file_cannot_be_opened_is_not_taken_for_dead(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Nobody is counted then, and nothing of anybody is removed."""
    opened = Directory.open_file

    def fails(self: Directory, name: str) -> int:
        if self.path.endswith("users"):
            raise OSError(code, os.strerror(code), name)
        return opened(self, name)

    with registered(store.chunks, "vm", NOW) as user:
        monkeypatch.setattr(Directory, "open_file", fails)
        for act in (living, bury):
            with pytest.raises(OSError, match=os.strerror(code)):
                act(store.chunks)
        assert (store.path / "users" / user.name).exists()
        assert (store.path / "tmp" / user.name).exists()


# ..What the dead left.........................................................................


def test_what_a_dead_writer_left_is_removed(store: FakeStore) -> None:
    """Its chunk files, its folder and its file."""
    leave(store, CHUNK, f"{CHUNK}.{CHUNK}")

    assert 2 == bury(store.chunks)
    assert [] == [*(store.path / "users").iterdir(), *(store.path / "tmp").iterdir()]
    assert 0 == bury(store.chunks)


def test_what_a_living_writer_has_stays(store: FakeStore) -> None:
    """Beside a dead one's that goes."""
    leave(store, CHUNK)
    with registered(store.chunks, "vm", NOW) as user:
        own = store.path / "tmp" / user.name / CHUNK
        own.write_text("not named yet")

        assert 1 == bury(store.chunks)
        assert own.exists()
        assert [user.name] == [one.name for one in living(store.chunks)]
        own.unlink()


def test_half_of_what_a_dead_writer_left_is_removed_too(store: FakeStore) -> None:
    """Killed before it had a folder, or buried by a collection that was killed."""
    leave(store, CHUNK).joinpath(CHUNK).unlink()
    (store.path / "tmp" / DEAD).rmdir()
    other = DEAD.replace("dead", "beef")
    leave(store, CHUNK, name=other)
    (store.path / "users" / other).unlink()

    assert 1 == bury(store.chunks)
    assert [] == [*(store.path / "users").iterdir(), *(store.path / "tmp").iterdir()]


def test_files_of_others_stay_and_are_told(store: FakeStore) -> None:
    """Among the users, among their folders, and in a dead writer's folder."""
    folder = leave(store, CHUNK, "note")
    (folder / ("ab" * 32)).mkdir()
    others = [folder]
    for place in ("users", "tmp"):
        others.append(store.path / place / "note")
        others[-1].write_text("mine")
        others.append(store.path / place / DEAD.replace("dead", "11ff"))
        others[-1].symlink_to("/etc/hostname")
    others.append(store.path / "users" / DEAD.replace("dead", "d1d1"))
    others[-1].mkdir()

    for removed in (1, 0):
        assert removed == bury(store.chunks)
        assert {str(path) for path in others} == set(strangers(store.chunks))
        assert all(path.is_symlink() or path.exists() for path in others)
    assert {"note", "ab" * 32} == {path.name for path in folder.iterdir()}


def test_a_writer_is_no_stranger(store: FakeStore) -> None:
    """Nor is what it left, before and after it is removed."""
    with registered(store.chunks, "vm", NOW):
        assert [] == strangers(store.chunks)
        leave(store)
        assert [] == strangers(store.chunks)
        bury(store.chunks)
        assert [] == strangers(store.chunks)


@pytest.mark.parametrize("gone", ["folder", "all", "file"])
def test_a_writer_that_ends_while_the_dead_are_buried_disturbs_nobody(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """Its file and folder may vanish between any two looks."""
    folder = leave(store)

    def look(_users: Directory, name: str) -> None:
        if gone != "file":
            folder.rmdir()
        if gone != "folder":
            (store.path / "users" / name).unlink()

    monkeypatch.setattr(users, "_look", look)

    assert 0 == bury(store.chunks)
    assert [] == [*(store.path / "users").iterdir(), *(store.path / "tmp").iterdir()]


def test_a_folder_that_vanishes_when_it_is_about_to_be_removed_is_fine(store: FakeStore) -> None:
    """As a killed collection's successor may meet it."""
    folder = leave(store)

    def vanish(step: str) -> None:
        if step == f"remove {folder}":
            folder.rmdir()

    failpoint.install(vanish)

    assert 0 == bury(store.chunks)
