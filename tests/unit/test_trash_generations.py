"""The trash: what goes in, when it is sealed, what comes back, and what is never touched."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.domain.collection import Seal
from backy.ground import failpoint
from backy.ground.errors import StorageFailed
from backy.repository import garbage
from backy.repository.refusals import Refusals
from fakes import FakeStore, Steps
from generations import CHUNKS, DELTAS, FULL, NOW, condemned, filled, in_trash, marked, put, strangers


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    """A store with full chunks and deltas, each holding its own name."""
    with filled(tmp_path / "chunks") as store:
        yield store


# ..Census and condemning......................................................................


def test_census_counts_all_chunks_and_those_that_nobody_needs(store: FakeStore) -> None:
    """Folder by folder, with their bytes on the disk."""
    folders: list[int] = []
    found = garbage.take_census(store.chunks, marked(*FULL[1:], DELTAS[0]), folders.append, Refusals())

    unneeded = [store.path / name[:2] / name for name in (FULL[0], DELTAS[1])]
    assert (len(CHUNKS), 2, ()) == (found.total, found.unmarked.files, found.foreign)
    assert sum(path.stat().st_blocks * 512 for path in unneeded) == found.unmarked.bytes
    assert [1] * 256 == folders


def test_unmarked_deltas_come_before_the_bases_that_they_lean_on(store: FakeStore) -> None:
    """Killed between the two, a base without a delta is left, and no delta without a base."""
    names = list(garbage.unmarked(store.chunks, marked(FULL[3]), Refusals()))

    assert set(DELTAS) == set(names[:2])
    assert set(FULL[:3]) == set(names[2:])


def test_files_of_others_are_told_and_never_garbage(store: FakeStore) -> None:
    """Neither directories, links and pipes under a chunk's name, nor chunks in the wrong folder."""
    others = strangers(store.path / "ab")
    wrong = store.path / ("00" if FULL[1][:2] != "00" else "01") / FULL[1]
    wrong.write_bytes(b"in another folder than its own")
    others = [*others, wrong]
    found = garbage.take_census(store.chunks, marked(), lambda _: None, Refusals())

    assert {str(path) for path in others} == set(found.foreign)
    assert (len(CHUNKS), len(CHUNKS)) == (found.total, found.unmarked.files)
    assert set(CHUNKS) == set(garbage.unmarked(store.chunks, marked(), Refusals()))


def test_condemned_chunks_leave_the_store_and_keep_their_bytes(store: FakeStore) -> None:
    """Readers find them in the trash."""
    size = (store.path / FULL[0][:2] / FULL[0]).stat().st_blocks * 512
    with garbage.new_generation(store.chunks) as generation:
        assert (1, size) == generation.condemn(FULL[0], Refusals())

        assert FULL[0] not in store.names()
        assert FULL[0].encode() == (store.path / "trash" / generation.name / FULL[0]).read_bytes()


def test_a_chunk_that_was_moved_aside_since_it_was_listed_is_passed_over(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify takes bad chunks into the quarantine, at any moment."""
    gone = FULL[0]
    listdir = os.listdir

    def listed(folder: int) -> list[str]:
        names = listdir(folder)
        (store.path / gone[:2] / gone).unlink(missing_ok=True)
        return names

    monkeypatch.setattr(os, "listdir", listed)
    found = garbage.take_census(store.chunks, marked(*FULL[1:], *DELTAS), lambda _: None, Refusals())
    assert (len(CHUNKS) - 1, (0, 0), ()) == found

    put(store, gone)
    assert set(CHUNKS) - {gone} == set(garbage.unmarked(store.chunks, marked(), Refusals()))
    with garbage.new_generation(store.chunks) as generation:
        assert (0, 0) == generation.condemn(gone, Refusals())

        def move_aside(step: str) -> None:
            if step.startswith("move "):
                (store.path / FULL[1][:2] / FULL[1]).unlink()

        failpoint.install(move_aside)
        assert (0, 0) == generation.condemn(FULL[1], Refusals())
    failpoint.install(None)


def test_new_names_last_before_old_ones_are_gone_for_good(store: FakeStore) -> None:
    """First the generation's own name, then the names in it, then their absence in the store."""
    steps = Steps()
    failpoint.install(steps)
    with garbage.new_generation(store.chunks) as generation:
        generation.condemn(FULL[0], Refusals())
        generation.sync()
    failpoint.install(None)

    at = f"{store.path}/trash/{generation.name}"
    stored = f"{store.path}/{FULL[0][:2]}"
    assert [
        f"make {at}",
        f"sync {store.path}/trash",
        f"move {stored}/{FULL[0]}",
        f"sync {at}",
        f"sync {stored}",
    ] == steps.seen


# ..Seals......................................................................................


def test_a_generation_has_no_seal_until_it_is_sealed(store: FakeStore) -> None:
    """And then the writers of that moment, sorted."""
    with garbage.new_generation(store.chunks) as generation:
        assert generation.read_seal() is None
        generation.seal(NOW, ["b", "a"])

        assert Seal(at=NOW, writers=("a", "b")) == generation.read_seal()


def test_a_seal_lasts_once_it_is_set(store: FakeStore) -> None:
    """Its bytes, its name, and then the directory: nothing that would be set again by other writers."""
    with garbage.new_generation(store.chunks) as generation:
        steps = Steps()
        failpoint.install(steps)
        generation.seal(NOW, [])

        assert ["create", "write", "sync", "link", "sync"] == steps.verbs()
        assert steps.seen[-1].endswith(f"/trash/{generation.name}")


def test_a_generation_is_sealed_once(store: FakeStore) -> None:
    """A second seal would forget writers; `reseal` is for seals that say nothing."""
    with condemned(store) as generation:
        with pytest.raises(StorageFailed, match="File exists"):
            generation.seal(NOW, ["a"])

        assert Seal(at=NOW, writers=()) == generation.read_seal()
        assert (
            Seal(at=NOW, writers=("a",))
            == generation.reseal(NOW, ["a"], Refusals())
            == generation.read_seal()
        )


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 200, b"x" * (2 << 20)])
def test_a_damaged_seal_is_none_that_can_be_read(store: FakeStore, content: bytes) -> None:
    """Empty, cut short, rotten, or far too long."""
    with condemned(store) as generation:
        path = store.path / "trash" / generation.name / "sealed"
        path.chmod(0o600)
        path.write_bytes(content)

        with pytest.raises(ValueError, match=r"\S"):
            generation.read_seal()
        assert Seal(at=NOW, writers=()) == generation.reseal(NOW, [], Refusals())


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_no_seal(store: FakeStore, kind: str) -> None:
    """A link is not followed, and a pipe holds nobody up."""
    with condemned(store) as generation:
        path = store.path / "trash" / generation.name / "sealed"
        path.unlink()
        path.symlink_to("/etc/hostname") if kind == "link" else os.mkfifo(path)

        with pytest.raises(ValueError, match="it is not a seal"):
            generation.read_seal()
        assert Seal(at=NOW, writers=()) == generation.reseal(NOW, [], Refusals())


def failing(code: int) -> Callable[[str], int]:
    """An `open_file` that always fails."""

    def fails(_name: str) -> int:
        raise OSError(code, os.strerror(code))

    return fails


@pytest.mark.parametrize("code", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_seal_that_the_disk_does_not_return_is_none_that_can_be_read(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As one with wrong bytes: whoever is in it and lives is in the new one, which holds for longer."""
    with condemned(store) as generation:
        monkeypatch.setattr(generation._folder, "open_file", failing(code))
        with pytest.raises(ValueError, match="it is not a seal"):
            generation.read_seal()
        monkeypatch.undo()

        assert (
            Seal(at=NOW, writers=("a",))
            == generation.reseal(NOW, ["a"], Refusals())
            == generation.read_seal()
        )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.ENOMEM])
def test_a_seal_that_may_not_be_read_is_told_by_its_path(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """That is over at some time, so it is not replaced."""
    with condemned(store) as generation:
        monkeypatch.setattr(generation._folder, "open_file", failing(code))
        with pytest.raises(StorageFailed, match=f"read {store.path}/trash/{generation.name}/sealed: "):
            generation.read_seal()


# ..Purging....................................................................................


def test_purge_removes_what_is_not_marked_and_the_generation(store: FakeStore) -> None:
    """What lies in the store proper is not its concern, marked or not."""
    with condemned(store, FULL[0], DELTAS[0]) as generation:
        done = generation.purge(marked(), Refusals())

    assert (2, 0, ()) == (done.removed.files, done.rescued, done.foreign)
    assert done.removed.bytes > 0
    assert set(CHUNKS) - {FULL[0], DELTAS[0]} == store.names()
    assert [] == list((store.path / "trash").iterdir())


def test_marked_chunks_are_linked_back(store: FakeStore) -> None:
    """With their bytes, and durably, before anything is removed."""
    steps = Steps()
    with condemned(store, FULL[0], DELTAS[0], FULL[1]) as generation:
        failpoint.install(steps)
        done = generation.purge(marked(FULL[0], DELTAS[0]), Refusals())
    failpoint.install(None)

    assert (1, 2) == (done.removed.files, done.rescued)
    assert set(CHUNKS) - {FULL[1]} == store.names()
    for name in (FULL[0], DELTAS[0]):
        assert name.encode() == (store.path / name[:2] / name).read_bytes()
    assert ["link", "link", "sync", *["remove"] * 5] == steps.verbs()


def test_marked_chunk_that_was_stored_anew_is_dropped_after_a_sync(store: FakeStore) -> None:
    """The new one stays; its name may be that of a writer who has not synced it yet."""
    steps = Steps()
    with condemned(store, FULL[0]) as generation:
        path = put(store, FULL[0], b"anew")
        failpoint.install(steps)
        done = generation.purge(marked(FULL[0]), Refusals())
    failpoint.install(None)

    assert (1, 0, b"anew") == (done.removed.files, done.rescued, path.read_bytes())
    assert ["link", "sync", "remove", "remove", "remove"] == steps.verbs()
    assert set() == in_trash(store)


def test_nothing_is_removed_if_what_was_linked_back_may_not_last(store: FakeStore) -> None:
    """A failed sync leaves the trash as it is."""
    with condemned(store, FULL[0], FULL[1]) as generation:
        failpoint.install(Steps(fail_at="sync "))
        with pytest.raises(StorageFailed):
            generation.purge(marked(FULL[0]), Refusals())
    failpoint.install(None)

    assert {FULL[0], FULL[1], "sealed"} == in_trash(store)


def test_what_comes_while_it_is_purged_is_not_removed(store: FakeStore) -> None:
    """Somebody's hand put it there, and nobody has asked the marks about it."""
    with condemned(store, FULL[0], FULL[1]) as generation:
        late = store.path / "trash" / generation.name / FULL[2]

        def put_late(step: str) -> None:
            if step.startswith("sync "):
                late.write_bytes(b"late")

        failpoint.install(put_late)
        done = generation.purge(marked(FULL[0]), Refusals())
    failpoint.install(None)

    assert ((str(late),), b"late") == (done.foreign, late.read_bytes())


def test_the_seal_goes_last(store: FakeStore) -> None:
    """A purge that was cut short leaves a generation that is purged again, not one that waits anew."""
    with condemned(store, *FULL) as generation:
        last = f"remove {store.path}/trash/{generation.name}/{max(FULL)}"
        failpoint.install(Steps(fail_at=last, code=errno.EROFS))
        with pytest.raises(StorageFailed):
            generation.purge(marked(), Refusals())
        failpoint.install(None)
        assert {max(FULL), "sealed"} == in_trash(store)

        assert 1 == generation.purge(marked(), Refusals()).removed.files
    assert [] == garbage.generations(store.chunks)


def test_a_chunk_with_another_name_elsewhere_frees_nothing(store: FakeStore) -> None:
    """As in a copy of the repository by hard links."""
    os.link(store.path / FULL[0][:2] / FULL[0], store.path.parent / "copy")
    with condemned(store, FULL[0]) as generation:
        done = generation.purge(marked(), Refusals())

    assert (0, 0) == done.removed
    assert FULL[0].encode() == (store.path.parent / "copy").read_bytes()


def test_files_of_others_in_a_generation_stay_and_are_told(store: FakeStore) -> None:
    """And with them the generation, which is purged again without complaint."""
    with condemned(store, FULL[1]) as generation:
        folder = store.path / "trash" / generation.name
        (folder / "sealed").rename(folder.parent / "aside")
        others = [path for path in strangers(folder) if path.name != FULL[1]]
        (folder.parent / "aside").rename(folder / "sealed")

        for removed in (1, 0):
            done = generation.purge(marked(FULL[0], "cd" * 32), Refusals())
            assert (removed, 0) == (done.removed.files, done.rescued)
            assert {str(path) for path in others} == set(done.foreign)
    assert {*others, folder / "sealed"} == set(folder.iterdir())


def test_only_folders_named_by_a_uuid_are_generations(store: FakeStore) -> None:
    """Everything else in the trash is told."""
    with condemned(store) as generation:
        pass
    strangers(store.path / "trash")
    others = [path for path in (store.path / "trash").iterdir() if path.name != generation.name]

    assert [generation.name] == garbage.generations(store.chunks)
    assert sorted(str(path) for path in others) == garbage.strangers(store.chunks)
