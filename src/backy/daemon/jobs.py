"""A job as the scheduler sees it: frozen, and every change of state a function that returns the next.

    job = planned(new_job("vm01", config), surveyed, now)
    job = started(job); job = finished(job, surveyed, now)

Limits: pure. `retry_at` and `mono` are seconds of a clock that is never set; all others are UTC.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from backy.daemon.scheduler import NEW_JOB_DURATION, Pool, Waiting, pool_of
from backy.domain import schedule as schedules
from backy.domain.config import JobConfig
from backy.domain.schedule import NEVER, Run, backoff
from backy.domain.sla import Figures, Sla, judge, smallest_interval
from backy.operation.survey import Surveyed


class ScheduledJob(NamedTuple):
    """Configuration, history and plan of one job."""

    name: str
    config: JobConfig
    moved: int
    since: datetime
    figures: Figures = Figures()
    problem: str | None = None
    run: Run = Run(NEVER, ())
    running: Pool | None = None
    manual: bool = False
    failures: int = 0
    retry_at: float = 0.0
    last_failed: bool = False

    @property
    def pool(self) -> Pool:
        """Which workers it uses next."""
        return pool_of(self.figures.duration if self.figures.newest else None)

    def sla(self, now: datetime) -> Sla:
        """Its service level."""
        interval = smallest_interval(self.config.schedule)
        return judge(self.figures, interval, configured_at=self.since, now=now)


def new_job(name: str, config: JobConfig, now: datetime) -> ScheduledJob:
    """A job that was read from the configuration now."""
    return ScheduledJob(name, config, schedules.job_spread(name, config.schedule), now)


def planned(job: ScheduledJob, found: Surveyed, now: datetime) -> ScheduledJob:
    """The job with what its history says, and its next run."""
    job = job._replace(
        figures=found.figures, problem=found.problem, since=found.configured_at or job.since
    )
    return job._replace(run=_next_run(job, now))


def seen(job: ScheduledJob) -> Surveyed:
    """What is known of its history, for a job whose configuration alone has changed."""
    return Surveyed(job.figures, job.since, job.problem)


def _next_run(job: ScheduledJob, now: datetime) -> Run:
    return schedules.next_run(
        job.config.schedule,
        job.moved,
        job.figures.taken,
        now,
        has_history=job.figures.has_history or _slot_went_by(job, now),
    )


def _slot_went_by(job: ScheduledJob, now: datetime) -> bool:
    """Whether a job was set up so long ago that it should have run, such as one cut off in its first."""
    schedule = job.config.schedule.values()
    return any(schedules.next_slot(job.since, one.interval, job.moved) <= now for one in schedule)


def requested(job: ScheduledJob) -> ScheduledJob:
    """An operator wants it to run now."""
    return job._replace(manual=True)


def is_due(job: ScheduledJob, now: datetime, mono: float) -> bool:
    """Whether it may start now."""
    if job.running is not None or not job.config.schedule:
        return False
    if job.manual:
        return True
    return mono >= job.retry_at if job.failures else job.run.at <= now


def waiting(job: ScheduledJob, now: datetime) -> Waiting:
    """A due job for `scheduler.choose`."""
    sla = job.sla(now)
    duration = job.figures.duration if job.figures.newest else NEW_JOB_DURATION
    return Waiting(
        job.name, job.pool, job.run.at, sla.limit - sla.age, sla.limit / 1.5, duration, job.manual
    )


def tags_now(job: ScheduledJob, now: datetime) -> tuple[str, ...]:
    """Tags of the run that starts now: those planned and those missed by now."""
    late = schedules.missed(job.config.schedule, job.figures.taken, now)
    return tuple(tag for tag in job.config.schedule if tag in job.run.tags or tag in late)


def started(job: ScheduledJob) -> ScheduledJob:
    """It runs."""
    return job._replace(running=job.pool, manual=False)


def finished(job: ScheduledJob, found: Surveyed, now: datetime) -> ScheduledJob:
    """Its backup succeeded."""
    job = job._replace(running=None, failures=0, retry_at=0.0, last_failed=False)
    return planned(job, found, now)


def failed(job: ScheduledJob, found: Surveyed, now: datetime, mono: float) -> ScheduledJob:
    """Its backup failed: it is tried again, after a time that doubles with each failure."""
    delay = backoff(job.failures + 1)
    tags = tags_now(job, now)
    job = job._replace(
        running=None,
        failures=job.failures + 1,
        retry_at=mono + delay,
        last_failed=True,
        figures=found.figures,
        problem=found.problem,
    )
    return job._replace(run=Run(now + timedelta(seconds=delay), tags))


def status_text(job: ScheduledJob, now: datetime, mono: float) -> str:
    """What it is doing, in backy 2.5's words."""
    if job.running is not None:
        return f"running ({job.running.value})"
    if is_due(job, now, mono):
        return f"waiting for worker slot ({job.pool.value})"
    if job.last_failed:
        return "failed"
    return "waiting for deadline"


class Status(NamedTuple):
    """A job's entry in `status`, in backy 2.5's terms; times are UTC, durations seconds."""

    job: str
    sla: str
    sla_overdue: int
    status: str
    last_time: datetime | None
    last_tags: str
    last_duration: float | None
    next_time: datetime | None
    next_tags: str
    manual_tags: str
    problem_reports: int = 0
    unsynced_revs: int = 0
    local_revs: int = 0


def status(job: ScheduledJob, now: datetime, text: str) -> Status:
    """Its entry now."""
    sla, found = job.sla(now), job.figures
    schedule = job.config.schedule
    by_interval = sorted(
        found.last_tags, key=lambda tag: schedule[tag].interval if tag in schedule else 0
    )
    return Status(
        job.name,
        "OK" if sla.ok else "TOO OLD",
        0 if sla.ok else int(sla.age),
        text,
        found.newest,
        ",".join(by_interval),
        found.duration if found.newest else None,
        None if job.run.at == NEVER else job.run.at,
        ",".join(job.run.tags),
        ", ".join(found.manual_tags),
        local_revs=found.revisions,
    )
