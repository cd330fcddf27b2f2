"""Clones: copies of an image file of one instant, which share its blocks (FICLONE on XFS and btrfs).

    with made(image, Directory.open(place), owner, revision, path) as snapshot:
        snapshot.extents_since(base)
        snapshot.keep()

A clone is made under its final name, readable only, and is on the disk, with its name, before anybody
reads from it: the revision's record can rely on it. It stays if it is kept, and goes otherwise. The
one of the newest revision is what the next clone is compared with (`compare`), if it is certain that
it is still what that revision was read from: its name carries the revision, and its inode, size and
change time are what the record says, before and after the comparison.

Limits: only the file systems of `PROVEN`. Others make clones too, but what they answer is not proven:
a copy on SMB is not of one instant, and FIEMAP there gives the logical for the physical offset, so that
nothing would ever have changed.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from backy.domain.extents import Extent
from backy.domain.revision import Consistency, Kept, SourceIdentity, View
from backy.ground import failpoint, fiemap, linux
from backy.ground.directory import Directory
from backy.ground.linux import Buffer
from backy.ground.pagecache import UncachedFile
from backy.ground.units import format_duration
from backy.source import opened
from backy.source.base import Base, Changes, Confidence, Owner
from backy.source.clonefiles import clone_name
from backy.source.compare import compare

PROVEN = ("xfs", "btrfs")
SLOW_SECONDS = 1.0

_MODE = 0o400


class _Fresh(NamedTuple):
    """A clone that has just been made: open for reading, and on the disk."""

    file: UncachedFile
    kept: Kept
    seconds: float


@contextmanager
def made(
    image: UncachedFile, place: Directory, owner: Owner, revision: str, path: str
) -> Iterator["CloneSnapshot"]:
    """A clone of the open image at `path`, in the directory `place`.

    OSError where there can be none; then it has left no file.
    """
    name = clone_name(owner, revision)
    before = os.fstat(image.fd)
    fresh = _make(image.fd, place, name)
    with fresh.file:
        identity = SourceIdentity(
            type="file",
            path=os.path.abspath(path),
            inode=before.st_ino,
            changed_ns=before.st_ctime_ns,
            size=fresh.kept.size,
            view=View.CLONE,
            kept=fresh.kept,
        )
        snapshot = CloneSnapshot(fresh, identity, owner)
        try:
            yield snapshot
        finally:
            if not snapshot.is_kept:
                _remove(place, name)


def _make(image: int, place: Directory, name: str) -> _Fresh:
    path = place.file_path(name)
    failpoint.reached(f"clone {path}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, _MODE, dir_fd=place.fd)
    try:
        try:
            with suppress(OSError):  # it fails where there is no such setting, or the clone will
                fiemap.take_over_copy_on_write(fd, image)
            begin = time.monotonic()
            fiemap.clone(fd, image)
            seconds = time.monotonic() - begin
            os.fchmod(fd, _MODE)
            failpoint.reached(f"sync {path}")
            os.fsync(fd)
            os.fsync(place.fd)
            reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(fd)
        file = UncachedFile(reading)
        found = os.fstat(file.fd)
        return _Fresh(file, Kept(path=path, **_marks(found)), seconds)
    except BaseException:
        _remove(place, name)
        raise


def _remove(place: Directory, name: str) -> None:
    """Remove a clone that is not kept; what cannot be removed now is pruned by a later run."""
    with suppress(OSError):
        failpoint.reached(f"remove {place.file_path(name)}")
        os.unlink(name, dir_fd=place.fd)


def _marks(found: os.stat_result) -> dict[str, int]:
    """What shows that nobody touched a clone."""
    return {"inode": found.st_ino, "changed_ns": found.st_ctime_ns, "size": found.st_size}


class CloneSnapshot:
    """A frozen view of an image."""

    def __init__(self, fresh: _Fresh, identity: SourceIdentity, owner: Owner) -> None:
        self._file = fresh.file
        self._path = fresh.kept.path
        self._owner = owner
        self.size = fresh.kept.size
        self.data_size = min(self.size, os.fstat(fresh.file.fd).st_blocks * 512)
        self.identity = identity
        self.seconds = fresh.seconds
        self.warnings: list[str] = []
        self.remark = ""
        self.is_bound = False
        self.is_kept = False
        if fresh.seconds > SLOW_SECONDS:
            self.warnings.append(
                f"cloning the image took {format_duration(fresh.seconds)}, in which its machine could "
                "not write: it is fragmented; xfs_fsr or 'btrfs filesystem defragment' mends that, and "
                "the backup after it reads everything once"
            )

    def extents(self) -> Iterator[Extent]:
        """See `Snapshot.extents`."""
        return opened.extents(self._file, self._path, self.size)

    def read(self, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        """See `Snapshot.read`."""
        opened.read(self._file, self._path, buffer, offset, length, start)

    def consistency(self) -> Consistency:
        """See `Snapshot.consistency`: a clone is one instant."""
        return Consistency.CONSISTENT

    def keep(self) -> None:
        """See `Snapshot.keep`."""
        self.is_kept = True

    def extents_since(self, base: Base) -> Changes:
        """See `Snapshot.extents_since`."""
        kept = base.source.kept
        if base.source.view is not View.CLONE or kept is None:
            return _unknown("the parent was not read from a clone")
        if (base.source.path, base.source.inode) != (self.identity.path, self.identity.inode):
            return _unknown("the image is another file than the parent's")
        if os.path.basename(kept.path) != clone_name(self._owner, base.revision):
            return _unknown("the parent's clone is not this job's")
        if kept.size != self.size:
            return _unknown(f"the image had {kept.size} bytes and has {self.size} now")
        try:
            fd = os.open(kept.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            gone = error.errno == errno.ENOENT
            reason = "is gone" if gone else f"cannot be opened ({os.strerror(error.errno or 0)})"
            return _unknown(f"the parent's clone {reason}")
        try:
            return self._compared(fd, kept)
        finally:
            os.close(fd)

    def _compared(self, old: int, kept: Kept) -> Changes:
        """What has changed since the clone that was opened as `old`, if it is still `kept`."""
        if not _is_untouched(old, kept):
            return _unknown("the parent's clone was altered")
        if os.fstat(old).st_dev != os.fstat(self._file.fd).st_dev:
            return _unknown("the parent's clone lies on another file system")
        try:
            changed: Sequence[Extent] = compare(old, self._file.fd, self.size)
        except OSError as error:
            why = f"the file system does not tell where its blocks lie ({error.strerror})"
            return _unknown(why)
        if not _is_untouched(old, kept):
            return _unknown("the parent's clone was altered meanwhile")
        return Changes(Confidence.HINT, changed)


def _is_untouched(fd: int, kept: Kept) -> bool:
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and _marks(found) == {
        "inode": kept.inode,
        "changed_ns": kept.changed_ns,
        "size": kept.size,
    }


def _unknown(why: str) -> Changes:
    return Changes(Confidence.NONE, why=why)


def file_system_of(file: UncachedFile) -> str:
    """The name of the file system that an open image lies on."""
    try:
        return linux.file_system(file.fd)
    except OSError as error:
        return os.strerror(error.errno or 0)
