"""Bad input: places that are no repository, or one of another version, or not whole."""

import json
import shutil
from pathlib import Path

import pytest
from filetree import tree
from forged import sealed_as
from refusals import refused, unchanged

from testsite import CHUNK, Site, run_backy

COMMANDS = {
    "backup": ["backup", "daily"],
    "status": ["status"],
    "restore": ["restore", "out.raw"],
    "verify": ["verify"],
    "find": ["find"],
    "forget": ["forget", "-r", "0"],
    "tags": ["tags", "add", "-r", "0", "manual:x"],
}


def code_of(command: str) -> int:
    """Exit code of a command that could not run."""
    return 2 if command == "verify" else 1


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with one revision."""
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    return site


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_repository_is_told(tmp_path: Path, command: str) -> None:
    """With the way to make one; nothing is made by itself."""
    done = run_backy("-b", str(tmp_path / "missing" / "vm"), *COMMANDS[command])

    refused(
        done,
        code_of(command),
        f"{tmp_path}/missing/vm is not a backy repository: there is no chunks/format in it or beside "
        "it; 'backy init' makes a repository.",
    )
    assert [] == list(tmp_path.iterdir())


def test_the_current_directory_is_the_default_and_may_be_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in 2.5, -b is the current directory."""
    monkeypatch.chdir(tmp_path)

    refused(run_backy("status"), 1, f"{tmp_path} is not a backy repository")


@pytest.mark.parametrize("content", [None, "file", "chunks"])
def test_something_else_is_no_repository(tmp_path: Path, content: str | None) -> None:
    """A file, an empty directory, a directory with something called chunks."""
    base = tmp_path / "base"
    if content == "file":
        base.write_text("file")
    else:
        base.mkdir()
    if content == "chunks":
        (base / "chunks").mkdir()
    before = tree(tmp_path)

    refused(run_backy("-b", str(base), "status"), 1, "is not a backy repository")

    assert before == tree(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_of_backy_2_5_is_told_by_name(tmp_path: Path, command: str) -> None:
    """Its chunks cannot be read here, and nothing is put beside them."""
    job = tmp_path / "base" / "vm"
    (job / "chunks").mkdir(parents=True)
    (job / "chunks" / "store").write_text("v2")
    (job / "config").write_text("schedule: {}\nsource: {type: file, filename: /x}\n")
    before = tree(tmp_path)

    done = run_backy("-b", str(job), *COMMANDS[command])

    refused(done, code_of(command), "its chunks were written by backy 2.5")
    assert before == tree(tmp_path)


def test_init_refuses_to_build_on_a_store_of_backy_2_5(tmp_path: Path) -> None:
    """Neither in the store itself nor around it, even though it looks like a job's directory."""
    image = tmp_path / "image.raw"
    image.touch()
    base = tmp_path / "base"
    (base / "chunks").mkdir(parents=True)
    (base / "chunks" / "store").write_text("v2")
    before = tree(tmp_path)

    refused(run_backy("-b", str(base / "vm"), "init", "file", str(image)), 1, str(base))

    assert before == tree(tmp_path)


FORMATS = {
    "a newer format": (
        {"format": 2},
        "store format 2 is not known to this version of backy; use a newer",
    ),
    "an unknown requirement": (
        {"requires": ["parity"]},
        "the requirement 'parity' is not known to this version of backy; use a newer one.",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("members", "why"), FORMATS.values(), ids=FORMATS.keys())
def test_a_newer_store_is_left_alone(
    backed_up: Site, command: str, members: dict[str, object], why: str
) -> None:
    """Whatever the command is; the format file says what is missing."""
    path = backed_up.chunks / "format"
    whole = json.loads(path.read_bytes())
    del whole["checksum"]
    path.chmod(0o600)
    path.write_bytes(sealed_as(json.dumps({**whole, **members}, indent=2).encode()))

    with unchanged(backed_up):
        refused(backed_up.cli(*COMMANDS[command]), code_of(command), f"{path}: ", why)


@pytest.mark.parametrize("part", ["ab", "tmp", "users", "trash", "quarantine"])
def test_a_store_that_is_not_whole_is_told(backed_up: Site, part: str) -> None:
    """A folder that did not come back from a copy."""
    shutil.rmtree(backed_up.chunks / part)

    with unchanged(backed_up):
        refused(
            backed_up.cli("backup", "daily"), 1, f"{part} is not a directory: the store is not whole"
        )


def test_a_copy_without_empty_folders_can_be_read(backed_up: Site, tmp_path: Path) -> None:
    """Some tools leave them out, and nobody can make them on a disk that is read-only: restore works."""
    for path in backed_up.chunks.iterdir():
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    target = tmp_path / "restored.raw"

    with unchanged(backed_up):
        listed = backed_up.cli("status", "--json")
        refused(backed_up.cli("gc"), 1, "with mkdir where they were empty")
    restored = backed_up.cli("restore", str(target))

    assert [0, 0] == [listed.returncode, restored.returncode], restored.stderr
    assert backed_up.image.read_bytes() == target.read_bytes()


def test_a_damaged_format_file_is_told(backed_up: Site) -> None:
    """It is not taken for a missing one, so nothing is made over it."""
    path = backed_up.chunks / "format"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-10])

    with unchanged(backed_up):
        refused(backed_up.cli("status"), 1, "its format file is damaged")
        refused(
            run_backy("-b", str(backed_up.base), "-j", "new", "init", "file", str(backed_up.image)),
            1,
            "its format file is damaged",
        )


def test_a_missing_job_is_told_with_those_there_are(backed_up: Site) -> None:
    """A typo is seen at once."""
    with unchanged(backed_up):
        refused(
            run_backy("-b", str(backed_up.base), "-j", "vn", "backup", "daily"),
            1,
            "there is no job 'vn': there are vm.",
        )


def test_a_directory_without_a_job_is_told(backed_up: Site) -> None:
    """An empty directory beside the jobs is none."""
    (backed_up.base / "empty").mkdir()

    with unchanged(backed_up):
        refused(run_backy("-b", str(backed_up.base / "empty"), "status"), 1, "there is no job 'empty'")


def test_the_chunk_store_is_no_job(backed_up: Site) -> None:
    """Its name is refused wherever a job could be named."""
    for at in (["-b", str(backed_up.chunks)], ["-b", str(backed_up.base), "-j", "chunks"]):
        with unchanged(backed_up):
            refused(
                run_backy(*at, "backup", "daily"), 2, "'chunks' is no job name: it is the chunk store's."
            )
