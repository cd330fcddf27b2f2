"""An RBD image on a real cluster, what was written to it, and its source.

    site = RbdSite(ceph); site.write(0, b"…"); base = site.kept(1); site.changes(2, base)

`content` is the model: what the image must hold.
"""

import struct
from collections.abc import Collection, Sequence
from contextlib import ExitStack

from backy.domain.config import SourceConfig
from backy.domain.rbd_settings import RbdSettings, parse_rbd_settings
from backy.domain.revision import SnapshotName
from backy.ground.linux import PAGE
from backy.ground.rbd import Pool
from backy.source.base import Base, Changes
from backy.source.rbd import RbdSource
from cephcluster import CephCluster
from cloning import revision

OBJECT = 4 << 20
SIZE = 4 * OBJECT


class RbdSite:
    """An image of its own. Ends with `close`."""

    def __init__(
        self,
        ceph: CephCluster,
        *,
        size: int = SIZE,
        pool: str | None = None,
        namespace: str = "",
        create: Sequence[str] = (),
        parent: "RbdSite | None" = None,
    ) -> None:
        self.ceph = ceph
        self.name = ceph.new_image()
        self.namespace = namespace
        self._stack = ExitStack()
        pool = pool or (ceph.shared_pool if not namespace else ceph.new_pool())
        if namespace:
            ceph.run("rbd", "namespace", "create", f"{pool}/{namespace}")
        self.pool: Pool = self._stack.enter_context(ceph.pool(pool, namespace))
        if parent is not None:
            self.rbd("clone", f"{parent.pool.spec(parent.name)}@golden", self.pool.spec(self.name))
            size = len(parent.content)
        elif create:
            self.rbd("create", "--size", f"{size}B", *create, self.pool.spec(self.name))
        else:
            self.pool.create(self.name, size)
        self.content: bytearray = bytearray(size) if parent is None else bytearray(parent.content)
        self.settings = self.settings_of()
        self.source = RbdSource(self.settings)

    def settings_of(self, **changed: str | bool) -> RbdSettings:
        """The settings of the image's source, or of another one."""
        return parse_rbd_settings(self.config(**changed).settings)

    def config(self, **changed: str | bool) -> SourceConfig:
        """The same as a job's configuration has it."""
        settings: dict[str, str | int | bool] = {"pool": self.pool.name, "image": self.name}
        if self.namespace:
            settings["namespace"] = self.namespace
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

    def write_sparsely(self, content: bytes) -> None:
        """Write those pages of a whole image that are not zero."""
        with self.pool.image(self.name, read_only=False) as image:
            for at in range(0, len(content), PAGE):
                if any(content[at : at + PAGE]):
                    image.write(content[at : at + PAGE], at)
            image.flush()
        self.content[:] = content

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

    def prune(self, *numbers: int) -> Collection[SnapshotName]:
        """Have the source remove the snapshots of revisions."""
        names = [SnapshotName(revision(number)) for number in numbers]
        return self.source.prune(dict.fromkeys(names, self.source.place))

    def mark_map_invalid(self, snapshot: int | None = None) -> None:
        """Set the flag that librbd sets when it could not update the object map (src/cls/rbd)."""
        ident, invalid, head = self._ident(), 1, (1 << 64) - 2
        what = struct.pack("<QQQ", invalid, invalid, head if snapshot is None else snapshot)
        self.pool.raw.execute(f"rbd_header.{ident}", "rbd", "set_flags", what)

    def _ident(self) -> str:
        with self.pool.image(self.name) as image:
            return image.ident

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
