"""The walk over the store in slices: where it goes on, what it covers, what it tells."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import cycle as cycles
from backy.domain.cycle import START, Cycle
from backy.domain.revision import Distrust, Trust
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.operation import slices
from backy.operation.progress import NoProgress
from backy.operation.slice_findings import SliceFindings
from backy.operation.slices import Slice, verify_slice
from backy.repository import trust
from backy.repository.repository import Repository
from damaging import held
from testsite import CHUNK, Site

NAMES = st.text("0123456789abcdef", min_size=64, max_size=64)


def walk(site: Site, seconds: float = 0) -> Slice:
    """One slice; of 0 seconds it is one portion."""
    with Repository.open(str(site.base)) as repository:
        return verify_slice(repository, SystemClock(), seconds, NoProgress())


def filled(site: Site, chunks: int) -> list[Path]:
    """A store of that many chunks."""
    site.image.write_bytes(
        b"".join(number.to_bytes(4, "big") * (CHUNK // 4) for number in range(1, chunks + 1))
    )
    site.backup()
    return site.chunk_files()


def test_slices_go_on_where_the_last_one_ended_until_the_store_is_proven(tmp_path: Path) -> None:
    """Each chunk file once, in the order of ids; then a new cycle begins."""
    site = Site(tmp_path)
    filled(site, 3 * slices.PORTION + 5)

    done = [walk(site) for _ in range(4)]

    assert [slices.PORTION] * 3 + [5] == [one.chunks for one in done]
    assert [False, False, False, True] == [one.whole for one in done]
    assert sorted(one.cycle.cursor for one in done[:3]) == [one.cycle.cursor for one in done[:3]]
    assert 3 * slices.PORTION + 5 == done[3].cycle.finished_chunks
    assert abs(1 - sum(one.share for one in done)) < 1e-9
    assert slices.PORTION == walk(site).chunks


def test_a_slice_with_time_left_ends_with_the_store(site: Site) -> None:
    """It does not begin anew, so a small store is read once a slice."""
    filled(site, 5)

    assert (5, True, 1) == (walk(site, 3600).chunks, True, walk(site, 3600).slices_per_cycle)


def test_a_slice_of_an_empty_store_is_whole(site: Site) -> None:
    """There is nothing to prove, and that is done."""
    done = walk(site)

    assert (0, True, 0) == (done.chunks, done.whole, len(done.bad))


def test_files_of_others_are_passed_over(site: Site) -> None:
    """A stray file is no chunk, wherever it lies."""
    first = filled(site, 2)[0]
    (first.parent / "note").write_text("mine")
    (first.parent / f"{first.name}.x").write_text("mine")

    done = walk(site, 60)

    assert (2, ()) == (done.chunks, done.bad)


def test_a_cursor_that_cannot_be_read_begins_anew(site: Site) -> None:
    """Nothing of trust depends on it."""
    filled(site, 3)
    for content in (b"", b"{}", b"\xff"):
        (site.chunks / "verified").write_bytes(content)
        assert 3 == walk(site, 60).chunks


def test_the_cursor_is_kept_with_a_checksum(site: Site) -> None:
    """What the next slice reads is what this one wrote."""
    filled(site, slices.PORTION + 1)
    done = walk(site)

    with Repository.open(str(site.base)) as repository:
        assert done.cycle == trust.read_cycle(repository.chunks)


@given(st.lists(NAMES, min_size=1, max_size=8))
def test_shares_of_consecutive_slices_add_up(names: list[str]) -> None:
    """Wherever slices end, they cover the store once."""
    ends = ["", *sorted(names)]
    shares = [cycles.share(one, other) for one, other in pairwise(ends)]

    assert all(0 <= one <= 1 for one in shares)
    assert abs(sum(shares) + cycles.share(ends[-1], "") - 1) < 1e-6


@given(NAMES, st.integers(0, 1000))
def test_a_cycle_goes_on_or_begins_anew(cursor: str, chunks: int) -> None:
    """One that is under way keeps its start; a finished one keeps when that was."""
    later = START + timedelta(days=3)
    under_way = cycles.advanced(cycles.resume(None, START), cursor, chunks=chunks)

    assert under_way == cycles.resume(under_way, later)
    done = cycles.finished(under_way, later)
    assert Cycle(
        started_at=later + timedelta(days=1), finished_at=later, finished_chunks=chunks
    ) == cycles.resume(done, later + timedelta(days=1))


@given(st.floats(1e-9, 1))
def test_so_many_slices_cover_the_store_and_one_less_does_not(done: float) -> None:
    """Within the precision of a share."""
    count = cycles.slices_per_cycle(done)

    assert count is not None
    assert count * done >= 1 - 1e-5
    assert (count - 1) * done < 1 + 1e-5


def test_a_slice_that_did_nothing_says_nothing_of_the_whole() -> None:
    """Rather than dividing by it."""
    assert cycles.slices_per_cycle(0.0) is None


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small portions, each of which is saved."""
    monkeypatch.setattr(slices, "PORTION", 2)
    monkeypatch.setattr(slices, "_SAVE_EVERY", 0.0)


@contextmanager
def unreadable(*paths: Path) -> Iterator[None]:
    """Nothing of some files can be read."""
    inodes = {path.stat().st_ino for path in paths}
    with pytest.MonkeyPatch.context() as patch:
        for call in ("pread", "preadv"):
            real = getattr(os, call)

            def read(fd: int, *arguments: object, real: Callable[..., int] = real) -> int:
                if os.fstat(fd).st_ino in inodes:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return real(fd, *arguments)

            patch.setattr(os, call, read)
        yield


@contextmanager
def closed(name: str) -> Iterator[None]:
    """A job that cannot be looked into."""
    real = Repository.job

    def job(repository: Repository, wanted: str) -> Any:
        if wanted == name:
            raise StorageFailed("open", name, errno.EACCES)
        return real(repository, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repository, "job", job)
        yield


def cursor_of(site: Site) -> str:
    """Where the next slice goes on."""
    with Repository.open(str(site.base)) as repository:
        kept = trust.read_cycle(repository.chunks)
        return "" if kept is None else kept.cursor


class Ending(NoProgress):
    """Ends what tells it of its progress, at the second time."""

    def __init__(self, end: BaseException) -> None:
        self._end = end
        self._told = 0

    def advance(self, length: int) -> None:
        """The first time it goes on."""
        self._told += 1
        if self._told == 2:
            raise self._end


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError(errno.EIO, "gone")])
@pytest.mark.usefixtures("eager")
def test_a_slice_that_is_ended_has_told_of_all_that_lies_before_its_cursor(
    site: Site, end: BaseException
) -> None:
    """What could not be read costs the verified mark before the cursor is kept behind it."""
    bad = filled(site, 8)[0]
    site.concluded()

    with (
        unreadable(bad),
        Repository.open(str(site.base)) as repository,
        pytest.raises(type(end)),
    ):
        verify_slice(repository, SystemClock(), 3600, Ending(end))

    assert bad.name < cursor_of(site)
    assert [Trust.DISTRUSTED] == [one.trust for one in site.history().revisions]


@pytest.mark.usefixtures("eager")
def test_the_cursor_stays_before_what_not_everybody_could_be_told_of(site: Site) -> None:
    """The next slice meets it again, so that it is marked then; meanwhile the store says why."""
    bad = filled(site, 8)[3]
    site.concluded()

    with unreadable(bad):
        with held(site):
            done = walk(site, 3600)
        assert (False, done.failed) == (done.whole, done.cycle.unsettled)
        assert ".history is held" in (done.failed or "")
        assert cursor_of(site) < bad.name
        assert [Trust.VERIFIED] == [one.trust for one in site.history().revisions]

        again = walk(site, 3600)

    assert (True, None, None) == (again.whole, again.failed, again.cycle.unsettled)
    assert [bad.name] == [one.chunk for one in again.bad]
    assert [Trust.DISTRUSTED] == [one.trust for one in site.history().revisions]


def test_a_job_that_cannot_be_read_keeps_no_other_from_losing_its_mark(site: Site) -> None:
    """Whom an unreadable chunk hurts is said of all jobs that can be asked."""
    bad = filled(site, 1)[0]
    site.add_job("closed", site.image)
    site.concluded()

    with unreadable(bad), closed("closed"):
        done = walk(site)

    assert "closed" in (done.failed or "")
    assert [Trust.DISTRUSTED] == [one.trust for one in site.history().revisions]


def with_db(site: Site) -> Path:
    """The chunk file that only the revision of a second job needs, whose name comes before `vm`."""
    filled(site, 3)
    before = set(site.chunk_files())
    image = site.folder / "db.raw"
    image.write_bytes(b"db" * (CHUNK // 2))
    site.add_job("db", image)
    site.backup(job="db")
    (own,) = set(site.chunk_files()) - before
    return own


def test_a_job_that_is_held_keeps_no_other_from_being_compared_at_the_end(site: Site) -> None:
    """A missing chunk of the other is marked; the walk is whole once the first can be compared, too."""
    own = with_db(site)
    lost = next(one for one in site.chunk_files() if one != own)
    content = lost.read_bytes()
    lost.chmod(0o600)
    lost.write_bytes(b"rotten")
    site.concluded()
    lost.write_bytes(content)
    own.unlink()

    with held(site):
        done = walk(site)

    assert (False, 1) == (done.whole, done.damaged)
    assert ".history is held" in (done.failed or "")
    assert [CHUNK] == [one.damaged for one in site.history(job="db").revisions]
    assert (None, ("vm",)) == (done.cycle.finished_at, done.cycle.uncompared)
    again = walk(site)
    assert (True, None, 0) == (again.whole, again.failed, again.chunks)
    assert ((), True) == (again.cycle.uncompared, again.cycle.finished_at is not None)
    assert [0] == [one.damaged for one in site.history().revisions]


def test_a_job_that_stays_closed_keeps_no_chunk_from_being_proven(site: Site) -> None:
    """The end is tried once more, then the walk begins anew; it is whole when the job can be read."""
    with_db(site)
    with closed("db"):
        done = [walk(site) for _ in range(4)]
    last = walk(site)

    assert [4, 0, 4, 4] == [one.chunks for one in done]
    assert [(False, ("db",), None)] * 4 == [
        (one.whole, one.cycle.uncompared, one.cycle.finished_at) for one in done
    ]
    assert all("db" in (one.failed or "") for one in done)
    assert (True, (), 4) == (last.whole, last.cycle.uncompared, last.cycle.finished_chunks)


def test_distrust_does_not_end_before_all_jobs_are_compared(site: Site) -> None:
    """What one lacks could not be written down, so nobody may believe the store yet."""
    with_db(site).unlink()
    with Repository.open(str(site.base)) as repository, repository.job("vm") as job:
        (one,) = site.history().revisions
        with trust.distrusting(repository.chunks):
            trust.distrust(job.directory, one.uuid, Distrust.STORE)

        with held(site, "db"):
            walk(site)
        assert trust.is_distrusted(repository.chunks)
        assert walk(site).whole

        assert not trust.is_distrusted(repository.chunks)


@contextmanager
def unlistable(folder: Path, call: str, code: int = errno.EIO) -> Iterator[None]:
    """A folder that the disk does not give."""
    real = getattr(Directory, call)

    def fails(directory: Directory, *names: str) -> Any:
        if os.path.join(directory.path, *names) == str(folder):
            raise OSError(code, os.strerror(code), str(folder))
        return real(directory, *names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Directory, call, fails)
        yield


@pytest.mark.parametrize("call", ["enter", "names"])
def test_a_folder_that_cannot_be_listed_is_named_and_passed_over(site: Site, call: str) -> None:
    """What lies behind it is proven, but the walk is not whole, and distrust does not end with it."""
    *_, bad, last = filled(site, 9)
    bad_folder = bad.parent
    in_it = sum(one.parent == bad_folder for one in site.chunk_files())
    last.chmod(0o600)
    last.write_bytes(b"rotten")
    (one,) = site.history().revisions
    with (
        Repository.open(str(site.base)) as repository,
        repository.job("vm") as job,
        trust.distrusting(repository.chunks),
    ):
        trust.distrust(job.directory, one.uuid, Distrust.STORE)

    with unlistable(bad_folder, call):
        done = walk(site, 3600)

    assert (9 - in_it, False, [last.name]) == (done.chunks, done.whole, [one.chunk for one in done.bad])
    assert (done.damaged, None) == (1, done.cycle.finished_at)
    assert done.failed == f"list {bad_folder}: {os.strerror(errno.EIO)}."
    assert {bad_folder.name: done.failed} == done.cycle.unlisted
    assert (site.chunks / "distrusted").exists()
    again = walk(site, 3600)
    assert (8, True, None, {}) == (again.chunks, again.whole, again.failed, again.cycle.unlisted)
    assert not (site.chunks / "distrusted").exists()


@pytest.mark.usefixtures("eager")
def test_a_walk_that_passed_over_a_folder_in_an_earlier_slice_is_not_whole(site: Site) -> None:
    """The slice that comes to the end says so, although it could read everything itself."""
    first = filled(site, 9)[0]
    with unlistable(first.parent, "names"):
        done = [walk(site)]
    while done[-1].cycle.cursor:
        done.append(walk(site))

    assert {False} == {one.whole for one in done}
    assert (done[0].failed, None) == (done[-1].failed, done[1].failed)
    assert f"list {first.parent}: " in (done[0].failed or "")
    assert walk(site, 3600).whole


def test_a_want_of_descriptors_passes_over_no_folder(site: Site) -> None:
    """It says nothing of the folder, so the slice ends, and the next one goes on there."""
    first = filled(site, 3)[0]

    with unlistable(first.parent, "enter", errno.EMFILE), pytest.raises(StorageFailed, match="ulimit"):
        walk(site)

    assert (3, True, {}) == (walk(site).chunks, walk(site).whole, walk(site).cycle.unlisted)


def test_a_file_of_which_nobody_can_say_whether_it_is_there_is_told(site: Site) -> None:
    """Its inode cannot be read, so the slice is no more than unable to say what hangs on it."""
    bad = filled(site, 3)[0]
    site.concluded()
    real = os.stat

    def fails(path: Any, *arguments: Any, **named: Any) -> os.stat_result:
        if os.path.basename(path) == bad.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, *arguments, **named)

    with unreadable(bad), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", fails)
        done = walk(site, 3600)

    assert ([bad.name], False, "") == ([one.chunk for one in done.bad], done.whole, cursor_of(site))
    assert done.failed is not None
    assert walk(site, 3600).whole


class Ticking(NoProgress):
    """A clock, as `Clock`, that goes on by a second with each portion, and by more when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """Always the same."""
        return START

    def monotonic(self) -> float:
        """What was told."""
        return self.seconds

    def advance(self, length: int) -> None:
        """A portion is over."""
        self.seconds += 1


def test_telling_whom_it_hurts_takes_a_small_part_of_a_slice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All maps are read for that, so where every portion has something bad it is done now and then."""
    monkeypatch.setattr(slices, "PORTION", 1)
    files = filled(site, 30)
    ticking, told = Ticking(), []
    real = SliceFindings.settle

    def settle(found: SliceFindings) -> None:
        told.append(ticking.seconds)
        ticking.seconds += 1
        real(found)

    monkeypatch.setattr(SliceFindings, "settle", settle)
    with unreadable(*files), Repository.open(str(site.base)) as repository:
        done = verify_slice(repository, ticking, 3600, ticking)

    assert (30, True) == (len(done.bad), done.whole)
    assert [6, 26, 32] == told
