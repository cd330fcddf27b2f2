"""Source `file`: a raw image file or a block device, read from a clone, or in place.

    FileSource("/srv/vm01.raw").snapshot(uuid)                                      in place
    FileSource("/srv/vm01.raw", Cloning(Owner(repository, "vm01"))).snapshot(uuid)  from a clone

A file on XFS or btrfs is cloned (`clone`) beside the image, or in a directory that the operator names.
Where that cannot be, it is read in place, and the operator is told: once, if this file system has no
clones; each time, if it should have worked. No backup fails for want of a clone.

A clone, or the image in place of one that should have worked, stays what it is when the guest goes on.
Where nothing can be cloned, what is read may be a snapshot that the operator's first command made, so it
is bound to that (`is_bound`).

In place there is no frozen view: the image may change while it is read, and then the revision is no
instant of it. That is noticed and said (`consistency: torn`), never called good:

- a file's change time, modification time and size are compared before and after. Dirty pages are
  written first, so that a later write through a memory map has to fault and touch the times; and
  times younger than the clock's tick are waited for, since a second write within the same tick
  would leave no trace (kernels before 6.13 have ticks of up to 10 ms).
- a device has no times: its counters of writes and discards are compared
  (/sys/dev/block/M:m/stat, see Documentation/block/stat.rst of the kernel), after its dirty pages
  were written, at the beginning and at the end.

Limits: a device is one extent. Links are followed: /dev/vg/lv is one.
"""

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import NamedTuple

from backy.domain.extents import Extent
from backy.domain.revision import Consistency, SnapshotName, SourceIdentity, View
from backy.ground import linux
from backy.ground.directory import Directory
from backy.ground.errors import SourceFailed, SourceRefused
from backy.ground.linux import Buffer
from backy.ground.pagecache import UncachedFile
from backy.source import clone, opened
from backy.source.base import Base, Changes, Confidence, Owner, Snapshot
from backy.source.clone import CloneSnapshot
from backy.source.clonefiles import remove_clones

_TICK_NS = 20_000_000
_TICK_TRIES = 5

# Fields of /sys/dev/block/M:m/stat: sectors written, sectors discarded. The numbers of writes do not
# tell: a flush, such as our own fsync makes, counts as a write of no sectors.
_WRITE_COUNTERS = (6, 13)

# What FICLONE says where a file system has no clones, rather than no clone now (ioctl_ficlone(2)).
_NO_CLONES = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV)


class Cloning(NamedTuple):
    """In whose name clones are made, and in which directory: None for the image's own.

    If they are not `wanted` any more, older ones still go.
    """

    owner: Owner
    directory: str | None = None
    wanted: bool = True


class FileSource:
    """An image file or block device at `path`, which is read in place without `cloning`."""

    def __init__(self, path: str, cloning: Cloning | None = None) -> None:
        self.path = path
        self._cloning = cloning

    @property
    def image(self) -> str:
        """See `Source.image`."""
        return os.path.abspath(self.path)

    @cached_property
    def place(self) -> str:
        """See `Source.place`: the directory of the clones, found once."""
        if self._cloning is None or not self._cloning.wanted or _is_special(self.path):
            return ""
        if self._cloning.directory is not None:
            return self._cloning.directory
        folder = os.path.dirname(os.path.realpath(self.path))
        # A record holds the path, in UTF-8.
        return folder if _has_clones(folder) and folder.isprintable() else ""

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> Collection[SnapshotName]:
        """See `Source.prune`."""
        if self._cloning is None:
            return [name for name, place in snapshots.items() if not place]
        return remove_clones(self._cloning.owner, snapshots)

    @contextmanager
    def snapshot(self, revision: str) -> Iterator[Snapshot]:
        """See `Source.snapshot`."""
        with ExitStack() as stack:
            file = stack.enter_context(opened.open_image(self.path))
            yield self._cloned(stack, file, revision) or FileSnapshot(self.path, file)

    @contextmanager
    def live(self) -> Iterator["FileSnapshot"]:
        """See `Source.live`."""
        with opened.open_image(self.path) as file:
            yield FileSnapshot(self.path, file)

    def _cloned(
        self, stack: ExitStack, file: UncachedFile, revision: str
    ) -> "CloneSnapshot | FileSnapshot | None":
        """A clone that ends with the stack, or the file in place and the reason; None for neither."""
        cloning = self._cloning
        if cloning is None or not cloning.wanted or not stat.S_ISREG(os.fstat(file.fd).st_mode):
            return None
        expected = cloning.directory is not None
        kind = clone.file_system_of(file)
        why = f"its file system ({kind}) makes no clones"
        if kind in clone.PROVEN and not self.place:
            why = "the path of its directory cannot be recorded"
        elif kind in clone.PROVEN:
            try:
                place = stack.enter_context(Directory.open(self.place))
                return stack.enter_context(clone.made(file, place, cloning.owner, revision, self.path))
            except OSError as error:
                if error.errno not in _NO_CLONES:
                    expected = True
                    why = f"no clone can be made in {self.place} ({os.strerror(error.errno or 0)})"
                elif cloning.directory is not None:
                    why = f"no clone can be made in {self.place}, which must be on its file system"
        in_place = FileSnapshot(self.path, file)
        sentence = f"the image {self.path} is read in place, since {why}"
        if expected:
            in_place.is_bound = False
            in_place.warnings.append(sentence)
        else:
            in_place.remark = sentence
        return in_place


def _is_special(path: str) -> bool:
    """Whether it is there and no regular file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _has_clones(folder: str) -> bool:
    """Whether clones can be made in a directory, as far as anybody can tell."""
    try:
        with Directory.open(folder) as directory:
            return linux.file_system(directory.fd) in clone.PROVEN
    except (OSError, ValueError):
        return True  # it may be there when the snapshot is made


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
        self.warnings: list[str] = []
        self.remark = ""
        self.is_bound = True

    def extents(self) -> Iterator[Extent]:
        """See `Snapshot.extents`."""
        if not self._device:
            yield from opened.extents(self._file, self._path, self.size)
        elif self.size:
            yield Extent(0, self.size)

    def extents_since(self, base: Base) -> Changes:
        """See `Snapshot.extents_since`."""
        return Changes(Confidence.NONE, why="the image is read in place")

    def keep(self) -> None:
        """See `Snapshot.keep`."""

    def read(self, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        """See `Snapshot.read`."""
        opened.read(self._file, self._path, buffer, offset, length, start)

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
