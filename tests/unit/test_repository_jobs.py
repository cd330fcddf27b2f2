"""The jobs of a repository: which there are, their configuration, and one backup at a time."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.domain.config import JobConfig, SourceConfig, TagPolicy
from backy.ground.directory import Directory
from backy.ground.errors import (
    ConfigError,
    JobBusy,
    JobMissing,
    NameRefused,
)
from backy.repository.repository import Repository, create, create_job
from fakes import fake_revision
from strategies import hostile_names

JOB = JobConfig(SourceConfig("file", {"filename": "/srv/vm.raw"}), {"daily": TagPolicy(86_400, 3)})
FORMAT = {
    "format": 1,
    "requires": [],
    "chunk_size": 4096,
    "repository": "00000000-0000-4000-8000-000000000000",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one job, to be copied."""
    path = tmp_path_factory.mktemp("template") / "base"
    create(str(path), [], chunk_size=4096, reserve_size=0)
    with Directory.open(str(path)) as base:
        create_job(base, "vm", JOB)
    return path


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """A repository of this test's own."""
    return Path(shutil.copytree(template, tmp_path / "base"))


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in a file's place."""
    path.unlink()
    make(path)


def test_jobs_are_directories_with_a_configuration_or_a_record(base: Path) -> None:
    """Files, links, other directories and impossible names are no jobs."""
    for name in ("b", "a", "empty", ".hidden", "with space", "old"):
        (base / name).mkdir()
    (base / "b/config").touch()
    (base / "a/config").touch()
    (base / ".hidden/config").touch()
    (base / "with space/config").touch()
    (base / "old" / f"{fake_revision(1).uuid}.rev").touch()
    (base / "file").touch()
    (base / "link").symlink_to("a")

    with Repository.open(str(base)) as repository:
        assert ["a", "b", "old", "vm"] == repository.jobs()


@pytest.mark.parametrize("name", ["other", "file", "link", "empty"])
def test_job_that_is_none_is_missing(base: Path, name: str) -> None:
    """The error lists the jobs there are."""
    (base / "file").touch()
    (base / "link").symlink_to("vm")
    (base / "empty").mkdir()
    with Repository.open(str(base)) as repository, pytest.raises(JobMissing, match="there are vm"):
        repository.job(name).__enter__()


def test_hostile_job_names_open_nothing(base: Path) -> None:
    """A name that could leave the repository is refused before anything is looked up."""
    with Repository.open(str(base)) as repository:
        for name in (*hostile_names(), "chunks"):
            with pytest.raises(NameRefused):
                repository.job(name).__enter__()


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_bytes(b" " * ((1 << 20) + 1)),
        lambda path: path.write_bytes(b"source: {"),
        lambda path: replaced(path, os.mkfifo),
        lambda path: replaced(path, lambda at: at.symlink_to("/etc/passwd")),
    ],
)
def test_job_configuration_that_cannot_be_read_is_told(
    base: Path, harm: Callable[[Path], object]
) -> None:
    """The error names the file; a job with records stays a job."""
    (base / "vm" / f"{fake_revision(1).uuid}.rev").touch()
    path = base / "vm/config"
    path.chmod(0o600)
    harm(path)

    with Repository.open(str(base)) as repository, repository.job("vm") as job:
        with pytest.raises(ConfigError) as caught:
            job.config()
        assert f"{base}/vm/config" == caught.value.file


def test_only_one_backup_of_a_job_runs(base: Path) -> None:
    """A second backup of the same job is told so at once, and may run when the first has ended."""
    with Repository.open(str(base)) as repository, repository.job("vm") as job:
        with job.backing_up(), pytest.raises(JobBusy, match="'vm'"), job.backing_up():
            pytest.fail("it ran twice")
        with job.backing_up():
            pass


def test_backups_of_two_jobs_run_together(base: Path) -> None:
    """Another job's backup is not concerned."""
    with Directory.open(str(base)) as directory:
        create_job(directory, "db", JOB)
    with (
        Repository.open(str(base)) as repository,
        repository.job("vm") as one,
        repository.job("db") as other,
        one.backing_up(),
        other.backing_up(),
    ):
        assert ["db", "vm"] == repository.jobs()
