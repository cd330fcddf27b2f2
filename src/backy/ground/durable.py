"""The only writer of lasting files: a final name never holds unsynced or partial bytes.

Two ways to make a file last. `publish` writes one small file: an unnamed inode, fsync, then the
name. `Batch` writes many: temporary names, one syncfs for all, then each under its final name by
link(2), which never replaces. What was published lasts once its directory has been synced
(`sync_directory`, or a later syncfs). A failed sync condemns everything that it was for: it is
removed or never named, and the error is raised (after a failed fsync the kernel forgets the dirty
pages, so a second try would succeed and prove nothing; PostgreSQL's "fsyncgate").

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path, Directory.open(path) as directory:
    ...     publish(directory, "note", b"text")
    ...     directory.names()
    ['note']

Limits: O_TMPFILE is needed (all of `linux.TRUSTED_FILE_SYSTEMS` have it). Every changing call goes
through `failpoint.reached` first. OSErrors leave here as StorageFailed.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeAlias

from backy.ground import failpoint, linux
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed

Bytes: TypeAlias = bytes | bytearray | memoryview

_WRITE_ONCE = 0o440


@contextmanager
def _telling(action: str, path: str) -> Iterator[None]:
    """Name the step for the failpoints, and turn its OSError into a StorageFailed."""
    try:
        failpoint.reached(f"{action} {path}")
        yield
    except OSError as error:
        raise StorageFailed(action, path, error.errno or errno.EIO) from error


def make_directory(parent: Directory, name: str, mode: int = 0o700) -> None:
    """Create a directory; one that is there already is fine, anything else in its place is not."""
    with _telling("make", parent.file_path(name)):
        try:
            os.mkdir(name, mode, dir_fd=parent.fd)
        except FileExistsError:
            parent.enter(name).close()


def remove_directory(parent: Directory, name: str) -> None:
    """Remove an empty directory."""
    with _telling("remove", parent.file_path(name)):
        os.rmdir(name, dir_fd=parent.fd)


def remove(directory: Directory, name: str) -> None:
    """Unlink a file; FileNotFoundError comes as StorageFailed(ENOENT)."""
    with _telling("remove", directory.file_path(name)):
        os.unlink(name, dir_fd=directory.fd)


def rename(directory: Directory, old: str, new: str) -> None:
    """Give a file another name in the same directory, replacing what has it."""
    with _telling("rename", directory.file_path(old)):
        os.rename(old, new, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)


def move(source: Directory, old: str, target: Directory, new: str) -> None:
    """Take a file from one directory to another; the caller sees to it that nothing has the name."""
    with _telling("move", source.file_path(old)):
        os.rename(old, new, src_dir_fd=source.fd, dst_dir_fd=target.fd)


def link(source: Directory, old: str, target: Directory, new: str) -> bool:
    """Give a file a second name, which never replaces: False if the name is taken."""
    with _telling("link", target.file_path(new)):
        try:
            os.link(old, new, src_dir_fd=source.fd, dst_dir_fd=target.fd, follow_symlinks=False)
        except FileExistsError:
            return False
    return True


def sync_all(fd: int, path: str) -> None:
    """Make everything on a file system last; `fd` was opened before what it shall vouch for."""
    with _telling("sync", path):
        linux.syncfs(fd)


def sync_directory(directory: Directory) -> None:
    """Make all names of a directory last."""
    with _telling("sync", directory.path):
        os.fsync(directory.fd)


class UnnamedFile:
    """A new file that has no name yet, so that a crash leaves nothing behind.

    `fd` may be locked before the file is named. Use as: write…, `sync`, `link`, `close`.
    """

    def __init__(self, directory: Directory, mode: int = _WRITE_ONCE) -> None:
        self.directory = directory
        self.length = 0
        with _telling("create in", directory.path):
            self.fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=directory.fd)

    def append(self, content: Bytes) -> None:
        """Write at the end."""
        with _telling("write in", self.directory.path):
            _write_all(self.fd, [content])
        self.length += len(content)

    def overwrite(self, offset: int, content: Bytes) -> None:
        """Write over bytes that were appended before."""
        with _telling("write in", self.directory.path):
            if os.pwrite(self.fd, content, offset) != len(content):
                raise OSError(errno.EIO, "short write")

    def sync(self) -> None:
        """Bring the contents to the disk; to be called once, after the last write."""
        with _telling("sync file in", self.directory.path):
            os.fsync(self.fd)

    def link(self, name: str) -> None:
        """Name the file in its directory; never replaces (StorageFailed with EEXIST)."""
        with _telling("link", self.directory.file_path(name)):
            # linkat(2), AT_SYMLINK_FOLLOW on /proc/self/fd; CPython wants a dir_fd to use linkat at all.
            os.link(
                f"/proc/self/fd/{self.fd}",
                name,
                src_dir_fd=self.directory.fd,
                dst_dir_fd=self.directory.fd,
                follow_symlinks=True,
            )

    def close(self) -> None:
        """Close the descriptor, and with it any lock; without a name the file is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def publish(directory: Directory, name: str, content: Bytes, mode: int = _WRITE_ONCE) -> None:
    """Write a new file and name it; the name lasts after the next `sync_directory`."""
    file = UnnamedFile(directory, mode)
    try:
        file.append(content)
        file.sync()
        file.link(name)
    finally:
        file.close()


def replace(directory: Directory, name: str, content: Bytes, mode: int = _WRITE_ONCE) -> None:
    """Swap the contents of a file in one step and make it last; the caller keeps other editors out."""
    temporary = f".{name}.new"
    if directory.has(temporary):
        remove(directory, temporary)
    publish(directory, temporary, content, mode)
    rename(directory, temporary, name)
    sync_directory(directory)


class Batch:
    """Files that become durable together: `write` each, then `sync` once, then `link_into`.

    The descriptor for syncfs is opened here, before the first write, and used once, because the
    kernel tells a write error once per descriptor and only to those opened before it.
    """

    def __init__(self, temporary: Directory) -> None:
        self._temporary = temporary
        self._names: dict[str, None] = {}
        with _telling("open", temporary.path):
            self._sync_fd = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=temporary.fd)

    def write(self, name: str, content: Sequence[Bytes]) -> int:
        """Write one file under a temporary name, past the page cache; returns its bytes.

        Buffered writes cost twice the CPU time, which compression needs, and push the host's own
        pages out.
        """
        self._names[name] = None
        length = sum(map(len, content))
        with _telling("write", self._temporary.file_path(name)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, _WRITE_ONCE, dir_fd=self._temporary.fd)
            try:
                if not _write_direct(fd, content, length):
                    _write_all(fd, content)
                    linux.start_writeback(fd, length)
            finally:
                os.close(fd)
        return length

    def sync(self) -> None:
        """Bring all files to the disk; raises if any write since the batch began was lost."""
        with _telling("sync", self._temporary.path):
            linux.syncfs(self._sync_fd)

    def link_into(self, places: Iterable[tuple[str, Directory, str]]) -> None:
        """Name the synced files: (temporary name, directory, final name). One that exists stays."""
        for name, directory, final in places:
            with _telling("link", directory.file_path(final)), suppress(FileExistsError):
                os.link(
                    name,
                    final,
                    src_dir_fd=self._temporary.fd,
                    dst_dir_fd=directory.fd,
                    follow_symlinks=False,
                )
            remove(self._temporary, name)
            del self._names[name]

    def discard(self) -> None:
        """Remove what has no final name yet, as far as the disk lets us, and close."""
        for name in self._names:
            with suppress(OSError):
                failpoint.reached(f"remove {self._temporary.file_path(name)}")
                os.unlink(name, dir_fd=self._temporary.fd)
        self._names = {}
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        if self._sync_fd >= 0:
            os.close(self._sync_fd)
            self._sync_fd = -1


class _Staging(threading.local):
    """Each thread's page-aligned memory, into which a file is put together for a direct write."""

    def __init__(self) -> None:
        # Runs once in each thread; a class attribute would be shared by all of them.
        self.buffer = linux.Buffer(0)

    def at_least(self, size: int) -> linux.Buffer:
        if self.buffer.size < size:
            self.buffer = linux.Buffer(size)
        return self.buffer


_staging = _Staging()


def _write_direct(fd: int, content: Sequence[Bytes], length: int) -> bool:
    """Write a new file in whole pages with O_DIRECT, then cut it; False where that does not exist."""
    whole = -(-length // linux.PAGE) * linux.PAGE
    buffer = _staging.at_least(whole)
    at = 0
    for part in content:
        buffer.fill(part, at)
        at += len(part)
    buffer.clear(at, whole)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
        done = os.write(fd, buffer.view[:whole])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        return False
    if done < whole:
        # The disk is full or a limit is reached; the next write says which, and need not be aligned.
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        _write_all(fd, [buffer.view[done:length]])
    os.ftruncate(fd, length)
    return True


def _write_all(fd: int, content: Sequence[Bytes]) -> None:
    """Call writev until everything is written; a write of nothing is an error, not a loop."""
    parts = [memoryview(part).cast("B") for part in content if len(part)]
    while parts:
        done = os.writev(fd, parts)
        if done == 0:
            raise OSError(errno.EIO, "the system wrote nothing")
        while parts and done >= len(parts[0]):
            done -= len(parts.pop(0))
        if done:
            parts[0] = parts[0][done:]
