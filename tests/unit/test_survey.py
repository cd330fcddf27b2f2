"""Reading many histories: the figures of each, and one that cannot be read stops none of the others."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backy.domain.revision import Revision, Trust, serialise
from backy.domain.sla import Figures
from backy.ground.directory import Directory
from backy.ground.errors import NotARepository
from backy.operation import survey as surveys
from backy.operation.survey import Surveyed, survey, survey_job
from backy.repository import history as histories
from backy.repository.repository import Repository
from fakes import fake_revision
from testsite import Site

FIRST, SECOND = fake_revision(1, "daily", "weekly"), fake_revision(2, "daily", "manual:x")
NOW = SECOND.taken_at + timedelta(hours=1)
SET_UP = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    """The site's repository, whose job `vm` was set up at a known time."""
    os.utime(site.job / ".history", (0, SET_UP.timestamp()))
    with Repository.open(str(site.base)) as opened:
        yield opened


def add(site: Site, *revisions: Revision, job: str = "vm") -> None:
    """Put revisions into a job's history."""
    for one in revisions:
        (site.base / job / f"{one.uuid}.rev").write_bytes(serialise(one))
        (site.base / job / f"{one.uuid}.map").touch()


def surveyed(repository: Repository, name: str = "vm") -> Surveyed:
    """What is found of one job."""
    return survey(repository, [name], NOW)[name]


def test_figures_of_a_history(site: Site, repository: Repository) -> None:
    """The newest revision, the newest of each tag, and sums over all of them."""
    add(site, FIRST, SECOND)
    taken = dict.fromkeys(["daily", "manual:x"], SECOND.taken_at)

    assert Surveyed(
        Figures(
            newest=SECOND.taken_at,
            revision=SECOND.uuid,
            taken={**taken, "weekly": FIRST.taken_at},
            last_tags=("daily", "manual:x"),
            manual_tags=("manual:x",),
            revisions=2,
        ),
        SET_UP,
    ) == surveyed(repository)


def test_figures_of_real_backups(site: Site) -> None:
    """What was read and stored stands in the figures as in the records."""
    site.image.write_bytes(b"x" * 10_000)
    first, second = site.backup(), site.backup(tag="weekly")
    with Repository.open(str(site.base)) as repository:
        found = survey_job(repository, "vm", second.taken_at).figures

    assert (second.taken_at, second.stats.duration) == (found.newest, found.duration)
    assert second.stats.bytes_read == found.bytes_read
    assert first.stats.bytes_written + second.stats.bytes_written == found.stored
    assert 20_000 == found.logical


def test_empty_job_has_no_figures_but_a_beginning(repository: Repository) -> None:
    """Its service level counts from when it was set up."""
    assert Surveyed(Figures(), SET_UP) == surveyed(repository)


def test_beginning_of_a_job_of_2_5_is_that_of_its_settings(site: Site, repository: Repository) -> None:
    """There is no lock file of ours yet."""
    (site.job / ".history").unlink()
    os.utime(site.job / "config", (0, SET_UP.timestamp() + 60))

    assert SET_UP + timedelta(seconds=60) == surveyed(repository).configured_at


def test_backups_do_not_move_the_beginning(site: Site, repository: Repository) -> None:
    """Nor do edits: the lock file that tells it is never written."""
    revision = site.backup()
    with repository.job("vm") as job:
        histories.forget(job.directory, revision.uuid)

    assert SET_UP == surveyed(repository).configured_at


def test_job_without_a_directory_is_no_problem(repository: Repository) -> None:
    """It was configured and never set up."""
    assert Surveyed() == surveyed(repository, "vm02")


@pytest.mark.parametrize("name", ["..", "chunks", "", "a/b", ".history"])
def test_name_that_is_no_jobs_is_a_problem(repository: Repository, name: str) -> None:
    """It is told in a sentence, not raised."""
    found = surveyed(repository, name)

    assert Figures() == found.figures
    assert found.problem is not None
    assert found.problem.endswith(".")


@pytest.mark.parametrize("content", [b"", bytes(300), serialise(FIRST)[:-1]])
def test_unreadable_records_are_counted(site: Site, repository: Repository, content: bytes) -> None:
    """The others' figures stand all the same."""
    add(site, FIRST, SECOND)
    (site.job / f"{FIRST.uuid}.rev").write_bytes(content)
    found = surveyed(repository)

    assert (1, 0, 1) == (found.figures.unreadable, found.figures.lost, found.figures.revisions)
    assert (SECOND.taken_at, None) == (found.figures.newest, found.problem)
    assert found.figures.has_history


def test_lost_records_are_counted(site: Site, repository: Repository) -> None:
    """A map without a record is a revision that is gone."""
    add(site, FIRST, SECOND)
    (site.job / f"{SECOND.uuid}.rev").unlink()
    found = surveyed(repository).figures

    assert (0, 1, 1, FIRST.taken_at) == (found.unreadable, found.lost, found.revisions, found.newest)


def test_distrusted_and_future_revisions_are_counted_and_not_good(
    site: Site, repository: Repository
) -> None:
    """Neither is the newest."""
    add(site, FIRST, fake_revision(2, "daily", trust=Trust.DISTRUSTED), fake_revision(9, "daily"))
    found = surveyed(repository).figures

    assert (3, 1, 1, FIRST.taken_at) == (
        found.revisions,
        found.distrusted,
        found.future,
        found.newest,
    )


def test_history_that_cannot_be_listed_is_that_jobs_problem(
    site: Site, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are surveyed."""
    site.add_job("vm02", site.image)
    add(site, FIRST, job="vm02")
    real = histories.load

    def load(directory: Directory) -> histories.History:
        if directory.path.endswith("/vm"):
            raise PermissionError(13, "Permission denied")
        return real(directory)

    monkeypatch.setattr(histories, "load", load)
    found = survey(repository, ["vm", "vm02"], NOW)

    assert Surveyed(problem="vm: Permission denied.") == found["vm"]
    assert FIRST.taken_at == found["vm02"].figures.newest


def many(site: Site, count: int) -> list[str]:
    """Names of so many jobs with different histories, one damaged, and some that do not exist."""
    names = []
    for number in range(count):
        name = f"job{number:02}"
        site.add_job(name, site.image)
        add(site, *(fake_revision(day, "daily") for day in range(number % 4)), job=name)
        names.append(name)
    (site.base / "job03" / f"{FIRST.uuid}.rev").write_bytes(b"rotten")
    return [*names, "missing", "..", "chunks"]


@pytest.mark.parametrize("portion", [1, 3, 100])
def test_several_processes_find_what_one_finds(
    site: Site, repository: Repository, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    """In the same order, whatever the portions."""
    names = many(site, 10)
    alone = survey(repository, names, NOW, processes=1)
    monkeypatch.setattr(surveys, "_MANY", 2)
    monkeypatch.setattr(surveys, "_PORTION", portion)
    together = survey(repository, names, NOW, processes=3)

    assert alone == together
    assert names == list(alone) == list(together)


@pytest.mark.parametrize(("count", "processes", "forked"), [(4, 3, False), (5, 3, True), (5, 1, False)])
def test_only_many_jobs_are_worth_processes(
    site: Site,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    processes: int,
    forked: bool,
) -> None:
    """A few are read here."""
    asked: list[int] = []

    class Pool(ProcessPoolExecutor):
        """One that says that it was made."""

        def __init__(self, number: int, **options: object) -> None:
            asked.append(number)
            super().__init__(number)

    monkeypatch.setattr(surveys, "_MANY", 5)
    monkeypatch.setattr(surveys, "ProcessPoolExecutor", Pool)
    survey(repository, [f"missing{number}" for number in range(count)], NOW, processes=processes)

    assert ([processes] if forked else []) == asked


def test_repository_that_vanishes_is_told(
    site: Site, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the processes cannot open it, nobody says that all jobs are empty."""
    monkeypatch.setattr(surveys, "_MANY", 1)
    site.base.rename(tmp_path / "elsewhere")

    with pytest.raises(NotARepository):
        survey(repository, ["vm"], NOW, processes=2)


def test_survey_writes_nothing(site: Site, repository: Repository) -> None:
    """Monitoring runs it on read-only mounts."""
    add(site, FIRST)
    before = {path: path.stat().st_ctime_ns for path in site.job.iterdir()}
    survey(repository, ["vm"], NOW)

    assert before == {path: path.stat().st_ctime_ns for path in site.job.iterdir()}
