"""A store with every form of chunk, small enough that each of its bytes can be damaged.

    store = SmallStore(tmp_path)
    with damaged(store.files()[0]) as path: flip(path, 17)
        store.verified() == store.hurt_by(path)

Three revisions of one job: `first` (lz4, and raw where that is no gain), `second` (zstd; shares a
chunk with the first), `third` (a delta, whose base no map names as a chunk of its own, and a chunk
of the first).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backy.domain import chunk
from backy.domain.chunk import Encoder, parse_codec
from backy.domain.chunkmap import NO_DISK, Entry, Layout
from backy.domain.revision import MapDigest, Origin, Revision, SourceIdentity, Stats
from backy.ground.directory import Directory
from backy.ground.errors import BackyError
from backy.ground.linux import Buffer
from backy.operation.progress import NoProgress
from backy.operation.restore import BadRange, restore
from backy.operation.select import choose_one
from backy.operation.verify import Result, Selected, verify
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.chunks import ChunkWriter
from backy.repository.maps import MapWriter, open_pinned
from backy.repository.repository import Job, Repository
from backy.repository.users import registered
from backy.target.base import Target
from testsite import CHUNK, Site

EPOCH = datetime(2026, 11, 1, 3, 0, tzinfo=UTC)


class MemoryTarget:
    """A target in memory; see `backy.target.base.Target`."""

    in_order = True
    in_place = False
    taken_up = 0

    def __init__(self) -> None:
        self.path = "memory"
        self.content = bytearray()
        self.finished = False

    def begin(self, size: int, content: str = "") -> None:
        """See `Target.begin`."""
        self.content = bytearray(b"\xff" * size)

    def write(self, buffer: Buffer, offset: int, length: int) -> None:
        """See `Target.write`."""
        self.content[offset : offset + length] = buffer.view[:length]

    def zero(self, offset: int, length: int) -> None:
        """See `Target.zero`."""
        self.content[offset : offset + length] = bytes(length)

    def finish(self) -> None:
        """See `Target.finish`."""
        self.finished = True

    def read_back(self, buffer: Buffer, offset: int, length: int) -> int:
        """See `Target.read_back`."""
        part = bytes(self.content[offset : offset + length])
        buffer.fill(part)
        return len(part)

    def is_hole(self, offset: int, length: int) -> bool:
        """See `Target.is_hole`."""
        return False

    def close(self) -> None:
        """See `Target.close`."""


class SmallStore:
    """The store, what its images hold, and which revisions lean on which file."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.images: dict[str, bytes] = {}
        shared = b"shared ".ljust(CHUNK, b".")
        odd = bytes(range(100))
        self._back_up("lz4", 0, shared + b"one".ljust(CHUNK, b"1") + bytes(CHUNK) + odd)
        self._back_up("zstd:3", 1, shared + b"two".ljust(CHUNK, b"2") + bytes(CHUNK) + b"t" * 600)
        self._add_delta(2, base=b"base".ljust(CHUNK, b"b"), plain=b"base, changed".ljust(CHUNK, b"b"))
        self.uuids = tuple(self.images)
        self.leaning = {uuid: set(self._needs(uuid)) for uuid in self.uuids}

    def _back_up(self, codec: str, day: int, content: bytes) -> None:
        self.site.codec, self.site.clock = codec, StandingClock(EPOCH + timedelta(days=day))
        self.site.image.write_bytes(content)
        self.images[self.site.backup().uuid] = content

    def _add_delta(self, day: int, *, base: bytes, plain: bytes) -> None:
        """A revision as later versions write it: its first chunk as a delta."""
        shared = self.images[next(iter(self.images))][:CHUNK]
        revision = add_delta(self.site, EPOCH + timedelta(days=day), base=base, plain=plain, rest=shared)
        self.images[revision.uuid] = plain + shared

    def _needs(self, uuid: str) -> Iterator[Path]:
        """Every file without which the revision cannot be restored."""
        yield self.site.base / "chunks/format"
        yield self.site.job / f"{uuid}.rev"
        yield self.site.job / f"{uuid}.map"
        with Directory.open(str(self.site.job)) as job:
            found = next(one for one in histories.load(job).revisions if one.uuid == uuid)
            with open_pinned(job, uuid, found.maps[0]) as reader:
                for _, entry in reader.used():
                    yield self.site.chunks / layout.chunk_path(entry)
                    if entry.base is not None:
                        yield self.site.chunks / layout.chunk_path(Entry(entry.base))

    def files(self, *suffixes: str) -> list[Path]:
        """All files that some revision needs, or those of them with these suffixes."""
        every = sorted(set().union(*self.leaning.values()))
        return [path for path in every if not suffixes or path.suffix in suffixes]

    def chunk_files(self) -> list[Path]:
        """The files of all chunks and deltas."""
        return [path for path in self.files() if self.site.chunks == path.parent.parent]

    def hurt_by(self, path: Path) -> set[str]:
        """The revisions that need this file."""
        return {uuid for uuid in self.uuids if path in self.leaning[uuid]}

    def verify(self, *, quick: bool = False) -> Result:
        """Findings over the whole job; BackyError where it cannot run."""
        with Repository.open(str(self.site.base)) as repository, repository.job("vm") as job:
            history = histories.load(job.directory)
            selected = Selected(job.name, history, history.revisions)
            return verify(repository, [selected], NoProgress(), quick=quick)

    def verified(self, *, quick: bool = False) -> set[str]:
        """The revisions that verify names; all of them where it says that it cannot run."""
        try:
            return {finding.revision for finding in self.verify(quick=quick).findings}
        except BackyError:
            return set(self.uuids)

    def image_of(self, spec: str) -> bytes | None:
        """The bytes that a restore calls good; None where it ends with an error."""
        target = MemoryTarget()
        try:
            restore_to(self.site, spec, target)
        except BackyError:
            return bytes(target.content) if target.finished else None
        return bytes(target.content)

    def check(self, path: Path, *, quick: bool = False, all_images: bool = True) -> None:
        """A damaged `path` is found, hurts whom it must and nobody else, and no restore is wrong."""
        hurt = self.hurt_by(path)
        assert hurt == self.verified(quick=quick)
        for uuid in self.uuids if all_images else sorted(hurt):
            assert (None if uuid in hurt else self.images[uuid]) == self.image_of(uuid)
        if all_images or path.suffix == ".rev":
            # Nothing older may be passed off as the latest.
            assert self.image_of("latest") in (None, self.images[self.uuids[-1]])


def restore_to(
    site: Site, spec: str, target: Target, *, keep_going: bool = False, read_back: bool = False
) -> list[BadRange]:
    """Restore what a spec names, chosen as the command line chooses it."""
    with Repository.open(str(site.base)) as repository, repository.job("vm") as job:
        revision = choose_one(histories.load(job.directory), spec, "vm")
        return restore(
            repository,
            job,
            revision,
            target,
            NoProgress(),
            keep_going=keep_going,
            read_back=read_back,
        )


def images_of(base: Path, name: str) -> dict[str, bytes]:
    """The images of all revisions in a job's history by UUID; BackyError where one has no image."""
    with Repository.open(str(base)) as repository, repository.job(name) as job:
        revisions = histories.load(job.directory).revisions
        return {revision.uuid: image_of(repository, job, revision) for revision in revisions}


def image_of(repository: Repository, job: Job, revision: Revision) -> bytes:
    """The image of a revision, restored to memory; BackyError where it has none."""
    target = MemoryTarget()
    restore(repository, job, revision, target, NoProgress(), keep_going=False, read_back=False)
    return bytes(target.content)


class StandingClock:
    """A clock that stands still; see `backy.ground.clock.Clock`."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._now

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return 0.0


def add_chunks(site: Site, *stored: tuple[Entry, list[chunk.Buffer]]) -> None:
    """Store frames under the names of their entries, as a writer does."""
    with (
        Repository.open(str(site.base)) as repository,
        registered(repository.chunks, "vm", EPOCH) as user,
    ):
        writer = ChunkWriter(repository.chunks, user.temporary)
        for entry, frame in stored:
            if writer.claim(entry):
                writer.store(entry, frame)
        writer.finish()


def add_revision(site: Site, taken_at: datetime, image: Layout, entries: list[Entry]) -> Revision:
    """Commit a revision whose map has these entries."""
    uuid = f"00000000-0000-4000-8000-{taken_at:%Y%m%d%H%M}"
    with Directory.open(str(site.job)) as job:
        new_map = MapWriter(job, uuid, NO_DISK, image)
        for index, entry in enumerate(entries):
            new_map.expect(index)
            new_map.set(index, entry)
        revision = plain_revision(uuid, taken_at, new_map.seal())
        histories.commit(job, revision, [new_map])
        new_map.close()
    return revision


def plain_revision(uuid: str, taken_at: datetime, *maps: MapDigest) -> Revision:
    """A revision that says as little as it can."""
    return Revision(
        uuid=uuid,
        taken_at=taken_at,
        tags={"daily": Origin.SCHEDULE},
        maps=maps,
        source=SourceIdentity(type="file"),
        stats=Stats(),
    )


def add_delta(site: Site, taken_at: datetime, *, base: bytes, plain: bytes, rest: bytes) -> Revision:
    """A revision with the image `plain` + `rest`, whose first chunk is a delta against `base`."""
    encoder = Encoder(parse_codec("lz4"))
    base_id, plain_id, rest_id = (chunk.chunk_id(one) for one in (base, plain, rest))
    add_chunks(
        site,
        (Entry(base_id), chunk.encode_full(base_id, base, encoder)),
        (Entry(plain_id, base_id), chunk.encode_delta(plain_id, plain, base_id, base, 0, encoder)),
        (Entry(rest_id), chunk.encode_full(rest_id, rest, encoder)),
    )
    image = Layout(CHUNK, len(plain) + len(rest))
    return add_revision(site, taken_at, image, [Entry(plain_id, base_id), Entry(rest_id)])


@contextmanager
def damaged(*paths: Path) -> Iterator[None]:
    """Whatever happens to these files inside the block, they are as before afterwards."""
    before = [(path, path.read_bytes(), path.stat().st_mode & 0o7777) for path in paths]
    for path, _, mode in before:
        path.chmod(mode | 0o600)
    try:
        yield
    finally:
        for path, content, mode in before:
            remove(path)
            path.write_bytes(content)
            path.chmod(mode)


def remove(path: Path) -> None:
    """Remove whatever has this name, if anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flip(path: Path, position: int, bit: int) -> None:
    """Flip one bit of one byte in place; a second time takes it back."""
    fd = os.open(path, os.O_RDWR)
    try:
        found = os.pread(fd, 1, position)[0]
        os.pwrite(fd, bytes([found ^ 1 << bit]), position)
    finally:
        os.close(fd)
