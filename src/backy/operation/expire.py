"""Expire: carry out a retention plan, record by record.

    plan = plan_expiry(history.revisions, config.schedule, clock.now())
    execute_expiry(job, plan)

Each step happens under `.history` and re-reads the record there: a revision whose tags somebody
changed meanwhile is passed over until the next run. A kill between two steps leaves a shorter plan
to the next run.

Limits: removes records only; chunks go by garbage collection.
"""

from collections.abc import Sequence
from functools import partial

from backy.domain.retention import Fate, Verdict
from backy.domain.revision import Revision
from backy.ground.errors import FormatUnknown, RecordDamaged, RevisionGone
from backy.repository import history as histories
from backy.repository.repository import Job


def execute_expiry(job: Job, plan: Sequence[Verdict]) -> list[str]:
    """Do what the plan says; returns the UUIDs that were removed. StorageFailed."""
    removed = []
    for verdict in plan:
        if not verdict.lost and verdict.fate is not Fate.REMOVE:
            continue
        try:
            if verdict.fate is Fate.REMOVE:
                histories.forget(job.directory, verdict.uuid, check=partial(_check, verdict))
                removed.append(verdict.uuid)
            else:
                histories.edit(job.directory, verdict.uuid, partial(_untagged, verdict))
        except (RevisionGone, RecordDamaged, FormatUnknown, _ChangedError):
            # Someone else was faster, or the record rotted since: nothing of it may be deleted.
            continue
    return removed


class _ChangedError(Exception):
    """The revision is no longer what the plan was made for."""


def _check(verdict: Verdict, revision: Revision) -> None:
    if tuple(revision.tags) != verdict.tags or revision.taken_at != verdict.taken_at:
        raise _ChangedError


def _untagged(verdict: Verdict, revision: Revision) -> Revision:
    _check(verdict, revision)
    kept = {tag: origin for tag, origin in revision.tags.items() if tag not in verdict.lost}
    return revision.with_tags(kept)
