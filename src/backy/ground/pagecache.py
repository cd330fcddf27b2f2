"""Reading files and devices without driving the host's page cache out.

What lies in the cache already is read from there, which is fastest and changes nothing; the rest is
read past the cache with O_DIRECT, at a sixth of the CPU time. `fresh=True` always reads past the
cache: after a failed write the cache still returns the bytes that never reached the disk.

    >>> buffer = linux.Buffer(4096)
    >>> with UncachedFile.open("/etc/hostname") as file:
    ...     0 < file.read(buffer, 0, 4096) <= 4096
    True

Limits: offsets are multiples of the page size. Where O_DIRECT does not exist (some file systems),
reads are buffered and dropped from the cache again, before (`fresh`) and after.
"""

import errno
import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from backy.ground import linux, manyreads
from backy.ground.manyreads import Part

# Above this share a buffered read adds little to the cache; below, a direct one drops nothing.
_MOSTLY_CACHED = 0.75


class UncachedFile:
    """A file or block device, read into page-aligned buffers by any number of threads."""

    def __init__(self, fd: int) -> None:
        """Take over `fd`, open for reading."""
        self.fd = fd
        self._lock = threading.Lock()
        self._opened: int | None = None

    @property
    def _direct(self) -> int:
        """A second descriptor, past the page cache, opened when it is needed; -1 if there is none."""
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open_direct()
        return self._opened

    def _open_direct(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(f"/proc/self/fd/{self.fd}", flags)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EACCES, errno.ENOENT, errno.ENXIO):
                raise
            return -1

    @classmethod
    def open(cls, path: str) -> "UncachedFile":
        """Open by path, following links."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))

    def read(
        self, buffer: linux.Buffer, offset: int, length: int, start: int = 0, *, fresh: bool = False
    ) -> int:
        """Fill `length` bytes of the buffer from `start`; returns fewer only at the end of the file.

        `start` is page-aligned, as `offset` is; past the cache whole pages of the buffer are written.
        """
        if not fresh and linux.resident_share(self.fd, offset, length) >= _MOSTLY_CACHED:
            return _read_fully(self.fd, buffer.view[start : start + length], offset, 0)
        if self._direct >= 0:
            whole = -(-length // linux.PAGE) * linux.PAGE
            done = self._read_direct(buffer.view[start : min(start + whole, buffer.size)], offset)
            if done is not None:
                return min(done, length)
        if fresh:
            os.fsync(self.fd)
            os.posix_fadvise(self.fd, offset, length, os.POSIX_FADV_DONTNEED)
        done = _read_fully(self.fd, buffer.view[start : start + length], offset, 0)
        os.posix_fadvise(self.fd, offset, length, os.POSIX_FADV_DONTNEED)
        return done

    def read_parts(self, buffer: linux.Buffer, parts: Sequence[Part]) -> Sequence[Part]:
        """Read ascending ranges at once, as far as that goes; the rest is returned, to be `read`.

        All of it if that would not help: if there is only one, or they lie in the page cache.
        """
        if len(parts) <= 1:
            return parts
        start, stop = parts[0].offset, parts[-1].offset + parts[-1].length
        if linux.resident_share(self.fd, start, stop - start) >= _MOSTLY_CACHED or self._direct < 0:
            return parts
        return manyreads.read(self._direct, buffer, parts)

    def _read_direct(self, view: memoryview, offset: int) -> int | None:
        """As `_read_fully`, past the cache; None where this file cannot be read so."""
        try:
            done = os.preadv(self._direct, [view], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None
        if done == len(view):
            return done
        # A short direct read is the end of the file, or a boundary: the cached read settles which.
        return _read_fully(self.fd, view, offset, done)

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.fd)
        if self._opened is not None and self._opened >= 0:
            os.close(self._opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _read_fully(fd: int, view: memoryview, offset: int, done: int) -> int:
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done
