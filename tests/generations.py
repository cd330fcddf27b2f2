"""A chunk store with full chunks and deltas, and generations of its trash, without a repository.

    with filled(folder) as store:
        generation = condemned(store, CHUNKS[0]); generation.purge(marked(CHUNKS[1]), Refusals())

Limits: a file holds its own name, which is no frame.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from backy.domain.chunk import chunk_id
from backy.domain.marks import Marks
from backy.repository import garbage
from backy.repository.garbage import Generation
from backy.repository.refusals import Refusals
from fakes import FakeStore

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
FULL = [chunk_id(b"full %d" % number).hex() for number in range(4)]
DELTAS = [f"{chunk_id(b'delta %d' % number).hex()}.{FULL[number]}" for number in range(2)]
CHUNKS = [*FULL, *DELTAS]


@contextmanager
def filled(folder: Path) -> Iterator[FakeStore]:
    """A store with all of CHUNKS, each holding its own name."""
    store = FakeStore(folder)
    for name in CHUNKS:
        put(store, name)
    yield store
    store.close()


def put(store: FakeStore, name: str, content: bytes | None = None) -> Path:
    """Write a file of the store proper."""
    path = store.path / name[:2] / name
    path.write_bytes(name.encode() if content is None else content)
    return path


def marked(*names: str) -> Marks:
    """Marks of these chunks."""
    marks = Marks(0)
    marks.add_page(b"".join(bytes.fromhex(name[:64]) for name in names))
    return marks


def condemned(store: FakeStore, *names: str) -> Generation:
    """A sealed generation with these chunks."""
    generation = garbage.new_generation(store.chunks)
    for name in names:
        generation.condemn(name, Refusals())
    generation.sync()
    generation.seal(NOW, [])
    return generation


def in_trash(store: FakeStore) -> set[str]:
    """Names of all files in all generations."""
    return {path.name for path in (store.path / "trash").glob("*/*")}


def strangers(folder: Path) -> list[Path]:
    """Things that backy does not make, among them some that look like chunks."""
    (folder / ("ab" * 32)).mkdir()
    (folder / ("cd" * 32)).symlink_to("/etc/hostname")
    os.mkfifo(folder / ("ef" * 32))
    (folder / "00").write_text("no folder")
    (folder / "note").write_text("mine")
    (folder / FULL[0].upper()).write_text("upper case")
    return sorted(folder.iterdir())
