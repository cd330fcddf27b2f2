"""Locks that the kernel keeps: they end with their holder, whatever happens to it, and never by age.

flock(2) locks belong to the open file, so a child that inherited it or a frozen process still
holds; nothing about them is configurable.

    >>> import os, tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     try_exclusive(file.fileno())
    True

Limits: only file systems whose flock is real (see `linux.TRUSTED_FILE_SYSTEMS`).
"""

import fcntl
import os
import time

from backy.ground import failpoint
from backy.ground.directory import Directory

_TRIES = 5
_PAUSE = 0.02


def try_exclusive(fd: int) -> bool:
    """Take the lock alone, or say False at once."""
    return _try(fd, fcntl.LOCK_EX)


def try_exclusive_again(fd: int) -> bool:
    """As `try_exclusive`, but not put off by someone who only looks whether the lock is held."""
    for _ in range(_TRIES):
        if try_exclusive(fd):
            return True
        time.sleep(_PAUSE)
    return try_exclusive(fd)


def is_held(fd: int) -> bool:
    """Whether somebody holds the lock alone. Looking takes it for a moment, together with others."""
    if not try_shared(fd):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def try_shared(fd: int) -> bool:
    """Take the lock with other sharers, or say False at once."""
    return _try(fd, fcntl.LOCK_SH)


def wait_exclusive(fd: int) -> None:
    """Take the lock alone, waiting for as long as others hold it."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def wait_shared(fd: int) -> None:
    """Take the lock with other sharers, waiting while someone holds it alone."""
    fcntl.flock(fd, fcntl.LOCK_SH)


def wait_shared_for(fd: int, seconds: float) -> bool:
    """As `wait_shared`, or say False after so many seconds: a holder may be frozen."""
    until = time.monotonic() + seconds
    while not try_shared(fd):
        if time.monotonic() >= until:
            return False
        time.sleep(_PAUSE)
    return True


def still_named(fd: int) -> bool:
    """Whether the locked file has a name yet: someone may have unlinked it before we got the lock."""
    return os.fstat(fd).st_nlink > 0


def open_lock_file(directory: Directory, name: str) -> int:
    """Descriptor of an empty file to lock, made if missing; it is never removed and holds nothing."""
    if not directory.has(name):
        failpoint.reached(f"create {directory.file_path(name)}")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(name, flags, 0o600, dir_fd=directory.fd)


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
