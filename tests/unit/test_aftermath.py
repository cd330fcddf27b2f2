"""After the commit: damage that a backup meets then is told of everybody whom it hurts."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry
from backy.ground import failpoint, locks
from backy.ground.errors import HistoryBusy, RevisionDamaged
from backy.repository import quarantine
from backy.repository.repository import Repository
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
    name = chunk_id(SHARED).hex()
    path: Path = site.chunks / name[:2] / name
    path.chmod(0o600)
    path.write_bytes(b"rotten")
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
