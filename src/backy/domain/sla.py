"""Whether a job's backups are recent enough, and the few figures of a history that decide it.

    >>> judge(Figures(), 86400, configured_at=START, now=START + timedelta(hours=36)).ok
    True
    >>> judge(Figures(), 86400, configured_at=START, now=START + timedelta(hours=37)).ok
    False

A job keeps its service level while its newest good revision is at most one and a half of its
schedule's smallest intervals old (backy 2.5's rule). One that was never backed up has the same time
from when it was configured; 2.5 never alarmed for those.

Good is a revision that is neither distrusted nor damaged nor dated in the future: one that the host's
clock, or somebody, dated ahead must not keep an alarm quiet.

Limits: pure.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from backy.domain.config import TagPolicy
from backy.domain.revision import Distrust, Revision

FUTURE_TOLERANCE = timedelta(minutes=5)
START = datetime(2026, 1, 1, tzinfo=UTC)  # of the examples


class Figures(NamedTuple):
    """What scheduling and monitoring need of a history; of good revisions where nothing else is said."""

    newest: datetime | None = None
    revision: str | None = None  # the newest one's UUID
    duration: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    taken: Mapping[str, datetime] = {}
    last_tags: tuple[str, ...] = ()
    manual_tags: tuple[str, ...] = ()
    revisions: int = 0  # of any kind
    stored: int = 0  # bytes written by all of them
    logical: int = 0  # bytes of all their images
    distrusted: int = 0
    damaged: int = 0
    future: int = 0
    unreadable: int = 0
    lost: int = 0
    caught: datetime | None = None  # when an audit last found wrong what the source says of changes
    misled: int = 0  # how many revisions relied on that, and are distrusted

    @property
    def has_history(self) -> bool:
        """Whether there is any record at all."""
        return self.revisions + self.unreadable > 0


class Sla(NamedTuple):
    """`age` is in seconds, of the newest good revision or since the job was configured."""

    ok: bool
    age: float
    limit: float


def is_future(revision: Revision, now: datetime) -> bool:
    """Whether it is dated later than clocks may differ."""
    return revision.taken_at - now > FUTURE_TOLERANCE


def is_good(revision: Revision, now: datetime) -> bool:
    """Whether it counts: for schedule, service level and retention alike."""
    return revision.is_good and not is_future(revision, now)


def by_age(revisions: Iterable[Revision], now: datetime) -> list[Revision]:
    """A history, oldest first, with those dated in the future before all: nobody knows their age."""
    return sorted(revisions, key=lambda one: not is_future(one, now))


def figures(
    revisions: Iterable[Revision], now: datetime, *, unreadable: int = 0, lost: int = 0
) -> Figures:
    """Sum up a history, oldest first."""
    newest: Revision | None = None
    taken: dict[str, datetime] = {}
    manual: dict[str, None] = {}
    count = stored = logical = distrusted = damaged = future = hinted = 0
    caught: datetime | None = None
    for one in revisions:
        count += 1
        stored += one.stats.bytes_written
        logical += one.image_size
        distrusted += one.is_distrusted
        damaged += one.damaged > 0
        future += is_future(one, now)
        readings = one.readings
        caught = one.taken_at if any(found.audit_failed for found in readings) else caught
        hinted += one.distrust is Distrust.SOURCE and any(found.since for found in readings)
        manual.update(dict.fromkeys(tag for tag in one.tags if tag.startswith("manual:")))
        if is_good(one, now):
            newest = one
            taken.update(dict.fromkeys(one.tags, one.taken_at))
    counted = Figures(
        manual_tags=tuple(manual),
        revisions=count,
        stored=stored,
        logical=logical,
        distrusted=distrusted,
        damaged=damaged,
        future=future,
        unreadable=unreadable,
        lost=lost,
        caught=caught,
        misled=hinted if caught else 0,
    )
    if newest is None:
        return counted
    return counted._replace(
        newest=newest.taken_at,
        revision=newest.uuid,
        duration=newest.stats.duration,
        bytes_read=newest.stats.bytes_read,
        bytes_written=newest.stats.bytes_written,
        taken=taken,
        last_tags=tuple(newest.tags),
    )


def smallest_interval(schedule: Mapping[str, TagPolicy]) -> int | None:
    """Seconds; None for an empty schedule, which promises nothing."""
    return min((one.interval for one in schedule.values()), default=None)


def judge(found: Figures, interval: int | None, *, configured_at: datetime, now: datetime) -> Sla:
    """The service level of a job whose smallest interval is `interval`."""
    age = (now - (found.newest or configured_at)).total_seconds()
    limit = float("inf") if interval is None else 1.5 * interval
    return Sla(age <= limit, age, limit)
