"""Writing from page-aligned buffers past the page cache, at half the CPU time of buffered writes.

    writer = DirectWriter(fd, path)
    writer.write(buffer, start, offset, length)    buffer bytes from `start` to file offset `offset`

Limits: `start` and `offset` are multiples of 4 KiB; the rest of a length that is none goes through
the cache. Where O_DIRECT does not exist everything does.
"""

import errno
import os

from backy.ground import failpoint, linux
from backy.ground.errors import TargetFailed
from backy.ground.linux import Buffer


class DirectWriter:
    """Writes to one open file or device from any number of threads."""

    def __init__(self, fd: int, path: str) -> None:
        """Take over `fd`, open for reading and writing without O_DIRECT."""
        self.fd = fd
        self.path = path
        try:
            self._direct = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EACCES, errno.ENOENT):
                raise
            self._direct = fd

    def write(self, buffer: Buffer, start: int, offset: int, length: int) -> None:
        """Write `length` bytes; TargetFailed."""
        aligned = length // linux.PAGE * linux.PAGE
        at = 0
        while at < length:
            # What follows a short write may not be aligned any more.
            direct = at < aligned and at % linux.PAGE == 0
            fd, stop = (self._direct, aligned) if direct else (self.fd, length)
            try:
                failpoint.reached(f"write {self.path}")
                done = os.pwrite(fd, buffer.view[start + at : start + stop], offset + at)
            except OSError as error:
                why = os.strerror(error.errno or 0)
                raise TargetFailed(self.path, offset + at, why) from error
            if done == 0:
                raise TargetFailed(self.path, offset + at, "the system wrote nothing")
            at += done

    def sync(self) -> None:
        """fsync; OSError."""
        failpoint.reached(f"sync {self.path}")
        os.fsync(self.fd)

    def close(self) -> None:
        """Close the descriptors."""
        if self._direct != self.fd:
            os.close(self._direct)
        os.close(self.fd)
