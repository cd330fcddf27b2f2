"""Editing and forgetting revisions: one at a time, on what the record says now, and durably."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.domain import sealed
from backy.domain.revision import Origin, Revision, serialise
from backy.ground import durable, failpoint, locks
from backy.ground.directory import Directory
from backy.ground.errors import FormatUnknown, RecordDamaged, RevisionGone, StorageFailed
from backy.repository import history
from fakes import FailAt, Steps, fake_revision

ONE, TWO = fake_revision(1, "daily"), fake_revision(2, "daily")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Directory]:
    """A job's directory with two revisions, whose maps are empty files."""
    for one in (ONE, TWO):
        (tmp_path / f"{one.uuid}.rev").write_bytes(serialise(one))
        (tmp_path / f"{one.uuid}.map").touch()
    (tmp_path / ".history").touch()
    with Directory.open(str(tmp_path)) as directory:
        yield directory


def record(job: Directory, suffix: str = ".rev") -> Path:
    """Path of the record of ONE."""
    return Path(job.file_path(ONE.uuid + suffix))


def tagged(*names: str) -> dict[str, Origin]:
    """Tags of the operator."""
    return dict.fromkeys(names, Origin.MANUAL)


class Change:
    """Adds a tag to a revision."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, revision: Revision) -> Revision:
        return revision.with_tags({**revision.tags, **tagged(self.name)})


def test_edit_replaces_the_record(job: Directory) -> None:
    """The record says the new tags, the other revision is untouched, nothing else is left."""
    after = history.edit(job, ONE.uuid, Change("manual:x"))

    assert {"daily": Origin.SCHEDULE, "manual:x": Origin.MANUAL} == after.tags
    assert (after, TWO) == history.load(job).revisions
    assert {".history", *(f"{one.uuid}{end}" for one in (ONE, TWO) for end in (".rev", ".map"))} == set(
        job.names()
    )


def test_edit_that_changes_nothing_only_makes_last_what_is_there(job: Directory) -> None:
    """A killed edit may have written it; while that is done, another edit may begin."""
    fd = locks.open_lock_file(job, ".history")
    seen: list[tuple[str, bool]] = []

    def look(step: str) -> None:
        seen.append((step, locks.try_exclusive(fd)))

    failpoint.install(look)
    assert ONE == history.edit(job, ONE.uuid, lambda revision: revision)
    os.close(fd)

    assert [(f"sync {job.path}", True)] == seen


def test_edit_sees_what_the_record_says_now(job: Directory) -> None:
    """What somebody else changed since we loaded the history is kept."""
    loaded = history.load(job).revisions[0]
    history.edit(job, ONE.uuid, Change("manual:theirs"))
    after = history.edit(job, loaded.uuid, Change("manual:ours"))

    assert ["daily", "manual:theirs", "manual:ours"] == list(after.tags)


def test_edit_holds_the_history_lock(job: Directory) -> None:
    """While one edit is at work no other can begin; afterwards the lock is free."""
    fd = locks.open_lock_file(job, ".history")
    granted: list[bool] = []

    def look(revision: Revision) -> Revision:
        granted.append(locks.try_exclusive(fd))
        return revision

    history.edit(job, ONE.uuid, look)
    granted.append(locks.try_exclusive(fd))
    os.close(fd)

    assert [False, True] == granted


def test_concurrent_edits_lose_nothing(job: Directory) -> None:
    """Two threads that add tags to one record at the same time leave all of them."""
    names = [[f"manual:{who}{number}" for number in range(8)] for who in "ab"]
    together = threading.Barrier(2)

    def work(own: list[str]) -> None:
        together.wait()
        for name in own:
            history.edit(job, ONE.uuid, Change(name))

    threads = [threading.Thread(target=work, args=(own,)) for own in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {"daily", *names[0], *names[1]} == set(history.load(job).revisions[0].tags)


def test_error_in_a_change_leaves_the_record(job: Directory) -> None:
    """A change that refuses, such as for `--expect`, changes nothing and frees the lock."""

    def refuse(_: Revision) -> Revision:
        raise KeyError("no")

    with pytest.raises(KeyError):
        history.edit(job, ONE.uuid, refuse)

    assert (ONE, TWO) == history.load(job).revisions
    history.edit(job, ONE.uuid, Change("manual:x"))


@pytest.mark.parametrize("step", range(1, 6))
def test_edit_that_fails_leaves_the_record(job: Directory, step: int) -> None:
    """Up to the rename the old record stands, and a second try succeeds."""
    failpoint.install(FailAt(step, errno.ENOSPC))
    with pytest.raises(StorageFailed):
        history.edit(job, ONE.uuid, Change("manual:x"))
    failpoint.install(None)
    assert (ONE, TWO) == history.load(job).revisions

    history.edit(job, ONE.uuid, Change("manual:y"))
    assert ["daily", "manual:y"] == list(history.load(job).revisions[0].tags)


def test_edit_of_a_forgotten_revision_fails(job: Directory) -> None:
    """An edit never brings a record back."""
    history.forget(job, ONE.uuid)
    with pytest.raises(RevisionGone):
        history.edit(job, ONE.uuid, Change("manual:x"))

    assert (TWO,) == history.load(job).revisions
    assert not record(job).exists()


def test_edit_of_a_damaged_record_fails(job: Directory) -> None:
    """What cannot be read is not written over."""
    record(job).write_bytes(serialise(ONE).replace(b"daily", b"dailx"))
    before = record(job).read_bytes()
    with pytest.raises(RecordDamaged, match="checksum"):
        history.edit(job, ONE.uuid, Change("manual:x"))

    assert before == record(job).read_bytes()


def test_forgotten_revision_is_out_of_the_history(job: Directory) -> None:
    """The record changes its state by one rename and a sync; the map stays for collection."""
    steps = Steps()
    failpoint.install(steps)
    history.forget(job, ONE.uuid)

    assert ["rename", "sync"] == steps.verbs()
    assert history.History((TWO,), (), ()) == history.load(job)
    assert serialise(ONE) == record(job, ".forgotten").read_bytes()
    assert record(job, ".map").exists()


def test_second_forget_says_that_it_is_gone(job: Directory) -> None:
    """Who comes second learns that somebody else did it."""
    history.forget(job, ONE.uuid)
    with pytest.raises(RevisionGone):
        history.forget(job, ONE.uuid)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"garbage", serialise(ONE)[:-1], serialise(TWO)])
def test_unreadable_record_can_be_forgotten(job: Directory, content: bytes) -> None:
    """A record that nobody can read must not stop everything for ever."""
    record(job).write_bytes(content)
    assert (ONE.uuid,) == tuple(one.uuid for one in history.load(job).unreadable)
    history.forget(job, ONE.uuid)

    assert history.History((TWO,), (), ()) == history.load(job)


def test_lost_record_can_be_forgotten(job: Directory) -> None:
    """A map whose record vanished is lost until somebody says that this is how it shall be."""
    record(job).unlink()
    assert history.History((TWO,), (), (ONE.uuid,)) == history.load(job)
    history.forget(job, ONE.uuid)

    assert history.History((TWO,), (), ()) == history.load(job)
    assert record(job, ".map").exists()


@pytest.mark.parametrize("uuid", ["ffffffff-0000-4000-8000-000000000000", "nothing", "../x"])
def test_forgetting_what_was_never_there_fails(job: Directory, uuid: str) -> None:
    """A UUID without record and map is none of ours."""
    with pytest.raises(RevisionGone):
        history.forget(job, uuid)


def test_revision_that_is_not_committed_cannot_be_forgotten(job: Directory) -> None:
    """A backup one step before its commit is not taken from under its feet."""
    record(job).rename(record(job, ".pending"))
    with pytest.raises(RevisionGone):
        history.forget(job, ONE.uuid)

    assert record(job, ".pending").exists()


def test_forget_works_where_there_is_no_room_for_another_name(job: Directory) -> None:
    """On a full disk the record is removed instead, and the revision does not look lost for that."""
    failpoint.install(FailAt(1, errno.ENOSPC))
    history.forget(job, ONE.uuid)

    assert history.History((TWO,), (), ()) == history.load(job)


def test_forget_works_where_nothing_can_be_made(job: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk without any room the revision goes too; that its record is gone shows then."""

    def full(*_: object, **__: object) -> None:
        raise StorageFailed("write", "x", errno.ENOSPC)

    monkeypatch.setattr(durable, "publish", full)
    failpoint.install(FailAt(1, errno.ENOSPC))
    history.forget(job, ONE.uuid)

    assert history.History((TWO,), (), (ONE.uuid,)) == history.load(job)


def test_forget_that_fails_says_so(job: Directory) -> None:
    """A forget that may not last is an error."""
    failpoint.install(FailAt(2))
    with pytest.raises(StorageFailed, match="sync"):
        history.forget(job, ONE.uuid)


def test_record_of_a_newer_version_is_neither_edited_nor_lost(job: Directory) -> None:
    """What another version wrote is left alone, but can be forgotten by name."""
    newer = sealed.unseal(serialise(ONE)).replace(b'"format": 1', b'"format": 2')
    record(job).write_bytes(sealed.seal(newer))
    with pytest.raises(FormatUnknown, match="record format 2"):
        history.edit(job, ONE.uuid, Change("manual:x"))
    history.forget(job, ONE.uuid)

    assert history.History((TWO,), (), ()) == history.load(job)
