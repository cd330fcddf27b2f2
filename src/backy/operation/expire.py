"""Expire: carry out a retention plan, record by record.

    planner = partial(plan_expiry, schedule=config.schedule, now=clock.now())
    execute_expiry(job, planner(history.revisions), planner)

Each step happens under `.history` and plans anew there, by the records as they are at that moment: what
the plan counted as good and newer may have been forgotten, distrusted or found damaged since. A step
that would not be planned any more is passed over until the next run. A kill between two steps leaves a
shorter plan to the next run.

Limits: removes records only; chunks go by garbage collection.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from backy.domain.retention import Fate, Verdict
from backy.domain.revision import Revision
from backy.ground.errors import FormatUnknown, RecordDamaged, RevisionGone
from backy.repository import history as histories
from backy.repository.repository import Job

Planner = Callable[[Sequence[Revision]], Sequence[Verdict]]


def execute_expiry(job: Job, plan: Iterable[Verdict], planner: Planner) -> list[str]:
    """Do what the plan says, where `planner` still says it; UUIDs that were removed. StorageFailed."""
    removed = []
    for verdict in plan:
        if not verdict.lost and verdict.fate is not Fate.REMOVE:
            continue
        check = partial(_check, job, planner, verdict)
        try:
            if verdict.fate is Fate.REMOVE:
                histories.forget(job.directory, verdict.uuid, check=check)
                removed.append(verdict.uuid)
            else:
                histories.edit(job.directory, verdict.uuid, partial(_untagged, check, verdict))
        except (RevisionGone, RecordDamaged, FormatUnknown, _ChangedError):
            # Someone else was faster, or the record rotted since: nothing of it may be deleted.
            continue
    return removed


class _ChangedError(Exception):
    """The step would not be planned any more."""


def _check(job: Job, planner: Planner, verdict: Verdict, revision: Revision) -> None:
    """Called under `.history`: nothing spoils the answer before the step is done."""
    if tuple(revision.tags) != verdict.tags or revision.taken_at != verdict.taken_at:
        raise _ChangedError
    now = {one.uuid: one for one in planner(histories.load(job.directory).revisions)}
    found = now.get(verdict.uuid)
    if found is None or (found.fate, found.lost) != (verdict.fate, verdict.lost):
        raise _ChangedError


def _untagged(check: Callable[[Revision], None], verdict: Verdict, revision: Revision) -> Revision:
    check(revision)
    kept = {tag: origin for tag, origin in revision.tags.items() if tag not in verdict.lost}
    return revision.with_tags(kept)
