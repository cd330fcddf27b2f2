"""Clocks that are set, against schedule, retention and the running service (T12).

A small world: some jobs, a clock that can be set, and the scheduler's own rules, minute by minute.
What is real is told by a second clock that nobody sets: how often a job ran, and when last.

Limits: runs take no time here; the service itself is tried with a real history in the last tests.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from backy.daemon import jobs as rules
from backy.daemon.jobs import ScheduledJob
from backy.daemon.notify import Notifier
from backy.daemon.service import Service
from backy.domain.config import JobConfig, SourceConfig, TagPolicy
from backy.domain.retention import Fate, plan_expiry
from backy.domain.revision import Origin, Revision
from backy.domain.settings import Settings, parse_settings
from backy.domain.sla import figures, is_good
from backy.operation.survey import Surveyed
from backy.repository.repository import Repository
from fakes import fake_revision
from testsite import Site

DAY = timedelta(days=1)
YEAR = 365 * DAY
STEP = timedelta(minutes=15)
BEGIN = datetime(2026, 11, 24, tzinfo=UTC)
SCHEDULE = {"daily": TagPolicy(86400, 5), "weekly": TagPolicy(7 * 86400, 2)}
CONFIG = JobConfig(SourceConfig("file", {}), SCHEDULE)
JOBS = [f"vm{number:02}" for number in range(8)]


class FakeClock:
    """A clock that can be set, and one beside it that cannot."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._passed = timedelta(0)

    def pass_by(self, time: timedelta) -> None:
        """Time goes on, on both."""
        self._now += time
        self._passed += time

    def set(self, now: datetime) -> None:
        """Somebody sets the clock."""
        self._now = now

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._now

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._passed.total_seconds()


class World:
    """Jobs, their histories, and the real times of their runs in seconds."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.histories: dict[str, list[Revision]] = {name: [] for name in JOBS}
        self.runs: dict[str, list[float]] = {name: [] for name in JOBS}
        self.jobs: dict[str, ScheduledJob] = {}
        self._made = 0
        self.look()

    def look(self) -> None:
        """What the service does at its start, and when it sees that the clock was set."""
        now = self.clock.now()
        for name in JOBS:
            job = self.jobs.get(name) or rules.new_job(name, CONFIG, now)
            self.jobs[name] = rules.planned(job, self._surveyed(name), now)

    def live(self, time: timedelta) -> None:
        """Let time pass, and whatever is due be done."""
        until = self.clock.monotonic() + time.total_seconds()
        while self.clock.monotonic() < until:
            self.clock.pass_by(STEP)
            now = self.clock.now()
            for name, job in self.jobs.items():
                if rules.is_due(job, now, self.clock.monotonic()):
                    self._run(name)

    def _run(self, name: str) -> None:
        now, job = self.clock.now(), self.jobs[name]
        tags = dict.fromkeys(rules.tags_now(job, now), Origin.SCHEDULE)
        self._made += 1
        made = msgspec.structs.replace(fake_revision(self._made), taken_at=now, tags=tags)
        self.histories[name].append(made)
        self.histories[name].sort(key=lambda one: (one.taken_at, one.uuid))
        self.runs[name].append(self.clock.monotonic())
        self._expire(name)
        self.jobs[name] = rules.finished(rules.started(job), self._surveyed(name), now)

    def _expire(self, name: str) -> None:
        history, now = self.histories[name], self.clock.now()
        verdicts = {one.uuid: one for one in plan_expiry(history, SCHEDULE, now)}
        self.histories[name] = [
            one.with_tags(
                {tag: how for tag, how in one.tags.items() if tag not in verdicts[one.uuid].lost}
            )
            for one in history
            if verdicts[one.uuid].fate is not Fate.REMOVE
        ]
        check_kept(history, self.histories[name], now)

    def _surveyed(self, name: str) -> Surveyed:
        return Surveyed(figures(self.histories[name], self.clock.now()), BEGIN)


def check_kept(before: Sequence[Revision], after: Sequence[Revision], now: datetime) -> None:
    """Whatever the clock says: keep of each tag, the newest good one, and all of the future stay."""
    good = [[one for one in history if is_good(one, now)] for history in (before, after)]
    for tag, policy in SCHEDULE.items():
        had, has = (sum(tag in one.tags for one in history) for history in good)
        assert min(policy.keep, had) <= has
    assert good[0][-1] == good[1][-1]
    assert set(before_future(before, now)) <= {one.uuid for one in after}


def before_future(history: Sequence[Revision], now: datetime) -> list[str]:
    """Those that are dated in the future."""
    return [one.uuid for one in history if one.taken_at - now > timedelta(minutes=5)]


HOUR = timedelta(hours=1)
# How far the clock is off the truth, and for how long, one after the other.
SCRIPTS: Mapping[str, list[tuple[timedelta, timedelta]]] = {
    "a year ahead": [(YEAR, 3 * DAY)],
    "a year back": [(-YEAR, 3 * DAY)],
    "a year ahead, then a year back": [(YEAR, 2 * DAY), (-YEAR, 2 * DAY)],
    "an hour ahead and back, as if it were summer time": [(HOUR, 10 * DAY)],
    "an hour back": [(-HOUR, 10 * DAY)],
    "twelve hours back": [(-12 * HOUR, 4 * DAY)],
    "over the end of 32 bits": [(datetime(2038, 1, 19, 2, tzinfo=UTC) - BEGIN - 12 * DAY, 2 * DAY)],
    "to 1970": [(datetime(1970, 1, 1, tzinfo=UTC) - BEGIN - 12 * DAY, 2 * DAY)],
    "there and back every two hours": [(YEAR, 2 * HOUR), (timedelta(0), 2 * HOUR)] * 12,
    "back and there every two hours": [(-YEAR, 2 * HOUR), (timedelta(0), 2 * HOUR)] * 12,
    "an hour further back every two": [(-number * HOUR, 2 * HOUR) for number in range(1, 25)],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_clock_that_is_set_makes_no_storm_starves_nobody_and_loses_nothing(name: str) -> None:
    """One run more for each setting at most, never two days without one, and keep of each tag stay."""
    clock = FakeClock(BEGIN)
    world = World(clock)
    world.live(12 * DAY)
    for off, time in [*SCRIPTS[name], (timedelta(0), 3 * DAY)]:
        clock.set(BEGIN + timedelta(seconds=clock.monotonic()) + off)
        world.look()
        world.live(time)

    days, settings = clock.monotonic() / 86400, len(SCRIPTS[name]) + 1
    for job, runs in world.runs.items():
        gaps = [later - earlier for earlier, later in pairwise(runs)]
        assert max(gaps) <= 2 * 86400, job
        assert len(runs) <= days + settings + 1, job
        good = [one for one in world.histories[job] if is_good(one, clock.now())]
        assert clock.now() - good[-1].taken_at <= DAY + STEP, job


def test_clock_that_flaps_between_two_times_starts_each_job_once_more() -> None:
    """The first time ahead makes a revision there; later visits find it."""
    clock = FakeClock(BEGIN)
    world = World(clock)
    world.live(12 * DAY)
    before = Counter({job: len(runs) for job, runs in world.runs.items()})
    for number in range(24):
        clock.set(
            BEGIN + timedelta(seconds=clock.monotonic()) + (YEAR if number % 2 == 0 else timedelta(0))
        )
        world.look()
        world.live(timedelta(minutes=15))

    assert all(len(runs) - before[job] <= 2 for job, runs in world.runs.items())


def test_slot_that_went_by_while_the_job_waited_is_made_up_for() -> None:
    """A restart in between: due a day after the last good one, and not with the next slot only."""
    job = rules.new_job("vm", CONFIG, BEGIN)
    slot = rules.planned(job, Surveyed(), BEGIN).run.at
    taken = dict.fromkeys(SCHEDULE, slot - DAY + timedelta(minutes=20))
    history = figures([], slot)._replace(newest=taken["daily"], taken=taken, revisions=1)
    restarted = rules.planned(job, Surveyed(history, BEGIN), slot + timedelta(minutes=1))

    assert (slot + timedelta(minutes=20), ("daily",)) == restarted.run


class Ear:
    """A log that can be waited for."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    def info(self, event: str, **fields: object) -> None:
        """See `Log.info`."""
        self._heard.put_nowait(event)

    warning = error = info

    async def wait_for(self, event: str) -> None:
        """Until this was said."""
        async with asyncio.timeout(30):
            while await self._heard.get() != event:
                pass


def configured(site: Site) -> Settings:
    """The site's job, with a schedule that is not due for years."""
    document: dict[str, Any] = {
        "global": {"base-dir": str(site.base)},
        "schedules": {"s": {"daily": {"interval": "520w", "keep": 3}}},
        "jobs": {"vm": {"schedule": "s", "source": {"type": "file", "filename": str(site.image)}}},
    }
    return parse_settings(json.dumps(document), "backy.conf").complete()


def test_running_service_reads_its_histories_anew_when_the_clock_was_set(site: Site) -> None:
    """What was dated ahead counts no more, for the status, for the service level and for the plan."""
    clock = FakeClock(BEGIN)
    site.clock = clock
    site.backup()
    clock.set(BEGIN + YEAR)
    site.backup()

    async def watch(service: Service, ear: Ear) -> list[datetime | None]:
        """When the newest good revision was taken: before the clock is set, then after each time."""
        task = asyncio.create_task(service.run())
        await ear.wait_for("scheduler started")
        last = [service.status()[0].last_time]
        for years in (0, 1):
            clock.set(BEGIN + years * YEAR + timedelta(hours=1))
            service.reload()
            await ear.wait_for("the clock was set, all jobs are planned anew")
            last.append(service.status()[0].last_time)
        service.stop()
        await task
        return last

    settings = configured(site)
    with Repository.open(str(site.base)) as repository:
        ear = Ear()
        service = Service(settings, lambda: settings, repository, clock, ear, Notifier())
        assert [BEGIN + YEAR, BEGIN, BEGIN + YEAR] == asyncio.run(watch(service, ear))
