"""`init`: where a repository may be made, and what it says where it may not."""

import os
import stat
from pathlib import Path

import pytest
from filetree import tree
from refusals import refused

from testsite import Site, parsed, run_backy


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image file."""
    path = tmp_path / "image.raw"
    path.write_bytes(b"data" * 1000)
    return path


def init(base: Path, image: Path, *more: str) -> "tuple[str, ...]":
    """The words of `backy -b BASE/vm init file IMAGE`."""
    return ("-b", str(base / "vm"), "init", *more, "file", str(image))


def check_works(base: Path) -> None:
    """The job in `base` can be backed up and verified."""
    assert 0 == run_backy("-b", str(base / "vm"), "backup", "daily").returncode
    assert 0 == run_backy("-b", str(base), "verify").returncode


def test_a_missing_base_becomes_a_repository(tmp_path: Path, image: Path) -> None:
    """With the job in it, and the next command said; only its owner may look into it."""
    base = tmp_path / "base"

    done = run_backy(*init(base, image))

    assert (0, "") == (done.returncode, done.stderr)
    assert f"job 'vm' in {base} backs up {image}; next: backy -b {base}/vm backup daily\n" == done.stdout
    assert 0o700 == stat.S_IMODE(base.stat().st_mode)
    assert {"chunks", "vm"} == set(os.listdir(base))
    check_works(base)


def test_a_missing_parent_of_the_base_is_not_made(tmp_path: Path, image: Path) -> None:
    """A typo high up in the path does not make a tree of directories."""
    before = tree(tmp_path)

    done = run_backy(*init(tmp_path / "missing" / "base", image))

    refused(done, 1, f"{tmp_path}/missing does not exist: if that is no mistake in the path, make it")

    assert before == tree(tmp_path)


def test_the_next_command_can_be_pasted_into_a_shell(tmp_path: Path, image: Path) -> None:
    """A blank in the path is quoted."""
    done = run_backy(*init(tmp_path / "my base", image))

    assert done.stdout.endswith(f"; next: backy -b '{tmp_path}/my base/vm' backup daily\n")


@pytest.mark.parametrize("with_job", [False, True])
def test_an_empty_base_and_one_with_this_jobs_directory_are_taken(
    tmp_path: Path, image: Path, *, with_job: bool
) -> None:
    """As `mkdir -p BASE/JOB` leaves it."""
    base = tmp_path / "base"
    base.mkdir()
    if with_job:
        (base / "vm").mkdir()

    assert 0 == run_backy(*init(base, image)).returncode
    check_works(base)


def test_the_base_may_be_the_root_of_a_fresh_file_system(tmp_path: Path, image: Path) -> None:
    """`lost+found` is nobody's data."""
    base = tmp_path / "base"
    (base / "lost+found").mkdir(parents=True)

    assert 0 == run_backy(*init(base, image)).returncode


@pytest.mark.parametrize("other", ["file", "directory", ".hidden", "other job"])
def test_a_base_with_other_things_is_refused_with_the_way_to_say_so(
    tmp_path: Path, image: Path, other: str
) -> None:
    """Nothing is made there without --force, and everything works with it."""
    base = tmp_path / "base"
    base.mkdir()
    if other == "file":
        (base / other).write_text("precious")
    else:
        (base / other).mkdir()
    before = tree(base)

    done = run_backy(*init(base, image))
    refused(
        done, 1, f"{base}: it is not empty ({other}", "--force makes a repository there all the same"
    )
    assert before == tree(base)

    assert 0 == run_backy(*init(base, image, "--force")).returncode
    assert not (base / "file").exists() or "precious" == (base / "file").read_text()
    check_works(base)


def test_a_job_that_exists_is_not_made_again(site: Site) -> None:
    """Its configuration is named, and stays."""
    before = tree(site.base)

    done = run_backy(*init(site.base, site.image))

    refused(done, 1, f"job 'vm' exists already: edit {site.job}/config to change it.")
    assert before == tree(site.base)


def test_a_job_that_exists_without_a_repository_makes_none(tmp_path: Path, image: Path) -> None:
    """Nothing half made is left beside the job that is there, be it one of backy 2.5."""
    job = tmp_path / "base" / "vm"
    job.mkdir(parents=True)
    (job / "config").write_text("source: {}\n")
    before = tree(tmp_path)

    refused(run_backy(*init(tmp_path / "base", image)), 1, "job 'vm' exists already")

    assert before == tree(tmp_path)


def test_a_second_job_joins_the_repository(site: Site) -> None:
    """By -b BASE/JOB and by -b BASE -j JOB; the store stays one."""
    before = tree(site.chunks)

    assert 0 == run_backy("-b", str(site.base / "two"), "init", "file", str(site.image)).returncode
    words = ("-b", str(site.base), "-j", "three", "init", "file", str(site.image))
    assert 0 == run_backy(*words).returncode

    listed = parsed(run_backy("-b", str(site.base), "status", "--json"))
    assert ["three", "two", "vm"] == [one["job"] for one in listed]
    assert before == tree(site.chunks)


def test_a_job_inside_a_job_is_refused(site: Site) -> None:
    """-b BASE/JOB/ANOTHER would hide a repository in a job's directory."""
    before = tree(site.base)

    done = run_backy("-b", str(site.job / "inner"), "init", "file", str(site.image))

    refused(done, 2, f"{site.job} is itself a job's directory in {site.base}.")
    assert before == tree(site.base)


@pytest.mark.parametrize(
    "words", [[], ["-j", ""], ["-b", "/"], ["-b", "BASE/.."], ["-b", "BASE/.hidden"]]
)
def test_a_place_that_names_no_job_is_refused(
    tmp_path: Path, image: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made in the current directory, in / or above."""
    (tmp_path / "cwd" / "BASE").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    before = tree(tmp_path)

    done = run_backy(*words, "init", "file", str(image))

    if words == ["-b", "BASE/.."]:  # is the directory cwd: a job of that name beside the image
        refused(done, 1, "it is not empty")
    else:
        refused(done, 2)
    assert before == tree(tmp_path)


def test_a_relative_source_is_kept_as_an_absolute_path(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler runs elsewhere."""
    monkeypatch.chdir(tmp_path)

    assert 0 == run_backy("-b", "base/vm", "init", "file", "image.raw").returncode

    assert f"filename: {image}" in (tmp_path / "base" / "vm" / "config").read_text()
    monkeypatch.chdir("/")
    check_works(tmp_path / "base")


def test_a_creation_that_was_cut_short_can_be_repeated(tmp_path: Path, image: Path) -> None:
    """The format file comes last; what a killed init left is taken for its own."""
    base = tmp_path / "base"
    assert 0 == run_backy(*init(base, image)).returncode
    (base / "chunks" / "format").unlink()
    (base / "chunks" / "ff").rmdir()
    (base / "vm" / "config").unlink()

    assert 0 == run_backy(*init(base, image)).returncode
    check_works(base)


def test_init_without_its_arguments_shows_the_usage() -> None:
    """TYPE and SOURCE are both needed."""
    for words in ([], ["file"]):
        done = run_backy("-b", "/nowhere/vm", "init", *words)
        assert (2, "") == (done.returncode, done.stdout)
        assert "Usage: " in done.stderr
        assert "Missing argument" in done.stderr
