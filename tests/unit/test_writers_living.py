"""Writers: who lives is known by a lock, and only what the dead left is removed."""

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backy.domain.chunk import chunk_id
from backy.ground import failpoint, locks
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.repository import users
from backy.repository.refusals import Refusals
from backy.repository.users import Writer, bury, living, registered, strangers
from fakes import FakeStore, Steps

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
    """Nobody is counted then, nothing of anybody is removed, and its path is told."""
    opened = Directory.open_file

    def fails(self: Directory, name: str) -> int:
        if self.path.endswith("users"):
            raise OSError(code, os.strerror(code), name)
        return opened(self, name)

    with registered(store.chunks, "vm", NOW) as user:
        monkeypatch.setattr(Directory, "open_file", fails)
        path = str(store.path / "users" / user.name)
        for act in (living, lambda chunks: bury(chunks, Refusals())):
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                act(store.chunks)
            assert path == caught.value.filename
        assert (store.path / "users" / user.name).exists()
        assert (store.path / "tmp" / user.name).exists()


# ..What the dead left.........................................................................


def test_what_a_dead_writer_left_is_removed(store: FakeStore) -> None:
    """Its chunk files, its folder and its file."""
    leave(store, CHUNK, f"{CHUNK}.{CHUNK}")

    assert 2 == bury(store.chunks, Refusals())
    assert [] == [*(store.path / "users").iterdir(), *(store.path / "tmp").iterdir()]
    assert 0 == bury(store.chunks, Refusals())


def test_what_a_living_writer_has_stays(store: FakeStore) -> None:
    """Beside a dead one's that goes."""
    leave(store, CHUNK)
    with registered(store.chunks, "vm", NOW) as user:
        own = store.path / "tmp" / user.name / CHUNK
        own.write_text("not named yet")

        assert 1 == bury(store.chunks, Refusals())
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

    assert 1 == bury(store.chunks, Refusals())
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
        assert removed == bury(store.chunks, Refusals())
        assert {str(path) for path in others} == set(strangers(store.chunks, Refusals()))
        assert all(path.is_symlink() or path.exists() for path in others)
    assert {"note", "ab" * 32} == {path.name for path in folder.iterdir()}


def test_a_writer_is_no_stranger(store: FakeStore) -> None:
    """Nor is what it left, before and after it is removed."""
    with registered(store.chunks, "vm", NOW):
        assert [] == strangers(store.chunks, Refusals())
        leave(store)
        assert [] == strangers(store.chunks, Refusals())
        bury(store.chunks, Refusals())
        assert [] == strangers(store.chunks, Refusals())


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

    assert 0 == bury(store.chunks, Refusals())
    assert [] == [*(store.path / "users").iterdir(), *(store.path / "tmp").iterdir()]


def test_a_folder_that_vanishes_when_it_is_about_to_be_removed_is_fine(store: FakeStore) -> None:
    """As a killed collection's successor may meet it."""
    folder = leave(store)

    def vanish(step: str) -> None:
        if step == f"remove {folder}":
            folder.rmdir()

    failpoint.install(vanish)

    assert 0 == bury(store.chunks, Refusals())


# ..What the system refuses....................................................................


@pytest.mark.parametrize("step", ["file", "folder", "user"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EUCLEAN, errno.EPERM])
def test_one_dead_writer_that_cannot_be_buried_keeps_no_other(
    store: FakeStore, step: str, code: int
) -> None:
    """It stays dead, is told as refused and not as a stranger, and is buried when that is possible."""
    other = chunk_id(b"other").hex()
    folder = leave(store, CHUNK, other)
    leave(store, CHUNK, name=DEAD.replace("dead", "beef"))
    where = {"file": folder / CHUNK, "folder": folder, "user": store.path / "users" / DEAD}[step]
    refusals = Refusals()

    def fail(reached: str) -> None:
        if reached == f"remove {where}":
            raise OSError(code, os.strerror(code))

    failpoint.install(fail)
    bury(store.chunks, refusals)
    failpoint.install(None)

    assert [(str(where), code)] == [(one.path, one.code) for one in refusals.found.values()]
    assert [DEAD] == [path.name for path in (store.path / "users").iterdir()]
    assert [where.name] * (step == "file") == [path.name for path in folder.glob("*")]
    assert ([], []) == (living(store.chunks), strangers(store.chunks, Refusals()))
    bury(store.chunks, Refusals())
    assert [] == [*(store.path / "users").iterdir(), *(store.path / "tmp").iterdir()]


def test_a_full_or_read_only_disk_ends_the_burial(store: FakeStore) -> None:
    """It is no matter of one writer."""
    leave(store, CHUNK)
    failpoint.install(Steps(fail_at="remove ", code=errno.EROFS))
    with pytest.raises(StorageFailed):
        bury(store.chunks, Refusals())


def test_what_cannot_be_looked_at_is_refused_and_no_stranger(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken inode among the folders."""
    leave(store)
    (store.path / "users" / DEAD).unlink()
    looked, entered = os.stat, Directory.enter

    def fails(path: str, **options: Any) -> os.stat_result:
        if path == DEAD:
            raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))
        return looked(path, **options)

    def cannot_enter(self: Directory, name: str) -> Directory:
        if name == DEAD:
            raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))
        return entered(self, name)

    monkeypatch.setattr(os, "stat", fails)
    monkeypatch.setattr(Directory, "enter", cannot_enter)
    refusals = Refusals()

    assert (0, []) == (bury(store.chunks, refusals), strangers(store.chunks, refusals))
    assert [str(store.path / "tmp" / DEAD)] == list(refusals.found)
