"""Rules of distrust: it stays while something bad may still be hit, and its end lets nobody in."""

import errno
from collections.abc import Iterator

import pytest
from modelfaults import armed

from backy.domain.revision import Distrust
from backy.ground import locks
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.operation.progress import NoProgress
from backy.operation.trust import Concluded, conclude
from backy.operation.verify import Selected, verify
from backy.repository import history as histories
from backy.repository import layout, trust
from backy.repository.repository import Repository
from damaging import chunk_file
from testsite import CHUNK, Site

A, B, C = (bytes([number]) * CHUNK for number in (1, 2, 3))


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    """A repository with one revision that is distrusted."""
    site.image.write_bytes(A + B + C)
    revision = site.backup()
    with Repository.open(str(site.base)) as opened:
        with Directory.open(str(site.job)) as job, trust.distrusting(opened.chunks):
            trust.distrust(job, revision.uuid, Distrust.STORE)
        yield opened


def concluded(repository: Repository) -> Concluded:
    """Verify as the command, whatever fails in it."""
    with repository.job("vm") as job:
        history = histories.load(job.directory)
        selection = [Selected(job.name, history, history.revisions)]
        result = verify(repository, selection, NoProgress(), quick=False)
        return conclude(repository, selection, result, SystemClock(), quick=False)


def test_distrust_stays_while_a_bad_chunk_could_not_be_moved_aside(
    site: Site, repository: Repository
) -> None:
    """Backups would take it for a hit, although the revision says already that it has lost another."""
    chunk_file(site, A).unlink()
    bad = chunk_file(site, B)
    bad.chmod(0o600)
    bad.write_bytes(b"rotten")

    def full(step: str) -> None:
        if step.startswith("make ") and "/quarantine/" in step:
            raise OSError(errno.ENOSPC, "full")

    with armed(full):
        assert concluded(repository).failed

    assert bad.exists()
    assert trust.is_distrusted(repository.chunks)
    assert Distrust.STORE is site.history().revisions[0].distrust


def test_nobody_distrusts_while_a_walk_ends_the_distrust(site: Site, repository: Repository) -> None:
    """Whoever does must wait, from the first record that is trusted again to the end of the marker."""
    word = trust.word_of(repository.chunks)
    assert word is not None
    let_in: list[bool] = []

    def distrust_beside(step: str) -> None:
        with Directory.open(str(site.chunks / layout.QUARANTINE)) as folder:
            let_in.append(locks.try_shared(folder.fd))

    with armed(distrust_beside):
        assert trust.end_distrust(repository, word)

    assert {False} == set(let_in)
