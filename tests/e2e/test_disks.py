"""Several disks of one machine by the command line: one instant of all of them, and back by name."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopdisk import Disk

from testsite import Site, parsed, run_backy

ROOT, DATA = "root", "data"
SIZE = 1 << 20

# A guest that writes the same counter to both disks, one after the other, and holds still while there
# is a file `frozen`, which it acknowledges with `still`.
GUEST = """
import os, sys, time
folder = sys.argv[1]
disks = [os.open(f"{folder}/{name}", os.O_RDWR) for name in ("root", "data")]
count = 0
while True:
    while os.path.exists(f"{folder}/frozen"):
        open(f"{folder}/still", "w").close()
        time.sleep(0.001)
    count += 1
    for disk in disks:
        os.pwrite(disk, count.to_bytes(8, "little") * 512, 4096 * (count % 200))
        os.pwrite(disk, count.to_bytes(8, "little"), 0)
"""
FREEZE = "rm -f {0}/still; touch {0}/frozen; until [ -e {0}/still ]; do sleep 0.01; done"
THAW = "rm -f {0}/frozen"


@pytest.fixture
def folder(file_systems: Callable[[str], Disk], tmp_path: Path) -> Path:
    """Two images on XFS."""
    folder = file_systems("xfs").folder / tmp_path.name
    folder.mkdir()
    for name in (ROOT, DATA):
        (folder / name).write_bytes(bytes(SIZE))
    return folder


@pytest.fixture
def site(tmp_path: Path, folder: Path) -> Site:
    """A job of these two, whose guest is frozen around their clones."""
    site = Site(tmp_path, chunk_size=65536)
    add_disks(
        site, folder, **{"pre-snapshot": FREEZE.format(folder), "post-snapshot": THAW.format(folder)}
    )
    return site


def add_disks(site: Site, folder: Path, **settings: str) -> None:
    """The job `guest`, whose disks are read from clones."""
    site.add_disks("guest", {name: folder / name for name in (ROOT, DATA)}, clone="auto", **settings)


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """A guest that writes."""
    guest = subprocess.Popen([sys.executable, "-c", GUEST, str(folder)])
    try:
        yield
    finally:
        guest.kill()
        guest.wait()


def job(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on the job."""
    return run_backy("-b", str(site.base / "guest"), *words)


def restored(site: Site, disk: str, spec: str = "latest") -> bytes:
    """A disk of a revision."""
    target = site.folder / f"{disk}.restored"
    done = job(site, "restore", "-r", spec, "--disk", disk, str(target))
    assert 0 == done.returncode, done.stderr
    assert f"disk {disk!r} of revision" in done.stdout
    return target.read_bytes()


@pytest.mark.root
def test_disks_are_of_one_instant(site: Site, folder: Path) -> None:
    """Whatever the guest writes meanwhile, both have the same count, and all blocks agree."""
    with running(folder):
        for _ in range(3):
            done = job(site, "backup", "daily")
            assert (0, "") == (done.returncode, done.stderr)
            root, data = restored(site, ROOT), restored(site, DATA)
            assert root == data
            assert int.from_bytes(root[:8], "little") > 0
            assert not (folder / "frozen").exists()

    revisions = parsed(job(site, "status", "--json"))
    assert 3 == len(revisions)
    counts = [[one["disks"][name]["reading"].get("since") for name in (ROOT, DATA)] for one in revisions]
    before = [None, *(one["uuid"] for one in revisions)]
    assert [[uuid, uuid] for uuid in before[:3]] == counts
    assert ["clone"] * 6 == [
        disk["source"]["view"] for one in revisions for disk in one["disks"].values()
    ]
    assert 0 == job(site, "verify").returncode
    assert 2 == len(list(folder.glob(".backy-*")))
    listing = run_backy("-b", str(site.base), "clones", "list", "guest", "--json")
    assert {(ROOT, None), (DATA, None)} == {(one["disk"], one["why"]) for one in parsed(listing)}


@pytest.mark.root
def test_guest_that_is_not_frozen_is_told(tmp_path: Path, folder: Path) -> None:
    """Once: clones follow each other, and the guest may write between them."""
    site = Site(tmp_path, chunk_size=65536)
    add_disks(site, folder)

    first, second = job(site, "backup", "daily"), job(site, "backup", "daily")

    assert "pre-snapshot" in first.stderr
    assert "" == second.stderr


@pytest.mark.root
def test_disk_that_left_the_configuration_leaves_no_clone(tmp_path: Path, folder: Path) -> None:
    """Its clone goes with the next backup, and what it had can still be restored."""
    (folder / DATA).write_bytes(os.urandom(SIZE))
    content = (folder / DATA).read_bytes()
    site = Site(tmp_path, chunk_size=65536)
    add_disks(site, folder)
    assert 0 == job(site, "backup", "daily").returncode
    config = site.base / "guest" / "config"
    config.write_text(
        f"sources:\n- {{disk: root, type: file, filename: {folder / ROOT}}}\nschedule: {{}}\n"
    )
    left = parsed(run_backy("-b", str(site.base), "clones", "list", "guest", "--json"))
    assert {(ROOT, None), (DATA, "its disk is not configured")} == {
        (one["disk"], one["why"]) for one in left
    }

    assert 0 == job(site, "backup", "-f", "daily").returncode

    assert [".root"] == [path.suffix for path in folder.glob(".backy-*")]
    assert content == restored(site, DATA, "1")


@pytest.mark.root
def test_killed_backup_leaves_nothing_behind(site: Site, folder: Path) -> None:
    """Whenever it is killed, the next one removes its clones."""
    for number in range(12):
        (folder / ROOT).write_bytes(os.urandom(SIZE))
        words = ["-b", str(site.base / "guest"), "backup", "daily"]
        process = subprocess.Popen(
            [sys.executable, "-m", "backy", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with running(folder):  # otherwise nobody answers the freeze
            time.sleep(0.1 + number * 0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            (folder / "frozen").unlink(missing_ok=True)
    with running(folder):
        assert 0 == job(site, "backup", "daily").returncode

    newest = parsed(job(site, "status", "--json"))[-1]["uuid"]
    assert {f"{newest}.{name}" for name in (ROOT, DATA)} == {
        path.name[-len(newest) - 5 :] for path in folder.glob(".backy-*")
    }
    assert restored(site, ROOT)[:8] == restored(site, DATA)[:8]
    assert 0 == job(site, "verify").returncode


def test_disk_has_to_be_named(tmp_path: Path) -> None:
    """Exit code 2, the names, and no target."""
    site = Site(tmp_path)
    for name in (ROOT, DATA):
        (tmp_path / name).write_bytes(name.encode() * 4096)
    add_disks(site, tmp_path)
    assert 0 == job(site, "backup", "daily").returncode
    target = tmp_path / "target"

    for words, sentence in (
        ([], "has the disks root, data: say which"),
        (["--disk", "boot"], "and no 'boot'"),
    ):
        done = job(site, "restore", *words, str(target))
        assert 2 == done.returncode
        assert sentence in done.stderr
        assert not target.exists()
    assert b"data" * 4096 == restored(site, DATA)


def test_disks_are_told_in_status_and_log(tmp_path: Path) -> None:
    """How much each was read, and of which size it is."""
    site = Site(tmp_path)
    for name, blocks in ((ROOT, 2), (DATA, 3)):
        (tmp_path / name).write_bytes(b"x" * 4096 * blocks)
    add_disks(site, tmp_path)
    assert 0 == job(site, "--log-format", "json", "backup", "daily").returncode

    shown = job(site, "status", "--stats").stdout
    assert "  disk root: 8.0 KiB\n" in shown
    assert "  disk data: 12.0 KiB\n" in shown
    assert 3 == shown.count("  took ")
    lines = [json.loads(line) for line in (site.base / "guest" / "backy.log").read_text().splitlines()]
    told = {one["disk"]: one["bytes_read"] for one in lines if one["event"] == "disk backed up"}
    assert {ROOT: 8192, DATA: 12288} == told
