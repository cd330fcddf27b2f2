"""Carrying out a retention plan on real files: only what the plan saw goes, whatever happens between."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from backy.domain import sealed
from backy.domain.config import TagPolicy
from backy.domain.retention import Fate, Verdict, plan_expiry
from backy.domain.revision import Distrust, Origin, Revision, Trust, serialise
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.operation.expire import execute_expiry
from backy.repository import history
from backy.repository.repository import Job
from fakes import FailAt, Steps, fake_revision

SCHEDULE = {"daily": TagPolicy(86400, 2), "weekly": TagPolicy(7 * 86400, 2)}
# By the plan: the first three go, the fourth loses a tag, the others stay.
HISTORY = (
    fake_revision(1, "daily"),
    fake_revision(2, "daily"),
    fake_revision(3),
    fake_revision(4, "daily", "weekly"),
    fake_revision(5, "daily", "weekly"),
    fake_revision(6, "daily"),
)
FIRST, SECOND, _, UNTAGGED = HISTORY[:4]
NOW = HISTORY[-1].taken_at + timedelta(hours=1)
REMOVED = [one.uuid for one in HISTORY[:3]]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A job's directory with the history, whose maps are empty files."""
    for one in HISTORY:
        write(tmp_path, one)
        (tmp_path / f"{one.uuid}.map").touch()
    (tmp_path / ".history").touch()
    with Directory.open(str(tmp_path)) as directory:
        yield Job("vm", directory)


def write(folder: Path, revision: Revision) -> None:
    """The record as somebody else's edit leaves it."""
    (folder / f"{revision.uuid}.rev").write_bytes(serialise(revision))


def plan(job: Job) -> tuple[Verdict, ...]:
    """The plan of what is there now."""
    return plan_expiry(history.load(job.directory).revisions, SCHEDULE, NOW)


def expire(job: Job, made: Iterable[Verdict]) -> list[str]:
    """Carry out a plan that was made before; UUIDs that were removed."""
    return execute_expiry(job, made, partial(plan_expiry, schedule=SCHEDULE, now=NOW))


def left(job: Job) -> dict[str, list[str]]:
    """Tags of all revisions that are still there."""
    return {one.uuid: list(one.tags) for one in history.load(job.directory).revisions}


def expected() -> dict[str, list[str]]:
    """What is left after an expiry that nothing disturbs."""
    return {
        one.uuid: ["weekly"] if one is UNTAGGED else list(one.tags)
        for one in HISTORY
        if one.uuid not in REMOVED
    }


def test_plan_is_carried_out(job: Job) -> None:
    """Those removed are returned in order; of one only a tag goes, with the origins of the rest kept."""
    assert REMOVED == expire(job, plan(job))

    assert expected() == left(job)
    assert {"weekly": Origin.SCHEDULE} == history.load(job.directory).revisions[0].tags


def test_second_expiry_does_nothing(job: Job, tmp_path: Path) -> None:
    """What is left is what the schedule keeps, and no file is touched for it."""
    expire(job, plan(job))
    before = {path: path.stat().st_ctime_ns for path in tmp_path.iterdir()}
    steps = Steps()
    failpoint.install(steps)

    assert [] == expire(job, plan(job))
    assert [] == steps.seen
    assert before == {path: path.stat().st_ctime_ns for path in tmp_path.iterdir()}


def test_maps_stay_for_collection(job: Job, tmp_path: Path) -> None:
    """Expiry renames records and removes nothing that a restore may be reading."""
    expire(job, plan(job))

    assert all((tmp_path / f"{one.uuid}.map").exists() for one in HISTORY)
    assert all((tmp_path / f"{uuid}.forgotten").exists() for uuid in REMOVED)
    assert history.History(history.load(job.directory).revisions, (), ()) == history.load(job.directory)


@pytest.mark.parametrize(
    "tags", [{"manual:keep": Origin.MANUAL}, {}, {"daily": Origin.SCHEDULE, "manual:x": Origin.MANUAL}]
)
@pytest.mark.parametrize("changed", [FIRST, UNTAGGED])
def test_revision_whose_tags_changed_after_the_plan_is_passed_over(
    job: Job, tmp_path: Path, changed: Revision, tags: dict[str, Origin]
) -> None:
    """Whoever saved a revision by a tag in the last moment has saved it; the others go."""
    made = plan(job)
    write(tmp_path, changed.with_tags(tags))
    removed = expire(job, made)

    assert [uuid for uuid in REMOVED if uuid != changed.uuid] == removed
    assert list(tags) == left(job)[changed.uuid]


def test_record_of_another_time_is_passed_over(job: Job, tmp_path: Path) -> None:
    """The same UUID and tags with another time are not what the plan was made for."""
    made = plan(job)
    write(tmp_path, msgspec.structs.replace(FIRST, taken_at=FIRST.taken_at + timedelta(seconds=1)))

    assert FIRST.uuid not in expire(job, made)
    assert ["daily"] == left(job)[FIRST.uuid]


def test_trust_that_changed_after_the_plan_saves_nothing(job: Job, tmp_path: Path) -> None:
    """A revision may go whether it was distrusted or verified meanwhile."""
    made = plan(job)
    write(tmp_path, fake_revision(1, "daily", trust=Trust.VERIFIED))

    assert REMOVED == expire(job, made)


def forget(job: Job, uuid: str) -> None:
    """An operator lets it go."""
    history.forget(job.directory, uuid)


def distrust(job: Job, uuid: str) -> None:
    """An audit, or the operator, finds it wrong."""
    history.edit(job.directory, uuid, lambda one: one.with_trust(Trust.DISTRUSTED, Distrust.SOURCE))


def damage(job: Job, uuid: str) -> None:
    """Verify finds that some of it is lost."""
    history.edit(job.directory, uuid, lambda one: one.with_damage(4096))


@pytest.mark.parametrize("spoil", [forget, distrust, damage])
def test_revisions_stay_when_those_that_superseded_them_went_after_the_plan(
    job: Job, spoil: Callable[[Job, str], None]
) -> None:
    """What the plan counted as good and newer may be gone or bad by now: the last good ones stay."""
    made = plan(job)
    for one in HISTORY[3:]:
        spoil(job, one.uuid)

    assert [] == expire(job, made)
    assert set(REMOVED) <= set(left(job))


@pytest.mark.parametrize("spoil", [forget, distrust, damage])
def test_every_step_looks_anew_at_what_is_good(job: Job, spoil: Callable[[Job, str], None]) -> None:
    """Also what goes bad between two removals counts no more for the second."""

    def meanwhile() -> Iterator[Verdict]:
        made = plan(job)
        yield made[0]
        for one in HISTORY[3:]:
            spoil(job, one.uuid)
        yield from made[1:]

    assert [FIRST.uuid] == expire(job, meanwhile())
    assert set(REMOVED[1:]) <= set(left(job))


@pytest.mark.parametrize("spoil", [forget, distrust, damage])
def test_tag_stays_when_what_superseded_it_went_after_the_plan(
    job: Job, spoil: Callable[[Job, str], None]
) -> None:
    """A tag that is needed again is not taken away either."""
    made = plan(job)
    for one in HISTORY[4:]:
        spoil(job, one.uuid)
    expire(job, made)

    assert ["daily", "weekly"] == left(job)[UNTAGGED.uuid]


def test_record_that_rotted_counts_no_more_for_others(job: Job, tmp_path: Path) -> None:
    """One that nobody can read any more supersedes nothing."""
    made = plan(job)
    for one in HISTORY[3:]:
        (tmp_path / f"{one.uuid}.rev").write_bytes(b"rot")

    assert [] == expire(job, made)


@pytest.mark.parametrize("uuid", [FIRST.uuid, UNTAGGED.uuid])
def test_revision_that_is_gone_is_passed_over(job: Job, uuid: str) -> None:
    """Somebody else's `forget` in between is no error, and not counted as ours."""
    made = plan(job)
    history.forget(job.directory, uuid)

    assert [one for one in REMOVED if one != uuid] == expire(job, made)
    assert {key: tags for key, tags in expected().items() if key != uuid} == left(job)


ROTTEN = {
    "empty": b"",
    "zeros": bytes(200),
    "cut": serialise(FIRST)[:-1],
    "another's": serialise(SECOND),
    "newer": sealed.seal(sealed.unseal(serialise(FIRST)).replace(b'"format": 1', b'"format": 2')),
}


@pytest.mark.parametrize("content", ROTTEN.values(), ids=ROTTEN)
def test_record_that_rotted_after_the_plan_is_left_alone(
    job: Job, tmp_path: Path, content: bytes
) -> None:
    """Nothing is deleted on the word of a record that cannot be read, and the others still go."""
    made = plan(job)
    path = tmp_path / f"{FIRST.uuid}.rev"
    path.write_bytes(content)

    assert REMOVED[1:] == expire(job, made)
    assert content == path.read_bytes()


def test_verdicts_that_keep_or_refuse_touch_nothing(job: Job) -> None:
    """Only what is to be removed or to lose a tag is written at all."""
    made = [one for one in plan(job) if one.fate not in (Fate.REMOVE, Fate.UNTAG)]
    steps = Steps()
    failpoint.install(steps)

    assert [] == expire(job, [*made, made[0]._replace(fate=Fate.REFUSED)])
    assert [] == steps.seen


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS])
def test_disk_that_fails_is_told_and_a_second_run_completes_the_plan(job: Job, code: int) -> None:
    """At whichever step it fails, no more than the plan has gone, and the rest goes later."""
    made = plan(job)
    for number in range(1, 40):
        hook = FailAt(number, code)
        failpoint.install(hook)
        told = None
        try:
            expire(job, made)
        except StorageFailed as error:
            told = error.code
        failpoint.install(None)
        assert told in (None, code)
        assert set(expected()) <= set(left(job))
        if hook.step is None:
            break
    else:
        pytest.fail("it never ended")

    assert expected() == left(job)


def test_every_single_failure_leaves_a_shorter_plan(job: Job, tmp_path: Path) -> None:
    """A fresh history for each step: what is left is between the plan's begin and its end."""
    for number in range(1, 40):
        for one in HISTORY:
            (tmp_path / f"{one.uuid}.forgotten").unlink(missing_ok=True)
            write(tmp_path, one)
        hook = FailAt(number)
        failpoint.install(hook)
        try:
            removed = expire(job, plan(job))
        except StorageFailed:
            removed = []
        failpoint.install(None)
        assert removed in (REMOVED, [])
        assert set(expected()) <= set(left(job)) <= {one.uuid for one in HISTORY}
        expire(job, plan(job))
        assert expected() == left(job)
        if hook.step is None:
            return
    pytest.fail("it never ended")


def test_full_disk_does_not_stop_expiry_from_making_room(job: Job) -> None:
    """Where not even a name can be added, the records are removed; an untagging has to wait."""
    failpoint.install(Steps(fail_at="rename", code=errno.ENOSPC))
    removals = [one for one in plan(job) if one.remove]

    assert REMOVED == expire(job, removals)
    failpoint.install(None)
    assert {**expected(), UNTAGGED.uuid: ["daily", "weekly"]} == left(job)


def test_history_on_a_read_only_mount_is_told(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock cannot be had there, and nothing is said to be removed."""
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, mode, dir_fd=dir_fd)

    made = plan(job)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageFailed, match="read-only"):
        expire(job, made)
    monkeypatch.undo()

    assert {one.uuid: list(one.tags) for one in HISTORY} == left(job)
