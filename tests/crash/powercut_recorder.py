"""A disk whose every write and flush is noted, with a mounted file system on it.

    with recording(tmp_path, "xfs") as disk:
        …                                  whatever runs in disk.folder
        disk.position()                    how much the disk has been asked up to now
    disk.start, disk.log                   what a replay needs, when it is over
    disk.disk                              what the file system left

blklogwrites in qemu-storage-daemon, exported by FUSE as one file, under a loop device. FUSE passes
each write on before the kernel takes it for done, and the daemon notes it before it says so; so the
log's length at the moment at which a command returns tells which writes had been asked for by then.
Nothing is synced here but what the recorded commands sync: that would hide what they forget.

Limits: root, qemu-storage-daemon (Debian: qemu-system-common), FUSE; else the test is skipped.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from powercut_disk import attached, let_go, make_file_system, mounted_at

_DAEMON = "qemu-storage-daemon"
_PATIENCE = 20


class RecordedDisk:
    """The disk while it is recorded, and the files that are left of it."""

    def __init__(self, parent: Path, kind: str) -> None:
        self.kind = kind
        self.start = parent / f"{kind}.start"
        self.disk = parent / f"{kind}.disk"
        self.log = parent / f"{kind}.log"
        self.folder = parent / f"{kind}.recorded"
        self._exported = parent / f"{kind}.exported"

    def position(self) -> int:
        """Bytes of the log: everything that the disk was asked so far lies before this."""
        return os.stat(self.log).st_size

    @contextmanager
    def _running(self) -> Iterator[None]:
        """All parts of it, taken down in reverse whatever happens."""
        make_file_system(self.kind, self.start)
        subprocess.run(["cp", "--sparse=always", self.start, self.disk], check=True)
        self.folder.mkdir()
        self.log.touch()
        self._exported.touch()
        with (
            self._served(),
            self._exported.open("r+b", buffering=0) as file,
            attached(file.fileno()) as device,
            mounted_at(device, self.kind, self.folder),
        ):
            yield

    def remove(self) -> None:
        """The files that are left of it, which are large."""
        for path in (self.start, self.disk, self.log):
            path.unlink(missing_ok=True)

    @contextmanager
    def _served(self) -> Iterator[None]:
        # The files below need no flush of their own: the machine stays up.
        below = "cache.no-flush=on,driver=file"
        daemon = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "TERM", _DAEMON),
                *("--blockdev", f"{below},node-name=raw,discard=unmap,filename={self.disk}"),
                *("--blockdev", f"{below},node-name=log,filename={self.log}"),
                "--blockdev",
                "driver=blklogwrites,node-name=recorded,file=raw,log=log,log-sector-size=512",
                "--export",
                f"type=fuse,id=disk,node-name=recorded,mountpoint={self._exported},writable=on",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self._await(daemon)
            yield
        finally:
            daemon.terminate()
            try:
                daemon.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.communicate()
            let_go(self._exported)

    def _await(self, daemon: "subprocess.Popen[str]") -> None:
        """The exported file has the disk's size once it is served."""
        size, deadline = self.disk.stat().st_size, time.monotonic() + _PATIENCE
        while self._exported.stat().st_size != size:
            if daemon.poll() is not None:
                pytest.skip(f"needs a disk served by FUSE: {daemon.communicate()[1].strip()}")
            assert time.monotonic() < deadline, f"{_DAEMON} serves nothing"
            time.sleep(0.01)


@contextmanager
def recording(parent: Path, kind: str) -> Iterator[RecordedDisk]:
    """Such a disk below `parent`, unmounted and no longer served at the end."""
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices and mounts")
    if shutil.which(_DAEMON) is None:
        pytest.skip(f"needs {_DAEMON}")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    disk = RecordedDisk(parent, kind)
    with disk._running():
        yield disk
