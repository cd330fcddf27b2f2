"""T17: what cannot take the image is refused before it is touched."""

import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from filetree import tree

from backy.ground.errors import TargetRefused
from backy.target.registry import find_target
from testsite import CHUNK, Site, run_backy


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with one revision."""
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    return site


def refused(site: Site, target: Path | str) -> str:
    """The sentence with which a restore to `target` is refused; nothing in the folder changes."""
    folder = site.folder / "targets"
    before = tree(folder)
    done = site.cli("restore", str(target))
    assert (1, "") == (done.returncode, done.stdout)
    assert before == tree(folder)
    assert 1 == done.stderr.count("\n"), done.stderr
    return done.stderr


def test_a_directory_is_no_target(backed_up: Site) -> None:
    """A file is to be named in it."""
    folder = backed_up.folder / "targets"
    folder.mkdir()

    assert "it is a directory: name the file to make in it; it was not touched." in refused(
        backed_up, folder
    )


def test_a_missing_directory_is_told(backed_up: Site) -> None:
    """It is not made."""
    folder = backed_up.folder / "targets"
    folder.mkdir()

    assert "its directory does not exist; it was not touched." in refused(
        backed_up, folder / "missing" / "out.raw"
    )


def test_a_file_as_directory_is_told(backed_up: Site) -> None:
    """Below a file nothing can be made."""
    folder = backed_up.folder / "targets"
    folder.mkdir()
    (folder / "file").write_text("here")

    assert "Not a directory" in refused(backed_up, folder / "file" / "out.raw")


def test_a_pipe_is_no_target(backed_up: Site) -> None:
    """It would hang, and cannot hold an image: that is what '-' is for."""
    folder = backed_up.folder / "targets"
    folder.mkdir()
    os.mkfifo(folder / "pipe")

    assert "it is neither a file nor a block device" in refused(backed_up, folder / "pipe")


def test_a_socket_is_no_target(backed_up: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a link to one."""
    folder = backed_up.folder / "targets"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        (folder / "link").symlink_to("socket")
        assert "it is neither a file nor a block device" in refused(backed_up, folder / "link")


def test_a_character_device_is_no_target(backed_up: Site) -> None:
    """Not even one that swallows everything."""
    (backed_up.folder / "targets").mkdir()

    assert "it is neither a file nor a block device" in refused(backed_up, "/dev/null")


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "nul\0nul", ""])
def test_an_impossible_path_is_no_target(backed_up: Site, name: str) -> None:
    """Too long, empty, or with a NUL, which no command line can hold but an API might."""
    with pytest.raises(TargetRefused) as caught:
        find_target(name, -1).begin(1)

    assert caught.value.message.endswith("it was not touched.")


@pytest.mark.parametrize("name", ["vm/new", "vm/{}.rev", "vm/config", "chunks/format", "own", "vm"])
@pytest.mark.parametrize("linked", [True, False])
def test_the_repository_is_no_target(backed_up: Site, name: str, linked: bool) -> None:
    """A file in it may be a record or a chunk; no link leads around that."""
    (revision,) = backed_up.history().revisions
    (backed_up.folder / "link").symlink_to(backed_up.base)
    (backed_up.base / "own").write_text("as backy.log is")
    before = [path for path in tree(backed_up.base) if "backy.log" not in str(path)]
    folder = "link" if linked else "backups"

    done = backed_up.cli("restore", str(backed_up.folder / folder / name.format(revision.uuid)))

    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    why = "it is a directory" if name == "vm" else "it lies in the repository"
    assert why in done.stderr
    assert before == [path for path in tree(backed_up.base) if "backy.log" not in str(path)]
    assert backed_up.image.read_bytes() == backed_up.restored(revision)


@pytest.mark.parametrize("name", ["restored.raw", "restored/vm.raw", "restored/chunks/vm.raw"])
def test_a_new_file_beside_the_jobs_is_a_target(backed_up: Site, name: str) -> None:
    """There may be space on the repository's disk only; nothing of backy minds it there."""
    target = backed_up.base / name
    target.parent.mkdir(parents=True, exist_ok=True)
    done = backed_up.cli("restore", str(target))

    assert (0, "") == (done.returncode, done.stderr)
    assert backed_up.image.read_bytes() == target.read_bytes()
    assert 0 == run_backy("-b", str(backed_up.base), "gc").returncode
    assert 0 == run_backy("-b", str(backed_up.base), "verify").returncode
    assert "restored" not in run_backy("-b", str(backed_up.base), "status").stdout
    assert backed_up.image.read_bytes() == target.read_bytes()


@pytest.mark.root
def test_the_store_is_no_target_wherever_it_is_mounted(backed_up: Site, as_root: None) -> None:
    """Also where the way to it does not lead through the repository."""
    other = backed_up.folder / "mounted"
    other.mkdir()
    subprocess.run(["mount", "--bind", backed_up.chunks, other], check=True)
    try:
        done = backed_up.cli("restore", str(other / "format"))
    finally:
        subprocess.run(["umount", other], check=True)

    assert 1 == done.returncode
    assert "it lies in the repository" in done.stderr


def test_the_list_of_bad_ranges_does_not_replace_the_image(backed_up: Site) -> None:
    """Whatever the two paths look like."""
    target = backed_up.folder / "out.raw"
    target.write_text("old")
    (backed_up.folder / "link").symlink_to(target)

    done = backed_up.cli(
        "restore", "--keep-going", "--bad-ranges", str(backed_up.folder / "link"), str(target)
    )

    assert (2, "old") == (done.returncode, target.read_text())
    assert "--bad-ranges" in done.stderr


def test_a_revision_whose_source_was_wrong_is_restored_with_a_warning(backed_up: Site) -> None:
    """What is in the store is what was read, but nobody knows whether that was the image."""
    target = backed_up.folder / "out.raw"
    assert "" == backed_up.cli("restore", str(target)).stderr
    assert 0 == backed_up.cli("distrust", "-r", "latest", "--reason", "source").returncode

    done = backed_up.cli("restore", str(target))

    assert 0 == done.returncode
    assert "is distrusted: what was read of its source may be wrong" in done.stderr


def test_a_terminal_is_no_target(backed_up: Site) -> None:
    """A terminal would take the image for commands."""
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "backy", "-b", str(backed_up.job), "restore", "-"],
            check=False,
            stdout=slave,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(slave)
        os.close(master)

    assert 1 == done.returncode
    assert "standard output is a terminal: redirect it to a file or a pipe" in done.stderr


def test_a_restore_that_is_running_is_not_disturbed(backed_up: Site) -> None:
    """A second restore to the same file leaves the first one's partial file alone."""
    target = backed_up.folder / "out.raw"
    first = find_target(str(target), -1)
    first.begin(CHUNK)
    try:
        done = backed_up.cli("restore", str(target))
        assert 1 == done.returncode
        assert "out.raw.partial is in use by another restore; it was not touched." in done.stderr
        assert (backed_up.folder / "out.raw.partial").exists()
    finally:
        first.close()


def test_what_a_killed_restore_left_is_replaced(backed_up: Site) -> None:
    """A stale partial file is no obstacle, and nothing of it gets into the image."""
    target = backed_up.folder / "out.raw"
    (backed_up.folder / "out.raw.partial").write_bytes(b"\xff" * 9 * CHUNK)

    assert 0 == backed_up.cli("restore", str(target)).returncode

    assert backed_up.image.read_bytes() == target.read_bytes()
    assert not (backed_up.folder / "out.raw.partial").exists()


def test_a_partial_file_is_not_followed(backed_up: Site) -> None:
    """A link where the partial file goes would lead the image somewhere else."""
    elsewhere = backed_up.folder / "elsewhere"
    elsewhere.write_text("precious")
    (backed_up.folder / "out.raw.partial").symlink_to(elsewhere)

    done = backed_up.cli("restore", str(backed_up.folder / "out.raw"))

    assert (1, "precious") == (done.returncode, elsewhere.read_text())
    assert not (backed_up.folder / "out.raw").exists()


def test_a_file_that_may_not_be_written_keeps_its_contents_when_the_image_is_damaged(
    backed_up: Site,
) -> None:
    """Until the last chunk is proven, an existing target is as it was."""
    target = backed_up.folder / "out.raw"
    target.write_text("the old image")
    for path in backed_up.chunk_files():
        path.chmod(0o600)
        path.write_bytes(b"rot")

    assert 1 == backed_up.cli("restore", str(target)).returncode

    assert "the old image" == target.read_text()
    assert not (backed_up.folder / "out.raw.partial").exists()
