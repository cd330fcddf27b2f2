"""The work of a backup on its chunks: read, stitch, hash, look up, store. Each thread has a Worker.

    run = Run(snapshot, new_map, writer, reader, parent, codec, hits, findings, lost, delta=True)
    parallel.run(run.announced(plan), lambda: run.worker(progress))

A chunk that is new is stored as the 4 KiB blocks that differ from the base of the parent's chunk at
its index, or in full: when there is no such, when most blocks differ, or when the deltas laid on that
base at this index would together take more than the base itself. So a base carries few deltas, and
what a chain of changes takes stays in proportion. A base is always a full chunk (depth 1).

No byte of a stored chunk gets into a new one, or serves as a base, before the chunk's plain bytes have
hashed to its id in this run. Where that fails, the whole chunk is read from the source and stored in
full, and the bad one is moved aside (`Findings`).

Limits: one disk; ids and entries only, nothing is committed here.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import NamedTuple

from backy.domain import delta
from backy.domain.chunk import HEADER, Buffer, ChunkId, Codec, Encoder, chunk_id
from backy.domain.chunkmap import ZERO_ENTRY, Entry
from backy.ground import linux
from backy.ground.errors import ChunkDamaged, ChunkMissing, ChunkUnreadable
from backy.ground.manyreads import Part
from backy.operation.encode import proven_delta, proven_frame
from backy.operation.hits import Findings, Hits
from backy.operation.parent import Parent
from backy.operation.progress import Progress
from backy.operation.reading import PagePlan, Task
from backy.repository.chunks import ChunkReader, ChunkWriter, Ground
from backy.repository.maps import MapWriter
from backy.source import bulk
from backy.source.base import Snapshot

# Of the blocks of a chunk; beyond, a delta is about as large as a full chunk.
_MOSTLY_CHANGED = 3 / 4
# Chunks of the parent that are in memory at the same time: up to 16 MiB each, with their base, their
# frame and the proof of a new delta.
_READERS = 4


class HintWrong(Exception):
    """A chunk that the source calls unchanged has changed; caught by the backup, which starts again."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class Counts:
    """What the threads did; see `Stats` for the meanings."""

    def __init__(self) -> None:
        self.read = self.audited = self.changed = self.new = 0
        self.used = self.hit = self.inherited = self.deltas = 0
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to any of them."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


class Run:
    """What the threads of one backup share."""

    def __init__(
        self,
        snapshot: Snapshot,
        new_map: MapWriter,
        writer: ChunkWriter,
        reader: Callable[[], ChunkReader],
        parent: Parent,
        codec: Codec,
        hits: Hits | None,
        findings: Findings,
        lost: Collection[ChunkId],
        *,
        delta: bool,
    ) -> None:
        self.snapshot = snapshot
        self.map = new_map
        self.writer = writer
        self._reader = reader
        self.parent = parent
        self.codec = codec
        self.hits = hits
        self.findings = findings
        # Chunks that some revision lacks, in whatever form: only a full one heals them all.
        self.lost = lost
        self.has_healed = False
        # In a distrusted store everything new is stored in full.
        self.delta = delta and hits is None
        self.counts = Counts()
        self._readers: SimpleQueue[ChunkReader | None] = SimpleQueue()
        for _ in range(_READERS):
            self._readers.put(None)

    def announced(self, plan: Iterable[PagePlan]) -> Iterator[Task]:
        """The tasks, each announced to the map as it is taken; pages begin as the parent's."""
        for page in plan:
            if page.inherited is not None:
                slots = page.slots
                self.map.inherit(page.number, page.inherited, self.parent.bases, slots)
                kept = sum(slot not in slots for slot, _, _ in page.inherited.used())
                self.counts.add(inherited=kept, used=kept)
            for task in page.tasks:
                self.map.expect(task.chunk)
                yield task

    @contextmanager
    def lent_reader(self) -> Iterator[ChunkReader]:
        """One of a few readers; waits until one is free. Whoever has one must not ask for another."""
        reader = self._readers.get()
        try:
            # Within, so that others get the place of one that cannot be made, and do not wait for it.
            reader = reader or self._reader()
            yield reader
        finally:
            self._readers.put(reader)

    def worker(self, progress: Progress) -> "Worker":
        """One thread's own."""
        return Worker(self, progress)


class _Made(NamedTuple):
    """A chunk's entry, and the frame that is still to be written, if the chunk was claimed for us."""

    entry: Entry
    frame: Sequence[Buffer] | None = None


class Worker:
    """One thread's buffers; called with tasks. Raises HintWrong where an audit finds a difference."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._chunk_size = run.map.layout.chunk_size
        self._buffer = linux.Buffer(self._chunk_size)
        self._encoder = Encoder(run.codec)
        self._reader: ChunkReader | None = None

    def __call__(self, task: Task) -> None:
        run = self._run
        length = run.map.layout.length_of(task.chunk)
        parent = run.parent.entry(task.chunk)
        if task.parts is None or parent is None:
            made = self._whole(task.chunk, length, parent)
        elif task.parts:
            made = self._stitched(task, length, parent)
        else:
            made = _Made(parent)
            run.counts.add(inherited=parent != ZERO_ENTRY)
        entry = made.entry
        if made.frame is not None:
            # Not before the reader is back that was lent for it: others need not wait for the disk.
            run.writer.store(entry, made.frame)
        if task.audit:
            self._audit(task.chunk, length, entry)
        run.map.set(task.chunk, entry)
        run.counts.add(used=entry != ZERO_ENTRY)

    def _read(self, offset: int, length: int, start: int = 0) -> None:
        self._run.snapshot.read(self._buffer, offset, length, start)
        self._run.counts.add(read=length)
        self._progress.advance(length)

    def _whole(self, index: int, length: int, parent: Entry | None) -> _Made:
        """Read a chunk from the source alone."""
        self._read(index * self._chunk_size, length)
        made = self._made(length, parent)
        if made.entry.ident != (parent or ZERO_ENTRY).ident:
            self._run.counts.add(changed=length)
        return made

    def _stitched(self, task: Task, length: int, parent: Entry) -> _Made:
        """Read the parts that have changed, and put the parent's chunk around them."""
        run = self._run
        begin = task.chunk * self._chunk_size
        parts = [Part(*part, part.offset - begin) for part in task.parts or ()]
        size = sum(part.length for part in parts)
        bulk.read_parts(run.snapshot, self._buffer, parts)
        run.counts.add(read=size, changed=size)
        self._progress.advance(size)
        spans = [(part.start, part.start + part.length) for part in parts]
        if parent == ZERO_ENTRY:
            self._buffer.fill_around(bytes(length), spans)
            return self._made(length, parent)
        with run.lent_reader() as reader:
            ground = self._ground(reader, parent)
            if ground is None:
                self._read(begin, length)
                return self._made(length, parent, whole=True)
            self._buffer.fill_around(delta.fit(ground.plain, length), spans)
            blocks = [
                number
                for start, stop in spans
                for number in range(start // delta.BLOCK, -(-stop // delta.BLOCK))
            ]
            return self._made(length, parent, ground, blocks)

    def _audit(self, index: int, length: int, entry: Entry) -> None:
        """Read a chunk in whole: HintWrong unless it is what the entry says."""
        self._run.snapshot.read(self._buffer, index * self._chunk_size, length)
        self._run.counts.add(read=length, audited=length)
        zero = linux.is_zero(self._buffer, length)
        found = ZERO_ENTRY.ident if zero else chunk_id(self._buffer.view[:length])
        if found != entry.ident:
            raise HintWrong(index * self._chunk_size)

    def _made(
        self,
        length: int,
        parent: Entry | None,
        ground: Ground | None = None,
        blocks: list[int] | None = None,
        *,
        whole: bool = False,
    ) -> _Made:
        """The entry of the buffer's chunk, which is in the store, on its way, or now claimed for us.

        `ground` and `blocks`: it differs from the ground at most in these. `whole`: store it in full.
        """
        run = self._run
        if linux.is_zero(self._buffer, length):
            return _Made(ZERO_ENTRY)
        ident = chunk_id(self._buffer.view[:length])
        whole = whole or ident in run.lost
        if parent is not None and parent.ident == ident and not whole and self._holds(parent):
            run.counts.add(hit=1)
            return _Made(parent)
        if run.delta and not whole and parent is not None and parent != ZERO_ENTRY:
            known = self._known(ident, parent)
            if known is not None:
                return _Made(known)
            made = self._leaning(ident, length, parent, ground, blocks)
            if made is not None:
                return made
        return self._in_full(ident, length)

    def _in_full(self, ident: ChunkId, length: int) -> _Made:
        """The buffer's chunk in full: a hit, or claimed for us, or put in the place of a spoilt one."""
        run, full = self._run, Entry(ident)
        while not run.writer.claim(full):
            if self._holds(full, pending=True):
                run.counts.add(hit=1)
                return _Made(full)
            if run.hits is not None and run.hits.is_spoilt(full):
                run.writer.replace(full, proven_frame(ident, self._buffer, length, self._encoder))
                run.hits.note(full)
                run.counts.add(new=length)
                return _Made(full)
        if run.hits is not None:
            run.hits.note(full)
        run.counts.add(new=length)
        run.has_healed = run.has_healed or ident in run.lost
        return _Made(full, proven_frame(ident, self._buffer, length, self._encoder))

    def _known(self, ident: ChunkId, parent: Entry) -> Entry | None:
        """The form of a chunk that is there already and counts: full, or on the parent's base."""
        run = self._run
        base = Entry(parent.base or parent.ident)
        # A delta outlives a base that was moved aside, and a parent that has healed needs none.
        forms = [(Entry(ident), Entry(ident))]
        if run.map.takes_base(base.ident):
            forms.append((Entry(ident, base.ident), base))
        for known, needed in forms:
            if run.writer.has(known) and run.writer.has(needed):
                run.counts.add(hit=1)
                return known
        return None

    def _leaning(
        self, ident: ChunkId, length: int, parent: Entry, ground: Ground | None, blocks: list[int] | None
    ) -> _Made | None:
        """The buffer's chunk as a delta, if that is worth it."""
        if ground is None:
            with self._run.lent_reader() as reader:
                ground = self._ground(reader, parent)
                return None if ground is None else self._delta(ident, length, ground, None)
        return self._delta(ident, length, ground, blocks)

    def _delta(
        self, ident: ChunkId, length: int, ground: Ground, blocks: list[int] | None
    ) -> _Made | None:
        run = self._run
        if not run.map.takes_base(ground.base):
            return None
        base = delta.fit(ground.base_plain, length)
        if blocks is None or len(base) != len(ground.plain):
            numbers = linux.differing(self._buffer, base, delta.BLOCK)
        else:
            among = [*ground.numbers, *blocks]
            numbers = delta.changed_among(self._buffer.view[:length], base, among)
        if len(numbers) * delta.BLOCK > _MOSTLY_CHANGED * length or ground.base == ident:
            return None
        frame = proven_delta(ident, self._buffer, length, ground, numbers, self._encoder)
        size = sum(map(len, frame)) - HEADER.size
        if ground.laid + size > ground.full_size:
            return None
        entry = Entry(ident, ground.base)
        if not run.writer.claim(entry):
            run.counts.add(hit=1)
            return _Made(entry)
        run.counts.add(new=length, deltas=1)
        return _Made(entry, frame)

    def _ground(self, reader: ChunkReader, entry: Entry) -> Ground | None:
        """What a delta may stand on, proven; None where that is bad, which is noted."""
        missing = ""
        forms = (entry,) if entry.base is None else (entry, Entry(entry.ident))
        for form in forms:
            try:
                return reader.ground(form)
            except ChunkDamaged:
                self._run.findings.set_aside(form)
            except ChunkMissing as error:
                # Of a delta that has healed, only the full form is there.
                missing = missing or error.chunk
            except ChunkUnreadable:
                continue
        if missing:
            self._run.findings.note_missing(missing)
        self._run.parent.note_bad()
        return None

    def _holds(self, entry: Entry, *, pending: bool = False) -> bool:
        """Whether a hit counts: always, unless the store is distrusted."""
        if self._run.hits is None:
            return True
        if self._reader is None:
            self._reader = self._run.hits.reader()
        return self._run.hits.holds(self._reader, entry, pending=pending)
