"""No change is ever missed: random writes of every kind to images on XFS and btrfs, clone after clone.

Each round changes the image in some of the ways in which machines and administrators do, clones it,
and compares both clones' bytes, block by block, with the extents that the new one tells. Only the last
clone is there, as after real backups, so the file system is free to use older blocks again.

The volume that would be read is printed: what lies in the extents, against what has really changed.
"""

import fcntl
import mmap
import os
import random
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from loopdisk import Disk

from backy.ground import linux
from backy.ground.linux import PAGE
from backy.ground.units import format_size
from backy.source.base import Base, Changes, Confidence
from cloning import ImageSite, revision

pytestmark = pytest.mark.proof("T16")

SIZE = 8 << 20
BLOCKS = SIZE // PAGE

# linux/fs.h, linux/falloc.h
_FICLONERANGE = 0x4020940D
_KEEP, _PUNCH, _COLLAPSE, _ZERO, _INSERT = 1, 2, 8, 16, 32


class Writer:
    """Changes an image at random."""

    def __init__(self, path: Path, seed: int, *, dull: bool) -> None:
        self._dull = dull
        self._fd = os.open(path, os.O_RDWR)
        self._direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.draw = random.Random(seed)

    def close(self) -> None:
        """Close the image."""
        os.close(self._fd)
        os.close(self._direct)

    def change(self) -> None:
        """Change something, and bring it to the disk or not."""
        ways: list[Callable[[], None]] = [
            self._block,
            self._block,
            self._large,
            self._unaligned,
            self._past_the_cache,
            self._through_memory,
            self._punch,
            self._zero_range,
            self._preallocate,
            self._cut_and_grow,
            self._clone_range,
            self._same_again,
            self._zeros,
            self._collapse_and_insert,
        ]
        self.draw.choice(ways)()
        if self.draw.random() < 0.3:
            os.fsync(self._fd)

    def _noise(self, length: int) -> bytes:
        """Bytes that are not there yet, and compress well in a dull image."""
        if not self._dull:
            return self.draw.randbytes(length)
        return (self.draw.randbytes(32) * (length // 32 + 1))[:length]

    def _range(self, most: int = 64) -> tuple[int, int]:
        """Offset and length of some blocks."""
        first = self.draw.randrange(BLOCKS)
        return first * PAGE, min(self.draw.randint(1, most), BLOCKS - first) * PAGE

    def _block(self) -> None:
        for _ in range(self.draw.randint(1, 20)):
            os.pwrite(self._fd, self._noise(PAGE), self._range()[0])

    def _large(self) -> None:
        offset, length = self._range(300)
        os.pwrite(self._fd, self._noise(length), offset)

    def _unaligned(self) -> None:
        offset = self.draw.randrange(SIZE - 1)
        os.pwrite(self._fd, self._noise(min(self.draw.randint(1, 9000), SIZE - offset)), offset)

    def _past_the_cache(self) -> None:
        offset, length = self._range()
        buffer = linux.Buffer(length)
        buffer.fill(self._noise(length))
        os.pwritev(self._direct, [buffer.view[:length]], offset)

    def _through_memory(self) -> None:
        offset = self.draw.randrange(SIZE - 100)
        with mmap.mmap(self._fd, SIZE) as memory:
            memory[offset : offset + 100] = self._noise(100)

    def _punch(self) -> None:
        self._fallocate(_PUNCH | _KEEP, *self._range())

    def _zero_range(self) -> None:
        self._fallocate(_ZERO | self.draw.choice([0, _KEEP]), *self._range())

    def _preallocate(self) -> None:
        self._fallocate(0, *self._range())

    def _collapse_and_insert(self) -> None:
        offset, length = self._range(16)
        if offset + length < SIZE:
            self._fallocate(_COLLAPSE, offset, length)
            self._fallocate(_INSERT, self.draw.randrange(BLOCKS - 32) * PAGE, length)
            os.ftruncate(self._fd, SIZE)

    def _cut_and_grow(self) -> None:
        os.ftruncate(self._fd, SIZE - self._range()[1] + self.draw.choice([0, 1, 511]))
        os.ftruncate(self._fd, SIZE)

    def _clone_range(self) -> None:
        (source, length), (target, space) = self._range(), self._range()
        length = min(length, space)
        if abs(source - target) >= length:
            what = struct.pack("=qQQQ", self._fd, source, length, target)
            fcntl.ioctl(self._fd, _FICLONERANGE, what)

    def _same_again(self) -> None:
        offset, length = self._range()
        os.pwrite(self._fd, os.pread(self._fd, length, offset), offset)

    def _zeros(self) -> None:
        offset, length = self._range()
        os.pwrite(self._fd, bytes(length), offset)

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        # Where a file system does not know a mode, nothing has changed.
        linux._libc.fallocate(self._fd, mode, offset, length)


def different_blocks(old: bytes, new: bytes) -> set[int]:
    """Numbers of the blocks that differ."""
    return {n for n in range(BLOCKS) if old[n * PAGE : (n + 1) * PAGE] != new[n * PAGE : (n + 1) * PAGE]}


def blocks_in(changes: Changes) -> set[int]:
    """Numbers of the blocks that any extent touches."""
    return {
        n
        for one in changes.extents
        for n in range(one.offset // PAGE, -(-(one.offset + one.length) // PAGE))
    }


def run_rounds(folder: Path, rounds: int, seed: int, *, dull: bool) -> tuple[int, int]:
    """Rounds of changes: blocks that changed, and blocks that would be read. None may be missed."""
    # btrfs stops compressing a file that once held noise.
    site = ImageSite(folder, size=1 if dull else SIZE)
    os.truncate(site.path, SIZE)
    with closing(Writer(site.path, seed, dull=dull)) as writer:
        return _run_rounds(site, writer, rounds)


def _run_rounds(site: ImageSite, writer: Writer, rounds: int) -> tuple[int, int]:
    base: Base = site.kept(0)
    old = site.clone(0).read_bytes()
    changed = told = 0
    for number in range(1, rounds + 1):
        for _ in range(writer.draw.randint(0, 5)):
            writer.change()
        with site.source.snapshot(revision(number)) as snapshot:
            changes = snapshot.extents_since(base)
            snapshot.keep()
        new = site.clone(number).read_bytes()
        differing, found = different_blocks(old, new), blocks_in(changes)

        assert Confidence.HINT is changes.confidence
        assert set() == differing - found, number
        changed += len(differing)
        told += len(found)
        site.prune(number - 1)
        base, old = Base(revision(number), snapshot.identity), new
    return changed, told


def plain(folder: Path) -> None:
    """Nothing special."""


def no_copy_on_write(folder: Path) -> None:
    """As many have it for images on btrfs."""
    subprocess.run(["chattr", "+C", str(folder)], check=True)


def compressed(folder: Path) -> None:
    """Maps of compressed data tell nothing; everything is read."""
    subprocess.run(["chattr", "+c", str(folder)], check=True)


@contextmanager
def moving_blocks(folder: Path, kind: str) -> Iterator[None]:
    """The file system moves the image's blocks all along: balanced, or defragmented."""
    words = {
        "btrfs": ["btrfs", "balance", "start", "--full-balance", str(folder.parent)],
        "xfs": ["xfs_fsr", str(folder / "image")],
    }[kind]
    stopped = threading.Event()

    def move() -> None:
        while not stopped.wait(0.05):
            subprocess.run(words, check=False, capture_output=True)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


LONG = pytest.mark.torture(weight=0.25, whole=True)


@pytest.mark.root
@pytest.mark.parametrize(
    ("kind", "prepare", "rounds", "moving"),
    [
        ("xfs", plain, 40, False),
        ("btrfs", plain, 30, False),
        ("btrfs", no_copy_on_write, 20, False),
        ("btrfs", compressed, 10, False),
        pytest.param("xfs", plain, 400, False, marks=LONG),
        pytest.param("xfs", plain, 150, True, marks=LONG),
        pytest.param("btrfs", plain, 400, False, marks=LONG),
        pytest.param("btrfs", plain, 150, True, marks=LONG),
        pytest.param("btrfs", no_copy_on_write, 300, False, marks=LONG),
        pytest.param("btrfs", compressed, 100, False, marks=LONG),
    ],
)
def test_every_changed_block_lies_in_an_extent(
    file_systems: Callable[[str], Disk],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    prepare: Callable[[Path], None],
    rounds: int,
    moving: bool,
) -> None:
    """Whatever was written, however: what is outside the extents has the same bytes in both clones."""
    folder = file_systems(kind).folder / tmp_path.name
    folder.mkdir()
    prepare(folder)
    with moving_blocks(folder, kind) if moving else nullcontext():
        changed, told = run_rounds(folder, rounds, rounds, dull=prepare is compressed)
    shutil.rmtree(folder)
    with capsys.disabled():
        print(  # noqa: T201 - a figure for those who watch
            f"\n  {kind}, {prepare.__name__.replace('_', ' ')}{', moving' if moving else ''}, "
            f"{rounds} rounds: none missed, {format_size(changed * PAGE)} changed, "
            f"{format_size(told * PAGE)} to be read"
        )

    assert changed > rounds
    if prepare is compressed:  # or else it was not
        assert told > 1.25 * changed
