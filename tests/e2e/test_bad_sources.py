"""Bad input: sources that cannot be backed up, and odd ones that can."""

import os
import socket
import stat
from pathlib import Path

import pytest
from filetree import tree
from refusals import refused, run_like_others, unchanged

from testsite import CHUNK, Site, parsed, run_backy


def test_a_missing_source_is_told(site: Site) -> None:
    """The image was there when the job was made, and is not now."""
    site.image.unlink()

    with unchanged(site):
        refused(site.cli("backup", "daily"), 1, f"source {site.image}: it does not exist.")


def test_a_link_to_nothing_is_a_missing_source(site: Site) -> None:
    """A device link whose device has gone."""
    site.image.unlink()
    site.image.symlink_to(site.folder / "gone")

    with unchanged(site):
        refused(site.cli("backup", "daily"), 1, f"source {site.image}: it does not exist.")


def test_a_directory_is_no_source(site: Site) -> None:
    """A directory holds no image."""
    site.image.unlink()
    site.image.mkdir()

    with unchanged(site):
        refused(site.cli("backup", "daily"), 1, "it is a directory, not an image file or block device.")


def test_an_unreadable_source_is_told(site: Site) -> None:
    """Permission is missing, as for a backy that does not run as root."""
    site.image.write_bytes(b"secret")
    site.image.chmod(0)

    with unchanged(site):
        done = run_like_others(site, "backup", "daily")
        refused(done, 1, f"source {site.image}: Permission denied.")


def test_a_pipe_is_no_source(site: Site) -> None:
    """Reading it would wait for ever."""
    site.image.unlink()
    os.mkfifo(site.image)

    with unchanged(site):
        refused(site.cli("backup", "daily"), 1, "it is neither a regular file nor a block device.")


def test_a_socket_is_no_source(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot even be opened."""
    site.image.unlink()
    monkeypatch.chdir(site.folder)
    with socket.socket(socket.AF_UNIX) as listening, unchanged(site):
        listening.bind(site.image.name)
        refused(site.cli("backup", "daily"), 1, f"source {site.image}: it is a socket or has no device.")


def test_a_character_device_is_no_source(site: Site) -> None:
    """/dev/zero would never end."""
    site.image.unlink()
    site.image.symlink_to("/dev/zero")

    with unchanged(site):
        refused(site.cli("backup", "daily"), 1, "it is neither a regular file nor a block device.")


def test_a_missing_job_configuration_is_told_in_plain_words(site: Site) -> None:
    """By its path; nothing of the program's inside shows."""
    site.backup()
    (site.job / "config").unlink()

    refused(site.cli("backup", "daily"), 1, "/config: it cannot be read: No such file or directory.")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, CHUNK - 1, CHUNK + 1])
def test_an_image_of_any_size_is_valid(site: Site, size: int) -> None:
    """Empty, and no multiple of 512: backed up, listed with its size, restored and verified."""
    site.image.write_bytes(b"x" * size)
    target = site.folder / "out.raw"

    for words in (["backup", "daily"], ["restore", "--read-back", str(target)], ["verify"]):
        done = site.cli(*words)
        assert (0, "") == (done.returncode, done.stderr)

    assert b"x" * size == target.read_bytes()
    (record,) = parsed(site.cli("status", "--json"))
    assert [size] == [one["image_size"] for one in record["maps"]]


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe"])
def test_init_shows_a_bad_source_at_once(tmp_path: Path, kind: str) -> None:
    """A mistyped path shows when the job is made, and then neither job nor repository is."""
    source = tmp_path / "source"
    if kind == "directory":
        source.mkdir()
    elif kind == "pipe":
        os.mkfifo(source)
    before = tree(tmp_path)

    refused(run_backy("-b", str(tmp_path / "base" / "vm"), "init", "file", str(source)), 1, str(source))

    assert before == tree(tmp_path)


def test_a_source_is_opened_for_reading_only(site: Site) -> None:
    """An image without any right to write is backed up, and keeps its mode and times."""
    site.image.write_bytes(b"data")
    site.image.chmod(0o400)
    before = site.image.stat()

    assert 0 == site.cli("backup", "daily").returncode

    after = site.image.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    assert 0o400 == stat.S_IMODE(after.st_mode)


def test_an_unknown_type_of_source_is_a_usage_error(site: Site) -> None:
    """The known ones are named."""
    with unchanged(site):
        done = run_backy("-b", str(site.base), "-j", "new", "init", "tape", str(site.image))
        refused(done, 2, "'tape' is not known; known are file, rbd, ceph-rbd, ceph, flyingcircus.")


CONFIGS = {
    "source: {type: file}\nschedule: {}": "source.filename",
    "source: {type: tape, filename: /x}\nschedule: {}": "source.type: 'tape' is not known",
    "source: {type: file, filename: /x, speed: 9}\nschedule: {}": "source.speed",
    "source: {type: file, filename: /x}": "schedule: it is missing",
    "sauce: {}": "did you mean 'source'?",
    "- a\n- b": "it must be a table",
    "source: {type: file, filename: /x": "it is not YAML",
    "": "it must be a table",
}


@pytest.mark.parametrize(("text", "why"), CONFIGS.items())
def test_a_bad_job_configuration_is_told_with_its_key(site: Site, text: str, why: str) -> None:
    """File, key and reason."""
    (site.job / "config").write_text(text)

    with unchanged(site):
        refused(site.cli("backup", "manual:x"), 1, f"{site.job}/config", why)
