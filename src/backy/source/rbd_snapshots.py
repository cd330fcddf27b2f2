"""Snapshots of RBD images that are ours: how they are called, where they are, and how they go.

    >>> names("11111111-1111-4111-8111-111111111111")[0]
    'backy-11111111-1111-4111-8111-111111111111'
    >>> place = Place("8e7f988d-a2c3-4989-ac22-e7e4ea30576d", 1, "", "1009346e531e")
    >>> parse_place(str(place)) == place
    True

A place names cluster, pool and image by what they never lose. So a snapshot is found when the image has
been renamed, or when the job's configuration names another one by now; and an image that has got the
same name is never touched.

What is ours stands in the repository, by revision. On the image nothing but the names that belong to
such a revision is removed: other hosts and people have snapshots there, and other repositories have
theirs, which are also called backy-UUID.

Limits: in one cluster, the one that the configuration names; snapshots in others stay where they are.
"""

import errno
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from backy.domain.revision import SnapshotName
from backy.ground import failpoint
from backy.ground.ceph import Access, CephFailed, Cluster, connected
from backy.ground.rbd import Image, open_pool_of

SNAPSHOT, FALLBACK = "backy-", "-fallback"
_TYPE = "rbd:"
_PLACE = re.compile(rf"{_TYPE}([0-9a-f-]{{36}})/([0-9]{{1,19}})/([^/]*)/([^/]+)", re.ASCII)


class Place(NamedTuple):
    """An image, by ids: of the cluster, the pool, the namespace's name, and the image's id."""

    cluster: str
    pool: int
    namespace: str
    image: str

    def __str__(self) -> str:
        return f"{_TYPE}{self.cluster}/{self.pool}/{self.namespace}/{self.image}"


def parse_place(text: str) -> Place | None:
    """The place of a text, or None for what is no place in Ceph."""
    match = _PLACE.fullmatch(text)
    return None if match is None else Place(match[1], int(match[2]), match[3], match[4])


def names(revision: str) -> tuple[str, str]:
    """The names that the snapshot of a revision may have: ours, and where a host may yet make that."""
    return SNAPSHOT + revision, SNAPSHOT + revision + FALLBACK


def remove_snapshots(access: Access, snapshots: Mapping[SnapshotName, str]) -> set[SnapshotName]:
    """Remove snapshots, given by their places: those that are gone for good now.

    Those that are protected or in use stay, as does everything in a cluster that cannot be reached.
    """
    gone = {one for one, place in snapshots.items() if not place}
    by_place: dict[Place, list[SnapshotName]] = defaultdict(list)
    for one, text in snapshots.items():
        if (place := parse_place(text)) is not None:
            by_place[place].append(one)
    if by_place:
        with suppress(CephFailed), connected(access) as cluster:
            for place, ours in by_place.items():
                if place.cluster == cluster.fsid:
                    gone |= _removed(cluster, place, ours)
    return gone


def _removed(cluster: Cluster, place: Place, ours: Sequence[SnapshotName]) -> set[SnapshotName]:
    """Which of the snapshots on an image are gone."""
    gone: set[SnapshotName] = set()
    try:
        with (
            open_pool_of(cluster, place.pool, place.namespace) as pool,
            pool.image_of(place.image, read_only=False) as image,
        ):
            there = {one.name for one in image.snapshots()}
            for one in ours:
                found = [name for name in names(one.revision) if name in there]
                left = [name for name in found if not remove(image, name)]
                if not left:
                    gone.add(one)
    except CephFailed as error:
        if error.code == errno.ENOENT:  # the image went, or its pool; numbers are not given again
            return set(ours)
    return gone


def remove(image: Image, name: str) -> bool:
    """Remove a snapshot, if that is possible now: whether it is gone."""
    failpoint.reached(f"remove {image.spec}@{name}")
    try:
        image.remove_snapshot(name)
    except CephFailed as error:
        return error.code == errno.ENOENT
    return True


def find(image: Image, wanted: Iterable[str]) -> str | None:
    """The first of some names that the image has a snapshot of."""
    there = {one.name for one in image.snapshots()}
    return next((name for name in wanted if name in there), None)
