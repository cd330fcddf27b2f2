"""An RBD image on a real cluster, what was written to it, and its source.

    site = RbdSite(ceph); site.write(0, b"…"); base = site.kept(1); site.changes(2, base)

`content` is the model: what the image must hold.
"""

from contextlib import ExitStack

from backy.domain.config import SourceConfig
from backy.domain.rbd_settings import RbdSettings, parse_rbd_settings
from backy.ground.rbd import Pool
from backy.source.base import Base, Changes
from backy.source.rbd import RbdSource
from cephcluster import CephCluster
from cloning import revision

OBJECT = 4 << 20
SIZE = 4 * OBJECT


class RbdSite:
    """An image `vm` in a pool of its own. Ends with `close`."""

    def __init__(self, ceph: CephCluster, *, size: int = SIZE, pool: str | None = None) -> None:
        self.ceph = ceph
        self.name = "vm"
        self._stack = ExitStack()
        self.pool: Pool = self._stack.enter_context(ceph.pool(pool))
        self.pool.create(self.name, size)
        self.content = bytearray(size)
        self.settings = self.settings_of(image=self.name)
        self.source = RbdSource(self.settings)

    def settings_of(self, **changed: str | bool) -> RbdSettings:
        """The settings of the image's source, or of another one."""
        return parse_rbd_settings(self.config(**changed).settings)

    def config(self, **changed: str | bool) -> SourceConfig:
        """The same as a job's configuration has it."""
        settings: dict[str, str | int | bool] = {"pool": self.pool.name, "image": self.name}
        settings |= {"conf": str(self.ceph.conf), **changed}
        return SourceConfig("rbd", settings)

    def close(self) -> None:
        """Disconnect."""
        self._stack.close()

    def write(self, offset: int, content: bytes) -> None:
        """Change bytes inside the image."""
        with self.pool.image(self.name, read_only=False) as image:
            image.write(content, offset)
            image.flush()
        self.content[offset : offset + len(content)] = content

    def discard(self, offset: int, length: int) -> None:
        """Have a range read as zeros."""
        with self.pool.image(self.name, read_only=False) as image:
            image.discard(offset, length)
            image.flush()
        self.content[offset : offset + length] = bytes(length)

    def resize(self, size: int) -> None:
        """Make the image shorter or longer."""
        with self.pool.image(self.name, read_only=False) as image:
            image.resize(size)
        self.content = self.content[:size] + bytes(max(size - len(self.content), 0))

    def snapshots(self) -> list[str]:
        """Names of the image's snapshots."""
        with self.pool.image(self.name) as image:
            return [one.name for one in image.snapshots()]

    def kept(self, number: int) -> Base:
        """Make a snapshot that is kept; what its record would say."""
        with self.source.snapshot(revision(number)) as snapshot:
            snapshot.keep()
            return Base(revision(number), snapshot.identity)

    def changes(self, number: int, base: Base) -> Changes:
        """What has changed since, as a snapshot that is not kept says."""
        with self.source.snapshot(revision(number)) as snapshot:
            return snapshot.extents_since(base)

    def rbd(self, *words: str) -> bytes:
        """Run `rbd` on the cluster; its output."""
        return self.ceph.run("rbd", *words).stdout
