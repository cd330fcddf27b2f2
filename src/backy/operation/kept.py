"""The snapshots that a job has left at its sources, and which of them the next backup compares with.

    kept = KeptSnapshots(job, group, now, tell)
    kept.prepare(uuid)                     before the first snapshot is made
    kept.bases["root"]                     the revision to compare that disk with, or None
    kept.tidy(uuid, ["root", "data"])      after the commit

A disk's base is the good revision whose snapshot of it was made last: by the job's list, since a clock
that was wrong for one run would have it be the newest for ever, or the oldest. That stays until a
revision with a newer one of the same disk is complete; all others are removed, also those of disks that
the job has no more.

Limits: as far as the job's list can be read (`repository.snapshots`).
"""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime

from backy.domain.revision import Revision, SnapshotName, View
from backy.domain.sla import by_age
from backy.ground.errors import SnapshotsDamaged, StorageFailed
from backy.repository import history as histories
from backy.repository import snapshots
from backy.repository.repository import Job
from backy.source.group import Group


class KeptSnapshots:
    """See above; `were_read_in_place` are the disks that the last revision could only read so.

    `are_known`: it had the same disks.
    """

    def __init__(self, job: Job, group: Group, now: datetime, tell: Callable[[str], None]) -> None:
        self._job = job
        self._group = group
        self._tell = tell
        self._is_damaged = False
        self._known = self._listed()
        revisions = by_age(histories.load(job.directory).revisions, now)
        self.bases = {disk: _base(revisions, disk, self._known) for disk in group.disks}
        self.are_known = bool(revisions) and {one.disk for one in revisions[-1].maps} == set(group.disks)
        last = {disk: revisions[-1].disk(disk) for disk in group.disks} if revisions else {}
        self.were_read_in_place = {
            disk for disk, one in last.items() if one is not None and one.source.view is View.IN_PLACE
        }

    def prepare(self, uuid: str) -> None:
        """Remove what dead runs have left, and say that we are about to make some; StorageFailed."""
        known = self._known
        old = {one: place for one, place in known.items() if self.bases.get(one.disk) != one.revision}
        if old:
            self._group.call_off()
        gone = self._group.prune(old)
        new = self._group.names(uuid)
        left = {one: place for one, place in known.items() if one not in gone}
        if new or known:
            snapshots.note(self._job.directory, new, left)
        elif self._is_damaged:
            # Or it would be told for ever. That it cannot be written stops none that makes no snapshots.
            with suppress(StorageFailed):
                snapshots.note(self._job.directory, {}, {})

    def _listed(self) -> dict[SnapshotName, str]:
        try:
            return snapshots.listed(self._job.directory)
        except SnapshotsDamaged as error:
            self._is_damaged = True
            self._tell(f"{error.message} Snapshots that it listed are left alone.")
            return {}

    def tidy(self, uuid: str, disks: Collection[str]) -> None:
        """After the commit: of `disks`, remove all but the new ones; what fails the next run tries."""
        try:
            known = snapshots.listed(self._job.directory)
            old = {
                one: place for one, place in known.items() if one.disk in disks and one.revision != uuid
            }
            snapshots.strike(self._job.directory, self._group.prune(old))
        except (SnapshotsDamaged, StorageFailed) as error:
            self._tell(error.message)


def _base(revisions: Collection[Revision], disk: str, known: Iterable[SnapshotName]) -> str | None:
    """Of revisions by age and of what is listed, in the order in which it was made."""
    able: dict[str, None] = {}
    for one in revisions:
        found = one.disk(disk)
        if one.is_good and found is not None and found.source.kept is not None:
            able[one.uuid] = None
    listed = [one.revision for one in known if one.disk == disk and one.revision in able]
    # The list may be lost.
    return next(iter([*reversed(listed), *reversed(able)]), None)
