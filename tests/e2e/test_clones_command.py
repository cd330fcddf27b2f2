"""`backy clones` and `check` about clones: which are needed, which are left over, how they go."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import backy

from backy.repository.repository import Repository
from backy.repository.users import registered
from backy.source.base import Owner
from backy.source.clonefiles import clone_name
from cloning import revision
from testsite import Site

JOB = "vm"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


class ClonedSite:
    """A repository whose image has clones: empty files stand for them, since only names matter."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.base = str(site.base)
        self.file = site.folder / "backy.conf"
        with Repository.open(self.base) as repository:
            self.repository = repository.format.repository
        self.configure(JOB)

    def configure(self, *jobs: str, directory: Path | None = None) -> None:
        """Write the host's configuration with these jobs."""
        source = {"type": "file", "filename": str(self.site.image)}
        if directory is not None:
            source["clone-directory"] = str(directory)
        document = {
            "global": {"base-dir": self.base},
            "schedules": {"default": {}},
            "jobs": {name: {"source": source, "schedule": "default"} for name in jobs},
        }
        self.file.write_text(yaml.safe_dump(document))

    def clone(self, uuid: str, job: str = JOB, folder: Path | None = None) -> Path:
        """A clone of a job's revision."""
        name = clone_name(Owner(self.repository, job), uuid)
        path = (folder or self.site.folder) / name
        path.touch()
        return path

    def states(self, *words: str) -> dict[str, str | None]:
        """The list: why each clone is left over, by path."""
        done = backy("-b", self.base, *words, "clones", "--json")
        assert 0 == done.code
        found: list[dict[str, Any]] = json.loads(done.out)
        return {one["path"]: one["why"] for one in found}

    def warnings(self) -> list[str]:
        """What `check` says of clones."""
        done = backy("-c", str(self.file), "check")
        return [line for line in done.out.splitlines()[1:] if "clone" in line]


@pytest.fixture
def cloned(site: Site) -> ClonedSite:
    """The repository of one job, and its image."""
    return ClonedSite(site)


def test_clone_of_a_revision_is_needed(cloned: ClonedSite) -> None:
    """Nothing is said about it, and it stays."""
    path = cloned.clone(cloned.site.backup().uuid)

    assert {str(path): None} == cloned.states() == cloned.states("-c", str(cloned.file))
    assert [] == cloned.warnings()
    assert "0 clones deleted\n" == backy("-b", cloned.base, "clones", "delete").out
    assert path.exists()


def test_clone_whose_revision_is_gone_is_left_over(cloned: ClonedSite) -> None:
    """A backup that was killed left it, or its revision was forgotten."""
    path = cloned.clone(revision(1))

    assert {str(path): "its revision is gone"} == cloned.states()
    assert [
        f"WARNING vm: clone {path} is left over, its revision is gone: 'backy clones delete' removes it"
    ] == cloned.warnings()


def test_clone_of_a_running_backup_is_needed(cloned: ClonedSite) -> None:
    """Its revision is not there yet."""
    path = cloned.clone(revision(1))
    with Repository.open(cloned.base) as repository, registered(repository.chunks, JOB, NOW):
        assert {str(path): None} == cloned.states()


def test_clone_whose_image_is_gone_is_left_over(cloned: ClonedSite) -> None:
    """The machine was deleted; its blocks are still taken."""
    path = cloned.clone(cloned.site.backup().uuid)
    cloned.site.image.unlink()

    assert {str(path): "its image is gone"} == cloned.states()


def test_clone_of_a_job_that_is_not_configured_is_left_over(cloned: ClonedSite) -> None:
    """Without -c the jobs are those of the repository; with it, those of the file."""
    own = cloned.clone(cloned.site.backup().uuid)
    stranger = cloned.clone(revision(1), "vm09")
    cloned.configure("other")

    assert {str(own): None, str(stranger): "its job is not configured"} == cloned.states()
    assert {str(own): "its job is not configured", str(stranger): "its job is not configured"} == (
        cloned.states("-c", str(cloned.file))
    )
    assert 2 == len(cloned.warnings())


def test_clones_of_other_repositories_are_not_seen(cloned: ClonedSite) -> None:
    """Several hosts may have their clones in one directory."""
    name = clone_name(Owner(revision(9), JOB), revision(1))
    (cloned.site.folder / name).touch()

    assert {} == cloned.states()
    assert "no clones\n" == backy("-b", cloned.base, "clones").out
    backy("-b", cloned.base, "clones", "delete")
    assert (cloned.site.folder / name).exists()


def test_clone_directory_is_looked_into(cloned: ClonedSite) -> None:
    """Wherever the operator has clones made."""
    folder = cloned.site.folder / "clones"
    folder.mkdir()
    cloned.configure(JOB, directory=folder)
    path = cloned.clone(revision(1), folder=folder)

    assert {str(path): "its revision is gone"} == cloned.states("-c", str(cloned.file))


def test_delete_removes_what_is_left_over(cloned: ClonedSite) -> None:
    """And nothing else."""
    needed = cloned.clone(cloned.site.backup().uuid)
    leftover = cloned.clone(revision(1))
    stranger = cloned.clone(revision(1), "vm09")

    assert "2 clones deleted\n" == backy("-b", cloned.base, "clones", "delete").out
    assert [True, False, False] == [one.exists() for one in (needed, leftover, stranger)]


@pytest.mark.parametrize("words", [("clones", "delete", "vm09"), ("-j", "vm09", "clones", "delete")])
def test_delete_removes_all_clones_of_a_job(cloned: ClonedSite, words: tuple[str, ...]) -> None:
    """Also one that is needed; other jobs' stay."""
    cloned.site.add_job("vm09", cloned.site.image)
    own = cloned.clone(cloned.site.backup(job="vm09").uuid, "vm09")
    other = cloned.clone(revision(1))

    assert "1 clone deleted\n" == backy("-b", cloned.base, *words).out
    assert [False, True] == [one.exists() for one in (own, other)]


def test_delete_refuses_while_a_backup_runs(cloned: ClonedSite) -> None:
    """Its clone is what it reads."""
    path = cloned.clone(cloned.site.backup().uuid)
    with Repository.open(cloned.base) as repository, repository.job(JOB) as job, job.backing_up():
        done = backy("-b", cloned.base, "clones", "delete", JOB)

    assert 1 == done.code
    assert "a backup of 'vm' is running already" in done.err
    assert path.exists()


def test_list_shows_job_state_and_path(cloned: ClonedSite) -> None:
    """A table for people."""
    path = cloned.clone(revision(1))
    path.write_bytes(bytes(4096))
    lines = backy("-b", cloned.base, "clones").out.splitlines()

    assert ["Job", "Image", "State", "Clone"] == lines[0].split()
    assert ["vm", "4.0", "KiB", "its", "revision", "is", "gone", str(path)] == lines[1].split()


def test_json_is_for_the_list_only(cloned: ClonedSite) -> None:
    """Usage errors end with 2."""
    assert 2 == backy("-b", cloned.base, "clones", "--json", "delete").code


def test_jobs_with_other_sources_have_no_clones(cloned: ClonedSite) -> None:
    """They are passed over, and so is a job whose configuration cannot be read."""
    config = cloned.site.job / "config"
    config.unlink()
    config.write_text("source: {type: rbd, pool: p, image: i}\nschedule: {}\n")
    cloned.clone(revision(1))

    assert {} == cloned.states()
    config.write_text("{")
    assert {} == cloned.states()
