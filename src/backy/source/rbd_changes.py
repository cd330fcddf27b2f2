"""What of an RBD image exists, and what has changed since a snapshot: asked of Ceph, and checked.

    list(existing(image, image.size))        -> [Extent(0, 4194304), …]
    since(pool, image, identity, base)       -> Changes(HINT, [Extent(4096, 8192), …])

First the image's object map tells which objects have changed, in an instant; then only those are asked
which of their bytes were written, so that a chunk of which little changed is a delta. The map is relied
upon only where nothing speaks against it. Object maps have been wrong before (Ceph's issues 61616 and
42248, for instance), which only an audit finds; so the answer is a hint, and audited as all are.

Where the image may have been rolled back to a snapshot that is older than the base's, all objects are
asked, as no map may have the change then: `rbd snap rollback` gives the image that older snapshot's map,
in which an object is unchanged if it was so since the next older snapshot, whatever became of it between
there and the base. The oldest snapshot's map calls no object unchanged. So it matters how many snapshots
there were that were older than the base's, which its record says; with one it is safe.

Everything is read, with the reason, when the image is not the one that the base was read from, by the
ids of cluster, pool and image; when the snapshot of the base is gone, or another one has its name; when
the size has changed since, even if it is the same again; and when a map is missing, or marked as invalid
for either snapshot or for the image itself.

Limits: no byte is read here. In windows of some hundred thousand objects, so memory does not grow with
the image.
"""

from collections.abc import Iterable, Iterator

from backy.domain.extents import Extent, in_blocks
from backy.domain.placement import Ranges
from backy.domain.revision import Kept, SourceIdentity, View
from backy.ground.linux import PAGE
from backy.ground.rbd import Image, Piece, Pool
from backy.source.base import Base, Changes, Confidence

_WINDOW_OBJECTS = 1 << 18
# Where all objects are asked, each may have many changes.
_ASKED_OBJECTS = 1 << 10
# Unchanged ones between two that have changed, which are asked as well.
_GAP_OBJECTS = 4
# With so many older snapshots than the base's, a rollback shows in the object map.
_HARMLESS_OLDER = 1


def existing(image: Image, size: int) -> Iterator[Extent]:
    """What of an image is not just zeros, in whole objects; ascending. CephFailed."""
    for offset, length in _windows(image, size, _WINDOW_OBJECTS):
        for piece in image.pieces(offset, length, whole_objects=True):
            if piece.exists:
                yield Extent(piece.offset, piece.length)


def since(pool: Pool, image: Image, identity: SourceIdentity, base: Base) -> Changes:
    """What may have changed in a snapshot, open as `image`, since the base's. CephFailed."""
    kept = base.source.kept
    why = _other_image(identity, base.source)
    if why or kept is None:
        return Changes(Confidence.NONE, why=why or "the parent's snapshot was not kept")
    with pool.image_of(image.ident, name=image.name) as head:
        why = _snapshot_of(head, kept, identity) or _map_of(head)
    for snapshot in (kept, identity.kept):
        if not why and snapshot is not None:
            with pool.image_of(image.ident, _name(snapshot), name=image.name) as frozen:
                why = _map_of(frozen)
    if why:
        return Changes(Confidence.NONE, why=why)
    found = Ranges()
    is_map_enough = kept.older is not None and kept.older <= _HARMLESS_OLDER
    changed_in = _changed if is_map_enough else _changed_anywhere
    window = _WINDOW_OBJECTS if is_map_enough else _ASKED_OBJECTS
    for offset, length in _windows(image, kept.size, window):
        changed = in_blocks(changed_in(image, _name(kept), offset, length), PAGE, kept.size)
        found.add([(one.offset, one.offset + one.length) for one in changed])
    # What was removed meanwhile, and made anew, may have been another one when it was asked.
    with pool.image_of(image.ident, name=image.name) as head:
        why = _snapshot_of(head, kept, identity)
    return Changes(Confidence.NONE, why=why) if why else Changes(Confidence.HINT, found.extents())


def _changed(image: Image, snapshot: str, offset: int, length: int) -> Iterator[Extent]:
    """What has changed in a range: of objects that the map names, what was written or discarded."""
    for asked in _stretches(
        image.pieces(offset, length, snapshot, whole_objects=True), image.object_size
    ):
        fine = [asked]
        if asked.exists:
            fine = image.pieces(asked.offset, asked.length, snapshot)
        yield from (Extent(one.offset, one.length) for one in fine)


def _stretches(objects: Iterable[Piece], object_size: int) -> Iterator[Piece]:
    """Objects that exist as ranges of near ones, at most _ASKED_OBJECTS long; the others as they are.

    librbd asks the objects of a range side by side, but one range after the other, so some objects that
    have not changed cost less than the wait for another range.
    """
    stretch: Piece | None = None
    for one in objects:
        if stretch is not None and one.exists:
            together = stretch._replace(length=one.offset + one.length - stretch.offset)
            gap = one.offset - stretch.offset - stretch.length
            if gap <= _GAP_OBJECTS * object_size and together.length <= _ASKED_OBJECTS * object_size:
                stretch = together
                continue
        if stretch is not None:
            yield stretch
        stretch = one if one.exists else None
        if stretch is None:
            yield one
    if stretch is not None:
        yield stretch


def _changed_anywhere(image: Image, snapshot: str, offset: int, length: int) -> Iterator[Extent]:
    """The same of all objects, whatever the map says."""
    for one in image.pieces(offset, length, snapshot):
        yield Extent(one.offset, one.length)


def _windows(image: Image, size: int, objects: int) -> Iterator[tuple[int, int]]:
    """Offset and length of parts of the image, each of so many whole objects."""
    step = objects * image.object_size
    for offset in range(0, size, step):
        yield offset, min(step, size - offset)


def _name(kept: Kept) -> str:
    return kept.path.rpartition("@")[2]


def _other_image(now: SourceIdentity, before: SourceIdentity) -> str:
    """Why a base is of no use, whatever is on the image; "" if it may be of use."""
    if before.view is not View.SNAPSHOT or before.type != now.type:
        return "the parent was not read from a snapshot in Ceph"
    if (before.cluster, before.pool) != (now.cluster, now.pool):
        return "the image lies in another pool or cluster than the parent's"
    if before.image != now.image:
        return "the image is another one than the parent's, under whatever name"
    if before.size != now.size:
        return f"the image had {before.size} bytes and has {now.size} now"
    return ""


def _snapshot_of(head: Image, kept: Kept, now: SourceIdentity) -> str:
    """Why the parent's snapshot is of no use; "" if it is there and the size has stayed since."""
    newest = now.kept.number if now.kept is not None else None
    there = {one.ident: one for one in head.snapshots()}
    found = there.get(kept.number or 0)
    if found is None or newest is None or found.name != _name(kept):
        return "the parent's snapshot is gone"
    between = [one.size for ident, one in there.items() if found.ident <= ident <= newest]
    if set(between) != {kept.size}:
        return "the image was resized meanwhile"
    return ""


def _map_of(image: Image) -> str:
    """Why an object map is of no use; "" if it is."""
    if not image.has_fast_diff:
        return (
            f"{image.spec} has no object map: 'rbd feature enable IMAGE object-map fast-diff' and "
            "'rbd object-map rebuild IMAGE' give it one"
        )
    if image.is_map_invalid:
        return f"the object map of {image.spec} is invalid: 'rbd object-map rebuild' mends it"
    return ""
