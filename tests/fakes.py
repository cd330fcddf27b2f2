"""Stand-ins for what the world gives backy: an image source, a revision, a disk that fails, a device.

    source = FakeSource(b"content"); with source.live() as snapshot: …
    failpoint.install(Steps(fail_at="sync ", code=errno.EIO))

`FakeSource` passes the contract that real sources pass (tests/contract/test_sources.py), so a test
above may use it in their place.

Limits: `loop_device` needs root.
"""

import errno
import fcntl
import os
import resource
import struct
import subprocess
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import Entry
from backy.domain.extents import Extent, in_blocks
from backy.domain.revision import (
    Consistency,
    Kept,
    MapDigest,
    Origin,
    Revision,
    SnapshotName,
    SourceIdentity,
    Stats,
    Trust,
)
from backy.ground.directory import Directory
from backy.ground.errors import SourceFailed
from backy.ground.linux import PAGE, Buffer
from backy.repository import layout
from backy.source.base import Base, Changes, Confidence
from strategies import EPOCH

_BLKROSET = 0x125D


class FakeSource:
    """A source in memory; `write` changes it, as a running machine changes its image.

    Reads that touch a byte of `bad` fail like a disk with bad sectors. With `frozen` it makes snapshots,
    keeps them, and tells to the block what has changed since one, but nothing of those in `hidden`.
    Several that share a `shelf` keep theirs there, each at its place, and remove each other's.
    """

    def __init__(
        self,
        content: bytes,
        *,
        bad: range = range(0),
        frozen: bool = False,
        place: str = "memory",
        shelf: dict[str, dict[str, bytes]] | None = None,
    ) -> None:
        self.content = bytearray(content)
        self.bad = bad
        self.writes = 0
        self.frozen = frozen
        self.hidden: set[int] = set()
        self._place = place
        self._shelf = {} if shelf is None else shelf
        self.kept = self._shelf.setdefault(place, {})
        self.bytes_read = 0
        self._lock = threading.Lock()

    def write(self, offset: int, content: bytes) -> None:
        """Change bytes inside the image."""
        self.content[offset : offset + len(content)] = content
        self.writes += 1

    def count(self, length: int) -> None:
        """Note that so many bytes were read."""
        with self._lock:
            self.bytes_read += length

    @property
    def place(self) -> str:
        """See `Source.place`."""
        return self._place if self.frozen else ""

    @property
    def image(self) -> str:
        """See `Source.image`."""
        return "fake"

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> Collection[SnapshotName]:
        """See `Source.prune`."""
        gone = [name for name, place in snapshots.items() if place in self._shelf]
        for name in gone:
            self._shelf[snapshots[name]].pop(name.revision, None)
        return gone

    @contextmanager
    def live(self) -> Iterator["FakeSnapshot"]:
        """See `Source.live`."""
        yield FakeSnapshot(self, None)

    @contextmanager
    def snapshot(self, revision: str) -> Iterator["FakeSnapshot"]:
        """See `Source.snapshot`."""
        yield FakeSnapshot(self, revision if self.frozen else None)


class FakeSnapshot:
    """See `Snapshot`; without a revision it reads the source itself, and tells if that changes."""

    def __init__(self, source: FakeSource, revision: str | None) -> None:
        self._source = source
        self._writes = source.writes
        self._revision = revision
        self._content = bytes(source.content) if revision is not None else None
        self.size = len(source.content)
        self.data_size = sum(extent.length for extent in self.extents())
        kept = None
        if revision is not None:
            kept = Kept(path=revision, inode=1, changed_ns=source.writes, size=self.size)
        self.identity = SourceIdentity(type="fake", size=self.size, kept=kept)
        self.seconds = 0.0
        self.warnings: Sequence[str] = ()
        self.remark = ""
        self.is_bound = revision is None

    @property
    def content(self) -> bytes | bytearray:
        """What it shows."""
        return self._source.content if self._content is None else self._content

    def extents(self) -> Iterator[Extent]:
        """See `Snapshot.extents`: runs of pages that hold anything but zeros."""
        used = (at for at in range(0, self.size, PAGE) if any(self.content[at : at + PAGE]))
        yield from in_blocks((Extent(at, 1) for at in used), PAGE, self.size)

    def extents_since(self, base: Base) -> Changes:
        """See `Snapshot.extents_since`."""
        before = self._source.kept.get(base.revision)
        if before is None:
            return Changes(Confidence.NONE, why="the fake has kept nothing of that revision")
        changed = [
            Extent(at, 1)
            for at in range(0, self.size, PAGE)
            if before[at : at + PAGE] != self.content[at : at + PAGE]
            and at // PAGE not in self._source.hidden
        ]
        return Changes(Confidence.HINT, list(in_blocks(changed, PAGE, self.size)))

    def keep(self) -> None:
        """See `Snapshot.keep`."""
        if self._revision is not None and self._content is not None:
            self._source.kept[self._revision] = self._content

    def read(self, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        """See `Snapshot.read`."""
        bad = self._source.bad
        if bad and offset < bad.stop and bad.start < offset + length:
            raise SourceFailed("fake", offset, os.strerror(errno.EIO))
        content = bytes(self.content[offset : offset + length])
        if len(content) < length:
            raise SourceFailed("fake", offset, "it became shorter while it was read")
        self._source.count(length)
        buffer.fill(content, start)

    def consistency(self) -> Consistency:
        """See `Snapshot.consistency`."""
        same = self._content is not None or self._source.writes == self._writes
        return Consistency.CONSISTENT if same else Consistency.TORN


def fake_revision(number: int, *tags: str, trust: Trust = Trust.TRUSTED) -> Revision:
    """The revision of day `number` since 2024-01-01, 00:00 UTC, under a UUID that ends in it."""
    return Revision(
        uuid=f"{number:08x}-0000-4000-8000-{number:012x}",
        taken_at=EPOCH + timedelta(days=number),
        tags=dict.fromkeys(tags, Origin.SCHEDULE),
        trust=trust,
        maps=(MapDigest(disk="", size=160, root="00" * 32, image_size=0),),
        source=SourceIdentity(type="file"),
        stats=Stats(),
    )


class Steps:
    """A failpoint hook that notes every step, and fails at those that begin with `fail_at`."""

    def __init__(self, fail_at: str | None = None, code: int = errno.EIO) -> None:
        self.seen: list[str] = []
        self._fail_at = fail_at
        self._code = code

    def __call__(self, step: str) -> None:
        self.seen.append(step)
        if self._fail_at is not None and step.startswith(self._fail_at):
            raise OSError(self._code, os.strerror(self._code))

    def verbs(self) -> list[str]:
        """The first word of every step."""
        return [step.split()[0] for step in self.seen]


class FailAt:
    """A failpoint hook that fails once, at the N-th step (from 1); `step` is which one that was."""

    def __init__(self, number: int, code: int = errno.EIO) -> None:
        self._left = number
        self._code = code
        self.step: str | None = None

    def __call__(self, step: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.step = step
            raise OSError(self._code, os.strerror(self._code))


class FakeStore:
    """A chunk store without a repository around it, with the folder of one user.

    With `idents`, it has the folders of these chunks only, which is faster than all of them.
    """

    def __init__(self, path: Path, idents: Iterable[ChunkId] = ()) -> None:
        self.path = path
        folders = {ident.hex()[:2] for ident in idents} or layout.FANOUT
        for name in (*folders, "tmp/user", layout.USERS, layout.TRASH, layout.QUARANTINE):
            (path / name).mkdir(parents=True)
        self.chunks = Directory.open(str(path))
        self.temporary = Directory.open(str(path / "tmp/user"))

    def file(self, entry: Entry, where: str = "") -> Path:
        """Path of a chunk's file in the store, or in a folder below it such as `trash/gen`."""
        path = self.path / (f"{where}/{layout.chunk_name(entry)}" if where else layout.chunk_path(entry))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def names(self) -> set[str]:
        """Names of all chunks in the store proper."""
        return {file.name for file in self.path.glob("[0-9a-f][0-9a-f]/*")}

    def close(self) -> None:
        """Close the directories."""
        self.chunks.close()
        self.temporary.close()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing more can be opened in this process, as in one that has reached its limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@contextmanager
def loop_device(
    backing: Path, *, sector: int = 512, read_only: bool = False, direct: bool = False
) -> Iterator[str]:
    """A block device whose bytes are those of a file; detached again whatever happens.

    `direct`: not by way of the page cache of that file.
    """
    command = ["losetup", "--find", "--show", "--sector-size", str(sector)]
    command += ["--direct-io=on", str(backing)] if direct else [str(backing)]
    try:
        done = _until_attached(command)
    except FileNotFoundError:
        pytest.skip("losetup is not installed")
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        _set_read_only(device, read_only)
        yield device
    finally:
        _set_read_only(device, False)  # it would stay so for the next file on this device
        subprocess.run(["losetup", "--detach", device], check=True)


def _set_read_only(device: str, read_only: bool) -> None:
    fd = os.open(device, os.O_RDONLY)
    fcntl.ioctl(fd, _BLKROSET, struct.pack("i", read_only))
    os.close(fd)


def _until_attached(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Someone else may take the free device that was found: try the next one, a few times."""
    for _ in range(5):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0 or "busy" not in done.stderr.lower():
            break
    return done
