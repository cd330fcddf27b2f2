"""Decisions of garbage collection: what vanished, what is ripe, what is too much. Pure.

    vanished(before, jobs, absent_jobs, now, gone)    revisions that went without `forget`
    is_ripe(seal, living, now, grace)                 may a generation be purged?
    is_too_much(unmarked, total)                      more than half of the store at once?

`Known` and `Seal` are what collection remembers between its runs (chunks/known, GEN/sealed).

Limits: nothing here looks at a disk.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

GRACE = timedelta(days=1)
# So long an operator may notice that a job's directory is missing because a disk is not mounted.
ABSENCE = timedelta(days=7)


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Since when nothing enters a generation, and the writers that lived then."""

    at: datetime
    writers: tuple[str, ...]


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Committed revisions by job, and since when the directories of absent jobs are missed."""

    jobs: dict[str, tuple[str, ...]]
    absent: dict[str, datetime] = {}


class Vanished(NamedTuple):
    """Revisions of a job that were there at the last collection and went without `forget`."""

    job: str
    uuids: tuple[str, ...]
    since: datetime | None  # set where the whole directory is gone


def vanished(
    before: Known,
    present: Mapping[str, Collection[str]],
    now: datetime,
    gone: Collection[str],
) -> list[Vanished]:
    """What has to be explained before anything may be collected.

    `present` has, for each job's directory, all UUIDs that any file there carries. A revision that
    lies in another job's directory now was moved, not lost. `gone` are names of jobs and UUIDs that
    the operator gave up. A directory that is missed for ABSENCE was removed on purpose.
    """
    everywhere = set().union(*present.values())
    found = []
    for job, uuids in before.jobs.items():
        missing = tuple(one for one in uuids if one not in everywhere and one not in gone)
        if not missing or job in gone:
            continue
        if job in present:
            found.append(Vanished(job, missing, None))
            continue
        # A day in the future was noted while the clock was wrong.
        since = min(before.absent.get(job, now), now)
        if now - since < ABSENCE:
            found.append(Vanished(job, missing, since))
    return found


def still_known(committed: Mapping[str, Collection[str]], missing: Iterable[Vanished]) -> Known:
    """What the next collection shall remember: what is there, and what has not been explained."""
    jobs = {job: tuple(sorted(uuids)) for job, uuids in committed.items() if uuids}
    absent = {}
    for one in missing:
        jobs[one.job] = (*jobs.get(one.job, ()), *one.uuids)
        if one.since is not None:
            absent[one.job] = one.since
    return Known(jobs=jobs, absent=absent)


def is_ripe(seal: Seal, living: Collection[str], now: datetime, grace: timedelta) -> bool:
    """Whether every writer of the census has ended and the grace is over.

    A seal from the future (the clock was wrong then, or is now) never counts as old.
    """
    return now - seal.at >= grace and not set(seal.writers) & set(living)


def is_too_much(unmarked: int, total: int) -> bool:
    """Whether more than half of the store would go, which is more likely a mistake than garbage."""
    return unmarked * 2 > total
