"""Simulated days of a storage host: many jobs, few workers, a clock that is a number.

    figures = simulate(fleet(1000, seconds=60), workers=4, days=10)

Uses the scheduler's own pure rules (`backy.daemon.jobs`, `backy.daemon.scheduler`), so what it shows
is what the daemon does; only children and disks are left out. `order` may be exchanged for
first-come, which is how the gain of ordering by slack is measured.

Limits: one schedule tag per job; durations do not depend on what else runs.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backy.daemon import jobs as rules
from backy.daemon.jobs import ScheduledJob
from backy.daemon.scheduler import FAST_BELOW, Pool, Waiting, choose
from backy.domain.config import JobConfig, SourceConfig, TagPolicy
from backy.domain.sla import START, Figures
from backy.operation.survey import Surveyed

DAY = 86400
OVERLOADED = 150
OVERLOADS = (1.3, 1.7, 2.5)
Chooser = Callable[[Sequence[Waiting], Mapping[Pool, int], int], list[str]]


class Machine(NamedTuple):
    """A job and how many seconds its backup takes."""

    name: str
    seconds: float


class Outcome(NamedTuple):
    """What the simulated days showed."""

    runs: int
    late_share: float
    late_jobs: int
    longest_gap: float
    never: int
    doubled: int
    per_hour: Counter[int]

    @property
    def unevenness(self) -> float:
        """Largest deviation of an hour's starts from the mean, as a share of it."""
        mean = sum(self.per_hour.values()) / 24
        return max(abs(self.per_hour[hour] - mean) / mean for hour in range(24))


def fleet(count: int, seconds: float) -> list[Machine]:
    """Machines whose backups all take `seconds`."""
    return [Machine(f"vm{n:05}", seconds) for n in range(count)]


def mixed_fleet(count: int, overload: float, workers: int, *, seed: int = 3) -> list[Machine]:
    """Log-normal durations, all above ten minutes, that ask for `overload` times the workers' day."""
    draw = random.Random(seed)
    shares = [draw.lognormvariate(0, 1.3) for _ in range(count)]
    unit = overload * workers * DAY / sum(shares)
    return [Machine(f"vm{n:05}", max(one * unit, FAST_BELOW + 1)) for n, one in enumerate(shares)]


def first_come(waiting: Sequence[Waiting], free: Mapping[Pool, int], _limit: int) -> list[str]:
    """What backy 2.5 does: whoever was due first."""
    started = []
    for pool, count in free.items():
        queue = sorted((w.due_at, w.job) for w in waiting if w.pool is pool)
        started += [job for _, job in queue[:count]]
    return started


class _Host:
    """The state of one simulation."""

    def __init__(self, machines: Sequence[Machine], workers: int, chooser: Chooser) -> None:
        config = JobConfig(SourceConfig("file", {}), {"daily": TagPolicy(DAY, 10)})
        self.seconds = {one.name: one.seconds for one in machines}
        self.jobs: dict[str, ScheduledJob] = {}
        self.workers = workers
        self.chooser = chooser
        self.due: dict[str, ScheduledJob] = {}
        self.events: list[tuple[datetime, int, str]] = []
        self.ends: Counter[str] = Counter()
        self.used: Counter[Pool] = Counter()
        for one in machines:
            job = rules.planned(rules.new_job(one.name, config, START), Surveyed(), START)
            self._plan(job)

    def _plan(self, job: ScheduledJob) -> None:
        self.jobs[job.name] = job
        heapq.heappush(self.events, (job.run.at, 0, job.name))

    def start_waiting(self, now: datetime) -> list[str]:
        """Start what the chooser says; returns the names."""
        free = {pool: self.workers - self.used[pool] for pool in Pool}
        if not self.due or not any(
            free[pool] > 0 and any(job.pool is pool for job in self.due.values()) for pool in Pool
        ):
            return []
        names = self.chooser([rules.waiting(job, now) for job in self.due.values()], free, self.workers)
        for name in names:
            job = rules.started(self.due.pop(name))
            assert job.running is not None
            self.jobs[name] = job
            self.used[job.running] += 1
            heapq.heappush(self.events, (now + timedelta(seconds=self.seconds[name]), 1, name))
        return names

    def end(self, name: str, now: datetime, begun: datetime) -> None:
        """A backup is complete."""
        job = self.jobs[name]
        assert job.running is not None
        self.used[job.running] -= 1
        self.ends[name] += 1
        found = Figures(
            newest=begun, duration=self.seconds[name], taken={"daily": begun}, revisions=self.ends[name]
        )
        self._plan(rules.finished(job, Surveyed(found, job.since), now))


def simulate(
    machines: Sequence[Machine], workers: int, days: int, chooser: Chooser = choose, *, settle: int = 2
) -> Outcome:
    """Run so many days from an empty start; the first `settle` are not counted as late."""
    host = _Host(machines, workers, chooser)
    until = START + timedelta(days=days)
    settled = START + timedelta(days=settle)
    begun: dict[str, datetime] = {}
    last_begun: dict[str, datetime] = {}
    per_hour: Counter[int] = Counter()
    runs = doubled = 0
    late_seconds = gap = 0.0
    late: set[str] = set()
    while host.events and host.events[0][0] < until:
        now = host.events[0][0]
        while host.events and host.events[0][0] == now:
            _, kind, name = heapq.heappop(host.events)
            if kind:
                host.end(name, now, begun.pop(name))
            else:
                host.due[name] = host.jobs[name]
        for name in host.start_waiting(now):
            doubled += name in begun
            begun[name] = now
            runs += 1
            per_hour[now.hour] += 1
            if name in last_begun:
                since = (now + timedelta(seconds=host.seconds[name]) - last_begun[name]).total_seconds()
                gap = max(gap, since)
                if now > settled:
                    late_seconds += max(since - 1.5 * DAY, 0)
                    if since > 1.5 * DAY:
                        late.add(name)
            last_begun[name] = now
    for name in host.seconds:
        since = (until - last_begun.get(name, START)).total_seconds()
        gap = max(gap, since)
        late_seconds += max(since - 1.5 * DAY, 0)
        if since > 1.5 * DAY:
            late.add(name)
    total = len(machines) * (days - settle) * DAY
    return Outcome(
        runs, late_seconds / total, len(late), gap, len(machines) - len(last_begun), doubled, per_hour
    )


def main() -> None:
    """Print both simulations of the goals."""
    even = simulate(fleet(10_000, 10), workers=4, days=90)
    print(f"10,000 jobs, 90 days: {even.runs} runs, {even.never} never ran, {even.doubled} doubled,")
    print(f"  longest gap {even.longest_gap / 3600:.1f} h, hour's starts {even.unevenness:.1%} off even")
    for overload in OVERLOADS:
        machines = mixed_fleet(OVERLOADED, overload, workers=2)
        for name, chooser in (("by slack", choose), ("first come", first_come)):
            found = simulate(machines, 2, 60, chooser, settle=15)
            print(
                f"{overload} times too much work, {name}: "
                f"{found.late_jobs} of {OVERLOADED} jobs ever late, "
                f"{found.late_share:.1%} of their time, longest gap {found.longest_gap / 3600:.0f} h, "
                f"{found.runs} runs, {found.never} never ran"
            )


if __name__ == "__main__":
    main()
