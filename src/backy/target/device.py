"""Target: a block device, written in place from its beginning.

    target = DeviceTarget("/dev/vg/vm01"); target.begin(size)

What the device held before is unknown, so zeros are made too: given back to the device where it can
(thin volumes, loop devices), written otherwise. Bytes behind the image stay as they are.

Limits: a device is refused when the kernel knows it to be in use (mounted, swap, member of a RAID
or volume group: O_EXCL); a virtual machine that has it open does not show, so stop that first.
"""

import errno
import os
import stat

from backy.ground import failpoint, linux
from backy.ground.errors import TargetFailed, TargetRefused
from backy.ground.linux import Buffer
from backy.ground.pagecache import UncachedFile
from backy.target.direct import DirectWriter

_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EREMOTEIO)


class DeviceTarget:
    """See `Target`."""

    in_order = False
    in_place = True
    taken_up = 0

    def __init__(self, path: str) -> None:
        self.path = path
        self._writer: DirectWriter | None = None
        self._sector = linux.PAGE

    def begin(self, size: int, content: str = "") -> None:
        """See `Target.begin`."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                why = "it is mounted or in use: unmount or detach it first"
                raise TargetRefused(self.path, why) from error
            raise TargetRefused(self.path, os.strerror(error.errno or 0)) from error
        try:
            if not stat.S_ISBLK(os.fstat(fd).st_mode):
                raise TargetRefused(self.path, "it is no longer a block device")
            have = linux.device_size(fd)
            if have < size:
                why = f"it has {have} bytes, the image {size}: use a larger device"
                raise TargetRefused(self.path, why)
            if linux.is_read_only(fd):
                raise TargetRefused(self.path, "it is set read-only: 'blockdev --setrw' allows writing")
            self._sector = linux.sector_size(fd)
            self._writer = DirectWriter(fd, self.path)
        except OSError as error:
            os.close(fd)
            raise TargetRefused(self.path, os.strerror(error.errno or 0)) from error
        except TargetRefused:
            os.close(fd)
            raise

    def write(self, buffer: Buffer, offset: int, length: int) -> None:
        """See `Target.write`."""
        self._open_writer().write(buffer, 0, offset, length)

    def zero(self, offset: int, length: int) -> None:
        """See `Target.zero`."""
        writer = self._open_writer()
        whole = length // self._sector * self._sector
        try:
            if whole:
                failpoint.reached(f"zero {self.path}")
                try:
                    linux.punch_hole(writer.fd, offset, whole)
                except OSError as error:
                    if error.errno not in _CANNOT:
                        raise
                    linux.write_zeros(writer.fd, offset, whole)
            if whole < length:
                failpoint.reached(f"zero {self.path}")
                os.pwrite(writer.fd, bytes(length - whole), offset + whole)
        except OSError as error:
            raise TargetFailed(self.path, offset, os.strerror(error.errno or 0)) from error

    def finish(self) -> None:
        """See `Target.finish`."""
        try:
            self._open_writer().sync()
        except OSError as error:
            raise TargetFailed(self.path, 0, os.strerror(error.errno or 0)) from error

    def read_back(self, buffer: Buffer, offset: int, length: int) -> int:
        """See `Target.read_back`."""
        try:
            with UncachedFile.open(self.path) as file:
                return file.read(buffer, offset, length, fresh=True)
        except OSError as error:
            raise TargetFailed(self.path, offset, os.strerror(error.errno or 0)) from error

    def is_hole(self, offset: int, length: int) -> bool:
        """See `Target.is_hole`; what a device has discarded is not told."""
        return False

    def close(self) -> None:
        """See `Target.close`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_writer(self) -> DirectWriter:
        if self._writer is None:
            raise TargetFailed(self.path, 0, "it has not been begun")
        return self._writer
