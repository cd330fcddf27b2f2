"""Read access to one directory through a descriptor, without following links below it.

All names are looked up relative to the open descriptor, so a directory that is renamed or replaced
by a link meanwhile cannot lead elsewhere. What changes a directory is in `durable`.

    >>> with Directory.open("/") as root, root.enter("usr") as usr:
    ...     "bin" in usr.names()
    True

Limits: `open_file` refuses everything but regular files, so a FIFO cannot block and a link cannot
point out of the repository.
"""

import errno
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import Self


class Directory:
    """An open directory; `path` is only for messages."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    @classmethod
    def open(cls, path: str) -> "Directory":
        """Open by path; links on the way and at the end are followed, as users expect of arguments."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), path)

    def enter(self, name: str) -> "Directory":
        """Open a subdirectory; a link in its place is an OSError."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        return Directory(os.open(name, flags, dir_fd=self.fd), self.file_path(name))

    def file_path(self, name: str) -> str:
        """Path of an entry, for messages."""
        return f"{self.path.rstrip('/')}/{name}"

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted(os.listdir(self.fd))

    def scan(self) -> Iterator[tuple[str, bool]]:
        """Entries as (name, is a real directory), in the order of the file system."""
        with os.scandir(self.fd) as entries:
            for entry in entries:
                yield entry.name, entry.is_dir(follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Whether an entry of any kind is there."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open_file(self, name: str) -> int:
        """Descriptor of a regular file, read only; anything else there is an OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(name, flags, dir_fd=self.fd)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", self.file_path(name))
        except OSError:
            os.close(fd)
            raise
        return fd

    def read(self, name: str, limit: int) -> bytes:
        """Contents of a small regular file; OSError(EFBIG) beyond `limit` bytes."""
        fd = self.open_file(name)
        try:
            size = os.fstat(fd).st_size
            if size > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.file_path(name))
            # No file object: 300,000 records are read at each start of a large scheduler.
            content = os.read(fd, size + 1)
            while piece := os.read(fd, limit):
                content += piece
            return content
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
