"""Opening repositories: found where the operator points, refused where this version must not touch."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backy.domain import sealed
from backy.domain.config import JobConfig, SourceConfig, TagPolicy
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import (
    BackyError,
    FormatUnknown,
    NotARepository,
    OptionRefused,
    RepositoryRefused,
)
from backy.repository.repository import Place, Repository, create, create_job, locate
from fakes import Steps

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


def put_format(base: Path, **members: object) -> None:
    """Another, well sealed format file."""
    path = base / "chunks/format"
    path.unlink()
    path.write_bytes(sealed.seal(msgspec.json.encode({**FORMAT, **members})))


@pytest.mark.parametrize("job", [None, "vm", "other"])
def test_base_is_found_where_the_store_is(base: Path, job: str | None) -> None:
    """-b BASE is the repository, with any -j."""
    for path in (str(base), f"{base}/", f"{base}/vm/.."):
        assert Place(str(base), job) == locate(path, job)


@pytest.mark.parametrize("name", ["vm", "not-there-yet", "vm/"])
def test_job_directory_names_base_and_job(base: Path, name: str) -> None:
    """-b BASE/JOB is the job in the repository above, whether it exists already or not."""
    assert Place(str(base), name.rstrip("/")) == locate(f"{base}/{name}", None)
    assert Place(str(base), name.rstrip("/")) == locate(f"{base}/{name}", name.rstrip("/"))


def test_relative_path_is_found(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a job's directory, as scripts for older versions call it, `.` names the job."""
    monkeypatch.chdir(base / "vm")

    assert Place(str(base), "vm") == locate(".", None)
    assert Place(str(base), None) == locate("..", None)


def test_job_directory_and_another_job_contradict_each_other(base: Path) -> None:
    """-b BASE/vm -j other cannot be meant."""
    with pytest.raises(OptionRefused, match="'other' cannot go with it"):
        locate(str(base / "vm"), "other")


@pytest.mark.parametrize("path", ["", "vm/deeper", "../elsewhere", "/nowhere/at/all", "/"])
def test_place_without_a_store_is_no_repository(base: Path, path: str) -> None:
    """Neither there nor one above: the error says how to make one."""
    where = os.path.join(base, path) if path else str(base.parent)
    with pytest.raises(NotARepository, match="'backy init' makes a repository"):
        locate(where, None)


def test_store_of_version_2_5_is_recognised(tmp_path: Path) -> None:
    """An older job directory is told as what it is, by `locate` and by `open`."""
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks/store").write_text("v2")
    for look in (lambda: locate(str(tmp_path), None), lambda: Repository.open(str(tmp_path))):
        with pytest.raises(NotARepository, match=r"written by backy 2\.5"):
            look()


def test_open_writes_nothing(base: Path) -> None:
    """Opening, listing and reading a job changes no file, so it works on a read-only disk."""
    steps = Steps()
    failpoint.install(steps)
    with Repository.open(str(base)) as repository, repository.job("vm") as job:
        assert (["vm"], JOB) == (repository.jobs(), job.config())

    assert [] == steps.seen
    assert [".backup", ".history", "config"] == sorted(os.listdir(base / "vm"))


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (shutil.rmtree, NotARepository),
        (lambda base: shutil.rmtree(base / "chunks"), NotARepository),
        (lambda base: (base / "chunks/format").unlink(), NotARepository),
        (lambda base: (base / "chunks").rename(base / "chunk"), NotARepository),
        (lambda base: (base / "chunks/format").rename(base / "chunks/old"), NotARepository),
        (lambda base: shutil.rmtree(base / "chunks/ab"), RepositoryRefused),
        (lambda base: shutil.rmtree(base / "chunks/trash"), RepositoryRefused),
    ],
)
def test_repository_with_a_part_missing_is_refused(
    base: Path, harm: Callable[[Path], object], error: type[BackyError]
) -> None:
    """What is not whole is not used, and no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    harm(base)
    with pytest.raises(error):
        Repository.open(str(base))

    assert before == len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("part", ["chunks", "chunks/format", "chunks/ab", "chunks/tmp"])
def test_link_in_place_of_a_part_is_refused(base: Path, part: str) -> None:
    """No part of a repository is a link, not even to the right thing."""
    (base / part).rename(base.parent / "moved")
    (base / part).symlink_to(base.parent / "moved")

    with pytest.raises((NotARepository, RepositoryRefused)):
        Repository.open(str(base))


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"requires": ["encryption"]}, "the requirement 'encryption'"),
        ({"requires": ["a", "b"]}, "the requirement 'a', 'b'"),
        ({"format": 2}, "store format 2"),
        ({"format": 2, "requires": {"a": "b"}, "more": 1}, "store format 2"),
        ({"format": 0}, "store format 0"),
        ({"compression": "none"}, "a store format with other members"),
        ({"requires": "encryption"}, "a store format with other members"),
        ({"format": "1"}, "a store format with other members"),
        ({"chunk_size": 0}, "chunk size 0"),
        ({"chunk_size": 2048}, "chunk size 2048"),
        ({"chunk_size": 12288}, "chunk size 12288"),
        ({"chunk_size": 8 << 20}, "chunk size 8388608"),
        ({"chunk_size": -4096}, "chunk size -4096"),
    ],
)
def test_format_of_another_version_stops_everything(
    base: Path, members: dict[str, object], found: str
) -> None:
    """A newer format, or a requirement that this version does not know, is never worked around."""
    put_format(base, **members)
    with pytest.raises(FormatUnknown) as caught:
        Repository.open(str(base))

    assert caught.value.found.startswith(found)
    assert "use a newer one" in caught.value.message


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"4096", b"8192")),
        lambda path: path.write_bytes(bytes(1 << 17)),
        lambda path: replaced(path, Path.mkdir),
        lambda path: replaced(path, os.mkfifo),
    ],
)
def test_damaged_format_is_told(base: Path, harm: Callable[[Path], object]) -> None:
    """A flipped byte in the chunk size would make every map wrong, so the file proves itself."""
    path = base / "chunks/format"
    path.chmod(0o600)
    harm(path)

    with pytest.raises(NotARepository, match="format"):
        Repository.open(str(base))


def test_repository_id_that_is_none_is_damage(base: Path) -> None:
    """The id names snapshots on other systems, so it is a UUID or nothing."""
    put_format(base, repository="../x")
    with pytest.raises(NotARepository, match="damaged"):
        Repository.open(str(base))
