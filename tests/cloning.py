"""An image on a file system that makes clones, and what tests of its clones do with it.

site = ImageSite(folder); base = site.kept(1); site.write(0, b"…"); site.changes(2, base)
"""

import os
from pathlib import Path

from backy.domain.revision import SnapshotName
from backy.ground.linux import PAGE, Buffer
from backy.source.base import Base, Changes, Owner, Snapshot
from backy.source.file import Cloning, FileSource

OWNER = Owner("22222222-2222-4222-8222-222222222222", "vm01")
SIZE = 64 * PAGE


def revision(number: int) -> str:
    """The UUID of the revision of that number."""
    return f"{number:08x}-1111-4111-8111-111111111111"


class ImageSite:
    """A folder with an image of noise, and its source."""

    def __init__(self, folder: Path, *, size: int = SIZE, directory: Path | None = None) -> None:
        self.folder = folder
        self.path = folder / "image"
        self.path.write_bytes(os.urandom(size))
        self.directory = directory
        self.place = directory or folder
        self.source = FileSource(
            str(self.path), Cloning(OWNER, None if directory is None else str(directory))
        )

    def clone(self, number: int) -> Path:
        """Where the clone of a revision lies."""
        return self.place / f".backy-{OWNER.repository}-{OWNER.job}-{revision(number)}"

    def clones(self) -> list[Path]:
        """All clones that are there."""
        return sorted(self.place.glob(".backy-*"))

    def kept(self, number: int) -> Base:
        """Make a clone that is kept; what its record would say."""
        with self.source.snapshot(revision(number)) as snapshot:
            snapshot.keep()
            return Base(revision(number), snapshot.identity)

    def changes(self, number: int, base: Base) -> Changes:
        """What has changed since, as a clone that is not kept says."""
        with self.source.snapshot(revision(number)) as snapshot:
            return snapshot.extents_since(base)

    def write(self, offset: int, content: bytes) -> None:
        """Change the image."""
        fd = os.open(self.path, os.O_WRONLY)
        os.pwrite(fd, content, offset)
        os.close(fd)

    def prune(self, *numbers: int) -> set[str]:
        """Have the source remove the clones of revisions: those whose clones are gone."""
        names = [SnapshotName(revision(number)) for number in numbers]
        return {one.revision for one in self.source.prune(dict.fromkeys(names, str(self.place)))}


def whole(snapshot: Snapshot) -> bytes:
    """All bytes of a snapshot."""
    buffer = Buffer(snapshot.size)
    snapshot.read(buffer, 0, snapshot.size)
    return bytes(buffer.view[: snapshot.size])
