"""What lies in the trash, and what each generation there waits for.

    for one in look_into_trash(repository): one.ripe_at, one.writers

Limits: writes nothing, and locks nobody out, so a generation may go while it is looked at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from backy.domain.collection import GRACE, Seal
from backy.ground.errors import StorageFailed
from backy.repository import garbage, users
from backy.repository.repository import Repository
from backy.repository.users import Writer


class Waiting(NamedTuple):
    """A generation that is not purged yet: until when at least, and the writers that hold it."""

    generation: str
    sealed_at: datetime
    ripe_at: datetime
    writers: tuple[Writer, ...]


def look_into_trash(repository: Repository, grace: timedelta = GRACE) -> Iterator[Waiting]:
    """The sealed generations, and what they wait for; StorageFailed."""
    with reading(repository):
        living = {writer.name: writer for writer in users.living(repository.chunks)}
        for name in garbage.generations(repository.chunks):
            seal = seal_of(repository, name)
            if seal is not None:
                holders = tuple(living[one] for one in seal.writers if one in living)
                yield Waiting(name, seal.at, seal.at + grace, holders)


def seal_of(repository: Repository, name: str) -> Seal | None:
    """The seal of a generation; None if it has none that can be read, or is gone."""
    try:
        with garbage.open_generation(repository.chunks, name) as generation:
            return generation.read_seal()
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def reading(repository: Repository) -> Iterator[None]:
    """A folder that cannot be listed or read ends the run with one sentence."""
    try:
        yield
    except OSError as error:
        # Most files are opened by a name relative to their folder, and folders listed by a number.
        name = error.filename if isinstance(error.filename, str) else ""
        base = repository.base.path
        path = name if name.startswith("/") else f"{name} in {base}" if name else base
        raise StorageFailed("read", path, error.errno or 0) from error
