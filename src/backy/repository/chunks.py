"""The chunk store, as two capabilities: reading chunks, and adding new ones.

`ChunkReader` finds a chunk in the store or, if collection condemned it meanwhile, in the trash, and
returns bytes that are proven to be the chunk's. `ChunkWriter` adds chunks in durable batches, or puts
one in the place of its own file that the disk does not give. A writer never looks into the trash: what
lies there may be purged before its revision exists. Neither can remove anything.

    reader.read(Entry(ident))                    plain bytes, or ChunkMissing, ChunkDamaged, …
    if writer.claim(entry): writer.store(entry, frame)
    writer.finish()                              now every claimed chunk has a durable name

Limits: a reader belongs to one thread, a writer serves many. Memory holds the names of the batches
that are not named yet, not those of the store.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from backy.domain import chunk
from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import Entry
from backy.ground import durable, linux
from backy.ground.directory import Directory
from backy.ground.errors import (
    ChunkDamaged,
    ChunkMissing,
    ChunkUnreadable,
    RepositoryRefused,
    StorageFailed,
)
from backy.ground.pagecache import UncachedFile
from backy.repository import layout

BATCH_SIZE = 128 << 20

_NOT_A_FILE = (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)


class Ground(NamedTuple):
    """What a new delta may stand on: a chunk's proven bytes, and those of its full base.

    They may differ in the blocks `numbers`. `laid` are the payload bytes of the deltas that lie on that
    base at this chunk's index so far, and `full_size` the payload bytes of the base itself.
    """

    plain: bytes
    base: ChunkId
    base_plain: bytes
    numbers: tuple[int, ...]
    laid: int
    full_size: int


class ChunkReader:
    """Reads chunks; belongs to one thread.

    With `fresh`, every file is read past the page cache, as proof about the disk needs.
    """

    def __init__(self, chunks: Directory, chunk_size: int, *, fresh: bool = False) -> None:
        self._chunks = chunks
        self._limit = chunk_size
        self._fresh = fresh
        self._buffer = linux.Buffer(chunk.MAX_FRAME if chunk_size == chunk.MAX_PLAIN else chunk_size * 2)
        self._last_base: tuple[ChunkId, bytes, int] | None = None
        self._checked_base: ChunkId | None = None

    def read(self, entry: Entry) -> bytes:
        """Plain bytes of a chunk that is not zero, proven by its id.

        A delta that is missing or damaged is replaced by the full chunk where there is one. Raises
        ChunkMissing, ChunkDamaged, ChunkUnreadable.
        """
        try:
            return self._decode(entry)
        except (ChunkMissing, ChunkDamaged, ChunkUnreadable):
            if entry.base is None:
                raise
            with suppress(ChunkMissing, ChunkDamaged, ChunkUnreadable):
                return self._decode(Entry(entry.ident))
            raise

    def prove(self, entry: Entry) -> int:
        """As `prove_file`; of a delta that is missing, or whose base is, the full chunk in its place.

        The same for what the disk does not give, which nobody can move aside.
        """
        return self._or_full(entry, self.prove_file)

    def prove_file(self, entry: Entry) -> int:
        """Decode and hash the very file that an entry names: its plain length; raises like `read`.

        A full chunk that was the last one to be read, as a base or by itself, is not read again.
        """
        return len(self._read_base(entry.ident) if entry.base is None else self._decode(entry))

    def check_frame(self, entry: Entry) -> int:
        """As `prove`, but only header and checksum, of the file and of the base that it leans on."""
        return self._or_full(entry, self._check_frames)

    def ground(self, entry: Entry) -> Ground:
        """What a delta of the next chunk at an entry's place may stand on; raises like `read`.

        The very files that the entry names: what is damaged, missing or cannot be read is no ground.
        """
        frame = self._frame(entry)
        header = chunk.parse_header(entry.ident, frame, self._limit)
        self._check_kind(entry, header.kind, header.base)
        if entry.base is None:
            plain = chunk.decode(entry.ident, frame, limit=self._limit)
            return Ground(plain, entry.ident, plain, (), 0, header.payload_length)
        found = chunk.decode_whole(entry.ident, bytes(frame), self._read_base, self._limit)
        assert self._last_base is not None
        base, base_plain, full_size = self._last_base
        return Ground(found.plain, base, base_plain, found.numbers, found.laid, full_size)

    def _or_full(self, entry: Entry, look: Callable[[Entry], int]) -> int:
        try:
            return look(entry)
        except (ChunkMissing, ChunkUnreadable) as error:
            passing = isinstance(error, ChunkUnreadable) and not error.blames_disk
            if entry.base is None or passing:
                raise
            # What heals a delta, or stands in for one whose base is gone.
            with suppress(ChunkMissing):
                return look(Entry(entry.ident))
            raise

    def _check_frames(self, entry: Entry) -> int:
        header = chunk.check_frame(entry.ident, self._frame(entry), self._limit)
        self._check_kind(entry, header.kind, header.base)
        if entry.base is not None and entry.base != self._checked_base:
            self._check_frames(Entry(entry.base))
            self._checked_base = entry.base
        return header.plain_length

    def _decode(self, entry: Entry) -> bytes:
        frame = self._frame(entry)
        header = chunk.parse_header(entry.ident, frame, self._limit)
        self._check_kind(entry, header.kind, header.base)
        if entry.base is None:
            return chunk.decode(entry.ident, frame, limit=self._limit)
        # The base is read into the same buffer, so the delta must be out of it first.
        return chunk.decode(entry.ident, bytes(frame), self._read_base, self._limit)

    def _check_kind(self, entry: Entry, kind: int, base: ChunkId) -> None:
        if (kind == chunk.DELTA) != (entry.base is not None) or base != (entry.base or chunk.ZERO):
            raise ChunkDamaged(layout.chunk_name(entry), "its header and its name differ")

    def _read_base(self, ident: ChunkId) -> bytes:
        if self._last_base is None or self._last_base[0] != ident:
            frame = self._frame(Entry(ident))
            header = chunk.parse_header(ident, frame, self._limit)
            self._check_kind(Entry(ident), header.kind, header.base)
            plain = chunk.decode(ident, frame, limit=self._limit)
            self._last_base = (ident, plain, header.payload_length)
        return self._last_base[1]

    def _frame(self, entry: Entry) -> memoryview:
        name = layout.chunk_name(entry)
        try:
            with UncachedFile(self._open(entry)) as file:
                size = os.fstat(file.fd).st_size
                if size > self._buffer.size:
                    raise ChunkDamaged(name, f"its file has {size} bytes")
                length = file.read(self._buffer, 0, size, fresh=self._fresh)
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                raise ChunkDamaged(name, "it is not a regular file") from error
            raise ChunkUnreadable(name, error.errno or errno.EIO) from error
        return self._buffer.view[:length]

    def _open(self, entry: Entry) -> int:
        """Store, trash, store again: collection may link a chunk back between our looks."""
        for look in (self._open_stored, self._open_condemned, self._open_stored):
            fd = look(entry)
            if fd is not None:
                return fd
        raise ChunkMissing(layout.chunk_name(entry))

    def _open_stored(self, entry: Entry) -> int | None:
        try:
            return self._chunks.open_file(layout.chunk_path(entry))
        except FileNotFoundError:
            return None

    def _open_condemned(self, entry: Entry) -> int | None:
        name = layout.chunk_name(entry)
        try:
            with self._chunks.enter(layout.TRASH) as trash:
                for generation in trash.names():
                    with suppress(FileNotFoundError, NotADirectoryError):
                        return trash.open_file(f"{generation}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            pass
        return None


class ChunkWriter:
    """Adds chunks for one registered user; may be used by several threads at once.

    A failure anywhere fails the whole run: the caller stops and calls `abandon`.
    """

    def __init__(self, chunks: Directory, temporary: Directory, batch_size: int | None = None) -> None:
        """`temporary` is the user's own folder (`users.registered`); a batch has BATCH_SIZE bytes."""
        self._chunks = chunks
        self._temporary = temporary
        self._batch_size = batch_size or BATCH_SIZE
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._unnamed: set[str] = set()
        self._open: _OpenBatch | None = None
        self._batches: set[_OpenBatch] = set()
        # Told of every write error from here on; used once, for the names, at the very end.
        self._names = durable.Batch(temporary)
        self.stored_files = 0
        self.stored_bytes = 0

    def claim(self, entry: Entry) -> bool:
        """True if the caller is to store this chunk now; False if it is there or being stored."""
        path = layout.chunk_path(entry)
        if self.has(entry):
            return False
        with self._lock:
            # Once more: another thread may have stored and named it since that look.
            if self.has(entry):
                return False
            self._unnamed.add(path)
            return True

    def has(self, entry: Entry) -> bool:
        """Whether this very file is there or being stored; `claim` would be False."""
        path = layout.chunk_path(entry)
        return path in self._unnamed or self._chunks.has(path)

    def store(self, entry: Entry, frame: Sequence[durable.Bytes]) -> None:
        """Write a claimed chunk's frame; it counts as stored only after `finish`."""
        path = layout.chunk_path(entry)
        size = sum(map(len, frame))
        with self._lock:
            if self._open is None:
                self._open = _OpenBatch(durable.Batch(self._temporary))
                self._batches.add(self._open)
            batch = self._open
            batch.begin(path, size)
            if batch.size >= self._batch_size:
                self._open = None
            self.stored_files += 1
            self.stored_bytes += size
        batch.files.write(path[3:], frame)
        if self._ended(batch):
            self._publish(batch)

    def replace(self, entry: Entry, frame: Sequence[durable.Bytes]) -> None:
        """Put a frame in the place of a chunk's file that the disk does not give; lasts after `finish`.

        In one step, so that a reader finds one or the other. The caller has proven the frame; the old
        file could hold nothing but the same content.
        """
        # The same name there, as of all new chunks: collection removes those of a dead writer.
        name = layout.chunk_name(entry)
        content = b"".join(frame)
        # One at a time: two threads may have met the same content.
        with self._sync_lock, self._chunks.enter(name[:2]) as folder:
            durable.publish(self._temporary, name, content)
            try:
                durable.move(self._temporary, name, folder, name)
            except StorageFailed:
                with suppress(StorageFailed):
                    durable.remove(self._temporary, name)
                raise
        with self._lock:
            self.stored_files += 1
            self.stored_bytes += len(content)

    def finish(self) -> None:
        """Publish what is left, then make all names last, also those of other writers that we hit."""
        with self._lock:
            batch, self._open = self._open, None
        if batch is not None:
            self._publish(batch)
        self._names.sync()
        self._names.close()

    def abandon(self) -> None:
        """Remove what has no name yet; what has one is collection's."""
        for batch in self._batches:
            batch.files.discard()
        self._batches = set()
        self._names.close()

    def _ended(self, batch: "_OpenBatch") -> bool:
        """Note the end of one write; True for the thread that ended the last one of a closed batch."""
        with self._lock:
            batch.writing -= 1
            return batch.writing == 0 and batch is not self._open

    def _publish(self, batch: "_OpenBatch") -> None:
        # One syncfs at a time; the other threads go on with the next batch meanwhile.
        with self._sync_lock:
            batch.files.sync()
            batch.files.link_into((path[3:], self._chunks, path) for path in batch.paths)
            batch.files.close()
        with self._lock:
            self._batches.discard(batch)
            self._unnamed.difference_update(batch.paths)


class _OpenBatch:
    """A batch that is being filled, with the number of writes under way."""

    def __init__(self, files: durable.Batch) -> None:
        self.files = files
        self.paths: list[str] = []
        self.size = 0
        self.writing = 0

    def begin(self, path: str, size: int) -> None:
        self.paths.append(path)
        self.size += size
        self.writing += 1


def check_fanout(chunks: Directory, *, whole: bool) -> None:
    """Refuse a store whose parts are missing or are links: RepositoryRefused.

    If it need not be `whole`, since it is only read, parts may be missing: a copy may have left out
    folders that were empty.
    """
    found = dict(chunks.scan())
    wanted = {*layout.FANOUT, layout.TEMPORARY, layout.USERS, layout.TRASH, layout.QUARANTINE}
    for name in sorted(wanted):
        if not found.get(name, not whole):
            why = "restore its folders, with mkdir where they were empty"
            raise RepositoryRefused(
                chunks.path, f"{name} is not a directory: the store is not whole, {why}"
            )
