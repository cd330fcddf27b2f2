"""The trash: condemning chunks that nobody needs, and purging them when nobody can need them any more.

A chunk goes in two steps (doc/design.md, "Collection"). It is *condemned* by a rename into a new
generation of the trash, where readers still find it and writers do not look. When all are in, the
generation is *sealed* with a census of the writers that live at that moment. It is *purged* when they
have ended, against marks made after that: what is marked by then is linked back first.

    generation = new_generation(chunks)
    generation.condemn(name, refusals) …; generation.seal(now, living)
    generation.purge(marks, refusals)

Limits: who calls decides (`domain.collection`) and marks (`marking`); here it is carried out. Files
that backy did not write stay where they are, and so do those that the system refuses (`refusals`). What
has gone since it was listed is passed over: verify may move a bad chunk aside at any moment.
"""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple, Self
from uuid import uuid4

import msgspec

from backy.domain import sealed
from backy.domain.collection import Seal
from backy.domain.marks import Marks
from backy.ground import durable
from backy.ground.directory import Directory
from backy.ground.errors import OF_THE_DISK, StorageFailed
from backy.repository import layout
from backy.repository.refusals import Refusals

_MAX_SEAL = 1 << 20
_NO_SEAL = (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EFBIG, *OF_THE_DISK)


class Chunks(NamedTuple):
    """Numbers of chunk files and their bytes."""

    files: int = 0
    bytes: int = 0

    def plus(self, more: "Chunks") -> "Chunks":
        """Both together."""
        return Chunks(self.files + more.files, self.bytes + more.bytes)


class Purged(NamedTuple):
    """What became of a generation."""

    removed: Chunks
    rescued: int
    foreign: tuple[str, ...]  # paths of files that are not ours, which keep the generation's folder


class Census(NamedTuple):
    """The chunk files of the store proper: how many there are, and which nobody needs."""

    total: int
    unmarked: Chunks
    foreign: tuple[str, ...]


def take_census(
    chunks: Directory, marks: Marks, advance: Callable[[int], None], refusals: Refusals
) -> Census:
    """Count all files of the store proper, but for those refused; `advance` is told of each folder."""
    total = files = size = 0
    foreign: list[str] = []
    for prefix in layout.FANOUT:
        with chunks.enter(prefix) as folder:
            for name in os.listdir(folder.fd):
                if _is_marked(name, marks):
                    total += 1
                    continue
                with refusals.one(folder.file_path(name)):
                    found = _chunk_file(folder, name) if name[:2] == prefix else None
                    if found is not None:
                        files += 1
                        size += found.st_blocks * 512
                    else:
                        foreign.append(folder.file_path(name))
        advance(1)
    return Census(total + files, Chunks(files, size), tuple(foreign))


def unmarked(chunks: Directory, marks: Marks, refusals: Refusals) -> Iterator[str]:
    """Names of the store's files that nobody needs: deltas first, then the bases they lean on."""
    for deltas in (True, False):
        for prefix in layout.FANOUT:
            with chunks.enter(prefix) as folder:
                for name in os.listdir(folder.fd):
                    if ("." in name) != deltas or _is_marked(name, marks):
                        continue
                    found = None
                    with refusals.one(folder.file_path(name)):
                        found = _chunk_file(folder, name) if name[:2] == prefix else None
                    if found is not None:
                        yield name


def new_generation(chunks: Directory) -> "Generation":
    """Make an empty, unsealed generation."""
    with chunks.enter(layout.TRASH) as trash:
        name = str(uuid4())
        durable.make_directory(trash, name)
        # What is moved into it must not go with its name.
        durable.sync_directory(trash)
        return Generation(chunks, trash.enter(name), name)


def generations(chunks: Directory) -> list[str]:
    """Names of all generations; other things in the trash are somebody else's."""
    return _in_trash(chunks)[0]


def weigh_trash(chunks: Directory, marks: Marks, refusals: Refusals) -> Chunks:
    """What of the trash nobody needs, and no other name holds: so much comes back with its purge."""
    files = size = 0
    for name in generations(chunks):
        with (
            suppress(FileNotFoundError),
            chunks.enter(layout.TRASH) as trash,
            trash.enter(name) as folder,
        ):
            for chunk in folder.names():
                with refusals.one(folder.file_path(chunk)):
                    found = _chunk_file(folder, chunk)
                    if found is not None and not _is_marked(chunk, marks) and found.st_nlink == 1:
                        files += 1
                        size += found.st_blocks * 512
    return Chunks(files, size)


def strangers(chunks: Directory) -> list[str]:
    """Paths of what is in the store, its trash or its quarantine and belongs to none of them."""
    found = [chunks.file_path(name) for name in sorted(chunks.names()) if not layout.is_part(name)]
    with chunks.enter(layout.QUARANTINE) as quarantine:
        for name, is_directory in sorted(quarantine.scan()):
            if not (is_directory and layout.is_uuid(name)):
                found.append(quarantine.file_path(name))
    return found + _in_trash(chunks)[1]


def _in_trash(chunks: Directory) -> tuple[list[str], list[str]]:
    ours, others = [], []
    with chunks.enter(layout.TRASH) as trash:
        for name, is_directory in sorted(trash.scan()):
            if is_directory and layout.is_uuid(name):
                ours.append(name)
            else:
                others.append(trash.file_path(name))
    return ours, others


class Generation:
    """An open generation of the trash."""

    def __init__(self, chunks: Directory, folder: Directory, name: str) -> None:
        """`new_generation` or `open_generation` is the way to get one."""
        self.name = name
        self._chunks = chunks
        self._folder = folder
        self._open = ExitStack()
        self._open.callback(folder.close)
        self._stored: dict[str, Directory] = {}

    def condemn(self, name: str, refusals: Refusals) -> Chunks:
        """Take a chunk file that is there out of the store proper. Only into an unsealed generation."""
        prefix = name[:2]
        if prefix not in self._stored:
            self._stored[prefix] = self._open.enter_context(self._chunks.enter(prefix))
        stored = self._stored[prefix]
        with refusals.one(stored.file_path(name)):
            size = os.stat(name, dir_fd=stored.fd, follow_symlinks=False).st_blocks * 512
            durable.move(stored, name, self._folder, name)
            return Chunks(1, size)
        return Chunks()

    def seal(self, now: datetime, living: Collection[str]) -> Seal:
        """Note the writers that live, after everything in it has become durable. Never twice.

        `living` is evaluated by the caller after the last `condemn`.
        """
        found = Seal(at=now, writers=tuple(sorted(living)))
        durable.publish(self._folder, layout.SEALED, sealed.seal(msgspec.json.encode(found)))
        durable.sync_directory(self._folder)
        return found

    def sync(self) -> None:
        """Make what was condemned so far lasting, also by a run that was killed, before the census.

        The new names first, so that no chunk is ever without one.
        """
        durable.sync_directory(self._folder)
        for prefix in sorted({name[:2] for name in self._chunk_names()}):
            with self._chunks.enter(prefix) as stored:
                durable.sync_directory(stored)

    def reseal(self, now: datetime, living: Collection[str], refusals: Refusals) -> Seal | None:
        """Seal anew, where the seal cannot be read or comes from a future that did not happen.

        None where it cannot be removed: then its generation is not purged, and no other waits for it.
        """
        removed = False
        with refusals.one(self._folder.file_path(layout.SEALED)):
            durable.remove(self._folder, layout.SEALED)
            removed = True
        return self.seal(now, living) if removed else None

    def read_seal(self) -> Seal | None:
        """The seal; None if it has none. ValueError if it is none or rotten, StorageFailed.

        One that the disk does not return is as good as one with wrong bytes: a seal that is made anew
        holds for longer, and for every writer that the old one may hold for and that lives.
        """
        try:
            content = self._folder.read(layout.SEALED, _MAX_SEAL)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_SEAL:
                raise ValueError("it is not a seal") from error
            path = self._folder.file_path(layout.SEALED)
            raise StorageFailed("read", path, error.errno or errno.EIO) from error
        try:
            seal = msgspec.json.decode(sealed.unseal(content), type=Seal)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error
        return msgspec.structs.replace(seal, at=seal.at.astimezone(UTC))

    def purge(self, marks: Marks, refusals: Refusals) -> Purged:
        """Link back what is marked, make that last, then remove what this folder itself holds.

        The seal goes last: a purge that was cut short leaves a sealed generation with less in it.
        """
        # Read once: what was not looked up in the marks is not removed.
        names = sorted(self._chunk_names())
        rescued, stuck = self._link_back(names, marks, refusals)
        removed = self._remove_all([name for name in names if name not in stuck], refusals)
        left = [self._folder.file_path(name) for name in self._folder.names() if name != layout.SEALED]
        if not left:
            durable.remove(self._folder, layout.SEALED)
            with self._chunks.enter(layout.TRASH) as trash:
                durable.remove_directory(trash, self.name)
        return Purged(removed, rescued, tuple(path for path in left if path not in refusals.found))

    def _link_back(self, names: list[str], marks: Marks, refusals: Refusals) -> tuple[int, set[str]]:
        """How many came back, and which could not: they are needed, and so have to stay here."""
        marked = rescued = 0
        stuck = set()
        # Opened before the first link: a sync tells an error only to those who were there.
        fd = os.dup(self._folder.fd)
        try:
            for name in names:
                if _is_marked(name, marks):
                    marked += 1
                    stuck.add(name)
                    with (
                        self._chunks.enter(name[:2]) as stored,
                        refusals.one(self._folder.file_path(name)),
                    ):
                        rescued += durable.link(self._folder, name, stored, name)
                        stuck.remove(name)
            if marked:
                # Also where the name was taken: it may be that of a writer who has not synced it yet.
                durable.sync_all(fd, self._chunks.path)
        finally:
            os.close(fd)
        return rescued, stuck

    def _remove_all(self, names: list[str], refusals: Refusals) -> Chunks:
        files = size = 0
        for name in names:
            with refusals.one(self._folder.file_path(name)):
                found = os.stat(name, dir_fd=self._folder.fd, follow_symlinks=False)
                durable.remove(self._folder, name)
                if found.st_nlink == 1:
                    files += 1
                    size += found.st_blocks * 512
        return Chunks(files, size)

    def _chunk_names(self) -> Iterator[str]:
        with os.scandir(self._folder.fd) as entries:
            for entry in entries:
                if layout.is_chunk_name(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()


def open_generation(chunks: Directory, name: str) -> Generation:
    """A generation that is there."""
    with chunks.enter(layout.TRASH) as trash:
        return Generation(chunks, trash.enter(name), name)


def _is_marked(name: str, marks: Marks) -> bool:
    """Whether it stays; asked first, being cheaper than what `_chunk_file` asks."""
    try:
        return name in marks
    except ValueError:
        return False


def _chunk_file(folder: Directory, name: str) -> os.stat_result | None:
    """What a chunk's file is like; None for somebody else's file, link or directory."""
    if not layout.is_chunk_name(name):
        return None
    found = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
    return found if stat.S_ISREG(found.st_mode) else None
