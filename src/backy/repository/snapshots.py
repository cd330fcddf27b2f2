"""The snapshots that this repository has made of a job's source: "ours" is what stands here.

    note(job, {name: place}, besides)      before the snapshots are made
    listed(job)                            name -> place
    strike(job, names)                     after they are gone

A snapshot without a line here is somebody else's and never touched, whatever its name: another host
may back up the same image. `JOB/snapshots` is sealed JSON.

Limits: one writer, who holds `.backup`. A damaged list is no list: then nothing is ours, old snapshots
stay, and the next backup writes a new one.
"""

import os
from collections.abc import Collection, Mapping

import msgspec

from backy.domain import sealed
from backy.domain.chunkmap import NO_DISK
from backy.domain.names import check_disk_name
from backy.domain.revision import SnapshotName
from backy.ground import durable
from backy.ground.directory import Directory
from backy.ground.errors import OF_THE_PROCESS, NameRefused, SnapshotsDamaged, StorageFailed
from backy.repository import layout

_MAX = 1 << 20


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file: where the snapshots of each revision were made; by disk, where these have names."""

    snapshots: dict[str, str | dict[str, str]]


def listed(job: Directory) -> dict[SnapshotName, str]:
    """Places of our snapshots, by revision and disk; SnapshotsDamaged, StorageFailed."""
    path = job.file_path(layout.SNAPSHOTS)
    try:
        content = job.read(layout.SNAPSHOTS, _MAX)
        found = msgspec.json.decode(sealed.unseal(content), type=_List).snapshots
    except FileNotFoundError:
        return {}
    except OSError as error:
        # Of the list that says nothing, so a new one must not take its place.
        if error.errno in OF_THE_PROCESS:
            raise StorageFailed("read", path, error.errno) from error
        raise SnapshotsDamaged(path, os.strerror(error.errno or 0)) from error
    except (ValueError, msgspec.DecodeError) as error:
        raise SnapshotsDamaged(path, str(error)) from error
    if not all(layout.is_uuid(one) for one in found):
        raise SnapshotsDamaged(path, "it lists what is no UUID")
    places: dict[SnapshotName, str] = {}
    try:
        for uuid, of_disks in found.items():
            if isinstance(of_disks, str):
                places[SnapshotName(uuid)] = of_disks
                continue
            for disk, place in of_disks.items():
                places[SnapshotName(uuid, check_disk_name(disk))] = place
    except NameRefused as error:
        raise SnapshotsDamaged(path, "it lists what is no disk") from error
    return places


def note(
    job: Directory, places: Mapping[SnapshotName, str], besides: Mapping[SnapshotName, str]
) -> None:
    """Say that snapshots are about to be made, `besides` those that are; StorageFailed."""
    _write(job, {**besides, **places})


def strike(job: Directory, names: Collection[SnapshotName]) -> None:
    """Forget snapshots that are gone; SnapshotsDamaged, StorageFailed."""
    before = listed(job)
    after = {name: place for name, place in before.items() if name not in names}
    if after != before:
        _write(job, after)


def _write(job: Directory, places: Mapping[SnapshotName, str]) -> None:
    alone = {name.revision: place for name, place in places.items() if name.disk == NO_DISK}
    of_disks: dict[str, dict[str, str]] = {}
    for name, place in places.items():
        if name.disk != NO_DISK:
            of_disks.setdefault(name.revision, {})[name.disk] = place
    of_revisions: dict[str, str | dict[str, str]] = {**alone, **of_disks}
    content = sealed.seal(msgspec.json.encode(_List(snapshots=of_revisions)))
    durable.replace(job, layout.SNAPSHOTS, content)
