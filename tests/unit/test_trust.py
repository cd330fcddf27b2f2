"""Trust in records: who may change what, and the marker of distrust in the store."""

import os
from collections.abc import Iterator

import pytest

from backy.domain.revision import Distrust, Revision, Trust
from backy.ground import locks
from backy.ground.directory import Directory
from backy.ground.errors import HistoryBusy, RevisionGone
from backy.repository import damage, layout, trust
from backy.repository import history as histories
from backy.repository.repository import Repository
from testsite import CHUNK, Site


@pytest.fixture
def revision(site: Site) -> Revision:
    """The only revision of the site's job."""
    site.image.write_bytes(b"a" * CHUNK + b"b" * CHUNK)
    return site.backup()


@pytest.fixture
def job(site: Site) -> Iterator[Directory]:
    """The job's directory."""
    with Directory.open(str(site.job)) as opened:
        yield opened


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    """The repository, open."""
    with Repository.open(str(site.base)) as opened:
        yield opened


def test_verify_marks_what_is_trusted_and_what_the_store_was_to_blame_for(
    revision: Revision, job: Directory
) -> None:
    """Both become verified."""
    assert Trust.VERIFIED is trust.verified(job, revision).trust
    distrusted = trust.distrust(job, revision.uuid, Distrust.STORE)
    assert (Trust.VERIFIED, None) == (
        trust.verified(job, distrusted).trust,
        trust.verified(job, distrusted).distrust,
    )


def test_verify_leaves_what_the_source_is_to_blame_for(revision: Revision, job: Directory) -> None:
    """Also when the store is blamed on top: that takes nothing back."""
    distrusted = trust.distrust(job, revision.uuid, Distrust.SOURCE)

    assert distrusted == trust.verified(job, distrusted)
    assert distrusted == trust.distrust(job, revision.uuid, Distrust.STORE)


@pytest.mark.parametrize("reason", list(Distrust))
def test_distrust_during_a_verify_is_not_overwritten(
    revision: Revision, job: Directory, reason: Distrust
) -> None:
    """What verify saw before that proves nothing about it (F11)."""
    trust.distrust(job, revision.uuid, reason)

    after = trust.verified(job, revision)

    assert (Trust.DISTRUSTED, reason) == (after.trust, after.distrust)


def test_damage_that_was_found_during_a_verify_is_not_overwritten(
    site: Site, revision: Revision, job: Directory, repository: Repository
) -> None:
    """Another verify has moved a chunk aside that this one had read before."""
    site.chunk_files()[0].unlink()
    assert CHUNK == damage.refresh(repository.chunks, job, revision.uuid).damaged

    after = trust.verified(job, revision)

    assert (Trust.TRUSTED, CHUNK) == (after.trust, after.damaged)


def test_a_verified_revision_that_loses_a_chunk_is_verified_no_more(
    site: Site, revision: Revision, job: Directory, repository: Repository
) -> None:
    """And trusted, not verified, once the chunk is back: nobody has read that."""
    trust.verified(job, revision)
    path = site.chunk_files()[0]
    content = path.read_bytes()
    path.unlink()
    assert (CHUNK, Trust.TRUSTED) == (
        damage.refresh(repository.chunks, job, revision.uuid).damaged,
        histories.load(job).revisions[0].trust,
    )
    path.write_bytes(content)

    healed = damage.refresh(repository.chunks, job, revision.uuid)

    assert (0, Trust.TRUSTED) == (healed.damaged, healed.trust)


def test_a_forgotten_revision_is_not_brought_back(revision: Revision, job: Directory) -> None:
    """By nobody who marks it."""
    histories.forget(job, revision.uuid)

    for act in (trust.verified, lambda one, seen: trust.trust(one, seen.uuid)):
        with pytest.raises(RevisionGone):
            act(job, revision)
    assert not job.has(revision.uuid + layout.RECORD)


def test_marking_does_not_wait_for_an_edit_that_hangs(
    revision: Revision, job: Directory, repository: Repository
) -> None:
    """Verify runs beside everything; it says so, and leaves the record as it is."""
    fd = locks.open_lock_file(job, layout.HISTORY_LOCK)
    try:
        locks.wait_exclusive(fd)
        with pytest.raises(HistoryBusy):
            trust.verified(job, revision)
        with pytest.raises(HistoryBusy):
            damage.refresh(repository.chunks, job, revision.uuid, failed=True)
    finally:
        os.close(fd)
    assert Trust.VERIFIED is trust.verified(job, revision).trust


def test_the_marker_is_there_before_and_while_a_record_says_so(
    revision: Revision, job: Directory, repository: Repository
) -> None:
    """It goes only when no record of any job is distrusted because of the store."""
    with trust.distrusting(repository.chunks):
        assert trust.is_distrusted(repository.chunks)
        # Nobody takes it away before the record has been written.
        assert not trust.forget_distrust(repository)
        seen = trust.distrust(job, revision.uuid, Distrust.STORE)
    assert not trust.forget_distrust(repository)
    trust.verified(job, seen)

    assert trust.forget_distrust(repository)
    assert not trust.is_distrusted(repository.chunks)


def test_the_marker_stays_while_a_record_cannot_be_read(
    site: Site, revision: Revision, repository: Repository
) -> None:
    """It may be one that is distrusted."""
    with trust.distrusting(repository.chunks):
        pass
    (site.job / f"{revision.uuid}.rev").chmod(0o600)
    (site.job / f"{revision.uuid}.rev").write_text("rotten")

    assert not trust.forget_distrust(repository)
    assert trust.is_distrusted(repository.chunks)


def test_a_store_with_damage_distrusts_what_nobody_has_verified(
    site: Site, revision: Revision, job: Directory, repository: Repository
) -> None:
    """Verified ones stay, and so does the new one that has just been proven."""
    second, third = site.backup(), site.backup()
    trust.verified(job, revision)

    assert [second.uuid] == trust.distrust_store(repository.chunks, job, besides=third.uuid)

    assert [Trust.VERIFIED, Trust.DISTRUSTED, Trust.TRUSTED] == [
        one.trust for one in histories.load(job).revisions
    ]
