"""RBD: pools and the images in them: bytes, extents, snapshots, and who else uses them.

    with open_pool(cluster, "rbd") as pool, pool.image("vm01") as image:
        image.pieces(0, image.size, whole_objects=True)
        image.read(buffer, 0, 4096)

Offsets and lengths are bytes. All errors are `CephFailed`. Every call has a limit (`Cluster.call`).

Limits: what changes an image needs one that was opened for writing.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from backy.ground.ceph import CephFailed, Cluster, Meanings, modules
from backy.ground.linux import Buffer
from backy.ground.manyreads import Part

if TYPE_CHECKING:
    import rados
    import rbd

# Of each read librbd makes two copies, and the C library keeps their memory for the next.
_READ_BYTES = 1 << 20
# An image is shortened object by object.
_MAX_RESIZE_SECONDS = 3600.0
# Without an object map, each object of a large image is asked.
_MAX_DIFF_SECONDS = 1800.0


class Piece(NamedTuple):
    """A range of bytes; `exists` is False where everything was discarded since."""

    offset: int
    length: int
    exists: bool


class Snap(NamedTuple):
    """A snapshot: its id, which its pool never gives again, its name, and the image's size then."""

    ident: int
    name: str
    size: int


class Client(NamedTuple):
    """Somebody who has an image open: who, and from where."""

    name: str
    address: str


@contextmanager
def open_pool(cluster: Cluster, name: str, namespace: str = "") -> "Iterator[Pool]":
    """A pool, seen through one of its namespaces; "" is the default one. CephFailed."""
    meanings = {
        errno.ENOENT: f"the cluster has no pool {name!r}",
        errno.EPERM: f"{cluster.access.client} may not open pool {name!r}",
    }
    raw = cluster.call(f"opening pool {name!r}", lambda: cluster.raw.open_ioctx(name), meanings)
    with _closing(cluster, raw, name, namespace) as pool:
        pool.check_namespace()
        yield pool


@contextmanager
def open_pool_of(cluster: Cluster, ident: int, namespace: str = "") -> "Iterator[Pool]":
    """The same by its number, which no other pool ever gets, whatever it is called now. CephFailed."""
    meanings = {errno.ENOENT: f"the cluster has no pool of number {ident} any more"}
    what = f"opening pool {ident}"
    raw = cluster.call(what, lambda: cluster.raw.open_ioctx2(ident), meanings)
    name = cluster.call(what, lambda: cluster.raw.pool_reverse_lookup(ident)) or str(ident)
    with _closing(cluster, raw, name, namespace) as pool:
        yield pool


@contextmanager
def _closing(cluster: Cluster, raw: "rados.Ioctx", name: str, namespace: str) -> "Iterator[Pool]":
    try:
        yield Pool(cluster, raw, name, namespace)
    finally:
        cluster.close("closing a pool", raw.close)


class Pool:
    """An open pool; `ident` is its number in the cluster."""

    def __init__(self, cluster: Cluster, raw: "rados.Ioctx", name: str, namespace: str) -> None:
        _, self._rbd = modules()
        self.cluster = cluster
        self.raw = raw
        self.name = name
        self.namespace = namespace
        self.ident = raw.get_pool_id()
        raw.set_namespace(namespace)

    def spec(self, image: str) -> str:
        """An image as Ceph writes it: POOL/IMAGE or POOL/NAMESPACE/IMAGE."""
        return "/".join(filter(None, (self.name, self.namespace, image)))

    def check_namespace(self) -> None:
        """CephFailed if the pool has no namespace of the name."""
        if not self.namespace:
            return
        self.raw.set_namespace("")  # where the list of them is
        what = f"looking for namespace {self.namespace!r}"
        exists = partial(self._rbd.RBD().namespace_exists, self.raw, self.namespace)
        found = self.cluster.call(what, exists, self._denied())
        if not found:
            raise CephFailed(errno.ENOENT, f"pool {self.name!r} has no namespace {self.namespace!r}")
        self.raw.set_namespace(self.namespace)

    @contextmanager
    def image(
        self, name: str, snapshot: str | None = None, *, read_only: bool = True
    ) -> "Iterator[Image]":
        """An image as it is, or as it was in a snapshot, closed at the end of the block."""
        spec = self.spec(name) + (f"@{snapshot}" if snapshot else "")
        opening = partial(self._rbd.Image, self.raw, name, snapshot=snapshot, read_only=read_only)
        try:
            raw = self._opened(spec, opening)
        except CephFailed as error:
            if error.code == errno.ENOENT:
                self.check_trash(name)
            raise
        with self._closing(raw, name, spec) as image:
            yield image

    @contextmanager
    def image_of(
        self, ident: str, snapshot: str | None = None, *, read_only: bool = True, name: str = ""
    ) -> "Iterator[Image]":
        """An image by its id, which stays what it is when it is renamed or thrown into the trash.

        `name` is what messages call it.
        """
        name = name or f"(id {ident})"
        spec = self.spec(name) + (f"@{snapshot}" if snapshot else "")
        opening = partial(
            self._rbd.Image, self.raw, image_id=ident, snapshot=snapshot, read_only=read_only
        )
        with self._closing(self._opened(spec, opening), name, spec) as image:
            yield image

    def _opened(self, spec: str, opening: "Callable[[], rbd.Image]") -> "rbd.Image":
        meanings = {errno.ENOENT: f"there is no {spec}", **self._denied()}
        return self.cluster.call(f"opening {spec}", opening, meanings)

    @contextmanager
    def _closing(self, raw: "rbd.Image", name: str, spec: str) -> "Iterator[Image]":
        try:
            yield Image(self.cluster, raw, name, spec)
        finally:
            self.cluster.close(f"closing {spec}", raw.close)

    def names(self) -> list[str]:
        """Names of all images."""
        what = f"listing pool {self.name!r}"
        return self.cluster.call(what, lambda: list(self._rbd.RBD().list(self.raw)), self._denied())

    def check_trash(self, name: str) -> None:
        """CephFailed if an image of that name is in the trash."""
        if name in self._trashed():
            why = f"{self.spec(name)} is in the trash: 'rbd trash restore' brings it back"
            raise CephFailed(errno.ENOENT, why)

    def create(self, name: str, size: int, *, data_pool: str | None = None) -> None:
        """Make an empty image, with the features that the cluster's configuration names."""
        meanings = {errno.EEXIST: f"there is an image {self.spec(name)} already", **self._denied()}
        self.cluster.call(
            f"creating {self.spec(name)}",
            lambda: self._rbd.RBD().create(self.raw, name, size, data_pool=data_pool),
            meanings,
        )

    def rename(self, old: str, new: str) -> None:
        """Give an image another name; who has it open goes on."""
        meanings = {
            errno.ENOENT: f"there is no {self.spec(old)}",
            errno.EEXIST: f"there is an image {self.spec(new)} already",
            **self._denied(),
        }
        self.cluster.call(
            f"renaming {self.spec(old)}", lambda: self._rbd.RBD().rename(self.raw, old, new), meanings
        )

    @property
    def is_full(self) -> bool:
        """Whether writes wait for space; False where nobody answers."""
        command = json.dumps({"prefix": "osd dump", "format": "json"})
        try:
            code, found, _ = self.cluster.call(
                "asking for the state of the pool", lambda: self.cluster.raw.mon_command(command, b"")
            )
        except CephFailed:
            return False
        pools = json.loads(found)["pools"] if code == 0 else []
        flags = [one["flags_names"].split(",") for one in pools if one["pool"] == self.ident]
        return any("full" in one or "full_quota" in one for one in flags)

    def _trashed(self) -> list[str]:
        """Names of the images in the trash, as far as we may know."""
        try:
            listed = partial(self._rbd.RBD().trash_list, self.raw)
            return self.cluster.call("listing the trash", lambda: [one["name"] for one in listed()])
        except CephFailed:
            return []

    def _denied(self) -> dict[int, str]:
        why = (
            f"{self.cluster.access.client} may not do that: it needs the capabilities mon 'profile rbd' "
            f"and osd 'profile rbd pool={self.name}'"
        )
        return {errno.EPERM: why, errno.EACCES: why}


class Image:
    """An open image, as it is or as it was in a snapshot, which its `spec` names then.

    `name` may be one that it had; `ident` is what it never loses.
    """

    def __init__(self, cluster: Cluster, raw: "rbd.Image", name: str, spec: str) -> None:
        _, self._rbd = modules()
        self._cluster = cluster
        self._raw = raw
        self.name = name
        self.spec = spec
        self.ident = cluster.call(f"asking about {spec}", raw.id)
        self.object_size = cluster.call(f"asking about {spec}", raw.stat)["obj_size"]

    @property
    def size(self) -> int:
        """Bytes."""
        return self._cluster.call(f"asking for the size of {self.spec}", self._raw.size)

    @property
    def has_fast_diff(self) -> bool:
        """Whether the image keeps a map of its objects, and of those that changed since a snapshot."""
        wanted = self._rbd.RBD_FEATURE_OBJECT_MAP | self._rbd.RBD_FEATURE_FAST_DIFF
        found = self._cluster.call(f"asking for the features of {self.spec}", self._raw.features)
        return bool(found & wanted == wanted)

    @property
    def is_map_invalid(self) -> bool:
        """Whether that map is marked as wrong, for what is seen now."""
        wrong = self._rbd.RBD_FLAG_OBJECT_MAP_INVALID | self._rbd.RBD_FLAG_FAST_DIFF_INVALID
        return bool(self._cluster.call(f"asking for the flags of {self.spec}", self._raw.flags) & wrong)

    # ..Bytes...................................................................................

    def read(self, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        """Fill `length` bytes of the buffer from `start`; thread-safe."""
        reading = partial(self._read_at_once, buffer, offset, length, start)
        stop = self._cluster.call(f"reading {self.spec}", reading, limit=self._cluster.short)
        if stop < offset + length:
            raise CephFailed(errno.EIO, f"{self.spec} ends at byte {stop}")

    def _read_at_once(self, buffer: Buffer, offset: int, length: int, start: int) -> int:
        """The same in one call of ours, until the image ends: where it ended."""
        for at in range(0, length, _READ_BYTES):
            wanted = min(_READ_BYTES, length - at)
            content = self._raw.read(offset + at, wanted)
            buffer.fill(content, start + at)
            if len(content) < wanted:
                return offset + at + len(content)
        return offset + length

    def read_parts(self, buffer: Buffer, parts: Sequence[Part]) -> None:
        """Fill parts of the buffer, all asked for at once; thread-safe."""
        what = f"reading {self.spec}"
        answers = self._cluster.call(what, partial(self._answers, parts))
        for part, (code, content) in zip(parts, answers, strict=True):
            if code < 0:
                raise CephFailed(-code, f"{what}: {os.strerror(-code)}")
            if len(content) < part.length:
                raise CephFailed(errno.EIO, f"{self.spec} ends at byte {part.offset + len(content)}")
            buffer.fill(content, part.start)

    def _answers(self, parts: Sequence[Part]) -> list[tuple[int, bytes]]:
        """(code, content) of each part; returns when none of them is under way any more."""
        found: dict[int, bytes | None] = {}

        def took(number: int, _completion: object, content: bytes | None) -> None:
            found[number] = content

        asked = [
            self._raw.aio_read(part.offset, part.length, partial(took, number))
            for number, part in enumerate(parts)
        ]
        for one in asked:
            one.wait_for_complete_and_cb()
        return [(one.get_return_value(), found[number] or b"") for number, one in enumerate(asked)]

    def write(self, content: bytes, offset: int) -> None:
        """Write; thread-safe."""
        self._change(f"writing {self.spec}", lambda: self._raw.write(content, offset))

    def discard(self, offset: int, length: int) -> None:
        """Make a range read as zeros, and give its space back; thread-safe."""
        self._change(f"discarding a part of {self.spec}", lambda: self._raw.discard(offset, length))

    def write_zeros(self, offset: int, length: int) -> None:
        """The same for every byte of the range; thread-safe.

        `discard` leaves alone what is no whole block of `rbd_discard_granularity_bytes` (64 KiB).
        """
        what = f"writing zeros to {self.spec}"
        self._change(what, lambda: self._raw.write_zeroes(offset, length))

    def flush(self) -> None:
        """Wait until all that was written is safe."""
        self._change(f"flushing {self.spec}", self._raw.flush)

    def resize(self, size: int) -> None:
        """Make it longer or shorter; what is cut off is lost."""
        self._change(f"resizing {self.spec}", lambda: self._raw.resize(size), limit=_MAX_RESIZE_SECONDS)

    def pieces(
        self, offset: int, length: int, since: str | None = None, *, whole_objects: bool = False
    ) -> list[Piece]:
        """What exists in a range, or what has changed there since a snapshot; ascending.

        With `whole_objects` that is what the image's object map says, in objects as a whole; otherwise
        each of its objects is asked.
        """
        found: list[Piece] = []
        self._cluster.call(
            f"asking for the extents of {self.spec}",
            lambda: self._raw.diff_iterate(
                offset,
                length,
                since,
                lambda at, count, exists: found.append(Piece(at, count, bool(exists))),
                whole_object=whole_objects,
            ),
            limit=_MAX_DIFF_SECONDS,
        )
        return sorted(found)

    # ..Snapshots...............................................................................

    def snapshots(self, *, of_all: bool = False) -> list[Snap]:
        """The snapshots that users made; with `of_all` also those of groups, mirrors and the trash."""
        users = self._rbd.RBD_SNAP_NAMESPACE_TYPE_USER
        what = f"listing snapshots of {self.spec}"
        found = self._cluster.call(what, lambda: list(self._raw.list_snaps()))
        wanted = [one for one in found if of_all or one["namespace"] == users]
        return [Snap(one["id"], one["name"], one["size"]) for one in wanted]

    def create_snapshot(self, name: str) -> None:
        """Make a snapshot; a client that has locked the image makes it for us."""
        meanings = {errno.EEXIST: f"{self.spec} has a snapshot {name!r} already"}
        what = f"making a snapshot of {self.spec}"
        self._change(what, lambda: self._raw.create_snap(name), meanings)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; the code is EBUSY for one that is protected, or has clones."""
        meanings = {
            errno.EBUSY: f"snapshot {name!r} of {self.spec} is protected or has clones",
            errno.ENOENT: f"{self.spec} has no snapshot {name!r}",
        }
        what = f"removing a snapshot of {self.spec}"
        self._change(what, lambda: self._raw.remove_snap(name), meanings)

    # ..Metadata................................................................................

    def metadata(self, key: str) -> str | None:
        """The value of a key that somebody has set."""
        what = f"reading metadata of {self.spec}"
        try:
            return self._cluster.call(what, lambda: self._raw.metadata_get(key))
        except KeyError:
            return None

    def set_metadata(self, key: str, value: str) -> None:
        """Set a key, which stays with the image when it is renamed."""
        what = f"setting metadata of {self.spec}"
        self._change(what, lambda: self._raw.metadata_set(key, value))

    def remove_metadata(self, key: str) -> None:
        """Remove a key, if it is there."""
        with suppress(KeyError):
            what = f"removing metadata of {self.spec}"
            self._change(what, lambda: self._raw.metadata_remove(key))

    # ..Others..................................................................................

    def lock(self) -> None:
        """Be the only one who can write, until the image is closed; nothing where it has no lock."""
        meanings = {errno.EROFS: f"{self.spec} is locked by another client"}
        what = f"locking {self.spec}"
        exclusive = self._rbd.RBD_LOCK_MODE_EXCLUSIVE
        try:
            self._change(what, lambda: self._raw.lock_acquire(exclusive), meanings)
        except CephFailed as error:
            if error.code != errno.EINVAL:  # the feature exclusive-lock is off
                raise

    def watchers(self) -> list[Client]:
        """Who has the image open for writing; we too, if we have."""
        what = f"asking who uses {self.spec}"
        found = self._cluster.call(what, lambda: list(self._raw.watchers_list()))
        return [Client(f"client.{one['id']}", one["addr"]) for one in found]

    def lockers(self) -> list[Client]:
        """Who had locked it when it was opened."""
        what = f"asking who has locked {self.spec}"
        found = self._cluster.call(what, self._raw.list_lockers) or {}
        return [Client(client, address) for client, _, address in found.get("lockers", [])]

    def _change(
        self,
        what: str,
        work: Callable[[], object],
        meanings: Meanings | None = None,
        limit: float | None = None,
    ) -> None:
        read_only = {errno.EROFS: f"{self.spec} is read-only: {what} is not possible"}
        self._cluster.call(what, work, {**read_only, **(meanings or {})}, limit)
