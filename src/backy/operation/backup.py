"""Backup: from a source's snapshot to a committed revision.

    revision = backup(repository, job, source, tags, codec, SystemClock(), progress)

Order (doc/design.md, "Writing"): register as a user; pin a parent; read, hash, look up, encode,
decode and compare, store in durable batches; make all names last; maps; record: the commit. An error
or a kill anywhere before the commit leaves every completed revision as it was and nothing visible.

A chunk is looked up first in the parent's own entry at its index, then in the store; a hit leads to
no read, unless the store is distrusted (`hits`). Every encoded chunk is expanded again and compared
before it may get a name. After the commit it looks whether a chunk that it leans on was moved aside
meanwhile, and heals itself from the snapshot or says that it is damaged.

Limits: one disk; the whole image is read (holes are not), since file sources know no changes yet.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from uuid import uuid4

from backy.domain.chunk import ChunkId, Codec, Encoder, chunk_id
from backy.domain.chunkmap import NO_DISK, PAGE_ENTRIES, ZERO_ENTRY, Entry, Layout, Page
from backy.domain.extents import Extent
from backy.domain.revision import Distrust, Origin, Revision, Stats, Trust
from backy.ground import linux
from backy.ground.clock import Clock
from backy.ground.errors import HistoryBusy, MapDamaged, RevisionDamaged, RevisionGone, StorageFailed
from backy.operation import parallel
from backy.operation.encode import proven_frame
from backy.operation.heal import heal
from backy.operation.hits import Hits
from backy.operation.progress import Progress
from backy.operation.trust import has_unreported, lacks_a_chunk, note_healed, settle
from backy.repository import damage, trust
from backy.repository import history as histories
from backy.repository.chunks import ChunkReader, ChunkWriter
from backy.repository.history import History
from backy.repository.maps import MapReader, MapWriter, open_pinned
from backy.repository.repository import Job, Repository, check_writable_here
from backy.repository.users import User, registered
from backy.source.base import Snapshot, Source


def _say_nothing(_: str) -> None:
    pass


def backup(
    repository: Repository,
    job: Job,
    source: Source,
    tags: Mapping[str, Origin],
    codec: Codec,
    clock: Clock,
    progress: Progress,
    tell: Callable[[str], None] = _say_nothing,
) -> Revision:
    """Make one revision and return it as committed; `tell` is told of damage and healing.

    Raises JobBusy, SourceError, StorageFailed, EncodingFault; then nothing is left but what garbage
    collection removes. RevisionDamaged: it was made, and marked as damaged.
    """
    check_writable_here(repository.base)
    started = clock.monotonic()
    taken_at = clock.now()
    with ExitStack() as stack:
        stack.enter_context(job.backing_up())
        user = stack.enter_context(registered(repository.chunks, job.name, taken_at))
        # A newer version may have set a requirement between our opening and our registration.
        chunk_size = repository.read_format().chunk_size
        parent = stack.enter_context(_believed_parent(repository, job, chunk_size, tell))
        hits = Hits(repository) if trust.is_distrusted(repository.chunks) else None
        uuid = str(uuid4())
        snapshot = stack.enter_context(source.snapshot(uuid))
        image = Layout(chunk_size, snapshot.size)
        new_map = MapWriter(job.directory, uuid, NO_DISK, image)
        stack.callback(new_map.close)
        writer = ChunkWriter(repository.chunks, user.temporary)
        run = _Run(snapshot, new_map, writer, parent, codec, hits)
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
        if hits is not None and hits.unread:
            revision = revision.with_trust(Trust.DISTRUSTED, Distrust.STORE)
            tell("chunks that are needed cannot be read, so this revision is distrusted")
            stack.enter_context(trust.distrusting(repository.chunks))
        histories.commit(job.directory, revision, [new_map])
        after = _Aftermath(repository, job, revision, clock, tell)
        after.look(snapshot, user, codec, run)
        return revision


class _Aftermath:
    """What a backup does about damage once its record can be seen.

    Verify moves a chunk aside and then lists maps; we publish our record and then look what is aside.
    So one of the two sees the other.
    """

    def __init__(
        self,
        repository: Repository,
        job: Job,
        revision: Revision,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._job = job
        self._revision = revision
        self._clock = clock
        self._tell = tell

    def look(self, snapshot: Snapshot, user: User, codec: Codec, run: "_Run") -> None:
        """Heal what this revision leans on, or mark it: RevisionDamaged. Then note what has healed."""
        if run.hits is not None or lacks_a_chunk(self._repository):
            self._heal(snapshot, user, codec)
        try:
            if run.hits is not None and run.hits.cases:
                self._tell(f"damaged chunks were moved aside and stored anew ({len(run.hits.cases)})")
            if has_unreported(self._repository):
                # Ours, and what a verify that was killed has left.
                settle(self._repository, self._clock, "backup")
            if run.parent.bad or (run.hits is not None and run.hits.cases):
                self._distrust()
            healed = note_healed(self._repository, self._clock, "backup")
            if healed:
                self._tell(f"damaged chunks have healed, their content is in the store again ({healed})")
            self._refresh_own_job(run.parent.bad)
        except (StorageFailed, HistoryBusy) as error:
            # The new revision is whole, and whoever verifies next completes this.
            self._tell(error.message)

    def _heal(self, snapshot: Snapshot, user: User, codec: Codec) -> None:
        directory, uuid = self._job.directory, self._revision.uuid
        try:
            if heal(self._repository, self._job, self._revision, snapshot, user, codec).left:
                damaged = damage.refresh(self._repository.chunks, directory, uuid).damaged
                if damaged:
                    raise RevisionDamaged(uuid, damaged)
        except RevisionGone:
            return
        except StorageFailed:
            damage.refresh(self._repository.chunks, directory, uuid)
            raise

    def _distrust(self) -> None:
        found = trust.distrust_store(
            self._repository.chunks, self._job.directory, besides=self._revision.uuid
        )
        if found:
            self._tell(f"revisions ({len(found)}) are distrusted until 'backy verify' has proven them")

    def _refresh_own_job(self, bad: list[str]) -> None:
        """What healed without a case, and whose map is `bad`."""
        found = histories.load(self._job.directory).revisions
        _refresh(
            self._repository, self._job, [one.uuid for one in found if one.damaged or one.uuid in bad]
        )


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

    def __init__(self, uuid: str | None, reader: MapReader | None, bad: list[str]) -> None:
        self.uuid = uuid
        self.bad = bad
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
                    # Verify reports it; here it means that we know nothing about these chunks.
                    self._pages[number] = None
                    self.bad.append(self.uuid or "")
            page = self._pages[number]
        if page is None or page.ident(slot) != ident:
            return None
        return self._reader.entry(page, slot)


@contextmanager
def _believed_parent(
    repository: Repository, job: Job, chunk_size: int, tell: Callable[[str], None]
) -> Iterator[_Parent]:
    """The parent; if a map is damaged, nothing of the job that is not verified is believed any more."""
    with _pinned_parent(job, histories.load(job.directory), chunk_size) as parent:
        if not parent.bad:
            yield parent
            return
    found = trust.distrust_store(repository.chunks, job.directory)
    tell(
        f"a chunk map is damaged, so revisions ({len(found)}) are distrusted until 'backy verify' has "
        "proven them"
    )
    _refresh(repository, job, parent.bad)
    with _pinned_parent(job, histories.load(job.directory), chunk_size) as parent:
        yield parent


def _refresh(repository: Repository, job: Job, uuids: Iterable[str]) -> None:
    for uuid in uuids:
        with suppress(RevisionGone, HistoryBusy):
            damage.refresh(repository.chunks, job.directory, uuid)


@contextmanager
def _pinned_parent(job: Job, history: History, chunk_size: int) -> Iterator[_Parent]:
    """The newest good revision whose map can be pinned; otherwise none."""
    bad: list[str] = []
    for revision in reversed(history.revisions):
        wanted = [one for one in revision.maps if one.disk == NO_DISK]
        if not revision.is_good or not wanted:
            continue
        try:
            reader = open_pinned(job.directory, revision.uuid, wanted[0])
        except RevisionGone:
            continue
        except MapDamaged:
            bad.append(revision.uuid)
            continue
        with reader:
            if reader.layout.chunk_size == chunk_size:
                yield _Parent(revision.uuid, reader, bad)
                return
    yield _Parent(None, None, bad)


class _Run:
    """What the threads of one backup share."""

    def __init__(
        self,
        snapshot: Snapshot,
        new_map: MapWriter,
        writer: ChunkWriter,
        parent: _Parent,
        codec: Codec,
        hits: Hits | None,
    ) -> None:
        self.hits = hits
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
        self._reader: ChunkReader | None = None

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
        ident = chunk_id(self._buffer.view[:length])
        known = run.parent.entry(index, ident)
        if known is not None and self._holds(known):
            return known
        entry = Entry(ident)
        while not run.writer.claim(entry):
            if self._holds(entry, pending=True):
                return entry
        if run.hits is not None:
            run.hits.note(ident)
        run.writer.store(entry, proven_frame(ident, self._buffer, length, self._encoder))
        return entry

    def _holds(self, entry: Entry, *, pending: bool = False) -> bool:
        """Whether a hit counts: always, unless the store is distrusted."""
        if self._run.hits is None:
            return True
        if self._reader is None:
            self._reader = self._run.hits.reader()
        return self._run.hits.holds(self._reader, entry, pending=pending)
