"""Source `rbd`: an image in Ceph, read from a snapshot that is made for the backup.

    source = RbdSource(RbdSettings("rbd", "vm01"))
    with source.snapshot(uuid) as snapshot: …

The snapshot of the newest revision is kept on the image, and the next backup asks Ceph what has changed
since it (`rbd_changes`). A client that has the image open makes the snapshot on our behalf, between two
of its writes, so a backup never waits for a lock and never takes one from a running machine.

A snapshot is one instant, whatever happens to the image. What does hurt is its removal while it is read,
since its objects may read as zeros then: before the revision is committed, it has to be there still.

Limits: reads are those of librbd: of clones, what the parent has is read through; of encrypted images,
the bytes as they are stored. Nothing is made without the image's header being written, so the user
needs `profile rbd` on the pool (and on the pools of parents, at least `profile rbd-read-only`).
"""

import errno
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cached_property

from backy.domain.extents import Extent
from backy.domain.rbd_settings import RbdSettings
from backy.domain.revision import Consistency, Kept, SnapshotName, SourceIdentity, View
from backy.ground import failpoint
from backy.ground.ceph import Access, CephFailed, connected
from backy.ground.errors import SourceFailed, SourceRefused
from backy.ground.linux import Buffer
from backy.ground.manyreads import Part
from backy.ground.rbd import Image, Pool, Snap, open_pool
from backy.source import rbd_changes
from backy.source.base import Base, Changes, Confidence, Snapshot
from backy.source.rbd_snapshots import Place, find, names, remove, remove_snapshots


class RbdSource:
    """An image, by its settings. Each use connects anew, since days may pass between two."""

    def __init__(self, settings: RbdSettings) -> None:
        self._settings = settings
        self._access = Access(settings.conf, settings.user, settings.cluster)
        self._name: str | None = None
        self._is_there = False

    @property
    def image(self) -> str:
        """POOL/IMAGE or POOL/NAMESPACE/IMAGE."""
        return self._settings.spec

    @cached_property
    def place(self) -> str:
        """See `Source.place`: asked of the cluster, once; the name has to mean that image ever after."""
        with self._refusing(), self._opened() as pool, pool.image(self._settings.image) as image:
            return str(_place(pool, image))

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> Collection[SnapshotName]:
        """See `Source.prune`."""
        return remove_snapshots(self._access, snapshots)

    @contextmanager
    def live(self) -> Iterator[Snapshot]:
        """See `Source.live`."""
        with ExitStack() as stack:
            with self._refusing():
                pool = stack.enter_context(self._opened())
                image = stack.enter_context(pool.image(self._settings.image))
                view = LiveImage(pool, image)
            yield view

    @contextmanager
    def snapshot(self, revision: str) -> Iterator[Snapshot]:
        """See `Source.snapshot`."""
        name, is_there = self._name or names(revision)[0], self._is_there
        self._name, self._is_there = None, False
        with ExitStack() as stack:
            with self._refusing():
                pool = stack.enter_context(self._opened())
                image = self._image(pool, read_only=False)
                taken = stack.enter_context(_taken(pool, image, name, is_there=is_there))
                opening = pool.image_of(taken.image, name, name=self._settings.image)
                snapshot = RbdSnapshot(pool, stack.enter_context(opening), self._settings, taken)
            yield snapshot

    def has_snapshot(self, name: str) -> bool:
        """Whether the image has a snapshot of that name now, which somebody else was asked to make."""
        with self._refusing(), self._opened() as pool, self._image(pool) as image:
            return find(image, [name]) is not None

    def settle(self, name: str, *, is_there: bool = False) -> None:
        """What the next `snapshot` is called; one that is there is taken, `is_there` or else none."""
        self._name, self._is_there = name, is_there

    @contextmanager
    def _image(self, pool: Pool, *, read_only: bool = True) -> Iterator[Image]:
        """The image; CephFailed where its name has come to another one since its place was told."""
        place = self.place
        with pool.image(self._settings.image, read_only=read_only) as image:
            if str(_place(pool, image)) != place:
                raise CephFailed(errno.ENOENT, f"{image.spec} is another image than a moment ago")
            yield image

    @contextmanager
    def _opened(self) -> Iterator[Pool]:
        pool, namespace = self._settings.pool, self._settings.namespace
        with connected(self._access) as cluster, open_pool(cluster, pool, namespace) as opened:
            yield opened

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """CephFailed is SourceRefused; nothing has been read so far."""
        try:
            yield
        except CephFailed as error:
            raise SourceRefused(self.image, error.why) from error


def _place(pool: Pool, image: Image) -> Place:
    return Place(pool.cluster.fsid, pool.ident, pool.namespace, image.ident)


class _Taken:
    """A snapshot that has been made, or found, of the image with an id; and in how many seconds.

    `older`: how many older ones there were. `stays`: it is not removed at the end.
    """

    def __init__(self, image: str, snap: Snap, older: int, seconds: float) -> None:
        self.image = image
        self.snap = snap
        self.older = older
        self.seconds = seconds
        self.stays = False


@contextmanager
def _taken(
    pool: Pool, opening: AbstractContextManager[Image], snapshot: str, *, is_there: bool
) -> Iterator[_Taken]:
    """Make a snapshot, if it is not there; CephFailed, and then it may be there all the same.

    `is_there`: it was made by somebody else, and one that we make would not be the same.
    """
    with opening as image:
        failpoint.reached(f"snapshot {image.spec}@{snapshot}")
        before = image.snapshots(of_all=True)
        begin = time.monotonic()
        if find(image, [snapshot]) is None:
            if is_there:
                why = f"snapshot {snapshot} that the VM's host has made is gone"
                raise CephFailed(errno.ENOENT, why)
            image.create_snapshot(snapshot)
        seconds = time.monotonic() - begin
        found = [one for one in image.snapshots() if one.name == snapshot]
        if not found:
            raise CephFailed(errno.ENOENT, f"snapshot {snapshot} was removed at once by somebody")
        # Also those that came, or went, while it was made.
        others = {one.ident for one in (*before, *image.snapshots(of_all=True))}
        older = sum(ident < found[0].ident for ident in others)
        taken = _Taken(image.ident, found[0], older, seconds)
    try:
        yield taken
    finally:
        # What Ceph does not let us remove now, or not in time, is removed by a later run.
        if not taken.stays and not pool.cluster.is_out:
            with suppress(CephFailed), pool.image_of(taken.image, read_only=False) as image:
                remove(image, snapshot)


class _View:
    """An open image: what is there, and its bytes."""

    def __init__(self, pool: Pool, image: Image) -> None:
        self._pool = pool
        self._image = image
        self.size = image.size
        self.data_size = sum(one.length for one in rbd_changes.existing(image, self.size))
        self.seconds = 0.0
        self.warnings: list[str] = []
        self.remark = ""
        self.is_bound = False

    def extents(self) -> Iterator[Extent]:
        """See `Snapshot.extents`: objects as a whole."""
        try:
            yield from rbd_changes.existing(self._image, self.size)
        except CephFailed as error:
            raise SourceFailed(self._image.spec, 0, error.why) from error

    def read(self, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        """See `Snapshot.read`."""
        if offset + length > self.size:
            raise SourceFailed(self._image.spec, self.size, "the image ends there")
        try:
            self._image.read(buffer, offset, length, start)
        except CephFailed as error:
            raise SourceFailed(self._image.spec, offset, error.why) from error

    def read_parts(self, buffer: Buffer, parts: Sequence[Part]) -> None:
        """See `Bulk.read_parts`."""
        try:
            self._image.read_parts(buffer, parts)
        except CephFailed as error:
            raise SourceFailed(self._image.spec, parts[0].offset, error.why) from error

    def coarse_extents(self, step: int) -> Iterator[Extent]:
        """See `Bulk.coarse_extents`: objects are coarse already."""
        return self.extents()

    def identity_of(self, spec: str, view: View, kept: Kept | None = None) -> SourceIdentity:
        """What the record says of the image."""
        place = _place(self._pool, self._image)
        return SourceIdentity(
            type="rbd",
            path=spec,
            size=self.size,
            view=view,
            kept=kept,
            cluster=place.cluster,
            pool=place.pool,
            image=place.image,
        )


class LiveImage(_View):
    """The image itself, which may change while it is read."""

    def __init__(self, pool: Pool, image: Image) -> None:
        super().__init__(pool, image)
        self.identity = self.identity_of(image.spec, View.IN_PLACE)

    def extents_since(self, base: Base) -> Changes:
        """See `Snapshot.extents_since`."""
        return Changes(Confidence.NONE, why="the image is read in place")

    def consistency(self) -> Consistency:
        """See `Snapshot.consistency`: nobody can tell."""
        return Consistency.TORN

    def keep(self) -> None:
        """See `Snapshot.keep`."""


class RbdSnapshot(_View):
    """A snapshot that is open for reading."""

    def __init__(self, pool: Pool, image: Image, settings: RbdSettings, taken: _Taken) -> None:
        super().__init__(pool, image)
        self._settings = settings
        self._taken = taken
        self.seconds = taken.seconds
        snap = taken.snap
        kept = Kept(path=image.spec, number=snap.ident, older=taken.older, size=snap.size)
        self.identity = self.identity_of(
            settings.spec, View.SNAPSHOT, None if settings.full_always else kept
        )

    def extents_since(self, base: Base) -> Changes:
        """See `Snapshot.extents_since`."""
        if self._settings.full_always:
            return Changes(Confidence.NONE, why="full-always is set")
        try:
            return rbd_changes.since(self._pool, self._image, self.identity, base)
        except CephFailed as error:
            return Changes(Confidence.NONE, why=f"Ceph does not tell what has changed ({error.why})")

    def consistency(self) -> Consistency:
        """See `Snapshot.consistency`: one instant, if it is still there; otherwise SourceRefused."""
        try:
            with self._pool.image_of(self._image.ident, name=self._image.name) as image:
                is_there = self._taken.snap in image.snapshots()
        except CephFailed as error:
            raise SourceRefused(self._image.spec, error.why) from error
        if not is_there:
            why = "the snapshot was removed while it was read, so no revision was made"
            raise SourceRefused(self._image.spec, why)
        return Consistency.CONSISTENT

    def keep(self) -> None:
        """See `Snapshot.keep`."""
        self._taken.stays = True
