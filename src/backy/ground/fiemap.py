"""Copies that share their blocks (FICLONE), and where a file's blocks lie (FIEMAP).

    clone(new_fd, image_fd)
    answer = where(image_fd, 0, size)
    for logical, physical, length, flags in answer.extents(): …

Formats and numbers: linux/fs.h, linux/fiemap.h, Documentation/filesystems/fiemap.rst of the kernel,
ioctl_ficlone(2). What the flags mean for a comparison: `domain.placement`.

Limits: 64-bit Linux, little-endian. Both raise OSError.
"""

import errno
import fcntl
import struct
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

# Logical and physical offset and length in bytes, and flags. A bare tuple: a file has 100,000 of them.
Mapped: TypeAlias = tuple[int, int, int, int]

BATCH = 16384

_FICLONE = 0x40049409
_FIEMAP = 0xC020660B
_FLAG_SYNC = 1
_LAST = 1
_HEAD = struct.Struct("<QQIIII")
_EXTENT = struct.Struct("<QQQ16xI12x")
_MAPPED_AT = 20
_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
_NO_COPY_ON_WRITE = 0x00800000


def clone(new: int, image: int) -> None:
    """Make the empty file `new`, open for writing, a copy of `image` that shares its blocks.

    The copy is of one instant. Writers of the image wait for as long as this takes.
    """
    fcntl.ioctl(new, _FICLONE, image)


def take_over_copy_on_write(new: int, image: int) -> None:
    """Give an empty file the image's setting of `chattr +C`: btrfs clones between equal ones only."""
    theirs = struct.unpack("i", fcntl.ioctl(image, _GETFLAGS, bytes(4)))[0]
    ours = struct.unpack("i", fcntl.ioctl(new, _GETFLAGS, bytes(4)))[0]
    if (theirs ^ ours) & _NO_COPY_ON_WRITE:
        fcntl.ioctl(new, _SETFLAGS, struct.pack("i", ours ^ _NO_COPY_ON_WRITE))


class Answer(NamedTuple):
    """Where the blocks of a range lie, up to `stop`: the kernel's own bytes, which compare fast."""

    raw: bytes
    stop: int

    def extents(self) -> Iterator[Mapped]:
        """The extents as the kernel gave them."""
        return _EXTENT.iter_unpack(self.raw)


def where(fd: int, start: int, stop: int, *, batch: int = BATCH) -> Answer:
    """Where bytes `start` to `stop` of a file lie, after its dirty pages were written.

    The answer may end earlier, after at least `batch` extents.
    """
    raw = b""
    at = start
    while at < stop and len(raw) < batch * _EXTENT.size:
        buffer = bytearray(_HEAD.size + batch * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, at, stop - at, _FLAG_SYNC, 0, batch, 0)
        fcntl.ioctl(fd, _FIEMAP, buffer, True)
        mapped = struct.unpack_from("<I", buffer, _MAPPED_AT)[0]
        if not mapped:
            return Answer(raw, stop)
        end = _HEAD.size + mapped * _EXTENT.size
        logical, _, length, flags = _EXTENT.unpack_from(buffer, end - _EXTENT.size)
        raw += buffer[_HEAD.size : end]
        # Some file systems mean the last of the file, others the last of the range.
        if flags & _LAST:
            return Answer(raw, stop)
        if logical + length <= at:
            raise OSError(errno.EIO, "the answer of FIEMAP does not advance")
        at = logical + length
    return Answer(raw, min(at, stop))
