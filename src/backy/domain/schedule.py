"""When a job is due, and with which tags: a pure function of schedule, history and time.

    >>> next_slot(datetime(2015, 9, 1, 7, 6, 47, tzinfo=UTC), 86400, 100).isoformat()
    '2015-09-02T00:01:40+00:00'
    >>> spread("test01", 86400)
    19971

Slots of a tag lie `interval` seconds apart, counted from 0001-01-01T00:00:00Z, moved by the job's
spread, which is drawn from its name: so jobs are spread over the day, and each keeps its hour. These
are backy 2.5's rules (its `Schedule` and `Job.spread`), so that a switch moves nobody's hour.

A tag that no good revision carries within its interval is missed: it joins the next run, and if that
is more than five minutes away and the job has a history, the missed tags are made up for at once. A
tag whose slot went by without a run (2.5 loses it when the scheduler is restarted while the job waits
for a worker) is not missed yet, but will be long before its next slot: that moment is planned.

Limits: works in UTC, so changes of the local clock mean nothing. Good revisions are given by the
caller (`sla.good`).
"""

import hashlib
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from backy.domain.config import TagPolicy

EPOCH = datetime(1, 1, 1, tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)
CATCH_UP_AFTER = timedelta(minutes=5)
MAX_BACKOFF = 360 * 60


class Run(NamedTuple):
    """A run that is due at `at` for `tags`, in the schedule's order."""

    at: datetime
    tags: tuple[str, ...]


def spread(job: str, longest: int) -> int:
    """Seconds (0 to `longest`) by which a job's slots are moved."""
    seed = int(hashlib.md5(job.encode(), usedforsecurity=False).hexdigest(), 16)
    return random.Random(seed).randint(0, longest)  # noqa: S311 - spreads load, hides nothing


def job_spread(job: str, schedule: Mapping[str, TagPolicy]) -> int:
    """The spread of a job under a schedule, by its longest interval; 0 without tags."""
    return spread(job, max((one.interval for one in schedule.values()), default=0))


def next_slot(now: datetime, interval: int, moved: int) -> datetime:
    """The first slot strictly after `now`; NEVER past the end of the calendar."""
    since = now - EPOCH
    seconds = since.days * 86400 + since.seconds
    moved %= interval
    slot = ((seconds - moved) // interval + 1) * interval + moved
    try:
        return EPOCH + timedelta(seconds=slot)
    except OverflowError:
        return NEVER


def missed(
    schedule: Mapping[str, TagPolicy], taken: Mapping[str, datetime], now: datetime
) -> tuple[str, ...]:
    """Tags whose newest good revision (`taken`) is an interval old or does not exist."""
    return tuple(
        tag
        for tag, policy in schedule.items()
        if tag not in taken or (now - taken[tag]).total_seconds() >= policy.interval
    )


def next_run(
    schedule: Mapping[str, TagPolicy],
    moved: int,
    taken: Mapping[str, datetime],
    now: datetime,
    *,
    has_history: bool,
) -> Run:
    """What is to be run next; at NEVER, with no tags, for an empty schedule."""
    if not schedule:
        return Run(NEVER, ())
    slots = {tag: next_slot(now, policy.interval, moved) for tag, policy in schedule.items()}
    earliest = min(slots.values())
    at = max(now, min(_missed_from(policy, taken.get(tag)) for tag, policy in schedule.items()))
    if has_history and earliest - at > CATCH_UP_AFTER:
        return Run(at, missed(schedule, taken, at))
    late = missed(schedule, taken, now)
    return Run(earliest, tuple(tag for tag in schedule if slots[tag] == earliest or tag in late))


def _missed_from(policy: TagPolicy, taken: datetime | None) -> datetime:
    if taken is None:
        return EPOCH
    try:
        return taken + timedelta(seconds=policy.interval)
    except OverflowError:
        return NEVER


def backoff(failures: int) -> int:
    """Seconds until the next try after so many failures in a row: 2, 4, 8 … 256, 360 minutes."""
    return min(60 << min(failures, 20), MAX_BACKOFF)
