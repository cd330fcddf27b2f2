"""Source `file`: a raw image file or a block device, read in place.

    FileSource("/srv/vm01.raw").snapshot(uuid)

There is no frozen view here: the image may change while it is read, and then the revision is no
instant of it. That is noticed and said (`consistency: torn`), never called good:

- a file's change time, modification time and size are compared before and after. Dirty pages are
  written first, so that a later write through a memory map has to fault and touch the times; and
  times younger than the clock's tick are waited for, since a second write within the same tick
  would leave no trace (kernels before 6.13 have ticks of up to 10 ms).
- a device has no times: its counters of writes and discards are compared
  (/sys/dev/block/M:m/stat, see Documentation/block/stat.rst of the kernel), after its dirty pages
  were written, at the beginning and at the end.

Limits: holes come from SEEK_DATA; a device is one extent. Links are followed: /dev/vg/lv is one.
"""

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from backy.domain.extents import Extent
from backy.domain.revision import Consistency, SourceIdentity, View
from backy.ground import linux
from backy.ground.errors import SourceFailed, SourceRefused
from backy.ground.linux import Buffer
from backy.ground.pagecache import UncachedFile
from backy.source.base import Base, Changes, Confidence

_TICK_NS = 20_000_000
_TICK_TRIES = 5

# Fields of /sys/dev/block/M:m/stat: sectors written, sectors discarded. The numbers of writes do not
# tell: a flush, such as our own fsync makes, counts as a write of no sectors.
_WRITE_COUNTERS = (6, 13)


class FileSource:
    """An image file or block device at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def place(self) -> str:
        """See `Source.place`."""
        return ""

    def prune(self, snapshots: Mapping[str, str]) -> Collection[str]:
        """See `Source.prune`."""
        return snapshots

    @contextmanager
    def snapshot(self, revision: str) -> Iterator["FileSnapshot"]:
        """See `Source.snapshot`."""
        with self.live() as snapshot:
            yield snapshot

    @contextmanager
    def live(self) -> Iterator["FileSnapshot"]:
        """See `Source.live`."""
        try:
            file = UncachedFile.open(self.path)
        except FileNotFoundError as error:
            raise SourceRefused(self.path, "it does not exist") from error
        except OSError as error:
            why = "it is a socket or has no device" if error.errno == errno.ENXIO else None
            raise SourceRefused(self.path, why or os.strerror(error.errno or 0)) from error
        with file:
            yield FileSnapshot(self.path, file)


class _Stamp(NamedTuple):
    """What changes when the image is written; compared before and after."""

    size: int
    modified_ns: int
    changed_ns: int
    counters: tuple[int, ...]


class FileSnapshot:
    """An open image; not frozen, but its changes are noticed."""

    def __init__(self, path: str, file: UncachedFile) -> None:
        found = os.fstat(file.fd)
        if stat.S_ISDIR(found.st_mode):
            raise SourceRefused(path, "it is a directory, not an image file or block device")
        self._device = stat.S_ISBLK(found.st_mode)
        if not self._device and not stat.S_ISREG(found.st_mode):
            raise SourceRefused(path, "it is neither a regular file nor a block device")
        self._path = path
        self._file = file
        self._before = self._settled_stamp()
        self.size = self._before.size
        self.data_size = self.size if self._device else min(self.size, found.st_blocks * 512)
        self.identity = SourceIdentity(
            type="file",
            path=os.path.abspath(path),
            inode=None if self._device else found.st_ino,
            changed_ns=None if self._device else self._before.changed_ns,
            size=self.size,
            view=View.IN_PLACE,
        )
        self.seconds = 0.0
        self.warnings: Sequence[str] = ()
        self.remark = ""

    def extents(self) -> Iterator[Extent]:
        """See `Snapshot.extents`."""
        if self._device:
            if self.size:
                yield Extent(0, self.size)
            return
        at = 0
        while at < self.size:
            try:
                start = os.lseek(self._file.fd, at, os.SEEK_DATA)
                if start >= self.size:
                    return
                end = min(os.lseek(self._file.fd, start, os.SEEK_HOLE), self.size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data behind `at`
                    return
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # holes are not known here
                    start, end = at, self.size
                else:
                    raise SourceFailed(self._path, at, os.strerror(error.errno or 0)) from error
            yield Extent(start, end - start)
            at = end

    def extents_since(self, base: Base) -> Changes:
        """See `Snapshot.extents_since`."""
        return Changes(Confidence.NONE, why="the image is read in place")

    def keep(self) -> None:
        """See `Snapshot.keep`."""

    def read(self, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        """See `Snapshot.read`."""
        try:
            done = self._file.read(buffer, offset, length, start)
        except OSError as error:
            raise SourceFailed(self._path, offset, os.strerror(error.errno or 0)) from error
        if done < length:
            raise SourceFailed(self._path, offset + done, "it became shorter while it was read")

    def consistency(self) -> Consistency:
        """See `Snapshot.consistency`."""
        if self._stamp() == self._before and (not self._device or self._before.counters):
            return Consistency.CONSISTENT
        return Consistency.TORN

    def _settled_stamp(self) -> _Stamp:
        """A stamp so old that any later write must differ; a file that never rests is torn anyway."""
        stamp = self._stamp()
        for _ in range(_TICK_TRIES):
            if self._device or abs(time.time_ns() - stamp.changed_ns) > _TICK_NS:
                break
            time.sleep(_TICK_NS / 1e9)
            stamp = self._stamp()
        return stamp

    def _stamp(self) -> _Stamp:
        try:
            os.fsync(self._file.fd)
            found = os.fstat(self._file.fd)
            if not self._device:
                return _Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, ())
            return _Stamp(linux.device_size(self._file.fd), 0, 0, _counters(found.st_rdev))
        except OSError as error:
            raise SourceFailed(self._path, 0, os.strerror(error.errno or 0)) from error


def _counters(device: int) -> tuple[int, ...]:
    """Write and discard counters of a block device; empty where the kernel keeps none."""
    folder = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    try:
        # A partition has its disk's queue. Without statistics the counters stand still.
        queue = next(path for path in (f"{folder}/queue", f"{folder}/../queue") if os.path.isdir(path))
        with open(f"{queue}/iostats", encoding="ascii") as file:
            if file.read().strip() != "1":
                return ()
        with open(f"{folder}/stat", encoding="ascii") as file:
            fields = [int(field) for field in file.read().split()]
    except (OSError, ValueError, StopIteration):
        return ()
    return tuple(fields[at] for at in _WRITE_COUNTERS if at < len(fields))
