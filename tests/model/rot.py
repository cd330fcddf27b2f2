"""Chunk files that rot, and what of a store can be read by rules that are written down here once more.

    rot = Rot(site); rot.flip(path, 17); rot.remove(path)
    rot.bad_ranges("vm", revision)           where no good file has an entry's content

A rotten file is known by its inode, which a descriptor keeps from being used again: it may be moved into
the trash, the quarantine and back, and a good file may take its name.

Limits: one that is rotten or gone stays so, but for what is stored anew.
"""

import os
from contextlib import suppress
from pathlib import Path

from backy.domain.chunkmap import Entry
from backy.domain.revision import Revision
from backy.ground.directory import Directory
from backy.repository import layout
from backy.repository.maps import open_pinned
from testsite import Site

Span = tuple[int, int]


class Rot:
    """What has rotted in a site's store."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._fds: dict[int, int] = {}

    def flip(self, path: Path, position: int) -> None:
        """Spoil one bit, in a new file of the same name."""
        content = bytearray(path.read_bytes())
        content[position % len(content)] ^= 1 << position % 8
        path.unlink()
        path.write_bytes(content)
        fd = os.open(path, os.O_RDONLY)
        self._fds[os.fstat(fd).st_ino] = fd

    def is_rotten(self, path: Path) -> bool:
        """Whether this file is one of those."""
        return path.stat().st_ino in self._fds

    def is_unseen(self) -> bool:
        """Whether a rotten file lies where chunks are read from."""
        return any(map(self.is_rotten, self._site.chunk_files()))

    def entries(self, job: str, revision: Revision) -> list[tuple[Span, Entry]]:
        """(offset, length) in bytes and entry of each chunk of a revision."""
        found = []
        with Directory.open(str(self._site.base / job)) as directory:
            for digest in revision.maps:
                with open_pinned(directory, revision.uuid, digest) as reader:
                    size = reader.layout.chunk_size
                    found += [
                        ((index * size, reader.layout.length_of(index)), entry)
                        for index, entry in reader.used()
                    ]
        return found

    def bad_ranges(self, job: str, revision: Revision) -> set[Span]:
        """What of a revision cannot be restored."""
        return {span for span, entry in self.entries(job, revision) if not self._is_readable(entry)}

    def rotten_ranges(self, job: str, revision: Revision) -> set[Span]:
        """What verify has to find: that, and rot beside a full chunk that still stands in for it."""
        bad = self.bad_ranges(job, revision)
        for span, entry in self.entries(job, revision):
            files = [entry] if entry.base is None else [entry, Entry(entry.base)]
            # Without the delta nobody asks for its base.
            if self._state(entry) is not None and any(self._state(one) is False for one in files):
                bad.add(span)
        return bad

    def _is_readable(self, entry: Entry) -> bool:
        if self._state(entry) and (entry.base is None or self._state(Entry(entry.base))):
            return True
        return entry.base is not None and bool(self._state(Entry(entry.ident)))

    def _state(self, entry: Entry) -> bool | None:
        """Whether the file that a reader would open is good; None if there is none."""
        name = layout.chunk_name(entry)
        for path in (
            self._site.chunks / layout.chunk_path(entry),
            *sorted(self._site.chunks.glob(f"trash/*/{name}")),
        ):
            with suppress(FileNotFoundError):
                return not self.is_rotten(path)
        return None

    def close(self) -> None:
        """Forget the files."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
