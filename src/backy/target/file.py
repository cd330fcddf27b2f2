"""Target: a regular file, new or existing, which appears whole or not at all.

The image is written sparsely to `TARGET.partial`, synced, and takes TARGET's name at the end. So
an existing file keeps its old contents until the restore has succeeded (and there must be room for
both), and keeps its owner and mode; other hard links and a program that has it open keep the old
image. A killed restore leaves `TARGET.partial`, which the next one replaces; one that is running holds
it locked, and a second one is refused.

    target = FileTarget("/srv/vm01.raw"); target.begin(size)

Limits: extended attributes of an existing file are not carried over.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from backy.ground import failpoint, locks
from backy.ground.errors import TargetFailed, TargetRefused
from backy.ground.linux import Buffer
from backy.ground.pagecache import UncachedFile
from backy.target.direct import DirectWriter
from backy.target.sparse import data_runs

_SUFFIX = ".partial"
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_TRIES = 10


class FileTarget:
    """See `Target`; `path` may be a link to a file, which is followed."""

    in_order = False
    in_place = False
    taken_up = 0

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._partial = self.path + _SUFFIX
        self._writer: DirectWriter | None = None
        self._finished = False

    def begin(self, size: int, content: str = "") -> None:
        """See `Target.begin`."""
        try:
            old = os.stat(self.path)
        except FileNotFoundError:
            old = None
        except OSError as error:
            raise TargetRefused(self.path, os.strerror(error.errno or 0)) from error
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise TargetRefused(self.path, "it is not a regular file")
        try:
            fd = self._create()
            try:
                failpoint.reached(f"shape {self._partial}")
                if old is not None:
                    os.fchown(fd, old.st_uid, old.st_gid)
                    os.fchmod(fd, stat.S_IMODE(old.st_mode))
                os.ftruncate(fd, size)
                self._writer = DirectWriter(fd, self._partial)
            except BaseException:
                self._discard(fd)
                raise
        except OSError as error:
            raise TargetRefused(self.path, _why(error)) from error

    def _create(self) -> int:
        """A new, locked partial file, in place of one that a killed restore left.

        It is ours while we hold its lock and it bears the name: nobody else removes or renames it then.
        Who meets it before we have the lock takes it for a leftover, and we begin again.
        """
        for _ in range(_TRIES):
            self._remove_leftover()
            failpoint.reached(f"create {self._partial}")
            try:
                fd = os.open(self._partial, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            try:
                if locks.try_exclusive(fd) and self._has_name(fd):
                    return fd
            except OSError:  # no file can be locked here, so nobody else has it
                self._discard(fd)
                raise
            os.close(fd)
        raise TargetRefused(self.path, self._in_use)

    def _remove_leftover(self) -> None:
        """Remove what a killed restore left; TargetRefused for what a living one holds."""
        try:
            fd = os.open(self._partial, _FLAGS)
        except FileNotFoundError:
            return
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or not locks.try_exclusive(fd):
                raise TargetRefused(self.path, self._in_use)
        except BaseException:
            os.close(fd)
            raise
        self._discard(fd)  # another may have removed it before we had the lock

    def _discard(self, fd: int) -> None:
        """Remove a locked partial file, and let it go."""
        try:
            self._remove(fd)
        finally:
            os.close(fd)

    def _remove(self, fd: int) -> None:
        """Remove the locked partial file, unless what has its name now is another's."""
        if self._has_name(fd):
            failpoint.reached(f"remove {self._partial}")
            os.unlink(self._partial)

    @property
    def _in_use(self) -> str:
        return f"{self._partial} is in use by another restore"

    def _has_name(self, fd: int) -> bool:
        """Whether this very file is called TARGET.partial now."""
        try:
            return os.path.samestat(os.lstat(self._partial), os.fstat(fd))
        except FileNotFoundError:
            return False

    def write(self, buffer: Buffer, offset: int, length: int) -> None:
        """See `Target.write`; zeros are left out."""
        for start, count in data_runs(buffer, length):
            try:
                self._open_writer().write(buffer, start, offset + start, count)
            except TargetFailed as error:  # of the partial file, which goes
                raise TargetFailed(self.path, error.offset, error.why, kept=True) from error

    def zero(self, offset: int, length: int) -> None:
        """See `Target.zero`; a fresh file is zero already."""

    def finish(self) -> None:
        """See `Target.finish`."""
        try:
            writer = self._open_writer()
            writer.sync()
            failpoint.reached(f"rename {self._partial}")
            if not self._has_name(writer.fd):
                why = f"{self._partial} was removed or replaced meanwhile"
                raise TargetFailed(self.path, 0, why, kept=True)
            os.rename(self._partial, self.path)
            self._finished = True
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                failpoint.reached(f"sync directory of {self.path}")
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise TargetFailed(self.path, 0, _why(error), kept=not self._finished) from error

    def read_back(self, buffer: Buffer, offset: int, length: int) -> int:
        """See `Target.read_back`."""
        with self._reopened(offset) as file:
            return file.read(buffer, offset, length, fresh=True)

    def is_hole(self, offset: int, length: int) -> bool:
        """See `Target.is_hole`; so a sparse image is read back as fast as its data."""
        with self._reopened(offset) as file:
            if os.fstat(file.fd).st_size < offset + length:
                return False
            try:
                return os.lseek(file.fd, offset, os.SEEK_DATA) >= offset + length
            except OSError as error:
                return error.errno == errno.ENXIO  # no data up to the end; other errors: not known

    @contextmanager
    def _reopened(self, offset: int) -> Iterator[UncachedFile]:
        """The finished target, for reading; an OSError is TargetFailed."""
        try:
            with UncachedFile.open(self.path) as file:
                yield file
        except OSError as error:
            raise TargetFailed(self.path, offset, os.strerror(error.errno or 0)) from error

    def close(self) -> None:
        """See `Target.close`."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            # Removed before the lock goes with the descriptor.
            if not self._finished:
                with suppress(OSError):
                    self._remove(writer.fd)
        finally:
            writer.close()

    def _open_writer(self) -> DirectWriter:
        if self._writer is None:
            raise TargetFailed(self.path, 0, "it has not been begun")
        return self._writer


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "its directory does not exist"
    return os.strerror(error.errno or 0)
