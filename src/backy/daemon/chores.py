"""Chores: what the scheduler does for the repository as a whole, one at a time, beside the jobs.

    due(wanted(settings.general), last, since, now)      the chore to start now, or None

Collection gives the space back that expiry has freed; verification proves a slice of the store a day.
A chore is due an interval after it last ended, by the host's clock; one that never ran waits until the
scheduler has been up for an hour, so that a restart is no storm, and one that failed for another hour.
One that somebody asked for is due at once.

Limits: pure; `service` runs them.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backy.domain.config import GlobalConfig
from backy.ground.units import format_interval

COLLECTION = "collection"
VERIFICATION = "verification"

FIRST_AFTER = timedelta(hours=1)
RETRY_AFTER = timedelta(hours=1)


SLICE_INTERVAL = timedelta(days=1)


class Chore(NamedTuple):
    """A command for the whole repository, and how often it is due.

    `finding` is the exit code by which it tells that it did its work, and found something.
    """

    name: str
    words: tuple[str, ...]
    interval: timedelta
    finding: int | None = None


class Last(NamedTuple):
    """When a chore last ended, and whether it failed."""

    at: datetime
    failed: bool = False


def wanted(general: GlobalConfig) -> list[Chore]:
    """The chores that the configuration asks for."""
    found = [Chore(COLLECTION, ("gc",), timedelta(seconds=general.gc_interval))]
    if general.verify_slice:
        words = ("verify", "--slice", format_interval(general.verify_slice))
        found.append(Chore(VERIFICATION, words, SLICE_INTERVAL, finding=1))
    return found


def due(
    chores: Sequence[Chore],
    last: Mapping[str, Last],
    since: datetime,
    now: datetime,
    asked: Collection[str] = (),
) -> Chore | None:
    """The chore that is due for the longest, behind those that were asked for by name.

    `since` is the start of the scheduler.
    """
    for chore in chores:
        if chore.name in asked:
            return chore
    ahead = [(_next(chore, last.get(chore.name), since, now), chore) for chore in chores]
    ripe = [one for one in ahead if one[0] <= now]
    return min(ripe, key=lambda one: one[0])[1] if ripe else None


def _next(chore: Chore, last: Last | None, since: datetime, now: datetime) -> datetime:
    if last is None:
        return since + FIRST_AFTER
    if last.at > now:
        # Noted while the clock was wrong: once more now, and then it is right.
        return now
    return last.at + (min(RETRY_AFTER, chore.interval) if last.failed else chore.interval)
