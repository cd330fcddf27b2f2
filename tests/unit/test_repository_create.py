"""Creating repositories and jobs: only where nothing else is, whole or repeatable, never twice."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from backy.domain.config import JobConfig, SourceConfig, default_schedule
from backy.ground import failpoint, linux
from backy.ground.directory import Directory
from backy.ground.errors import JobExists, NameRefused, RepositoryRefused, StorageFailed
from backy.repository import layout
from backy.repository.repository import Repository, create, create_job
from fakes import FailAt, Steps
from strategies import hostile_names

JOB = JobConfig(SourceConfig("file", {"filename": "/srv/vm.raw"}), default_schedule())


def make(path: Path, *harmless: str, force: bool = False, chunk_size: int = 4096) -> None:
    """A repository without a reserve."""
    create(str(path), harmless, force=force, chunk_size=chunk_size, reserve_size=0)


def test_repository_is_made_with_all_its_parts(tmp_path: Path) -> None:
    """Format, fan-out and folders are there, closed to others, and the repository can be opened."""
    create(str(tmp_path / "base"), [], chunk_size=8192, reserve_size=3 << 20)
    chunks = tmp_path / "base/chunks"

    folders = {*layout.FANOUT, "tmp", "users", "trash", "quarantine"}
    assert {*folders, "format", "reserve", "gc.lock"} == set(os.listdir(chunks))
    assert {0o700} == {
        stat.S_IMODE(path.stat().st_mode) for path in (chunks.parent, chunks, chunks / "ab")
    }
    with Repository.open(str(tmp_path / "base")) as repository:
        assert (8192, ()) == (repository.format.chunk_size, repository.format.requires)


def test_reserve_is_really_written(tmp_path: Path) -> None:
    """The reserve takes its size on the disk, so that giving it up gives that much back."""
    size = (2 << 20) + 5
    create(str(tmp_path / "base"), [], reserve_size=size)
    found = (tmp_path / "base/chunks/reserve").stat()

    assert size == found.st_size
    assert found.st_blocks * 512 >= size


def test_repositories_have_different_ids(tmp_path: Path) -> None:
    """Each repository knows its own snapshots by its id."""
    ids = set()
    for name in ("a", "b"):
        make(tmp_path / name)
        with Repository.open(str(tmp_path / name)) as repository:
            ids.add(repository.format.repository)

    assert 2 == len(ids)


@pytest.mark.parametrize("harmless", [[], ["vm"], ["lost+found"]])
def test_empty_directory_becomes_a_repository(tmp_path: Path, harmless: list[str]) -> None:
    """Nothing, the job that is being made, and a file system's lost+found are no contents."""
    for name in harmless:
        (tmp_path / name).mkdir()
    make(tmp_path, "vm")

    Repository.open(str(tmp_path)).close()


@pytest.mark.parametrize("name", ["file", ".hidden", "other-job", "vm2"])
def test_directory_with_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    """Somebody's data is not made into a repository by a mistyped path; the way to insist is named."""
    (tmp_path / name).mkdir()
    with pytest.raises(RepositoryRefused, match=f"not empty .*{name}.*--force"):
        make(tmp_path, "vm")
    assert [name] == os.listdir(tmp_path)

    make(tmp_path, "vm", force=True)
    Repository.open(str(tmp_path)).close()


def test_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    """/srv/backy may be a link to where the disk is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    make(tmp_path / "link")

    Repository.open(str(tmp_path / "real")).close()


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (Path.touch, StorageFailed),
        (os.mkfifo, StorageFailed),
        (lambda path: path.symlink_to("nowhere"), StorageFailed),
        (lambda path: path.parent.rmdir(), RepositoryRefused),
    ],
)
def test_place_that_can_be_no_directory_is_refused(
    tmp_path: Path, prepare: Callable[[Path], object], error: type
) -> None:
    """A file, a FIFO, a dangling link, or a path whose parent is missing."""
    path = tmp_path / "parent/base"
    path.parent.mkdir()
    prepare(path)

    with pytest.raises(error):
        make(path)
    assert not path.is_dir()


@pytest.mark.parametrize("force", [False, True])
def test_repository_is_never_made_twice(tmp_path: Path, force: bool) -> None:
    """What is a repository already stays the one it is."""
    make(tmp_path / "base")
    before = (tmp_path / "base/chunks/format").read_bytes()
    with pytest.raises(RepositoryRefused):
        make(tmp_path / "base", force=force)

    assert before == (tmp_path / "base/chunks/format").read_bytes()


def test_store_of_version_2_5_is_not_made_into_one(tmp_path: Path) -> None:
    """A directory with an older store is not empty, although it has no format file."""
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks/store").write_text("v2")
    with pytest.raises(RepositoryRefused, match="not empty"):
        make(tmp_path)

    assert ["store"] == os.listdir(tmp_path / "chunks")


def steps_of_creation(path: Path) -> list[str]:
    """All steps that make a repository."""
    steps = Steps()
    failpoint.install(steps)
    make(path)
    failpoint.install(None)
    return steps.seen


@pytest.mark.parametrize("step", [0, 1, 2, 3, 40, 262, -7, -6, -5, -4, -3, -2])
def test_creation_that_was_interrupted_can_be_repeated(tmp_path: Path, step: int) -> None:
    """Whatever step fails, there is no repository before the format file; a second try makes one."""
    number = range(len(steps_of_creation(tmp_path / "whole")))[step]
    failpoint.install(FailAt(number + 1, errno.ENOSPC))
    with pytest.raises(StorageFailed, match="the disk is full"):
        make(tmp_path / "base")
    failpoint.install(None)
    assert not (tmp_path / "base/chunks/format").exists()

    make(tmp_path / "base")
    Repository.open(str(tmp_path / "base")).close()


def test_creation_whose_last_sync_fails_says_so(tmp_path: Path) -> None:
    """The repository is there, but may not last."""
    failpoint.install(FailAt(len(steps_of_creation(tmp_path / "whole"))))
    with pytest.raises(StorageFailed):
        make(tmp_path / "base")

    Repository.open(str(tmp_path / "base")).close()


def test_format_file_comes_last_and_synced(tmp_path: Path) -> None:
    """All folders have durable names before the file that makes them a repository."""
    chunks = f"{tmp_path}/base/chunks"

    assert [
        f"sync {chunks}",
        f"sync {tmp_path}/base",
        f"create in {chunks}",
        f"write in {chunks}",
        f"sync file in {chunks}",
        f"link {chunks}/format",
        f"sync {chunks}",
    ] == steps_of_creation(tmp_path / "base")[-7:]


@pytest.mark.parametrize("kind", ["nfs", "fuse", "overlayfs", "0x1234"])
def test_file_system_whose_locks_are_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Only where flock and syncfs are known to hold is a repository made without --force."""
    monkeypatch.setattr(linux, "file_system", lambda _: kind)
    with pytest.raises(RepositoryRefused, match=f"{kind} is none of the file systems .*--force"):
        make(tmp_path / "base")

    make(tmp_path / "base", force=True)
    Repository.open(str(tmp_path / "base")).close()


def test_job_is_made_with_its_configuration(tmp_path: Path) -> None:
    """The configuration can be read back, also as plain YAML."""
    with Directory.open(str(tmp_path)) as base:
        create_job(base, "vm", JOB)

    found = yaml.safe_load((tmp_path / "vm/config").read_text())
    assert {"type": "file", "filename": "/srv/vm.raw"} == found["source"]
    assert 0o700 == stat.S_IMODE((tmp_path / "vm").stat().st_mode)


def test_job_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    """A second `init` changes nothing; a directory without configuration is completed."""
    (tmp_path / "vm").mkdir()
    with Directory.open(str(tmp_path)) as base:
        create_job(base, "vm", JOB)
        with pytest.raises(JobExists, match="vm/config"):
            create_job(base, "vm", JobConfig(SourceConfig("file", {}), {}))

    assert "/srv/vm.raw" in (tmp_path / "vm/config").read_text()


def test_link_in_place_of_a_job_is_refused(tmp_path: Path) -> None:
    """A job's directory is never a link to elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "vm").symlink_to("elsewhere")
    with Directory.open(str(tmp_path)) as base, pytest.raises(StorageFailed):
        create_job(base, "vm", JOB)

    assert [] == os.listdir(tmp_path / "elsewhere")


def test_hostile_job_names_make_nothing(tmp_path: Path) -> None:
    """No spelling of a name makes anything inside or outside the repository."""
    (tmp_path / "base").mkdir()
    with Directory.open(str(tmp_path / "base")) as base:
        for name in (*hostile_names(), "chunks"):
            with pytest.raises(NameRefused):
                create_job(base, name, JOB)

    assert (["base"], []) == (os.listdir(tmp_path), os.listdir(tmp_path / "base"))
