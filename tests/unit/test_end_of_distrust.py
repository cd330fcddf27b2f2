"""When the store is believed again: once everything that is not lost has been proven since."""

import errno
import os
from collections.abc import Callable

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.revision import Distrust, Revision, Trust
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.operation import slices
from backy.operation.progress import NoProgress
from backy.operation.slices import Slice, verify_slice
from backy.repository import trust
from backy.repository.repository import Repository
from damaging import distrust, spoil
from testsite import CHUNK, Site


def walk(site: Site, seconds: float = 3600) -> Slice:
    """A slice; one of 0 seconds is one portion."""
    with Repository.open(str(site.base)) as repository:
        return verify_slice(repository, SystemClock(), seconds, NoProgress())


def look_at_all(site: Site) -> None:
    """Verify as the command does."""
    site.concluded()


def look_in_slices(site: Site) -> None:
    """One slice that comes round."""
    assert walk(site).whole


LOOKS = pytest.mark.parametrize("look", [look_at_all, look_in_slices])


def is_distrusted(site: Site) -> bool:
    """Whether backups read their hits again."""
    return (site.chunks / "distrusted").exists()


@pytest.fixture
def two(site: Site) -> tuple[Revision, Revision]:
    """Two revisions that share nothing, of a store that is distrusted."""
    made = []
    for number in (1, 3):
        site.image.write_bytes(bytes([number]) * CHUNK + bytes([number + 1]) * CHUNK)
        made.append(site.backup())
    distrust(site, *made)
    return made[0], made[1]


def lose_a_chunk(site: Site, revision: Revision) -> None:
    """A chunk is rotten, and no image has its content any more."""
    name = min(site.chunks_of(revision))
    spoil(site.chunks / name[:2] / name)


def lose_the_map(site: Site, revision: Revision) -> None:
    """The map is rotten."""
    spoil(site.job / f"{revision.uuid}.map")


@LOOKS
@pytest.mark.parametrize("lose", [lose_a_chunk, lose_the_map])
def test_distrust_ends_although_a_revision_stays_damaged(
    site: Site,
    two: tuple[Revision, Revision],
    look: Callable[[Site], None],
    lose: Callable[[Site, Revision], None],
) -> None:
    """Of the damaged one everything that is not lost has been proven, and nothing else leans on it."""
    lose(site, two[0])

    look(site)

    assert not is_distrusted(site)
    first, second = site.history().revisions
    assert (Trust.TRUSTED, None) == (first.trust, first.distrust)
    assert first.damaged
    assert not first.is_good
    assert second.is_good


def test_a_slice_makes_nothing_verified(site: Site, two: tuple[Revision, Revision]) -> None:
    """It proves files, at various times; that all of a revision is there and good is for verify."""
    look_in_slices(site)

    assert not is_distrusted(site)
    assert [Trust.TRUSTED] * 2 == [one.trust for one in site.history().revisions]


@LOOKS
def test_what_the_source_is_to_blame_for_is_left_alone(
    site: Site, two: tuple[Revision, Revision], look: Callable[[Site], None]
) -> None:
    """The bytes on the disk say nothing about it."""
    with Directory.open(str(site.job)) as job:
        trust.trust(job, two[0].uuid)
        trust.distrust(job, two[0].uuid, Distrust.SOURCE)

    look(site)

    assert not is_distrusted(site)
    assert Distrust.SOURCE is site.history().revisions[0].distrust


@LOOKS
@pytest.mark.parametrize("suffix", ["chunk", "map"])
def test_distrust_stays_while_something_cannot_be_read(
    site: Site,
    two: tuple[Revision, Revision],
    look: Callable[[Site], None],
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be good or rotten: nobody has proven it."""
    name = min(site.chunks_of(two[0]))
    path = site.chunks / name[:2] / name if suffix == "chunk" else site.job / f"{two[0].uuid}.map"
    inode = path.stat().st_ino
    with monkeypatch.context() as patch:
        for call in ("pread", "preadv"):
            real = getattr(os, call)

            def read(fd: int, *arguments: object, real: Callable[..., int] = real) -> int:
                if os.fstat(fd).st_ino == inode:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return real(fd, *arguments)

            patch.setattr(os, call, read)
        look(site)

    assert is_distrusted(site)
    assert Distrust.STORE is site.history().revisions[0].distrust
    look(site)
    assert not is_distrusted(site)


@pytest.fixture
def many(site: Site) -> Revision:
    """A revision of more chunks than a slice of no time at all looks at."""
    count = slices.PORTION + 9
    site.image.write_bytes(b"".join(n.to_bytes(4, "big") * (CHUNK // 4) for n in range(1, count + 1)))
    return site.backup()


def test_a_walk_that_began_before_the_distrust_does_not_end_it(site: Site, many: Revision) -> None:
    """What it had proven by then was proven of another time; the next walk ends it."""
    assert not walk(site, 0).whole
    distrust(site, many)

    assert walk(site).whole
    assert is_distrusted(site)
    assert walk(site).whole

    assert not is_distrusted(site)


def test_distrust_that_is_said_again_is_not_ended_by_the_walk_between(
    site: Site, many: Revision
) -> None:
    """Although the record says nothing new."""
    distrust(site, many)
    assert not walk(site, 0).whole
    distrust(site, many)

    assert walk(site).whole
    assert is_distrusted(site)
    assert Distrust.STORE is site.history().revisions[0].distrust
    assert walk(site).whole

    assert not is_distrusted(site)


def test_what_could_not_be_read_counts_to_the_end_of_the_walk(
    site: Site, many: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it was in an earlier slice."""
    distrust(site, many)
    first = site.chunk_files()[0]
    inode = first.stat().st_ino
    with monkeypatch.context() as patch:
        real = os.preadv

        def read(fd: int, *arguments: object) -> int:
            if os.fstat(fd).st_ino == inode:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            # Each of the two with its own arguments, which mypy cannot tell apart.
            return real(fd, *arguments)  # type: ignore[arg-type]

        patch.setattr(os, "preadv", read)
        assert not walk(site, 0).whole

    assert walk(site).whole
    assert is_distrusted(site)


@LOOKS
def test_distrust_lasts_while_a_job_that_collection_knows_is_not_mounted(
    site: Site, two: tuple[Revision, Revision], look: Callable[[Site], None]
) -> None:
    """Its records are what the distrust is about."""
    assert 0 == site.cli("gc").returncode
    kept = site.folder / "unmounted"
    site.job.rename(kept)
    site.job.mkdir()

    with Repository.open(str(site.base)) as repository:
        trust.forget_distrust(repository)
    walk(site)
    assert is_distrusted(site)

    site.job.rmdir()
    kept.rename(site.job)
    look(site)
    assert not is_distrusted(site)


def test_a_backup_distrusts_the_store_again_for_a_record_that_does(
    site: Site, two: tuple[Revision, Revision]
) -> None:
    """The mark went while the job was not mounted, and nobody knew the job: hits are read again."""
    (site.chunks / "distrusted").unlink()
    site.image.write_bytes(bytes([1]) * CHUNK)
    name = chunk_id(bytes([1]) * CHUNK).hex()
    spoil(site.chunks / name[:2] / name)

    made = site.backup()

    assert is_distrusted(site)
    assert bytes([1]) * CHUNK == site.restored(made)
    assert [] == [one for one in site.concluded().findings if one.revision == made.uuid]
