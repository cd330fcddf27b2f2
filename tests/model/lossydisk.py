"""A disk that loses what was not synced: the calls of `durable` are noted, and a power cut is drawn.

    with LossyDisk(base) as disk:
        site.backup()
        disk.cut(Random(7))          the directory is now what such a power cut may leave

What POSIX promises, and nothing more: a file's bytes last after fsync of it or syncfs; a name lasts
after fsync of its directory or syncfs; a rename is one thing. Of everything else a power cut keeps any
part, in any order: names one by one, bytes as they are, as zeros, cut short, or none.

Limits: sees the calls of `backy.ground.durable` only, which is the one writer of lasting files (lock
files hold nothing, and are made again). Sizes are those of tests.
"""

import os
import shutil
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import pytest

from backy.ground import durable, linux

Inode = int


class _File:
    """A file or directory: what would surely be there after a power cut."""

    def __init__(self, content: bytes | None) -> None:
        self.lasting = content  # None for a directory
        self.now = content
        self.names: dict[str, _File] = {}  # of a directory, lasting
        self.pending: list[_Change] = []

    @property
    def is_directory(self) -> bool:
        return self.now is None


class _Change:
    """One call that changed names, in one directory or two: all of it lasts, or nothing."""

    def __init__(self, parts: list[tuple[_File, str, _File | None]]) -> None:
        self.parts = parts
        for folder, _, _ in parts:
            folder.pending.append(self)

    def last(self) -> None:
        """Make it lasting."""
        for folder, name, file in self.parts:
            folder.pending = [one for one in folder.pending if one is not self]
            if file is None:
                folder.names.pop(name, None)
            else:
                folder.names[name] = file


class LossyDisk:
    """See the module's docstring; a context, within which `durable` writes through it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._files: dict[Inode, _File] = {}
        self._root = self._scan(base)
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        self._patch.setattr(durable, "os", _Calls(self))
        self._patch.setattr(linux, "syncfs", self.syncfs)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patch.undo()

    def cut(self, random: Random) -> None:
        """Put what a power cut leaves in the place of the directory; from here on all of it lasts."""
        kept: list[_Change] = []
        for folder in self._files.values():
            for change in folder.pending:
                if change not in kept and random.random() < 0.5:
                    kept.append(change)
        for change in kept:
            change.last()
        known, self._files = self._files, {self._base.stat().st_ino: self._root}
        _Settling(known, self._files, random).settle(str(self._base), self._root)

    def notice(self, path: Path) -> None:
        """Somebody else has changed, made or removed a file: that lasts, and all that was before."""
        self.syncfs(-1)
        folder = self._files[path.parent.stat().st_ino]
        folder.names.pop(path.name, None)
        if path.exists():
            folder.names[path.name] = self._scan(path)

    # ..What the calls tell.......................................................................

    def of_fd(self, fd: int) -> _File | None:
        """The file of a descriptor, if it is below the base."""
        return self._files.get(os.fstat(fd).st_ino)

    def created(self, fd: int) -> None:
        """A new file, without a name yet."""
        self._files[os.fstat(fd).st_ino] = _File(b"")
        self._files[os.fstat(fd).st_ino].lasting = b""

    def made(self, name: str, folder: _File, inode: Inode) -> None:
        """A new directory."""
        new = self._files[inode] = _File(None)
        _Change([(folder, name, new)])

    def written(self, fd: int) -> None:
        """Its bytes are what can be read now; none of them last yet."""
        if (file := self.of_fd(fd)) is not None:
            file.now = _content(fd)

    def named(self, parts: list[tuple[_File, str, _File | None]]) -> None:
        """Names were given or taken."""
        _Change(parts)

    def fsync(self, fd: int) -> None:
        """A file's bytes last, or a directory's names."""
        file = self.of_fd(fd)
        if file is None:
            return
        file.lasting = file.now
        for change in list(file.pending):
            change.last()

    def syncfs(self, _fd: int) -> None:
        """Everything lasts."""
        for file in list(self._files.values()):
            file.lasting = file.now
            for change in list(file.pending):
                change.last()

    def _scan(self, path: Path) -> _File:
        """What is there lasts."""
        return self._found(str(path), path.stat().st_ino, is_directory=path.is_dir())

    def _found(self, path: str, inode: Inode, *, is_directory: bool) -> _File:
        if is_directory:
            file = _File(None)
            with os.scandir(path) as entries:
                for one in entries:
                    file.names[one.name] = self._found(
                        one.path, one.inode(), is_directory=one.is_dir(follow_symlinks=False)
                    )
        else:
            file = _File(Path(path).read_bytes())
        self._files[inode] = file
        return file


def _content(fd: int) -> bytes:
    with open(f"/proc/self/fd/{fd}", "rb") as file:
        return file.read()


class _Settling:
    """Makes the real directory what lasts of it: only what differs is touched."""

    def __init__(self, known: dict[Inode, _File], found: dict[Inode, _File], random: Random) -> None:
        """`known` tells which file an inode was; `found` will tell it of those that are left."""
        self._known = known
        self._found = found
        self._random = random
        self._paths: dict[_File, str] = {}

    def settle(self, path: str, folder: _File) -> None:
        """A directory that is there, and all that is below it."""
        folder.pending = []
        if not folder.names and not os.listdir(path):
            return  # most of the chunk store's folders, most of the time
        with os.scandir(path) as entries:
            there = {one.name: one.inode() for one in entries}
        for name, inode in there.items():
            if folder.names.get(name) is not self._known.get(inode, self):
                _remove(f"{path}/{name}")
                there[name] = 0
        for name, file in folder.names.items():
            self._settle_one(f"{path}/{name}", file, there.get(name, 0))

    def _settle_one(self, path: str, file: _File, inode: Inode) -> None:
        """A file or directory that lasts; the inode is 0 where nothing has its name any more."""
        if file.is_directory:
            if not inode:
                os.mkdir(path, 0o700)
                inode = os.stat(path).st_ino
            self._found[inode] = file
            self.settle(path, file)
            return
        if file.lasting != file.now:
            file.lasting = file.now = self._what_is_left(file)
            if inode:
                _remove(path)
                inode = 0
        if not inode:
            inode = self._make(path, file)
        self._found[inode] = file
        self._paths[file] = path

    def _what_is_left(self, file: _File) -> bytes:
        """Of bytes that were not synced."""
        assert file.lasting is not None
        assert file.now is not None
        cut = self._random.randrange(len(file.now) + 1)
        return self._random.choice([file.lasting, file.now, bytes(len(file.now)), file.now[:cut]])

    def _make(self, path: str, file: _File) -> Inode:
        """Write it anew, or give it one more name."""
        if file in self._paths:
            os.link(self._paths[file], path)
        else:
            assert file.lasting is not None
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440)
            try:
                os.write(fd, file.lasting)
            finally:
                os.close(fd)
        return os.stat(path).st_ino


def _remove(path: str) -> None:
    """Whatever it is."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        shutil.rmtree(path)


class _Calls:
    """Stands for `os` in `durable`: each call that changes something is told to the disk."""

    def __init__(self, disk: LossyDisk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            self._disk.created(fd)
        elif flags & os.O_CREAT:
            self._disk.created(fd)
            self._name(dir_fd, path, fd)
        return fd

    def write(self, fd: int, content: Any) -> int:
        done = os.write(fd, content)
        self._disk.written(fd)
        return done

    def writev(self, fd: int, parts: Any) -> int:
        done = os.writev(fd, parts)
        self._disk.written(fd)
        return done

    def pwrite(self, fd: int, content: Any, offset: int) -> int:
        done = os.pwrite(fd, content, offset)
        self._disk.written(fd)
        return done

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)
        self._disk.written(fd)

    def fsync(self, fd: int) -> None:
        self._disk.fsync(fd)

    def mkdir(self, name: str, mode: int, *, dir_fd: int) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)
        folder, own = self._place(dir_fd, name)
        if folder is not None:
            self._disk.made(own, folder, os.stat(name, dir_fd=dir_fd).st_ino)

    def rmdir(self, name: str, *, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)
        self._unname(dir_fd, name)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)
        self._unname(dir_fd, name)

    def link(
        self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool
    ) -> None:
        os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        fd = os.open(new, os.O_RDONLY, dir_fd=dst_dir_fd)
        try:
            self._name(dst_dir_fd, new, fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        inode = os.stat(new, dir_fd=dst_dir_fd).st_ino
        (source, own), (target, to) = self._place(src_dir_fd, old), self._place(dst_dir_fd, new)
        if source is not None and target is not None:
            file = self._disk._files[inode]
            self._disk.named([(source, own, None), (target, to, file)])

    def _name(self, dir_fd: int | None, name: str, fd: int) -> None:
        assert dir_fd is not None
        (folder, own), file = self._place(dir_fd, name), self._disk.of_fd(fd)
        if folder is not None and file is not None:
            self._disk.named([(folder, own, file)])

    def _unname(self, dir_fd: int, name: str) -> None:
        folder, own = self._place(dir_fd, name)
        if folder is not None:
            self._disk.named([(folder, own, None)])

    def _place(self, dir_fd: int, path: str) -> tuple[_File | None, str]:
        """The directory that a path below another leads to, if the disk has it, and the name in it."""
        above, _, name = path.rpartition("/")
        return self._disk._files.get(os.stat(above or ".", dir_fd=dir_fd).st_ino), name
