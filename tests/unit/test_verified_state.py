"""Which revisions become verified, and which stay so: those of which everything was read and proven."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.domain.revision import Distrust, Revision, Trust
from backy.ground import locks
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.operation import parallel
from backy.operation import verify as verifying
from backy.operation.progress import NoProgress
from backy.operation.slices import verify_slice
from backy.operation.verify import Kind, Selected
from backy.repository import trust
from backy.repository.repository import Repository
from testsite import CHUNK, Site

A, B, C = (bytes([number]) * CHUNK for number in (1, 2, 3))


class FailingReads:
    """The reads of one file, of which those from the N-th on fail; counts them."""

    def __init__(self, patch: pytest.MonkeyPatch, path: Path) -> None:
        self._inode = path.stat().st_ino
        self.count = 0
        self.fail_from: int | None = None
        for name in ("pread", "preadv"):
            patch.setattr(os, name, self._wrapped(getattr(os, name)))

    def arm(self, fail_from: int | None) -> None:
        """Count anew; the N-th read and all later ones fail, or none."""
        self.count, self.fail_from = 0, fail_from

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def read(fd: int, *arguments: Any) -> Any:
            if os.fstat(fd).st_ino == self._inode:
                self.count += 1
                if self.fail_from is not None and self.count >= self.fail_from:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, *arguments)

        return read


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, so that each read has its number."""
    monkeypatch.setattr(parallel, "THREADS", 1)


@pytest.fixture
def revision(site: Site) -> Revision:
    """One of three chunks."""
    site.image.write_bytes(A + B + C)
    return site.backup()


def trusts(site: Site) -> list[Trust]:
    """Of the job's revisions."""
    return [one.trust for one in site.history().revisions]


def chunk_of(site: Site, number: int = 0) -> Path:
    """One of the chunk files."""
    return site.chunk_files()[number]


def walk(site: Site) -> None:
    """A slice that comes to the end of the store."""
    with Repository.open(str(site.base)) as repository:
        verify_slice(repository, SystemClock(), 3600, NoProgress())


def lose_all_reads(patch: pytest.MonkeyPatch, path: Path) -> FailingReads:
    """Nothing of a file can be read."""
    reads = FailingReads(patch, path)
    reads.arm(1)
    return reads


def test_a_revision_whose_map_fails_at_any_read_does_not_become_verified(
    site: Site, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it could be read at the first look, and failed when its chunks were due."""
    # Several passes over the map, and a bad chunk, whose places are looked up in it at the end.
    monkeypatch.setattr(verifying, "IDS_A_PASS", 1)
    chunk_of(site).chmod(0o600)
    chunk_of(site).write_bytes(b"rotten")
    reads = FailingReads(monkeypatch, site.job / f"{revision.uuid}.map")
    site.verify()
    needed = reads.count
    assert needed > 6

    for at in range(1, needed + 1):
        reads.arm(at)
        result = site.verify()
        reads.arm(None)
        assert [revision.uuid] == [*{one.revision for one in result.findings}], at
        assert frozenset() == result.proven
        assert frozenset({("vm", revision.uuid)}) == result.unread, at


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_map_that_cannot_be_read_leaves_its_revision_as_it_was(
    site: Site, revision: Revision, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """And the next verify, which can read it, makes it verified."""
    reads = FailingReads(monkeypatch, site.job / f"{revision.uuid}.map")
    reads.arm(at)
    assert site.concluded().findings
    assert [Trust.TRUSTED] == trusts(site)

    reads.arm(None)
    assert [] == site.concluded().findings

    assert [(Trust.VERIFIED, 0)] == [(one.trust, one.damaged) for one in site.history().revisions]


def test_a_revision_that_was_taken_for_forgotten_does_not_become_verified(
    site: Site, revision: Revision
) -> None:
    """Its map is held alone by a stranger, so nothing of it was read, although its record is there."""
    fd = os.open(site.job / f"{revision.uuid}.map", os.O_RDONLY)
    try:
        assert locks.try_exclusive(fd)
        result = site.concluded()
    finally:
        os.close(fd)

    assert ([], frozenset()) == (result.findings, result.proven)
    assert [Trust.TRUSTED] == trusts(site)


def look_at_all(site: Site) -> None:
    """Decode and hash everything."""
    site.concluded()


def look_quickly(site: Site) -> None:
    """Only the checksums."""
    site.concluded(quick=True)


@pytest.mark.parametrize("look", [look_at_all, look_quickly, walk])
def test_a_verified_revision_that_cannot_be_read_any_more_is_verified_no_more(
    site: Site, revision: Revision, monkeypatch: pytest.MonkeyPatch, look: Callable[[Site], None]
) -> None:
    """Nothing is known to be lost, but it is in doubt, so that a backup that has the bytes heals it."""
    site.concluded()
    assert [Trust.VERIFIED] == trusts(site)

    with monkeypatch.context() as patch:
        lose_all_reads(patch, chunk_of(site))
        look(site)

    assert [(Trust.DISTRUSTED, 0)] == [(one.trust, one.damaged) for one in site.history().revisions]
    site.concluded()
    assert [Trust.VERIFIED] == trusts(site)


def test_other_revisions_stay_verified(
    site: Site, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that need what cannot be read lose it."""
    site.image.write_bytes(A + B)
    site.backup()
    site.concluded()

    with monkeypatch.context() as patch:
        only_of_first = site.chunks_of(revision) - site.chunks_of(site.history().revisions[1])
        (name,) = only_of_first
        lose_all_reads(patch, site.chunks / name[:2] / name)
        site.concluded()

    assert [Trust.DISTRUSTED, Trust.VERIFIED] == trusts(site)


def test_a_verified_parent_that_a_backup_cannot_read_is_verified_no_more(
    site: Site, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands on it is stored in full, and the parent has to be proven again."""
    site.concluded()
    changed = bytearray(A)
    changed[0] ^= 1
    site.image.write_bytes(bytes(changed) + B + C)

    with monkeypatch.context() as patch:
        for path in site.chunk_files():
            lose_all_reads(patch, path)
        site.backup()

    assert [Trust.DISTRUSTED, Trust.TRUSTED] == trusts(site)


def test_what_cannot_be_read_keeps_its_distrust(
    site: Site, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has proven it since."""
    with Repository.open(str(site.base)) as repository, Directory.open(str(site.job)) as job:
        with trust.distrusting(repository.chunks):
            trust.distrust(job, revision.uuid, Distrust.STORE)
        lose_all_reads(monkeypatch, chunk_of(site))
        site.concluded()

        assert [Trust.DISTRUSTED] == trusts(site)
        assert trust.is_distrusted(repository.chunks)


def test_a_job_that_vanishes_or_closes_meanwhile_proves_nothing(
    site: Site, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its history was read before: gone is forgotten, and what cannot be read is told of each map."""
    history = site.history()
    selection = [Selected("vm", history, history.revisions)]
    owner = frozenset({("vm", revision.uuid)})
    with Repository.open(str(site.base)) as repository:
        with monkeypatch.context() as patch:
            patch.setattr(
                Repository, "job", lambda _, name: raised(StorageFailed("open", name, errno.EIO))
            )
            closed = verifying.verify(repository, selection, NoProgress(), quick=False)
        site.job.rename(site.folder / "vm")
        gone = verifying.verify(repository, selection, NoProgress(), quick=False)

    assert [Kind.MAP] == [one.kind for one in closed.findings]
    assert [] == gone.findings
    for result in (closed, gone):
        assert (frozenset(), owner) == (result.proven, result.unread)


def raised(error: Exception) -> Any:
    """For where only an expression may stand."""
    raise error
