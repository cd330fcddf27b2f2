"""The reserve: space that collection gives up first, so that it can run on a disk with no byte free.

Condemning a chunk is a rename into another folder, which needs room for a name. `give_up` removes
`chunks/reserve` where less than its size is free, `make` writes it again once there is room.

Limits: an empty reserve is one that nobody wanted; a missing one was given up.
"""

import errno
import os

from backy.ground import durable
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.repository import layout

_PIECE = 1 << 20


def make(chunks: Directory, size: int) -> None:
    """Write it, really and incompressible, so that giving it up really frees that much."""
    file = durable.UnnamedFile(chunks, mode=0o600)
    try:
        for at in range(0, size, _PIECE):
            file.append(os.urandom(min(_PIECE, size - at)))
        file.sync()
        file.link(layout.RESERVE)
    finally:
        file.close()


def give_up(chunks: Directory) -> None:
    """On a nearly full disk, remove it."""
    try:
        size = os.stat(layout.RESERVE, dir_fd=chunks.fd, follow_symlinks=False).st_size
    except FileNotFoundError:
        return
    if size and free_bytes(chunks) < size:
        durable.remove(chunks, layout.RESERVE)
        # Some file systems (btrfs) give the space back only then.
        durable.sync_all(chunks.fd, chunks.path)


def restore(chunks: Directory, *, roomy: bool = True) -> bool:
    """Make it again where it was given up; whether it is there now.

    If it is to be `roomy`, only if that leaves as much free.
    """
    if chunks.has(layout.RESERVE):
        return True
    if free_bytes(chunks) < layout.RESERVE_SIZE * (2 if roomy else 1):
        return False
    try:
        make(chunks, layout.RESERVE_SIZE)
    except StorageFailed as error:
        if error.code not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Somebody was faster.
        return False
    durable.sync_directory(chunks)
    return True


def free_bytes(chunks: Directory) -> int:
    """Space that is left to us."""
    found = os.statvfs(chunks.fd)
    return found.f_bavail * found.f_frsize
