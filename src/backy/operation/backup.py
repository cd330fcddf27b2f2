"""Backup: from a source's snapshot to a committed revision.

    revision = backup(repository, job, source, tags, codec, SystemClock(), progress)

Order (doc/design.md, "Writing"): register as a user; pin a parent; read, hash, look up, encode,
decode and compare, store in durable batches; make all names last; maps; record: the commit. An error
or a kill anywhere before the commit leaves every completed revision as it was and nothing visible.

A chunk is looked up first in the parent's own entry at its index, then in the store; a hit leads to
no read. Every encoded chunk is expanded again and compared before it may get a name.

Limits: one disk; the whole image is read (holes are not), since file sources know no changes yet.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from uuid import uuid4

from backy.domain import chunk
from backy.domain.chunk import ChunkId, Codec, Encoder
from backy.domain.chunkmap import NO_DISK, PAGE_ENTRIES, ZERO_ENTRY, Entry, Layout, Page
from backy.domain.revision import Origin, Revision, Stats
from backy.ground import linux
from backy.ground.clock import Clock
from backy.ground.errors import ChunkDamaged, EncodingFault, MapDamaged, RevisionGone
from backy.operation import parallel
from backy.operation.progress import Progress
from backy.repository import history as histories
from backy.repository.chunks import ChunkWriter
from backy.repository.history import History
from backy.repository.maps import MapReader, MapWriter, open_pinned
from backy.repository.repository import Job, Repository, check_writable_here
from backy.repository.users import registered
from backy.source.base import Extent, Snapshot, Source


def backup(
    repository: Repository,
    job: Job,
    source: Source,
    tags: Mapping[str, Origin],
    codec: Codec,
    clock: Clock,
    progress: Progress,
) -> Revision:
    """Make one revision and return it as committed.

    Raises JobBusy, SourceError, StorageFailed, EncodingFault; then nothing is left but what garbage
    collection removes.
    """
    check_writable_here(repository.base)
    started = clock.monotonic()
    taken_at = clock.now()
    with ExitStack() as stack:
        stack.enter_context(job.backing_up())
        user = stack.enter_context(registered(repository.chunks, job.name, taken_at))
        # A newer version may have set a requirement between our opening and our registration.
        chunk_size = repository.read_format().chunk_size
        parent = stack.enter_context(_pinned_parent(job, histories.load(job.directory), chunk_size))
        snapshot = stack.enter_context(source.snapshot())
        uuid = str(uuid4())
        image = Layout(chunk_size, snapshot.size)
        new_map = MapWriter(job.directory, uuid, NO_DISK, image)
        stack.callback(new_map.close)
        run = _Run(snapshot, new_map, ChunkWriter(repository.chunks, user.temporary), parent, codec)
        stack.callback(run.writer.abandon)

        progress.begin("backup", snapshot.data_size)
        try:
            indices = run.announced(plan_chunks(snapshot.extents(), image))
            parallel.run(indices, lambda: run.worker(progress))
        finally:
            progress.end()
        consistency = snapshot.consistency()
        run.writer.finish()
        revision = Revision(
            uuid=uuid,
            taken_at=taken_at,
            tags=dict(tags),
            consistency=consistency,
            parent=parent.uuid,
            maps=(new_map.seal(),),
            source=snapshot.identity,
            stats=Stats(
                duration=round(clock.monotonic() - started, 3),
                bytes_read=run.bytes_read,
                bytes_written=run.writer.stored_bytes,
                chunks=image.chunks,
                chunks_zero=image.chunks - run.chunks_used,
                chunks_new=run.writer.stored_files,
            ),
        )
        histories.commit(job.directory, revision, [new_map])
        return revision


def plan_chunks(extents: Iterable[Extent], image: Layout) -> Iterator[int]:
    """Indices of the chunks that hold any byte of an extent, ascending, once each.

    >>> list(plan_chunks([Extent(0, 1), Extent(5000, 10), Extent(12288, 1)], Layout(4096, 20480)))
    [0, 1, 3]
    """
    following = 0
    for extent in extents:
        first = max(following, extent.offset // image.chunk_size)
        stop = -(-(extent.offset + extent.length) // image.chunk_size)
        yield from range(first, stop)
        following = max(following, stop)


class _Parent:
    """The entries of a pinned revision's map, or of none; remembers the pages around the last look."""

    def __init__(self, uuid: str | None, reader: MapReader | None) -> None:
        self.uuid = uuid
        self._reader = reader
        self._lock = threading.Lock()
        self._pages: dict[int, Page | None] = {}

    def entry(self, index: int, ident: ChunkId) -> Entry | None:
        """The parent's own entry at `index` if it has that id."""
        number, slot = divmod(index, PAGE_ENTRIES)
        if self._reader is None or index >= self._reader.layout.chunks:
            return None
        with self._lock:
            if number not in self._pages:
                self._pages = {n: page for n, page in self._pages.items() if n == number - 1}
                try:
                    self._pages[number] = self._reader.page(number)
                except MapDamaged:
                    # Verify reports it; here it only means that we know nothing about these chunks.
                    self._pages[number] = None
            page = self._pages[number]
        if page is None or page.ident(slot) != ident:
            return None
        return self._reader.entry(page, slot)


@contextmanager
def _pinned_parent(job: Job, history: History, chunk_size: int) -> Iterator[_Parent]:
    """The newest revision that is believed and whose map can be pinned; otherwise none."""
    for revision in reversed(history.revisions):
        wanted = [one for one in revision.maps if one.disk == NO_DISK]
        if revision.is_distrusted or not wanted:
            continue
        try:
            reader = open_pinned(job.directory, revision.uuid, wanted[0])
        except (MapDamaged, RevisionGone):
            continue
        with reader:
            if reader.layout.chunk_size == chunk_size:
                yield _Parent(revision.uuid, reader)
                return
    yield _Parent(None, None)


class _Run:
    """What the threads of one backup share."""

    def __init__(
        self, snapshot: Snapshot, new_map: MapWriter, writer: ChunkWriter, parent: _Parent, codec: Codec
    ) -> None:
        self.snapshot = snapshot
        self.map = new_map
        self.writer = writer
        self.parent = parent
        self.codec = codec
        self.bytes_read = 0
        self.chunks_used = 0
        self._lock = threading.Lock()

    def announced(self, indices: Iterable[int]) -> Iterator[int]:
        """The indices, each announced to the map as it is taken."""
        for index in indices:
            self.map.expect(index)
            yield index

    def worker(self, progress: Progress) -> "_Worker":
        return _Worker(self, progress)

    def count(self, length: int, used: bool) -> None:
        with self._lock:
            self.bytes_read += length
            self.chunks_used += used


class _Worker:
    """One thread's buffers; called with chunk indices."""

    def __init__(self, run: _Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._buffer = linux.Buffer(run.map.layout.chunk_size)
        self._encoder = Encoder(run.codec)

    def __call__(self, index: int) -> None:
        run = self._run
        length = run.map.layout.length_of(index)
        run.snapshot.read(self._buffer, index * run.map.layout.chunk_size, length)
        used = not linux.is_zero(self._buffer, length)
        run.map.set(index, self._stored(index, length) if used else ZERO_ENTRY)
        run.count(length, used)
        self._progress.advance(length)

    def _stored(self, index: int, length: int) -> Entry:
        """The entry of the buffer's chunk, which is in the store or on its way when this returns."""
        run = self._run
        plain = self._buffer.view[:length]
        ident = chunk.chunk_id(plain)
        known = run.parent.entry(index, ident)
        if known is not None:
            return known
        entry = Entry(ident)
        if run.writer.claim(entry):
            run.writer.store(entry, self._encoded(ident, plain))
        return entry

    def _encoded(self, ident: ChunkId, plain: memoryview) -> list[chunk.Buffer]:
        """The chunk's frame, proven to expand to the plain bytes: EncodingFault otherwise."""
        frame = chunk.encode_full(ident, plain, self._encoder)
        try:
            fresh = chunk.expand_fresh(ident, frame, len(plain))
        except ChunkDamaged as error:
            raise EncodingFault(ident.hex(), str(self._encoder.codec)) from error
        if len(fresh) != len(plain) or not linux.equal(self._buffer, fresh):
            raise EncodingFault(ident.hex(), str(self._encoder.codec))
        return frame
