"""File systems in files, mounted by system calls: for the disk that is recorded and for its replays.

    start = make_file_system("xfs", path)
    with attached(fd) as device, mounted_at(device, "xfs", folder): …

System calls instead of losetup(8) and mount(8), since thousands of images are mounted, some of them
from files in memory that have no name. A loop device is bound with `autoclear`: it is free again when
its last user has gone, whatever became of the test.

Limits: root; Linux 5.8 (LOOP_CONFIGURE), as backy itself.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KINDS = ("xfs", "ext4", "btrfs")

# As small as each allows, and written whole, so that no background thread writes it later.
_SIZES = {"xfs": 320 << 20, "ext4": 96 << 20, "btrfs": 160 << 20}
_OPTIONS = {
    "xfs": ["-q"],
    "ext4": ["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "btrfs": ["-q"],
}

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_BLKROSET = 0x125D
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def make_file_system(kind: str, path: Path) -> None:
    """An empty one in a new file; skips where its tool is missing."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs mkfs.{kind}")
    with path.open("wb") as file:
        file.truncate(_SIZES[kind])
    subprocess.run([f"mkfs.{kind}", *_OPTIONS[kind], path], check=True, capture_output=True)


@contextmanager
def attached(backing: int) -> Iterator[str]:
    """A loop device over an open file; skips where there is none to be had."""
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"needs loop devices: {error}")
    try:
        name, device = _configured(control, backing)
    finally:
        os.close(control)
    try:
        yield name
    finally:
        os.close(device)


@contextmanager
def mounted_at(device: str, kind: str, folder: Path) -> Iterator[None]:
    """Mount with the file system's default options; OSError if it does not want to."""
    words = (device.encode(), str(folder).encode())
    _check(_libc.mount(*words, kind.encode(), ctypes.c_ulong(0), None), f"mount {kind}")
    try:
        yield
    finally:
        _unmount(folder)


def let_go(path: Path) -> None:
    """Unmount what a daemon that was killed may have left there, if it has."""
    _libc.umount2(str(path).encode(), _MNT_DETACH)


def _configured(control: int, backing: int) -> tuple[str, int]:
    # struct loop_config of linux/loop.h: fd, block size, loop_info64 with its flags at 52, reserve.
    config = bytearray(304)
    struct.pack_into("I", config, 0, backing)
    struct.pack_into("I", config, 8 + 52, _LO_FLAGS_AUTOCLEAR)
    while True:
        name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
            # The last user of the device may have left it read-only.
            fcntl.ioctl(device, _BLKROSET, struct.pack("i", 0))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # somebody else was faster
                raise
        else:
            return name, device


def _unmount(folder: Path) -> None:
    path = str(folder).encode()
    try:
        _check(_libc.umount2(path, 0), "unmount")
    except OSError:
        # A process of a failed test still has a file open: it goes with that process.
        _libc.umount2(path, _MNT_DETACH)
        raise


def _check(result: int, action: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{action}: {os.strerror(code)}")
