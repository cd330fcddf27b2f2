"""A job's way through the scheduler: planned, due, running, finished or failed, and the clock set."""

from datetime import datetime, timedelta

import pytest

from backy.daemon import jobs as rules
from backy.daemon.jobs import ScheduledJob
from backy.daemon.scheduler import Pool
from backy.domain.config import JobConfig, SourceConfig, TagPolicy
from backy.domain.schedule import NEVER
from backy.domain.sla import START, Figures
from backy.operation.survey import Surveyed

DAY = timedelta(days=1)
SCHEDULE = {"daily": TagPolicy(86400, 3), "weekly": TagPolicy(604800, 3)}
CONFIG = JobConfig(SourceConfig("file", {}), SCHEDULE)


NOTHING = Surveyed()


def job(surveyed: Surveyed = NOTHING, now: datetime = START) -> ScheduledJob:
    """A job as the scheduler knows it after reading configuration and history."""
    return rules.planned(rules.new_job("vm", CONFIG, now), surveyed, now)


def backed_up(at: datetime, duration: float = 60.0, *tags: str) -> Surveyed:
    """A history whose newest good revision is of this time."""
    taken = dict.fromkeys(tags or SCHEDULE, at)
    figures = Figures(newest=at, duration=duration, taken=taken, revisions=1, last_tags=tuple(taken))
    return Surveyed(figures, START)


def test_a_new_job_waits_for_its_slot_with_all_tags() -> None:
    """It has no history, so nothing is made up for."""
    new = job()

    assert START < new.run.at <= START + DAY
    assert ("daily", "weekly") == new.run.tags
    assert not rules.is_due(new, START, 0.0)
    assert rules.is_due(new, new.run.at, 0.0)
    assert "waiting for deadline" == rules.status_text(new, START, 0.0)
    assert "waiting for worker slot (slow)" == rules.status_text(new, new.run.at, 0.0)


def test_a_new_job_whose_slot_went_by_is_made_up_for() -> None:
    """Its first run failed or was cut off, and the scheduler started anew: not a day later, now."""
    slot = job().run.at
    nothing_yet = Surveyed(configured_at=START)

    early = rules.planned(rules.new_job("vm", CONFIG, START), nothing_yet, slot - timedelta(minutes=9))
    late = rules.planned(rules.new_job("vm", CONFIG, START), nothing_yet, slot + timedelta(minutes=9))
    assert slot == early.run.at
    assert (slot + timedelta(minutes=9), ("daily", "weekly")) == late.run


def test_a_missed_tag_is_made_up_for_at_once() -> None:
    """The daemon was down for two days."""
    late = job(backed_up(START - 2 * DAY), START)

    assert (START, ("daily",)) == late.run
    assert rules.is_due(late, START, 0.0)


def test_a_job_without_a_schedule_is_never_due() -> None:
    """Not even if an operator asks: it would have no tag."""
    empty = CONFIG._replace(schedule={})
    idle = rules.planned(rules.new_job("vm", empty, START), Surveyed(), START)

    assert NEVER == idle.run.at
    assert not rules.is_due(rules.requested(idle), START, 0.0)
    assert rules.status(idle, START, "x").next_time is None


def test_a_running_job_is_not_started_again() -> None:
    """Neither by its slot nor by request."""
    running = rules.started(rules.requested(job()))

    assert Pool.SLOW is running.running
    assert not running.manual
    assert not rules.is_due(rules.requested(running), NEVER, 1e9)
    assert "running (slow)" == rules.status_text(running, START, 0.0)


def test_a_finished_job_waits_for_the_next_slot() -> None:
    """And its duration decides the next pool."""
    now = START + timedelta(hours=1)
    done = rules.finished(rules.started(job()), backed_up(START), now)

    assert done.running is None
    assert now < done.run.at <= now + DAY
    assert Pool.FAST is done.pool
    assert Pool.SLOW is rules.finished(done, backed_up(START, 600.0), now).pool


def test_a_failed_job_is_tried_again_later_and_later() -> None:
    """After 2, 4, 8 … minutes by the clock that is never set, with the tags that are missed by then."""
    failed, waits = rules.started(job()), []
    for _ in range(10):
        failed = rules.failed(failed, Surveyed(), START, 1000.0)
        waits.append((failed.retry_at - 1000.0) / 60)
        assert not rules.is_due(failed, START + 10 * DAY, failed.retry_at - 1)
        assert rules.is_due(failed, START, failed.retry_at)
    assert [2, 4, 8, 16, 32, 64, 128, 256, 360, 360] == waits
    assert ("daily", "weekly") == rules.tags_now(failed, START)
    assert "failed" == rules.status_text(failed, START, 1000.0)


def test_success_resets_the_wait() -> None:
    """The next failure is a first one."""
    failed = rules.failed(rules.failed(job(), Surveyed(), START, 0.0), Surveyed(), START, 0.0)
    done = rules.finished(failed, backed_up(START), START)

    assert (0, False) == (done.failures, done.last_failed)
    assert 120.0 == rules.failed(done, Surveyed(), START, 0.0).retry_at


def test_a_request_cuts_into_the_wait() -> None:
    """An operator who has mended something need not wait for hours."""
    failed = rules.failed(job(), Surveyed(), START, 0.0)

    assert rules.is_due(rules.requested(failed), START, 1.0)


@pytest.mark.parametrize("years", [-10, -1, 1, 12])
def test_a_clock_that_was_set_starts_each_job_once_at_most(years: int) -> None:
    """After the one run that it may ask for, the next is a slot away: no storm."""
    known = job(backed_up(START), START)
    now = START + years * 365 * DAY
    moved = rules.planned(known, backed_up(START), now)
    if rules.is_due(moved, now, 0.0):
        moved = rules.finished(rules.started(moved), backed_up(now), now)

    assert not rules.is_due(moved, now, 0.0)
    assert now < moved.run.at <= now + DAY


def test_slack_is_what_remains_until_the_service_level_breaks() -> None:
    """Of a day's job that was backed up 30 hours ago: six hours."""
    found = rules.waiting(job(backed_up(START), START), START + timedelta(hours=30))

    assert (6 * 3600.0, 86400.0, 60.0) == (found.slack, found.interval, found.duration)


def test_status_is_in_the_terms_of_2_5() -> None:
    """Overdue is the whole age, tags are sorted by interval."""
    now = START + 2 * DAY
    entry = rules.status(job(backed_up(START), now), now, "waiting for deadline")

    assert ("vm", "TOO OLD", 2 * 86400) == (entry.job, entry.sla, entry.sla_overdue)
    assert (START, "daily,weekly", 60.0) == (entry.last_time, entry.last_tags, entry.last_duration)
    assert (now, "daily") == (entry.next_time, entry.next_tags)
