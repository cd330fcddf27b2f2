"""A block device that fails for real: marked blocks cannot be read or written, or are lost on the way.

    with faulty_device(tmp_path, size=320 << 20) as faulty, faulty.mounted("xfs") as folder:
        with faulty.when("fail-writes"): …      writes that hold MARKER fail with EIO

nbdkit serves a file through `faulty_plugin`, nbdfuse makes a file of that again, which a loop device
opens with O_DIRECT, so nothing is cached on the way. No kernel module is needed.

Limits: root, and Debian's nbdkit, nbdkit-plugin-python and libnbd-bin; else the test is skipped.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fakes import loop_device

MARKER = b"bad sector"
PLUGIN = Path(__file__).with_name("faulty_plugin.py")
PATIENCE = 20
_TOOLS = ("nbdkit", "nbdfuse")


class FaultyDevice:
    """The device's path, and when it misbehaves."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self._folder = folder

    @contextmanager
    def when(self, fault: str) -> Iterator[None]:
        """`fail-writes`, `lose-writes` or `fail-reads` meanwhile."""
        flag = self._folder / "faults" / fault
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    @contextmanager
    def mounted(self, kind: str) -> Iterator[Path]:
        """A fresh file system on it."""
        if shutil.which(f"mkfs.{kind}") is None:
            pytest.skip(f"needs mkfs.{kind}")
        folder = self._folder / "mounted"
        folder.mkdir()
        _call(f"mkfs.{kind}", "-q", str(self.path))
        _call("mount", str(self.path), str(folder))
        try:
            yield folder
        finally:
            _call("umount", str(folder))


@contextmanager
def faulty_device(folder: Path, *, size: int, content: bytes = b"") -> Iterator[FaultyDevice]:
    """A device of that size, with that content at its beginning."""
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices and mounts")
    missing = [name for name in _TOOLS if shutil.which(name) is None]
    if missing or not os.path.exists("/dev/fuse"):
        pytest.skip(f"needs {', '.join(missing) or '/dev/fuse'}")
    backing, served = folder / "faulty.disk", folder / "faulty.served"
    (folder / "faults").mkdir()
    with backing.open("wb") as file:
        file.write(content)
        file.truncate(size)
    served.touch()
    with ExitStack() as stack:
        stack.enter_context(_served(backing, served, folder / "faults"))
        device = stack.enter_context(loop_device(served, direct=True))
        yield FaultyDevice(Path(device), folder)


@contextmanager
def _served(backing: Path, served: Path, faults: Path) -> Iterator[None]:
    """The file's bytes, by way of the plugin, as a file of a file system of its own."""
    words = ["nbdfuse", str(served), "--command", "nbdkit", "-s", "--exit-with-parent"]
    words += ["python", str(PLUGIN), f"file={backing}", f"faults={faults}"]
    log = faults.with_name("nbdkit.log")
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=output) as process:
        try:
            before = served.stat().st_dev
            ends = time.monotonic() + PATIENCE
            while served.stat().st_dev == before:
                if process.poll() is not None:
                    pytest.skip(f"nbdkit with Python does not run here: {log.read_text()}")
                assert time.monotonic() < ends, log.read_text()
                time.sleep(0.01)  # nothing tells when a file system has been mounted
            yield
        finally:
            if process.poll() is None:
                _call("umount", str(served))


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
