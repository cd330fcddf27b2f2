"""What starts now: a pure function of the jobs that are due, free workers and time.

    choose(waiting, {Pool.FAST: 1, Pool.SLOW: 2}, limit=3)

Jobs whose last backup took less than ten minutes go to the fast pool, others and new ones to the slow
one (backy 2.5), so that a long backup never stands in the way of many short ones.

Within a pool the order is not first come. When there is more work than workers, some jobs must miss
their service level; the rule of Moore and Hodgson (1968) makes them the fewest: by deadline, and
whenever one would be late, the longest so far goes to the end. A job that is late by six more
intervals goes first, so none starves.

Limits: knows predicted durations only (that of the last backup), and treats workers as one that is
so many times as fast.
"""

import enum
import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

FAST_BELOW = 600.0
_LEAST_DURATION = 1.0
NEW_JOB_DURATION = 600.0
STARVING = 6


class Pool(enum.Enum):
    """Which workers a job uses."""

    FAST = "fast"
    SLOW = "slow"


class Waiting(NamedTuple):
    """A job that is due.

    `slack` is how many seconds remain until it breaks its service level (below 0: broken already);
    `interval` is its smallest, `duration` what its backup will probably take, all in seconds.
    """

    job: str
    pool: Pool
    due_at: datetime
    slack: float
    interval: float
    duration: float
    manual: bool = False


def pool_of(last_duration: float | None) -> Pool:
    """The pool of a job by its last good backup's seconds; None: it has none."""
    return Pool.FAST if last_duration is not None and last_duration < FAST_BELOW else Pool.SLOW


def choose(waiting: Iterable[Waiting], free: Mapping[Pool, int], limit: int) -> list[str]:
    """Jobs to start now, as many as each pool has free workers; `limit` is a pool's size."""
    started: list[str] = []
    by_pool: dict[Pool, list[Waiting]] = {pool: [] for pool in Pool}
    for one in waiting:
        by_pool[one.pool].append(one)
    for pool, jobs in by_pool.items():
        count = free.get(pool, 0)
        if count > 0 and jobs:
            started += [one.job for one in order(jobs, limit)[:count]]
    return started


def order(waiting: Sequence[Waiting], workers: int) -> list[Waiting]:
    """The order in which so many workers should take these jobs."""
    manual = sorted((one for one in waiting if one.manual), key=lambda one: (one.due_at, one.job))
    others = [one for one in waiting if not one.manual]
    starving = [one for one in others if one.slack < -STARVING * one.interval]
    late = [one for one in others if -STARVING * one.interval <= one.slack < 0]
    rest = sorted((one for one in others if one.slack >= 0), key=_by_deadline)
    kept, dropped = _fewest_late(rest, max(workers, 1))
    return [
        *manual,
        *sorted(starving, key=lambda one: (one.slack / one.interval, one.job)),
        *kept,
        *sorted([*late, *dropped], key=_by_deadline),
    ]


def _by_deadline(one: Waiting) -> tuple[float, str]:
    return (one.slack, one.job)


def _fewest_late(jobs: Sequence[Waiting], workers: int) -> tuple[list[Waiting], list[Waiting]]:
    """Split jobs, sorted by deadline, into those that can be in time and those that give way."""
    longest: list[tuple[float, int]] = []
    given_up: set[int] = set()
    elapsed = 0.0
    for number, one in enumerate(jobs):
        duration = max(one.duration, _LEAST_DURATION)
        heapq.heappush(longest, (-duration, number))
        elapsed += duration / workers
        if elapsed > one.slack:
            negative, victim = heapq.heappop(longest)
            elapsed += negative / workers
            given_up.add(victim)
    kept = [one for number, one in enumerate(jobs) if number not in given_up]
    dropped = [one for number, one in enumerate(jobs) if number in given_up]
    return kept, dropped
