"""The snapshots that this repository has made of a job's source: "ours" is what stands here.

    note(job, uuid, place)          before the snapshot is made
    listed(job)                     revision -> place
    strike(job, uuids)              after they are gone

A snapshot without a line here is somebody else's and never touched, whatever its name: another host
may back up the same image. `JOB/snapshots` is sealed JSON.

Limits: one writer, who holds `.backup`. A damaged list is no list: then nothing is ours, old snapshots
stay, and `check` tells of them.
"""

import os
from collections.abc import Collection, Mapping

import msgspec

from backy.domain import sealed
from backy.ground import durable
from backy.ground.directory import Directory
from backy.ground.errors import RecordDamaged
from backy.repository import layout

_MAX = 1 << 20


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file: where the snapshot of each revision was made."""

    snapshots: dict[str, str]


def listed(job: Directory) -> dict[str, str]:
    """Places of our snapshots, by revision; RecordDamaged."""
    path = job.file_path(layout.SNAPSHOTS)
    try:
        content = job.read(layout.SNAPSHOTS, _MAX)
        found = msgspec.json.decode(sealed.unseal(content), type=_List).snapshots
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecordDamaged(path, os.strerror(error.errno or 0)) from error
    except (ValueError, msgspec.DecodeError) as error:
        raise RecordDamaged(path, str(error)) from error
    if not all(layout.is_uuid(one) for one in found):
        raise RecordDamaged(path, "it lists what is no UUID")
    return found


def note(job: Directory, uuid: str, place: str, besides: Mapping[str, str]) -> None:
    """Say that a snapshot is about to be made, `besides` those that are; StorageFailed."""
    _write(job, {**besides, uuid: place})


def strike(job: Directory, uuids: Collection[str]) -> None:
    """Forget snapshots that are gone; RecordDamaged, StorageFailed."""
    before = listed(job)
    after = {uuid: place for uuid, place in before.items() if uuid not in uuids}
    if after != before:
        _write(job, after)


def _write(job: Directory, snapshots: dict[str, str]) -> None:
    content = sealed.seal(msgspec.json.encode(_List(snapshots=snapshots)))
    durable.replace(job, layout.SNAPSHOTS, content)
