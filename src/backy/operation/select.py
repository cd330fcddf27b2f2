"""Choosing revisions of a history by a spec, and a disk of one by its name, without ever guessing.

    choose(history, "tag:daily", "vm01")        the matching revisions, in the spec's order
    choose_one(history, "latest", "vm01")       exactly one
    choose_disk(revision, "root")               what its record says of the map of that disk

While a record cannot be read or is gone, nobody knows which revision is the latest, so only a full
UUID is accepted then: a restore of the day before must not look like a success.

Limits: pure; the history was loaded before.
"""

from collections.abc import Sequence

from backy.domain import revspec
from backy.domain.revision import MapDigest, Revision
from backy.ground.errors import HistoryUnclear, OptionRefused, RevisionAmbiguous, RevisionMissing
from backy.repository.history import History


def choose(history: History, spec: str, job: str) -> list[Revision]:
    """Revisions that match; RevisionMissing for none, HistoryUnclear, SpecError."""
    parsed = revspec.parse(spec)
    for unreadable in history.unreadable:
        if parsed.uuid == unreadable.uuid:
            raise unreadable.error
    unclear = unclear_records(history)
    if unclear and parsed.uuid is None:
        raise HistoryUnclear(spec, unclear)
    found = parsed.evaluate(history.revisions).revisions
    if not found:
        raise RevisionMissing(spec, job)
    return found


def choose_one(history: History, spec: str, job: str) -> Revision:
    """The revision that matches; RevisionAmbiguous for several."""
    found = choose(history, spec, job)
    if len(found) > 1:
        raise RevisionAmbiguous(spec, tuple(one.uuid for one in found))
    return found[0]


def choose_to_forget(history: History, spec: str, job: str) -> list[str]:
    """UUIDs that match, also the full one of an unreadable or lost record."""
    parsed = revspec.parse(spec)
    unusable = {*history.lost, *(one.uuid for one in history.unreadable)}
    if parsed.uuid in unusable:
        return [parsed.uuid]
    return [one.uuid for one in choose(history, spec, job)]


def unclear_records(history: History) -> tuple[str, ...]:
    """File names of the records that cannot be read or are gone, for messages."""
    uuids: Sequence[str] = [one.uuid for one in history.unreadable] + list(history.lost)
    return tuple(f"{uuid}.rev" for uuid in uuids)


def choose_disk(revision: Revision, disk: str | None) -> MapDigest | None:
    """The map of a disk; without a name that of the only one. OptionRefused; None: it has no maps."""
    names = [one.disk for one in revision.maps]
    if disk is None and len(names) < 2:
        return revision.maps[0] if revision.maps else None
    if disk in names:
        return revision.maps[names.index(disk)]
    if names in ([""], []):
        raise OptionRefused("--disk", f"revision {revision.uuid} has one image and no disks")
    has = f"revision {revision.uuid} has {'the disks' if len(names) > 1 else 'the disk'}"
    choice = f"{has} {', '.join(names)}"
    raise OptionRefused(
        "--disk", f"{choice}: say which" if disk is None else f"{choice}, and no {disk!r}"
    )
