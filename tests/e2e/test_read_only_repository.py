"""Bad input: a repository that may only be read is read, and what would write says why it cannot."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filetree import tree
from loops import loop_device, mounted, run
from refusals import refused, run_like_others, unchanged

from testsite import CHUNK, Site, parsed, run_backy

CONTENT = b"data" * CHUNK
WRITING = {
    "backup": ["backup", "daily"],
    "forget": ["forget", "-r", "0"],
    "tags": ["tags", "add", "-r", "0", "manual:x"],
}


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with one revision."""
    site.image.write_bytes(CONTENT)
    site.backup()
    return site


@pytest.fixture
def read_only(as_root: None, backed_up: Site) -> Iterator[Path]:
    """The repository as a read-only mount."""
    with mounted(backed_up.base, backed_up.folder / "ro", "--bind", "-o", "ro") as folder:
        run("mount", "-o", "remount,bind,ro", str(folder))
        yield folder


@pytest.mark.root
def test_everything_that_reads_works_on_a_read_only_mount(read_only: Path, tmp_path: Path) -> None:
    """Restore, verify, status and find need no new file, no lock file and no log."""
    at = ("-b", str(read_only / "vm"))
    out = tmp_path / "out.raw"

    for words in (["restore", "--read-back", str(out)], ["verify"], ["verify", "--quick"], ["status"]):
        done = run_backy(*at, *words)
        assert (0, "") == (done.returncode, done.stderr), words
    assert CONTENT == out.read_bytes()
    (record,) = parsed(run_backy(*at, "status", "--json"))
    assert record["uuid"] == run_backy(*at, "find", "-r", "latest").stdout.strip()


@pytest.mark.root
@pytest.mark.parametrize("words", WRITING.values(), ids=WRITING.keys())
def test_what_writes_says_that_the_mount_is_read_only(
    read_only: Path, backed_up: Site, words: list[str]
) -> None:
    """In one sentence, with exit code 1, and nothing else happens."""
    with unchanged(backed_up):
        refused(
            run_backy("-b", str(read_only / "vm"), *words), 1, "the file system is mounted read-only."
        )


@pytest.mark.root
def test_init_on_a_read_only_mount_says_so(read_only: Path, backed_up: Site) -> None:
    """Also for a job in a repository that is there."""
    with unchanged(backed_up):
        done = run_backy("-b", str(read_only), "-j", "new", "init", "file", str(backed_up.image))
        refused(done, 1, "the file system is mounted read-only.")


@pytest.mark.root
def test_a_repository_on_a_read_only_device_is_read(as_root: None, backed_up: Site) -> None:
    """A file system that is read-only itself, as after an error, and holds a copy of the repository."""
    folder = backed_up.folder
    with loop_device(folder / "disk.raw", size=32 << 20, fill=b"\0") as device:
        run("mkfs.ext4", "-q", str(device))
        with mounted(device, folder / "mounted"):
            shutil.copytree(backed_up.base, folder / "mounted" / "base")
        with mounted(device, folder / "mounted", "-o", "ro"):
            at = ("-b", str(folder / "mounted" / "base" / "vm"))
            for words in (["verify"], ["status"], ["restore", str(folder / "out.raw")]):
                assert 0 == run_backy(*at, *words).returncode
            for words in WRITING.values():
                refused(run_backy(*at, *words), 1, "the file system is mounted read-only.")
    assert CONTENT == (folder / "out.raw").read_bytes()


def test_everything_that_reads_works_without_the_right_to_write(backed_up: Site) -> None:
    """A user who may only read the repository restores and verifies, too."""
    folders = [path for path in (backed_up.base, *backed_up.base.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o500)
    try:
        before = tree(backed_up.base)
        out = backed_up.folder / "out.raw"
        for words in (["restore", str(out)], ["verify"], ["status"], ["find"]):
            done = run_like_others(backed_up, *words)
            assert (0, "") == (done.returncode, done.stderr), words
        assert CONTENT == out.read_bytes()
        for words in WRITING.values():
            refused(run_like_others(backed_up, *words), 1, "permission denied: run backy as the owner")
        assert before == tree(backed_up.base)
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_a_repository_that_may_not_be_read_is_told(backed_up: Site) -> None:
    """Somebody else's repository is no missing one, so nobody makes another in its place."""
    backed_up.base.chmod(0)
    try:
        for words in (["status"], ["restore", str(backed_up.folder / "out.raw")], ["backup", "daily"]):
            refused(run_like_others(backed_up, *words), 1, "permission denied: run backy as the owner")
    finally:
        backed_up.base.chmod(0o700)


def test_a_job_that_may_not_be_read_is_no_missing_one(backed_up: Site) -> None:
    """It is told by its path, also where all jobs are listed."""
    backed_up.job.chmod(0)
    try:
        for words in (["status"], ["restore", str(backed_up.folder / "out.raw")], ["backup", "daily"]):
            done = run_like_others(backed_up, *words)
            refused(done, 1, f"open {backed_up.job}: permission denied: run backy as the owner")
        done = run_like_others(backed_up, "status", job=None)
        assert (1, 1) == (done.returncode, done.stderr.count("\n"))
        assert f"warning: open {backed_up.job}: permission denied: run backy as the owner" in done.stderr
    finally:
        backed_up.job.chmod(0o700)


def test_a_chunk_that_may_not_be_read_is_no_proof_of_damage(backed_up: Site) -> None:
    """Verify and restore name the chunk and the reason, and call nothing damaged."""
    (path,) = backed_up.chunk_files()
    path.chmod(0)

    done = run_like_others(backed_up, "verify")
    assert (1, "") == (done.returncode, done.stderr)
    assert f"chunk {path.name} cannot be read: Permission denied." in done.stdout
    assert "damaged" not in done.stdout
    out = backed_up.folder / "out.raw"
    refused(run_like_others(backed_up, "restore", str(out)), 1, "cannot be read: Permission denied")
