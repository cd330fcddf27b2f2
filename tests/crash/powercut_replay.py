"""A recorded disk as a power cut leaves it, at any request and with what was not flushed lost in part.

    replay = Replay(start, log, "xfs", folder)
    for cut in sorted(cuts):                           forward only
        with replay.after(cut) as folder: …            mounted; what happens there is forgotten

A flush makes lasting what was written before it. Of what came after the last flush, a power cut keeps
all (the disk wrote it in time) or any part: with `Cut.seed` each request since then is kept or dropped
by that seed's dice.

Limits: requests are whole or not there, as file systems may expect of sectors, and of the larger blocks
of disks; each image is a copy in memory of what the disk holds.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from powercut_disk import attached, mounted_at
from powercut_log import Entry, Kind, read_log

_PIECE = 64 << 10
_KEEP_SIZE_AND_PUNCH = 1 | 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Cut(NamedTuple):
    """The power goes after so many requests; with a seed, a part of the unflushed ones is lost."""

    requests: int
    seed: int | None = None


class Replay:
    """The disk up to its last flush before a cut, in memory, and copies of it that are mounted."""

    def __init__(self, start: Path, log: Path, kind: str, folder: Path) -> None:
        self.entries = read_log(log)
        self._kind = kind
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        self._size = start.stat().st_size
        self._lasting = os.memfd_create("lasting")
        self._applied = 0
        os.ftruncate(self._lasting, self._size)
        self._load(start)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._log)
        os.close(self._lasting)

    @contextmanager
    def after(self, cut: Cut) -> Iterator[Path]:
        """The file system as it is mounted after this cut; cuts come in ascending order."""
        with (
            self.image(cut) as image,
            attached(image) as device,
            mounted_at(device, self._kind, self._folder),
        ):
            yield self._folder

    @contextmanager
    def image(self, cut: Cut) -> Iterator[int]:
        """A file in memory that holds what the disk holds after this cut; in the same order."""
        flushed = self._last_flush(cut.requests)
        assert flushed >= self._applied, "cuts must come in ascending order"
        for entry in self.entries[self._applied : flushed]:
            self._apply(entry, self._lasting)
        self._applied = flushed
        image = os.memfd_create("image")
        try:
            self._copy(image)
            dice = Random(cut.seed)
            for entry in self.entries[flushed : cut.requests]:
                if cut.seed is None or dice.random() < 0.5:
                    self._apply(entry, image)
            yield image
        finally:
            os.close(image)

    def position(self, requests: int) -> int:
        """The log's length after so many requests."""
        return self.entries[requests - 1].end if requests else 0

    def _last_flush(self, requests: int) -> int:
        while requests and self.entries[requests - 1].kind is not Kind.FLUSH:
            requests -= 1
        return requests

    def _apply(self, entry: Entry, image: int) -> None:
        if entry.kind is Kind.DISCARD:
            _libc.fallocate(image, _KEEP_SIZE_AND_PUNCH, entry.offset, entry.length)
        elif entry.kind is Kind.WRITE:
            done = 0
            while done < entry.length:
                length = min(entry.length - done, 1 << 20)
                content = os.pread(self._log, length, entry.end - entry.length + done)
                os.pwrite(image, content, entry.offset + done)
                done += length

    def _load(self, start: Path) -> None:
        """Without its zeros, which mkfs may have written: every image would copy them."""
        zeros = bytes(_PIECE)
        with start.open("rb") as file:
            for offset, length in _data(file.fileno(), self._size):
                for at in range(offset, offset + length, _PIECE):
                    piece = os.pread(file.fileno(), min(_PIECE, offset + length - at), at)
                    if piece != zeros[: len(piece)]:
                        os.pwrite(self._lasting, piece, at)

    def _copy(self, image: int) -> None:
        os.ftruncate(image, self._size)
        with mmap.mmap(self._lasting, self._size, prot=mmap.PROT_READ) as content:
            whole = memoryview(content)
            for offset, length in _data(self._lasting, self._size):
                os.pwrite(image, whole[offset : offset + length], offset)
            whole.release()


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts of a file that are no holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        yield at, end - at
        at = end
