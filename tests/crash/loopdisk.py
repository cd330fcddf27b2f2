"""A small file system of its own in a file, for root: to fill, to mount read-only, to corrupt.

    with mounted(tmp_path, "xfs", size=300 << 20) as disk:
        with disk.filled(4096): …
        disk.remount("ro"), disk.overwrite(path, 0, b"…")

Limits: skips the test, with the reason, where mkfs or loop mounts are missing.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backy.ground import linux
from backy.ground.directory import Directory

_FIEMAP = 0xC020660B
_FIEMAP_SYNC = 1


class Disk:
    """A mounted file system, its folder and the file that holds it."""

    def __init__(self, folder: Path, backing: Path) -> None:
        self.folder = folder
        self._backing = backing

    @property
    def free(self) -> int:
        """Bytes that are left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def remount(self, options: str) -> None:
        """Change the mount's options."""
        _call("mount", "-o", f"remount,{options}", str(self.folder))

    @contextmanager
    def filled(self, leave: int) -> Iterator[None]:
        """All but `leave` bytes are taken meanwhile; with 0 not even a name finds room."""
        filling = self.folder / "filling"
        names: list[Path] = []
        try:
            with filling.open("wb") as file:
                piece, end = 64 << 20, 0
                while piece >= 4096 and self.free - leave >= 4096:
                    length = min(piece, self.free - leave)
                    try:
                        os.posix_fallocate(file.fileno(), end, length)
                        end += length
                    except OSError:
                        piece //= 2
            if leave == 0:
                self._fill_names(names)
            yield
        finally:
            for path in (filling, *names):
                path.unlink()
            # btrfs gives space back when it writes its next transaction.
            with Directory.open(str(self.folder)) as folder:
                linux.syncfs(folder.fd)

    def overwrite(self, path: Path, offset: int, content: bytes) -> None:
        """Change a file's bytes on the disk, under the page cache; they must lie in one extent."""
        with path.open("rb") as file:
            head = struct.pack("QQIIII", offset, len(content), _FIEMAP_SYNC, 0, 1, 0)
            answer = fcntl.ioctl(file.fileno(), _FIEMAP, head + bytes(56))
        logical, physical, length = struct.unpack_from("QQQ", answer, len(head))
        assert logical <= offset
        assert offset + len(content) <= logical + length
        with self._backing.open("r+b") as backing:
            backing.seek(physical + offset - logical)
            backing.write(content)
            backing.flush()
            os.fsync(backing.fileno())

    def _fill_names(self, names: list[Path]) -> None:
        with suppress(OSError):
            for number in range(100_000):
                path = self.folder / f"name-{number}"
                path.touch()
                names.append(path)


@contextmanager
def mounted(parent: Path, kind: str, size: int) -> Iterator[Disk]:
    """A fresh file system of `size` bytes, unmounted at the end."""
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices and mounts")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs mkfs.{kind}")
    backing, folder = parent / f"{kind}.disk", parent / f"{kind}.mounted"
    with backing.open("wb") as file:
        file.truncate(size)
    folder.mkdir()
    quiet = ["-q", "-F", "-b", "4096"] if kind == "ext4" else ["-q"]
    _call(f"mkfs.{kind}", *quiet, str(backing))
    found = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], check=False, capture_output=True, text=True
    )
    if found.returncode:
        pytest.skip(f"needs loop devices: {found.stderr.strip()}")
    device = found.stdout.strip()
    try:
        _call("blockdev", "--setrw", device)  # the last user of the device may have left it read-only
        _call("mount", device, str(folder))
        try:
            yield Disk(folder, backing)
        finally:
            _call("umount", str(folder))
    finally:
        _call("losetup", "--detach", device)
        backing.unlink()


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
