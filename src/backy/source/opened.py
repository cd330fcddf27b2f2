"""An open image file: its extents and its bytes, whether it is the image itself or a clone of it.

    for extent in extents(file, path, size): …
    read(file, path, buffer, offset, length, start)
    read_parts(file, path, buffer, parts)

Limits: holes come from SEEK_DATA; where they are not known, the rest is one extent.
"""

import errno
import os
from collections.abc import Iterator, Sequence

from backy.domain.extents import Extent
from backy.ground.errors import SourceFailed, SourceRefused
from backy.ground.linux import Buffer
from backy.ground.manyreads import Part
from backy.ground.pagecache import UncachedFile


def open_image(path: str) -> UncachedFile:
    """Open what a configuration names, following links; SourceRefused."""
    try:
        return UncachedFile.open(path)
    except FileNotFoundError as error:
        raise SourceRefused(path, "it does not exist") from error
    except OSError as error:
        why = "it is a socket or has no device" if error.errno == errno.ENXIO else None
        raise SourceRefused(path, why or os.strerror(error.errno or 0)) from error


def extents(file: UncachedFile, path: str, size: int, step: int = 1) -> Iterator[Extent]:
    """The extents of a regular file, ascending; `path` is for SourceFailed.

    With a `step` they end at its multiples, and holes before that are not looked for.
    """
    at = 0
    while at < size:
        try:
            start = os.lseek(file.fd, at, os.SEEK_DATA)
            if start >= size:
                return
            end = min(-(-os.lseek(file.fd, start, os.SEEK_HOLE) // step) * step, size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind `at`
                return
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # holes are not known here
                start, end = at, size
            else:
                raise SourceFailed(path, at, os.strerror(error.errno or 0)) from error
        yield Extent(start, end - start)
        at = end


def read(
    file: UncachedFile, path: str, buffer: Buffer, offset: int, length: int, start: int = 0
) -> None:
    """See `Snapshot.read`."""
    try:
        done = file.read(buffer, offset, length, start)
    except OSError as error:
        raise SourceFailed(path, offset, os.strerror(error.errno or 0)) from error
    if done < length:
        raise SourceFailed(path, offset + done, "it became shorter while it was read")


def read_parts(file: UncachedFile, path: str, buffer: Buffer, parts: Sequence[Part]) -> None:
    """See `bulk.Bulk.read_parts`."""
    try:
        left = file.read_parts(buffer, parts)
    except OSError as error:
        raise SourceFailed(path, parts[0].offset, os.strerror(error.errno or 0)) from error
    for offset, length, start in left:
        read(file, path, buffer, offset, length, start)
