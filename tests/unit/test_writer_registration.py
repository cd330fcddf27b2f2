"""Registered writers: a locked file and a folder of their own for exactly as long as they live."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backy.domain.chunk import ZERO
from backy.ground import durable, failpoint, locks
from backy.ground.errors import StorageFailed
from backy.repository.users import registered
from fakes import FailAt, FakeStore, Steps

SINCE = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    """A store without users."""
    found = FakeStore(tmp_path / "chunks", [ZERO])
    (found.path / "tmp/user").rmdir()
    yield found
    found.close()


def entries(store: FakeStore) -> tuple[list[str], list[str]]:
    """Names of registration files and of folders."""
    return os.listdir(store.path / "users"), os.listdir(store.path / "tmp")


def is_locked(path: Path) -> bool:
    """Whether somebody holds the file's lock."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return not locks.try_shared(fd)
    finally:
        os.close(fd)


def test_registered_writer_has_a_locked_file_and_a_folder(store: FakeStore) -> None:
    """While the block runs, its file is locked and says who that is, and its folder is there."""
    with registered(store.chunks, "vm01", SINCE) as user:
        path = store.path / "users" / user.name
        assert ([user.name], [user.name]) == entries(store)
        assert is_locked(path)
        assert {"job": "vm01", "pid": os.getpid(), "since": "2026-11-01T12:30:00+00:00"} == json.loads(
            path.read_text()
        )
        assert [] == user.temporary.names()
        assert 0o700 == stat.S_IMODE((store.path / "tmp" / user.name).stat().st_mode)


def test_nothing_is_left_when_a_writer_ends(store: FakeStore) -> None:
    """File, folder, lock and descriptors are gone afterwards."""
    before = len(os.listdir("/proc/self/fd"))
    with registered(store.chunks, "vm01", SINCE):
        pass

    assert ([], []) == entries(store)
    assert before == len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_when_a_writer_fails(store: FakeStore) -> None:
    """The same holds when the block raises, and its error passes through."""
    with pytest.raises(KeyError), registered(store.chunks, "vm01", SINCE):
        raise KeyError

    assert ([], []) == entries(store)


def test_file_is_locked_before_anybody_can_see_it(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment at which the name appears, the lock is held."""
    seen: list[bool] = []
    real = durable.UnnamedFile.link

    def link(file: durable.UnnamedFile, name: str) -> None:
        real(file, name)
        seen.append(is_locked(store.path / "users" / name))

    monkeypatch.setattr(durable.UnnamedFile, "link", link)
    with registered(store.chunks, "vm01", SINCE):
        pass

    assert [True] == seen


def test_folder_goes_before_the_registration(store: FakeStore) -> None:
    """As long as the folder is there, somebody answers for it."""
    steps = Steps()
    failpoint.install(steps)
    with registered(store.chunks, "vm01", SINCE) as user:
        pass

    removed = [step.removeprefix(f"remove {store.path}/") for step in steps.seen[-2:]]
    assert ["create", "write", "link", "make", "remove", "remove"] == steps.verbs()
    assert [f"tmp/{user.name}", f"users/{user.name}"] == removed


def test_files_that_a_writer_left_are_for_collection(store: FakeStore) -> None:
    """A folder that is not empty stays, without its user; nothing in it is removed here."""
    with registered(store.chunks, "vm01", SINCE) as user:
        (store.path / "tmp" / user.name / "chunk").touch()

    assert ([], [user.name]) == entries(store)
    assert ["chunk"] == os.listdir(store.path / "tmp" / user.name)


def test_writers_do_not_share_anything(store: FakeStore) -> None:
    """Two backups at the same time have names, locks and folders of their own."""
    with registered(store.chunks, "a", SINCE) as one, registered(store.chunks, "b", SINCE) as other:
        assert one.name != other.name
        assert {one.name, other.name} == set(os.listdir(store.path / "users"))

    assert ([], []) == entries(store)


@pytest.mark.parametrize("step", range(1, 5))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_registration_that_fails_leaves_nothing(store: FakeStore, step: int, code: int) -> None:
    """A full or read-only disk is told before the block begins, and no half registration stays."""
    failpoint.install(FailAt(step, code))
    begun = False
    with pytest.raises(StorageFailed) as caught, registered(store.chunks, "vm01", SINCE):
        begun = True
    failpoint.install(None)

    assert (code, False) == (caught.value.code, begun)
    assert ([], []) == entries(store)


@pytest.mark.parametrize("step", [5, 6])
def test_end_of_a_writer_never_fails(store: FakeStore, step: int) -> None:
    """What the disk does not let go is collection's: the run's own success or error stands."""
    failpoint.install(FailAt(step))
    with registered(store.chunks, "vm01", SINCE) as user:
        pass
    failpoint.install(None)

    files, folders = entries(store)
    assert ([], [user.name]) == (files, folders) if step == 5 else ([user.name], []) == (files, folders)
    assert not any(is_locked(store.path / "users" / name) for name in files)
