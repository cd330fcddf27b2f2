"""`backy doctor`: what is wrong with a host is told before a backup fails, with what to do."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import Outcome, backy
from loopdisk import Disk

from backy.domain.config import SourceConfig
from backy.domain.diagnosis import Finding, Verdict, fine
from backy.ground import linux
from backy.ground.clock import SystemClock
from backy.operation import doctor, doctor_files
from backy.operation.doctor import Patient, examine
from testsite import Site

SUBJECTS = ["access", "base directory", "repository", "free space", "free inodes", "clock"]


@pytest.fixture(autouse=True)
def synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody keeps this machine's clock right is not what is tested."""
    monkeypatch.setattr(linux, "clock_is_synchronised", lambda: True)


def configured(site: Site, **jobs: dict[str, Any]) -> str:
    """A configuration file with jobs of these sources; by default the site's own."""
    file = site.folder / "backy.conf"
    sources = jobs or {"vm": {"type": "file", "filename": str(site.image)}}
    content = {
        "global": {"base-dir": str(site.base)},
        "schedules": {"default": {"daily": {"interval": "1d", "keep": 9}}},
        "jobs": {name: {"source": one, "schedule": "default"} for name, one in sources.items()},
    }
    file.write_text(yaml.safe_dump(content))
    return str(file)


def findings(done: Outcome) -> dict[str, tuple[str, str]]:
    """Verdict and text by subject."""
    document = json.loads(done.out)
    found = {one["subject"]: (one["verdict"], one["text"]) for one in document["findings"]}
    wrong = sum(one["verdict"] == "wrong" for one in document["findings"])
    assert (wrong, int(wrong > 0)) == (document["wrong"], done.code)
    return found


def examined(site: Site, **jobs: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The findings of a whole configuration."""
    return findings(backy("-c", configured(site, **jobs), "doctor", "--json"))


def test_healthy_host_is_told_line_by_line(site: Site) -> None:
    """Every check has its line, and the code is 0."""
    done = backy("-c", configured(site), "doctor")

    assert (0, "") == (done.code, done.err)
    told = [line.split(": ")[0].split(maxsplit=1) for line in done.out.splitlines()]
    assert ["configuration", *SUBJECTS, "jobs", "python modules", "job vm"] == [one[1] for one in told]
    assert {"ok", "note"} >= {one[0] for one in told}


def test_repository_of_its_own_needs_no_configuration(site: Site) -> None:
    """-b names it, also by a job's directory, and then only that job is looked at."""
    site.add_job("other", site.image)
    whole = findings(backy("-b", str(site.base), "doctor", "--json"))
    one = findings(backy("-b", str(site.job), "doctor", "--json"))

    assert {"job vm", "job other"} <= set(whole)
    assert ("note", True) == (whole["configuration"][0], "job vm" in one)
    assert "job other" not in one


def test_quiet_tells_only_what_is_wrong(site: Site) -> None:
    """For cron."""
    assert (0, "", "") == backy("-q", "-c", configured(site), "doctor")
    file = configured(site, gone={"type": "file", "filename": "/nowhere"})
    done = backy("-q", "-c", file, "doctor")

    assert (1, 1) == (done.code, done.out.count("\n"))
    assert done.out.startswith("wrong  job gone: the image /nowhere cannot be read (No such file")


def test_mistakes_of_the_configuration_are_findings(site: Site) -> None:
    """And what can be looked at all the same is."""
    Path(file := configured(site)).write_text(Path(file).read_text() + "nonsense: 1\n")
    found = findings(backy("doctor", "--json", "-c", file))

    assert "wrong" == found["configuration"][0]
    assert f"{file}: nonsense: " in found["configuration"][1]
    assert "ok" == found["job vm"][0]


def test_configuration_that_cannot_be_read_is_a_finding(site: Site) -> None:
    """Never a lone error: the base directory of -b is examined."""
    found = findings(backy("-c", "/nowhere", "-b", str(site.base), "doctor", "--json"))

    assert ("wrong", "ok") == (found["configuration"][0], found["repository"][0])


def test_base_directory_that_is_missing_is_wrong(site: Site) -> None:
    """Its disk is not mounted; what lies in it is not judged."""
    file = configured(site)
    os.rename(site.base, site.folder / "elsewhere")
    found = findings(backy("-c", file, "doctor", "--json"))

    assert "wrong" == found["base directory"][0]
    assert not {"repository", "free space"} & set(found)


def test_repository_that_is_not_made_yet_is_no_fault_of_a_configuration(site: Site) -> None:
    """The scheduler makes it; without a scheduler's configuration something is wrong."""
    empty = site.folder / "empty"
    empty.mkdir(mode=0o700)
    file = configured(site)
    scheduled = findings(backy("-c", file, "-b", str(empty), "doctor", "--json"))
    alone = findings(backy("-b", str(empty), "doctor", "--json"))

    assert ("note", "wrong") == (scheduled["repository"][0], alone["repository"][0])


@pytest.mark.parametrize("content", [b"", b'{"format": 9}', b"\xff" * 99])
def test_store_of_another_format_is_wrong(site: Site, content: bytes) -> None:
    """Whatever its format file holds."""
    os.chmod(file := site.chunks / "format", 0o600)
    file.write_bytes(content)

    assert "wrong" == examined(site)["repository"][0]


def test_store_of_an_older_backy_is_told_by_name(site: Site) -> None:
    """A new one beside it would be a surprise."""
    os.unlink(site.chunks / "format")
    (site.chunks / "store").write_text("v2")
    verdict, text = examined(site)["repository"]

    assert ("wrong", True) == (verdict, "backy 2.5" in text)


def test_open_base_directory_is_wrong(site: Site) -> None:
    """Others could change backups."""
    site.base.chmod(0o777)
    verdict, text = examined(site)["access"]

    assert ("wrong", True) == (verdict, f"chmod go-rwx {site.base}" in text)


def test_repository_that_was_written_in_the_future_is_wrong(site: Site) -> None:
    """The clock has gone back, and schedules go by it."""
    ahead = time.time() + 86400
    os.utime(site.chunks / "format", (ahead, ahead))

    assert "wrong" == examined(site)["clock"][0]


@pytest.mark.root
def test_base_directory_that_is_read_only_or_on_a_strange_file_system_is_wrong(
    site: Site, as_root: None
) -> None:
    """In /proc both hold: nobody can write there, and its locks are nobody's promise."""
    file = configured(site)
    found = findings(backy("-c", file, "-b", "/proc", "doctor", "--json"))

    assert ("wrong", True) == (found["base directory"][0], "locks" in found["base directory"][1])


SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (lambda path: path.mkdir(), "neither a file nor a block device"),
    "pipe": (os.mkfifo, "neither a file nor a block device"),
    "loop": (lambda path: path.symlink_to(path.name), "Too many levels"),
    "nothing": (Path.exists, "mount its disk"),
}


@pytest.mark.parametrize(("make", "why"), SOURCES.values(), ids=SOURCES)
def test_image_that_cannot_be_backed_up_is_wrong(
    site: Site, make: Callable[[Path], object], why: str
) -> None:
    """It is told at once, and a pipe is not waited for."""
    make(path := site.folder / "source")
    verdict, text = examined(site, vm={"type": "file", "filename": str(path)})["job vm"]

    assert ("wrong", True) == (verdict, why in text)


def test_job_that_does_not_exist_is_wrong(site: Site) -> None:
    """-j of a job that nobody configured."""
    found = findings(backy("-c", configured(site), "-j", "ghost", "doctor", "--json"))

    assert "wrong" == found["job ghost"][0]
    assert "job vm" not in found


def test_own_configuration_of_a_job_is_judged(site: Site) -> None:
    """A file of nonsense, and a type that nobody knows."""
    site.add_job("other", site.image)
    os.chmod(site.job / "config", 0o600)
    (site.job / "config").write_text("nonsense")
    os.chmod(site.base / "other" / "config", 0o600)
    (site.base / "other" / "config").write_text("{source: {type: tape}, schedule: {}}")
    found = findings(backy("-b", str(site.base), "doctor", "--json"))

    assert ("wrong", "wrong") == (found["job vm"][0], found["job other"][0])


# ..Clones.....................................................................................


def looked_at(**settings: str) -> Finding:
    """The finding of one image."""
    found = doctor_files.check("vm", SourceConfig("file", settings))()
    assert 1 == len(found)
    return found[0]


@pytest.mark.root
def test_image_that_can_be_cloned_is_told_as_such(cloning_folder: Path) -> None:
    """On XFS and btrfs; nothing is left of the trial."""
    (image := cloning_folder / "image").touch()
    found = looked_at(filename=str(image))

    assert (Verdict.FINE, True) == (found.verdict, "from clones in" in found.text)
    assert ["image"] == os.listdir(cloning_folder)


@pytest.mark.root
def test_clone_directory_elsewhere_is_wrong(cloning_folder: Path, tmp_path: Path) -> None:
    """No clone can cross file systems."""
    (image := cloning_folder / "image").touch()
    found = looked_at(filename=str(image), **{"clone-directory": str(tmp_path)})

    assert (Verdict.WRONG, True) == (found.verdict, "of the image's file system" in found.text)


@pytest.mark.root
def test_clone_directory_on_a_disk_without_clones_is_wrong(
    file_systems: Callable[[str], Disk], as_root: None
) -> None:
    """It was asked for, and no backup will ever have one; without it all is well."""
    folder = file_systems("ext4").folder
    (folder / "image").touch()

    assert Verdict.FINE is looked_at(filename=str(folder / "image")).verdict
    assert (
        Verdict.WRONG
        is looked_at(filename=str(folder / "image"), **{"clone-directory": str(folder)}).verdict
    )


# ..Bounded....................................................................................


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The repository's disk does not answer until the end of the block."""
    over = threading.Event()

    def hang(base: str) -> list[Finding]:
        over.wait()
        return [fine("base directory", "late")]

    monkeypatch.setattr(doctor, "base_directory", hang)
    yield
    over.set()


def test_check_that_hangs_becomes_a_finding(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are made."""
    with hanging(monkeypatch):
        found = list(examine(Patient(str(site.base), "", None), SystemClock(), limit=0.05))

    by_subject = {one.subject: one for one in found}
    assert Verdict.WRONG is by_subject["base directory"].verdict
    assert by_subject["base directory"].text.startswith("no answer within 0 s")
    assert Verdict.FINE is by_subject["job vm"].verdict


def test_check_that_fails_becomes_a_finding(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal of the system is told as such, and anything else as the bug that it is."""
    for error, said in [
        (OSError(errno.EIO, "", "/disk"), "/disk: Input/output error"),
        (ValueError("what"), "internal error, please report it (ValueError: what)"),
    ]:

        def fail(base: str, error: Exception = error) -> list[Finding]:
            raise error

        monkeypatch.setattr(doctor, "space", fail)
        found = list(examine(Patient(str(site.base), "", None), SystemClock()))
        assert [said] == [one.text.split(": make")[0] for one in found if one.subject == "free space"]
