"""Garbage that the system will not let go is left alone, and keeps no other from going."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backy.ground import failpoint
from backy.repository import garbage
from backy.repository.refusals import Refusals
from fakes import FakeStore, Steps
from generations import CHUNKS, FULL, NOW, condemned, filled, in_trash, marked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    """A store with full chunks and deltas, each holding its own name."""
    with filled(tmp_path / "chunks") as store:
        yield store


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, code: int = errno.EUCLEAN) -> None:
    """Every look at this file fails, as at a broken inode."""
    looked = os.stat

    def fails(path: str, **options: Any) -> os.stat_result:
        if path == name:
            raise OSError(code, os.strerror(code), path)
        return looked(path, **options)

    monkeypatch.setattr(os, "stat", fails)


@pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EIO, errno.EBADMSG, errno.EACCES, errno.EPERM])
def test_garbage_that_the_system_refuses_is_left_alone(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It is told, and all other garbage is counted and condemned."""
    refuse(monkeypatch, FULL[0], code)
    path = str(store.path / FULL[0][:2] / FULL[0])
    counting, listing = Refusals(), Refusals()
    census = garbage.take_census(store.chunks, marked(), lambda _: None, counting)
    assert len(CHUNKS) - 1 == census.total == census.unmarked.files
    assert {*CHUNKS} - {FULL[0]} == set(garbage.unmarked(store.chunks, marked(), listing))
    for refusals in (counting, listing):
        assert [(path, code)] == [(one.path, one.code) for one in refusals.found.values()]

    with garbage.new_generation(store.chunks) as generation:
        assert (0, 0) == generation.condemn(FULL[0], Refusals())
        assert 1 == generation.condemn(FULL[1], Refusals()).files
    assert {FULL[1]} == in_trash(store)


def test_garbage_that_cannot_be_renamed_is_left_alone(store: FakeStore) -> None:
    """An immutable file, for one."""
    refusals = Refusals()
    with garbage.new_generation(store.chunks) as generation:
        failpoint.install(Steps(fail_at="move ", code=errno.EPERM))
        assert (0, 0) == generation.condemn(FULL[0], refusals)

    assert [str(store.path / FULL[0][:2] / FULL[0])] == list(refusals.found)
    assert FULL[0] in store.names()


@pytest.mark.parametrize("step", ["look", "remove"])
def test_a_condemned_file_that_is_refused_keeps_only_its_generation(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """With the seal, so that it is purged again; it is no stranger."""
    refusals = Refusals()
    with condemned(store, *FULL) as generation:
        path = f"{store.path}/trash/{generation.name}/{FULL[1]}"
        if step == "look":
            refuse(monkeypatch, FULL[1])
        failpoint.install(Steps(fail_at=f"remove {path}"))
        done = generation.purge(marked(), refusals)
        failpoint.install(None)
        monkeypatch.undo()

        assert (3, 0, ()) == (done.removed.files, done.rescued, done.foreign)
        assert [path] == list(refusals.found)
        assert {FULL[1], "sealed"} == in_trash(store)
        assert 1 == generation.purge(marked(), Refusals()).removed.files
    assert [] == garbage.generations(store.chunks)


@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.ENOENT])
def test_what_is_needed_and_cannot_be_linked_back_stays_in_the_trash(
    store: FakeStore, code: int
) -> None:
    """Where readers find it; what nobody needs goes all the same."""
    with condemned(store, *FULL) as generation:
        failpoint.install(Steps(fail_at="link ", code=code))
        done = generation.purge(marked(FULL[0]), Refusals())
        failpoint.install(None)
        assert (3, 0) == (done.removed.files, done.rescued)
        assert {FULL[0], "sealed"} == in_trash(store)

        assert 1 == generation.purge(marked(FULL[0]), Refusals()).rescued
    assert FULL[0] in store.names()


def test_a_seal_that_cannot_be_removed_is_not_replaced(store: FakeStore) -> None:
    """Its generation has no census that counts, and waits."""
    refusals = Refusals()
    with condemned(store, FULL[0]) as generation:
        failpoint.install(Steps(fail_at="remove ", code=errno.EUCLEAN))
        assert generation.reseal(NOW, [], refusals) is None

    assert [f"{store.path}/trash/{generation.name}/sealed"] == list(refusals.found)
