"""What a target refuses, untouched: too small, in use, missing, or nothing that can hold an image."""

import fcntl
import os
import pty
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.ground.errors import TargetRefused
from backy.target.device import DeviceTarget
from backy.target.file import FileTarget
from backy.target.registry import find_target
from backy.target.stream import StreamTarget
from fakes import loop_device

MIB = 1 << 20
OLD = b"\xff" * MIB


@pytest.mark.root
@pytest.mark.parametrize("size", [MIB + 1, MIB + 512, 1 << 40])
def test_device_that_is_too_small_is_refused(tmp_path: Path, size: int, as_root: None) -> None:
    """The error names both sizes, and not one byte has changed."""
    (tmp_path / "disk").write_bytes(OLD)
    with loop_device(tmp_path / "disk") as path:
        target = DeviceTarget(path)
        with pytest.raises(TargetRefused, match=f"it has {MIB} bytes, the image {size}"):
            target.begin(size)
        target.close()

    assert OLD == (tmp_path / "disk").read_bytes()


@pytest.mark.root
def test_device_of_the_very_size_is_taken(tmp_path: Path, as_root: None) -> None:
    """An image may fill the device to its last byte."""
    (tmp_path / "disk").write_bytes(OLD)
    with loop_device(tmp_path / "disk") as path:
        target = DeviceTarget(path)
        target.begin(MIB)
        target.zero(0, MIB)
        target.finish()
        target.close()

    assert bytes(MIB) == (tmp_path / "disk").read_bytes()


@pytest.mark.root
def test_device_in_use_is_refused(tmp_path: Path, as_root: None) -> None:
    """A device that somebody holds exclusively, as a RAID or swap does, is not touched."""
    (tmp_path / "disk").write_bytes(OLD)
    with loop_device(tmp_path / "disk") as path:
        holder = os.open(path, os.O_RDONLY | os.O_EXCL)
        with pytest.raises(TargetRefused, match="mounted or in use"):
            DeviceTarget(path).begin(512)
        os.close(holder)

    assert OLD == (tmp_path / "disk").read_bytes()


@pytest.mark.root
def test_mounted_device_is_refused(tmp_path: Path, as_root: None) -> None:
    """A mounted file system is not written over."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    (tmp_path / "disk").write_bytes(OLD)
    (tmp_path / "mnt").mkdir()
    with loop_device(tmp_path / "disk") as path:
        subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, capture_output=True)
        subprocess.run(["mount", path, tmp_path / "mnt"], check=True)
        try:
            with pytest.raises(TargetRefused, match="mounted or in use"):
                DeviceTarget(path).begin(512)
        finally:
            subprocess.run(["umount", tmp_path / "mnt"], check=True)


@pytest.mark.root
def test_read_only_device_is_not_written(tmp_path: Path, as_root: None) -> None:
    """It is refused before the first write, with what to do."""
    (tmp_path / "disk").write_bytes(OLD)
    with loop_device(tmp_path / "disk", read_only=True) as path:
        target = DeviceTarget(path)
        with pytest.raises(TargetRefused, match="it is set read-only: 'blockdev --setrw' allows"):
            target.begin(8192)
        target.close()

    assert OLD == (tmp_path / "disk").read_bytes()


@pytest.mark.parametrize("kind", ["gone", "file"])
def test_device_that_is_none_any_more_is_refused(tmp_path: Path, kind: str) -> None:
    """What was a device when it was looked up may be something else by now."""
    path = tmp_path / "device"
    if kind == "file":
        path.write_bytes(OLD)
    with pytest.raises(TargetRefused, match="it was not touched"):
        DeviceTarget(str(path)).begin(512)

    assert kind == "gone" or path.read_bytes() == OLD


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda path: path.parent.rmdir(), "its directory does not exist"),
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/null"), "not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.with_name("image.partial").mkdir(), "Is a directory"),
        (lambda path: path.with_name("image.partial").symlink_to("/etc/passwd"), "symbolic links"),
    ],
)
def test_path_that_can_be_no_file_is_refused(
    tmp_path: Path, prepare: Callable[[Path], object], why: str
) -> None:
    """Missing directories, directories, FIFOs, devices, and what stands in the partial file's place."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder/image"
    prepare(path)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(TargetRefused, match=why):
        FileTarget(str(path)).begin(512)
    assert before == sorted(tmp_path.rglob("*"))


def test_file_that_the_file_system_cannot_hold_is_refused(tmp_path: Path) -> None:
    """An image too large for the file system is told at once; the old file and nothing else is left."""
    (tmp_path / "image").write_bytes(b"old")
    with pytest.raises(TargetRefused, match="File too large"):
        FileTarget(str(tmp_path / "image")).begin(1 << 62)

    assert ["image"] == os.listdir(tmp_path)
    assert b"old" == (tmp_path / "image").read_bytes()


@pytest.mark.parametrize("path", ["/dev/no-such-disk", "/dev/../dev/no-such-disk"])
def test_mistyped_device_is_refused(path: str) -> None:
    """A file in /dev would take the host's memory instead of a disk's space."""
    with pytest.raises(TargetRefused, match="there is no block device of that name"):
        find_target(path, -1)

    assert not os.path.lexists(path)


def test_files_in_shared_memory_are_meant(tmp_path: Path) -> None:
    """Whoever names /dev/shm knows what it is."""
    assert isinstance(find_target("/dev/shm/image.raw", -1), FileTarget)


def test_empty_path_is_refused() -> None:
    """An unset variable in a script is not the current directory."""
    with pytest.raises(TargetRefused, match="it is empty"):
        find_target("", -1)


def test_terminal_is_refused(tmp_path: Path) -> None:
    """Image bytes are not for people: neither as standard output nor as a path."""
    leader, terminal = pty.openpty()
    with pytest.raises(TargetRefused, match="is a terminal: redirect it"):
        StreamTarget(terminal).begin(0)
    with pytest.raises(TargetRefused, match="neither a file nor a block device"):
        find_target(os.ttyname(terminal), -1)
    fcntl.fcntl(leader, fcntl.F_SETFL, os.O_NONBLOCK)

    with pytest.raises(BlockingIOError):
        os.read(leader, 1)
    os.close(terminal)
    os.close(leader)
