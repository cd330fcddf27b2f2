"""Users: registered writers, whose presence keeps what they found alive.

A writer registers before its first look at chunks or at a parent's map, and unregisters after its
record has become durable. Garbage collection purges a generation of condemned chunks only when
every writer that lived when it was sealed has ended (doc/design.md, "Collection"), so no positive
answer about a chunk may outlive the registration.

The registration is a file in `chunks/users` whose lock the writer holds from before the file has a
name; when the writer dies, the kernel drops the lock, and collection removes what it left in
`chunks/tmp`.

Collection asks who lives (`living`) and removes what the dead left (`bury`).

Limits: readers need no registration; they hold a lock on the map they use (`maps`).
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

from backy.ground import durable, locks
from backy.ground.directory import Directory
from backy.ground.errors import BackyError, StorageFailed
from backy.ground.tries import Tries
from backy.repository import layout
from backy.repository.refusals import Refusals

_MAX_NOTE = 4096
_STRANGER = (errno.ELOOP, errno.EINVAL, errno.ENXIO)


class Writer(NamedTuple):
    """A living writer, as it registered; `job` is empty if its note cannot be read."""

    name: str
    job: str
    pid: int
    since: datetime


class User(NamedTuple):
    """A registered writer and its folder for unnamed chunk files."""

    name: str
    temporary: Directory


@contextmanager
def registered(chunks: Directory, job: str, since: datetime) -> Iterator[User]:
    """Be a writer for the duration of the block; raises StorageFailed on a full or read-only disk."""
    name = str(uuid4())
    note = {"job": job, "pid": os.getpid(), "since": since.isoformat(timespec="seconds")}
    with chunks.enter(layout.USERS) as users, chunks.enter(layout.TEMPORARY) as temporary:
        file = durable.UnnamedFile(users, mode=0o600)
        try:
            file.append(json.dumps(note).encode() + b"\n")
            locks.try_exclusive(file.fd)
            file.link(name)
            try:
                durable.make_directory(temporary, name)
                with temporary.enter(name) as own:
                    yield User(name, own)
            finally:
                # What cannot be removed now is collection's to remove: we are dead to it from here on.
                with suppress(BackyError):
                    durable.remove_directory(temporary, name)
                with suppress(BackyError):
                    durable.remove(users, name)
        finally:
            file.close()


def living(chunks: Directory) -> list[Writer]:
    """The writers that are registered and alive; writes nothing.

    OSError if a user's file cannot be opened: whoever has it may be alive.
    """
    with chunks.enter(layout.USERS) as users:
        return [writer for name in users.names() if (writer := _look(users, name)) is not None]


def bury(chunks: Directory, refusals: Refusals) -> int:
    """Remove what dead writers left: the number of their files. OSError, StorageFailed.

    A writer may end by itself, and take its things along, at any moment of this. What is refused takes
    its space and does no harm: nobody looks into the folder of a dead one, nor waits for him.
    """
    removed = 0
    with chunks.enter(layout.USERS) as users, chunks.enter(layout.TEMPORARY) as temporary:
        # A user's file is there before its folder, so a folder without one belongs to nobody.
        folders = temporary.names()
        names = users.names()
        for name in {*folders, *names}:
            if not layout.is_uuid(name) or _look(users, name) is not None:
                continue
            with refusals.one(temporary.file_path(name)):
                if name in folders:
                    removed += _empty(temporary, name)
                if name in names and _is_file(users, name):
                    durable.remove(users, name)
    return removed


def strangers(chunks: Directory, refusals: Refusals) -> list[str]:
    """Paths of what lies among the users and their folders and belongs to no writer."""
    found = []
    with chunks.enter(layout.USERS) as users, chunks.enter(layout.TEMPORARY) as temporary:
        for folder in (users, temporary):
            for name in folder.names():
                path = folder.file_path(name)
                with refusals.one(path):
                    # A user's file is there as long as its folder.
                    is_ours = layout.is_uuid(name) and _is_file(users, name)
                    if not is_ours and folder.has(name):
                        found.append(path)
    return found


def _look(users: Directory, name: str) -> Writer | None:
    """The living writer of that name; one whose lock is free, or that has gone, is dead."""
    try:
        fd = users.open_file(name)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _STRANGER:
            return None
        # Every collection ends here while it lasts, so its path has to be told.
        raise OSError(error.errno, error.strerror, users.file_path(name)) from error
    try:
        if not locks.is_held(fd):
            return None
        try:
            note = json.loads(os.pread(fd, _MAX_NOTE, 0))
            return Writer(
                name, str(note["job"]), int(note["pid"]), datetime.fromisoformat(note["since"])
            )
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return Writer(name, "", 0, datetime.fromtimestamp(os.fstat(fd).st_mtime, UTC))
    finally:
        os.close(fd)


def _empty(temporary: Directory, name: str) -> int:
    """Remove a dead writer's folder with its chunk files; other things in it stay, and so does it."""
    removed = 0
    tries = Tries(OSError, StorageFailed)
    try:
        folder = temporary.enter(name)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    with folder:
        for file in folder.names():
            with tries.one():
                if layout.is_chunk_name(file) and _is_file(folder, file):
                    durable.remove(folder, file)
                    removed += 1
        tries.end()
        if folder.names():
            return removed
    with _unless_gone():
        durable.remove_directory(temporary, name)
    return removed


def _is_file(folder: Directory, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except StorageFailed as error:
        if error.code != errno.ENOENT:
            raise
