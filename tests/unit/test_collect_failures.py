"""A collection that fails: `check` is told why, the reserve is made again, and rot ends."""

import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from small_store import EPOCH

from backy.domain.revision import Revision
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import CollectionStopped, StorageFailed
from backy.operation.trash import look_into_trash
from backy.repository import remembered, reserve
from backy.repository.remembered import Outcome
from backy.repository.repository import Repository
from backy.repository.users import registered
from collecting import DAY, Meanwhile, gc, keep_beside_garbage, names, plan
from fakes import Steps
from testsite import CHUNK, Site


@pytest.fixture
def kept(site: Site) -> Revision:
    """A revision that is kept, beside garbage in the store and in a generation."""
    return keep_beside_garbage(site)


def outcome(site: Site) -> Outcome:
    """How the last collection ended."""
    with Directory.open(str(site.chunks)) as chunks:
        found = remembered.read_outcome(chunks)
    assert found is not None
    return found


class Terminated(BaseException):
    """What a signal raises."""


def raise_it(error: BaseException) -> None:
    """Raise, from a lambda."""
    raise error


# ..What is told...............................................................................


@pytest.mark.parametrize("step", ["sync ", "make "])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_a_failed_run_says_why_for_check(site: Site, kept: Revision, step: str, code: int) -> None:
    """Whatever the system refused; before, the last success stood there for ever."""
    failpoint.install(Steps(fail_at=f"{step}{site.chunks}/trash", code=code))
    with pytest.raises(StorageFailed) as caught:
        gc(site, DAY)
    failpoint.install(None)

    found = outcome(site)
    assert (EPOCH + timedelta(days=1), (caught.value.message,)) == (found.at, found.stopped)
    gc(site, DAY)
    assert () == outcome(site).stopped


def test_a_call_that_fails_outside_of_what_is_written_says_why_too(site: Site, kept: Revision) -> None:
    """A folder that cannot be listed, for one."""
    error = OSError(errno.EIO, os.strerror(errno.EIO), str(site.chunks / "ab"))
    with pytest.raises(StorageFailed):
        gc(site, meanwhile=Meanwhile("look for garbage", lambda: raise_it(error)))

    assert (f"read {site.chunks}/ab: Input/output error.",) == outcome(site).stopped


def test_a_run_that_somebody_ends_has_no_outcome(site: Site, kept: Revision) -> None:
    """It is no failure; the next one goes on."""
    before = outcome(site)
    with pytest.raises(Terminated):
        gc(site, DAY, meanwhile=Meanwhile("mark", lambda: raise_it(Terminated())))

    assert before == outcome(site)


def test_an_outcome_that_cannot_be_written_hides_no_error(site: Site, kept: Revision) -> None:
    """What was wrong first is told, and the old outcome stays, and gets old."""
    before = outcome(site)
    failing: list[str] = []

    def fail(step: str) -> None:
        if failing or step.startswith(f"make {site.chunks}/trash"):
            failing.append(step)
            raise OSError(errno.EROFS if len(failing) == 1 else errno.EIO, "")

    failpoint.install(fail)
    with pytest.raises(StorageFailed, match="mounted read-only"):
        gc(site)
    failpoint.install(None)

    assert len(failing) > 1
    assert before == outcome(site)


# ..The reserve................................................................................


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, os.strerror(errno.EIO)), Terminated(), KeyboardInterrupt()]
)
def test_the_reserve_is_made_again_however_the_run_ends(
    site: Site, kept: Revision, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Backups would fill the room that it was given up for."""
    monkeypatch.setattr("backy.repository.layout.RESERVE_SIZE", CHUNK)
    given_up = site.chunks / "reserve"
    given_up.write_bytes(bytes(CHUNK))
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 0 if given_up.exists() else CHUNK)
    with pytest.raises((StorageFailed, Terminated, KeyboardInterrupt)):
        gc(site, meanwhile=Meanwhile("mark", lambda: raise_it(error)))

    assert given_up.read_bytes() not in (b"", bytes(CHUNK))


def test_why_it_failed_is_written_while_there_is_the_room_of_the_reserve(
    site: Site, kept: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards there may be none."""
    monkeypatch.setattr("backy.repository.layout.RESERVE_SIZE", CHUNK)
    (site.chunks / "reserve").unlink()
    monkeypatch.setattr(reserve, "free_bytes", lambda _: CHUNK)

    def full_with_reserve(step: str) -> None:
        if step.startswith("create in") and (site.chunks / "reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failpoint.install(full_with_reserve)
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(StorageFailed):
        gc(site, meanwhile=Meanwhile("mark", lambda: raise_it(error)))

    assert (site.chunks / "reserve").exists()
    assert "Input/output error" in outcome(site).stopped[0]


# ..Rot........................................................................................


def rot(monkeypatch: pytest.MonkeyPatch, path: Path, code: int, outside: Path) -> None:
    """The disk does not return this file until it is replaced, as on a file system with checksums."""
    rotten = path.stat().st_ino
    # A second name, outside of the store, so that no new file gets its inode.
    os.link(path, outside / "rotten")
    read = Directory.read

    def fails(self: Directory, name: str, limit: int) -> bytes:
        if name == path.name and path.exists() and path.stat().st_ino == rotten:
            raise OSError(code, os.strerror(code))
        return read(self, name, limit)

    monkeypatch.setattr(Directory, "read", fails)


@pytest.mark.parametrize("code", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_rotten_seal_is_made_anew(
    site: Site, kept: Revision, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It says nothing of who lived, so its generation waits for a day more, and for who lives now."""
    (seal,) = (site.chunks / "trash").glob("*/sealed")
    rot(monkeypatch, seal, code, site.folder)
    with (
        Repository.open(str(site.base)) as repository,
        registered(repository.chunks, "vm", EPOCH) as user,
    ):
        assert [] == [*look_into_trash(repository)]
        done = gc(site, DAY)
        (resealed,) = [one for one in done.waiting if one.generation == seal.parent.name]

    assert (0, EPOCH + timedelta(days=1)) == (done.purged.files, resealed.sealed_at)
    assert user.name in [one.name for one in resealed.writers]
    assert 6 == gc(site, 2 * DAY).purged.files
    assert site.chunks_of(kept) == names(site)


def test_a_rotten_list_of_known_revisions_says_what_to_do(
    site: Site, kept: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path, for check too; once it is removed, gc goes on."""
    known = site.chunks / "known"
    rot(monkeypatch, known, errno.EIO, site.folder)
    said = (
        "the list of known revisions is damaged (Input/output error); remove it once all jobs are there"
    )
    with pytest.raises(CollectionStopped) as caught:
        gc(site)
    assert ((str(known), said),) == caught.value.stops
    assert (f"{known}: {said}",) == outcome(site).stopped

    known.unlink()
    assert 3 == gc(site).condemned.files


# ..What the system refuses....................................................................


def test_one_broken_file_stops_nothing(
    site: Site, kept: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other garbage goes, day by day, and the outcome says what was left alone."""
    bad = min(names(site) - site.chunks_of(kept))
    looked = os.stat

    def fails(path: str, **options: Any) -> os.stat_result:
        if path == bad:
            raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN), path)
        return looked(path, **options)

    monkeypatch.setattr(os, "stat", fails)
    said = (f"look at {site.chunks}/{bad[:2]}/{bad}: Structure needs cleaning.",)
    assert said == plan(site).refused
    assert (2, said) == ((done := gc(site, DAY)).condemned.files, done.refused)
    assert ((), said) == (outcome(site).stopped, outcome(site).refused)
    assert 2 == gc(site, 2 * DAY).purged.files
    monkeypatch.undo()

    assert site.chunks_of(kept) | {bad} == names(site)
    assert 1 == gc(site, 3 * DAY).condemned.files
    assert () == outcome(site).refused


def test_a_dead_writer_that_cannot_be_buried_stops_nothing(site: Site, kept: Revision) -> None:
    """It is dead all the same, and holds nothing."""
    dead = site.chunks / "users" / "00000000-0000-4000-8000-00000000dead"
    dead.touch()

    def fail(step: str) -> None:
        if step == f"remove {dead}":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    failpoint.install(fail)
    done = gc(site, DAY)

    assert (3, 3, 1) == (done.purged.files, done.condemned.files, len(done.refused))
    assert [()] == [one.writers for one in done.waiting]


def test_the_outcome_names_ten_of_many(site: Site, kept: Revision) -> None:
    """Which is enough to see what it is."""
    for number in range(12):
        (site.chunks / "users" / f"00000000-0000-4000-8000-0000000000{number:02}").touch()

    def fail(step: str) -> None:
        if step.startswith(f"remove {site.chunks}/users/"):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    failpoint.install(fail)
    assert 12 == len(gc(site).refused)
    assert 10 == len(outcome(site).refused)
