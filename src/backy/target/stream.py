"""Target: standard output, zeros included, in order.

    backy restore - | ssh other-host 'cat > vm01.raw'

Limits: what the other end of a pipe does with it is not known here; a terminal is refused; there is
nothing to read back; only one writer at a time.
"""

import os
import stat

from backy.ground import failpoint
from backy.ground.errors import TargetFailed, TargetRefused
from backy.ground.linux import Buffer

_ZEROS = bytes(1 << 20)


class StreamTarget:
    """See `Target`; writes to an open descriptor that stays its owner's."""

    in_order = True
    in_place = True
    taken_up = 0

    def __init__(self, fd: int) -> None:
        self.path = "-"
        self._fd = fd

    def begin(self, size: int, content: str = "") -> None:
        """See `Target.begin`."""
        if os.isatty(self._fd):
            raise TargetRefused("-", "standard output is a terminal: redirect it to a file or a pipe")

    def write(self, buffer: Buffer, offset: int, length: int) -> None:
        """See `Target.write`."""
        self._write(buffer.view[:length], offset)

    def zero(self, offset: int, length: int) -> None:
        """See `Target.zero`."""
        for at in range(0, length, len(_ZEROS)):
            self._write(memoryview(_ZEROS)[: length - at], offset + at)

    def _write(self, view: memoryview, offset: int) -> None:
        at = 0
        while at < len(view):
            try:
                failpoint.reached("write -")
                at += os.write(self._fd, view[at:])
            except OSError as error:
                raise TargetFailed("-", offset + at, os.strerror(error.errno or 0)) from error

    def finish(self) -> None:
        """See `Target.finish`; a file or block device behind it is synced."""
        try:
            mode = os.fstat(self._fd).st_mode
            if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
                failpoint.reached("sync -")
                os.fsync(self._fd)
        except OSError as error:
            raise TargetFailed("-", 0, os.strerror(error.errno or 0)) from error

    def read_back(self, buffer: Buffer, offset: int, length: int) -> int:
        """See `Target.read_back`; a stream has nothing to read back."""
        raise TargetFailed("-", offset, "a stream cannot be read back")

    def is_hole(self, offset: int, length: int) -> bool:
        """See `Target.is_hole`."""
        return False

    def close(self) -> None:
        """See `Target.close`."""
