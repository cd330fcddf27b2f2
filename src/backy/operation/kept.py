"""The snapshots that a job has left at its sources, and which of them the next backup compares with.

    kept = KeptSnapshots(job, group, now, tell)
    kept.prepare(uuid)                     before the first snapshot is made
    kept.bases["root"]                     the revision to compare that disk with, or None
    kept.tidy(uuid)                        after the commit

Ours is exactly what stands in the job's list (`repository.snapshots`). A disk's base is the good
revision whose snapshot of it was made last: by that list, since a clock that was wrong for one run would
have it be the newest for ever, or the oldest. After a commit only the new revision's snapshots stay, and
all others are removed: of older revisions, of dead runs, of disks that the job has no more. So none is
left on an image whose newest revision has none, be it that every backup reads everything now, or that
the source is of another type.

A line stays as long as the snapshot may be there, or may yet be made by a host that finds a request for
it which could not be withdrawn.

Limits: as far as the list can be read. What the configuration does not reach any more is tried with the
defaults of its type, and told.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
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
        gone = self._gone(old)
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

    def tidy(self, uuid: str) -> None:
        """After the commit: remove all but the new ones; what fails the next run tries."""
        try:
            known = snapshots.listed(self._job.directory)
            old = {one: place for one, place in known.items() if one.revision != uuid}
            snapshots.strike(self._job.directory, self._gone(old, tell=True))
        except SnapshotsDamaged:
            pass  # it is told when a run begins
        except StorageFailed as error:
            self._tell(error.message)

    def _gone(self, old: Mapping[SnapshotName, str], *, tell: bool = False) -> Collection[SnapshotName]:
        """Remove snapshots: those that are gone for good; `tell` of others that lie elsewhere by now."""
        if not old:
            return ()
        is_called_off = self._group.call_off()
        gone = self._group.prune(old)
        places = {source.place for source in self._group.disks.values()}
        left = [place for one, place in old.items() if one not in gone and place not in places]
        if left and tell:
            self._tell(
                f"snapshots that this job has made elsewhere ({', '.join(sorted(set(left)))}) cannot be "
                "removed now; the next backup tries again"
            )
        return gone if is_called_off else ()


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
