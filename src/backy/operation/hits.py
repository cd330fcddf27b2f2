"""Hits while the store is distrusted: each is read again, past the page cache, before it counts.

    findings = Findings(repository)
    hits = Hits(repository, findings)
    if hits.holds(reader, entry): …           otherwise the chunk is to be stored anew

Once for each chunk file: that a delta is good says nothing of the full chunk of the same id, and the
other way round. One that proves to be bad is moved aside, so that its name is free for a new one.
What the disk does not give, however often it is asked, is no proof of damage; but who asks has the same
content at hand, so it is *spoilt*: to be replaced, in one step. What cannot be read for another reason
counts, and `unread` says that the revision may not be believed.

Limits: serves several threads; each has its own reader. Remembers a quarter of a million files.
"""

import threading

from backy.domain.chunkmap import Entry
from backy.ground.errors import ChunkDamaged, ChunkMissing, ChunkUnreadable
from backy.operation.trust import files_of
from backy.repository import layout, quarantine
from backy.repository.chunks import ChunkReader
from backy.repository.repository import Repository

_REMEMBERED = 250_000
_TRIES = 3


class Findings:
    """What a backup finds in the store while it works: `cases` moved aside, and `missing` chunks."""

    def __init__(self, repository: Repository) -> None:
        self.cases: list[str] = []
        self.missing: set[Entry] = set()
        self._repository = repository
        self._lock = threading.Lock()

    def set_aside(self, entry: Entry) -> bool:
        """Move aside what of an entry's files proves to be bad: whether any did; StorageFailed."""
        chunks, size = self._repository.chunks, self._repository.format.chunk_size
        found = [quarantine.set_aside(chunks, size, file) for file in files_of(entry)]
        moved = [case for case in found if case is not None]
        with self._lock:
            self.cases += moved
        return bool(moved)

    def note_missing(self, name: str) -> None:
        """Note that a chunk file of that name is in neither store nor trash."""
        entry = layout.parse_chunk_name(name)
        if entry is not None:
            with self._lock:
                self.missing.add(entry)


class Hits:
    """What a backup knows of the chunks that it did not store itself."""

    def __init__(self, repository: Repository, findings: Findings) -> None:
        self.unread = False
        self._repository = repository
        self._findings = findings
        self._proven: set[Entry] = set()
        self._spoilt: set[Entry] = set()
        self._lock = threading.Lock()

    def reader(self) -> ChunkReader:
        """A reader for one thread."""
        return ChunkReader(self._repository.chunks, self._repository.format.chunk_size, fresh=True)

    def note(self, entry: Entry) -> None:
        """This file needs no (further) proof: it was just read, or is our own."""
        with self._lock:
            if len(self._proven) >= _REMEMBERED:
                self._proven.clear()
            self._proven.add(entry)
            self._spoilt.discard(entry)

    def is_spoilt(self, entry: Entry) -> bool:
        """Whether the disk did not give this file, so that it does not hold what was asked for."""
        return entry in self._spoilt

    def holds(self, reader: ChunkReader, entry: Entry, *, pending: bool = False) -> bool:
        """Whether the file that an entry names may be counted on; StorageFailed.

        `pending`: it may be one that this backup is about to name. (If it was moved aside just now
        instead, the look into the quarantine after the commit finds it missing.)
        """
        if entry in self._proven:
            return True
        blames_disk = False
        for _ in range(_TRIES):
            try:
                reader.prove_file(entry)
            except ChunkMissing:
                return pending
            except ChunkUnreadable as error:
                blames_disk = error.blames_disk
                if not blames_disk:
                    break
                continue
            except ChunkDamaged:
                if self._findings.set_aside(entry):
                    return False
                # It was replaced, or read wrong once.
                continue
            self.note(entry)
            return True
        if entry.base is None and blames_disk:
            with self._lock:
                self._spoilt.add(entry)
        counts = entry.base is None and not blames_disk
        self.unread = self.unread or counts
        return counts
