"""Users: registered writers, whose presence keeps what they found alive.

A writer registers before its first look at chunks or at a parent's map, and unregisters after its
record has become durable. Garbage collection purges a generation of condemned chunks only when
every writer that lived when it was sealed has ended (doc/design.md, "Collection"), so no positive
answer about a chunk may outlive the registration.

The registration is a file in `chunks/users` whose lock the writer holds from before the file has a
name; when the writer dies, the kernel drops the lock, and collection removes what it left in
`chunks/tmp`.

Limits: readers need no registration; they hold a lock on the map they use (`maps`).
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

from backy.ground import durable, locks
from backy.ground.directory import Directory
from backy.ground.errors import BackyError
from backy.repository import layout


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
