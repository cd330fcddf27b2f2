"""After the commit: damage that a backup meets then is told of everybody whom it hurts."""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry
from backy.domain.revision import Revision
from backy.ground import failpoint, locks
from backy.ground.errors import HistoryBusy, RevisionDamaged
from backy.operation import aftermath
from backy.repository import damage as damages
from backy.repository import quarantine
from backy.repository.repository import Repository
from damaging import chunk_file, spoil
from testsite import CHUNK, Site

SHARED, OWN, OTHER, CHANGED = (bytes([number]) * CHUNK for number in (1, 2, 3, 4))


@pytest.fixture
def two_jobs(site: Site) -> Site:
    """`vm` and `db` share a chunk."""
    other = site.folder / "db.raw"
    other.write_bytes(SHARED + OTHER)
    site.add_job("db", other)
    site.backup(job="db")
    site.image.write_bytes(SHARED + OWN)
    site.backup()
    return site


def at_commit(act: Callable[[], None]) -> None:
    """Do it once, as the next backup is about to commit."""

    def hook(step: str) -> None:
        if step.startswith("rename ") and step.endswith(".pending"):
            failpoint.install(None)
            act()

    failpoint.install(hook)


def lose_shared(site: Site) -> None:
    """The shared chunk rots, a verify moves it aside and is killed; the image has other bytes now."""
    spoil(chunk_file(site, SHARED))
    with Repository.open(str(site.base)) as repository:
        entry = Entry(chunk_id(SHARED))
        assert quarantine.set_aside(repository.chunks, repository.format.chunk_size, entry)
    site.image.write_bytes(CHANGED + OWN)


def damage(site: Site) -> list[int]:
    """Of all revisions, by their records."""
    return [one.damaged for job in ("vm", "db") for one in site.history(job=job).revisions]


def test_a_revision_that_is_damaged_at_its_commit_has_the_others_marked_too(two_jobs: Site) -> None:
    """The case gets its report, and the backup fails with what it found of its own revision."""
    at_commit(lambda: lose_shared(two_jobs))

    with pytest.raises(RevisionDamaged) as caught:
        two_jobs.backup()

    assert CHUNK == caught.value.damaged
    assert [CHUNK] * 3 == damage(two_jobs)
    with Repository.open(str(two_jobs.base)) as repository:
        (case,) = quarantine.cases(repository.chunks)
    assert case.report is not None
    assert {"vm", "db"} == {one.job for one in case.report.revisions}


def test_an_edit_that_hangs_in_one_job_keeps_no_other_from_being_marked(two_jobs: Site) -> None:
    """The job's own records cannot be marked, which the backup ends with; the neighbour's are."""
    fd = os.open(two_jobs.job / ".history", os.O_RDWR)
    try:

        def hang() -> None:
            lose_shared(two_jobs)
            locks.wait_exclusive(fd)

        at_commit(hang)
        with pytest.raises(HistoryBusy):
            two_jobs.backup()
    finally:
        os.close(fd)

    assert [0, 0, CHUNK] == damage(two_jobs)


def lose_own(site: Site) -> None:
    """A chunk goes without a trace, and verify tells of it."""
    chunk_file(site, OWN).unlink()
    assert site.concluded().findings


def test_what_verify_finds_missing_while_a_backup_runs_heals_with_it(two_jobs: Site) -> None:
    """There is no case to be seen, but the parent is marked; the image still has the bytes."""
    at_commit(lambda: lose_own(two_jobs))
    two_jobs.image.write_bytes(CHANGED + OWN)

    made = two_jobs.backup()

    assert CHANGED + OWN == two_jobs.restored(made)
    assert [0] * 3 == damage(two_jobs)


def test_what_verify_finds_missing_while_a_backup_runs_is_marked(
    two_jobs: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify lists the revisions before the commit and marks the parent after it: it looks once more."""
    chunk_file(two_jobs, SHARED).unlink()
    two_jobs.image.write_bytes(SHARED + CHANGED)
    refresh = damages.refresh
    made: list[Revision] = []

    def between(*found: Any, **options: Any) -> Revision:
        if not made:
            made.append(two_jobs.backup())
        return refresh(*found, **options)

    monkeypatch.setattr(damages, "refresh", between)
    two_jobs.concluded("vm")

    assert 1 == len(made)
    assert [CHUNK] * 3 == damage(two_jobs)


def test_a_failure_of_one_look_keeps_no_other_from_being_done(
    two_jobs: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quarantine cannot be listed for a moment; what heals in the job's own records is noted."""
    two_jobs.image.write_bytes(SHARED + CHANGED)
    chunk_file(two_jobs, OWN).unlink()
    two_jobs.concluded("vm")
    two_jobs.image.write_bytes(CHANGED + OWN)

    def fail(_: Repository) -> bool:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(aftermath, "has_unreported", fail)
        two_jobs.backup()

    assert [0] * 3 == damage(two_jobs)
