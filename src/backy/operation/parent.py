"""The parent of a new map: the newest good revision whose map of that disk is sound, pinned meanwhile.

    with believed_parent(repository, job, disk, chunk_size, now, tell) as parent:
        parent.entry(index)

While the pin is held the chunks that its map names stay, also if the revision is forgotten.

Limits: one disk; another may have another parent. A page that proves to be damaged is a page of which
nothing is known.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import PAGE_ENTRIES, ZERO_ENTRY, Entry, Layout, Page
from backy.domain.revision import Disk, Revision
from backy.domain.sla import by_age
from backy.ground.errors import HistoryBusy, MapDamaged, RevisionGone
from backy.repository import damage, trust
from backy.repository import history as histories
from backy.repository.maps import MapReader, open_pinned
from backy.repository.repository import Job, Repository


class Parent:
    """The entries of a pinned map of a revision, or of none; remembers the pages around the last look.

    `bad` collects the UUIDs of revisions whose maps or chunks proved to be damaged.
    """

    def __init__(
        self, revision: Revision | None, reader: MapReader | None, bad: list[str], disk: str
    ) -> None:
        self.revision = revision
        self._disk = disk
        self.bad = bad
        self._reader = reader
        self._lock = threading.Lock()
        self._pages: dict[int, Page | MapDamaged | None] = {}

    @property
    def uuid(self) -> str | None:
        """Of the revision; None if there is none."""
        return None if self.revision is None else self.revision.uuid

    @property
    def disk(self) -> Disk | None:
        """What the revision says of the disk."""
        return None if self.revision is None else self.revision.disk(self._disk)

    @property
    def layout(self) -> Layout | None:
        """Of the image that it has; None if there is none."""
        return None if self._reader is None else self._reader.layout

    @property
    def bases(self) -> list[ChunkId]:
        """The base table that `page` refers to."""
        return [] if self._reader is None else self._reader.bases

    def page(self, number: int) -> Page | None:
        """A page of the map; None for one of zeros. MapDamaged, which verify reports, too."""
        with self._lock:
            return self._page(number)

    def entry(self, index: int) -> Entry | None:
        """The entry at `index`, of a zero chunk too; None where there is none, or nobody knows."""
        number, slot = divmod(index, PAGE_ENTRIES)
        if self._reader is None or index >= self._reader.layout.chunks:
            return None
        with self._lock:
            try:
                page = self._page(number)
            except MapDamaged:
                return None
        return ZERO_ENTRY if page is None else self._reader.entry(page, slot)

    def _page(self, number: int) -> Page | None:
        if self._reader is None:
            return None
        if number not in self._pages:
            self._pages = {n: page for n, page in self._pages.items() if n == number - 1}
            try:
                self._pages[number] = self._reader.page(number)
            except MapDamaged as error:
                self.note_bad()
                self._pages[number] = error
        page = self._pages[number]
        if isinstance(page, MapDamaged):
            raise page
        return page

    def note_bad(self) -> None:
        """Say that something of this revision proved to be damaged."""
        if self.revision is not None and self.revision.uuid not in self.bad:
            self.bad.append(self.revision.uuid)


@contextmanager
def believed_parent(
    repository: Repository,
    job: Job,
    disk: str,
    chunk_size: int,
    now: datetime,
    tell: Callable[[str], None],
    *,
    preferred: str | None = None,
) -> Iterator[Parent]:
    """The parent; if a map is damaged, nothing of the job that is not verified is believed any more.

    `preferred` is the UUID of one that the source can be compared with; a newer one is passed over.
    """
    with _pinned_parent(job, disk, chunk_size, now, preferred) as parent:
        if not parent.bad:
            yield parent
            return
    refresh(repository, job, parent.bad, failed=True)
    try:
        found = trust.distrust_store(repository.chunks, job.directory)
    except HistoryBusy as error:
        # The new revision leans on nothing that is damaged, and verify says of the others what is.
        tell(f"a chunk map is damaged; {error.message}")
    else:
        tell(
            f"a chunk map is damaged, so revisions ({len(found)}) are distrusted until 'backy verify' "
            "has proven them"
        )
    with _pinned_parent(job, disk, chunk_size, now, preferred) as parent:
        yield parent


def refresh(repository: Repository, job: Job, uuids: Iterable[str], *, failed: bool) -> None:
    """Have records say what is lost now; passes over those that are gone or held by others.

    `failed`: as of `damage.refresh`.
    """
    for uuid in uuids:
        with suppress(RevisionGone, HistoryBusy):
            damage.refresh(repository.chunks, job.directory, uuid, failed=failed)


@contextmanager
def _pinned_parent(
    job: Job, disk: str, chunk_size: int, now: datetime, preferred: str | None
) -> Iterator[Parent]:
    """The preferred or else the newest good revision whose map can be pinned; otherwise none.

    One that is dated in the future comes last: a clock was wrong, and it may be old.
    """
    bad: list[str] = []
    newest_first = by_age(histories.load(job.directory).revisions, now)[::-1]
    chosen = [one for one in newest_first if one.uuid == preferred]
    for revision in [*chosen, *newest_first]:
        wanted = [one for one in revision.maps if one.disk == disk]
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
                yield Parent(revision, reader, bad, disk)
                return
    yield Parent(None, None, bad, disk)
