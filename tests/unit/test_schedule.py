"""When jobs are due: backy 2.5's slots to the second, missed tags, catching up, and retries."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.config import TagPolicy
from backy.domain.schedule import (
    NEVER,
    Run,
    backoff,
    job_spread,
    missed,
    next_run,
    next_slot,
    spread,
)
from strategies import repeatable

HOUR, DAY = 3600, 86_400
WEEK, MONTH = 7 * DAY, 30 * DAY
SCHEDULE = {"daily": TagPolicy(DAY, 10), "weekly": TagPolicy(WEEK, 4), "monthly": TagPolicy(MONTH, 4)}
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
NOON = MONDAY + timedelta(hours=12)
FRESH = {"daily": NOON - timedelta(hours=12), "weekly": NOON, "monthly": NOON}


@pytest.mark.parametrize(
    ("job", "longest", "expected"),
    [
        ("test01", DAY, 19971),
        ("test02", DAY, 36217),
        ("asdf02", DAY, 14532),
        ("vm01", DAY, 63733),
        ("test01", WEEK, 159773),
        ("test02", WEEK, 289741),
        ("vm01", WEEK, 509869),
        ("test01", MONTH, 639092),
        ("test02", MONTH, 1158966),
        ("vm01", MONTH, 2039477),
    ],
)
def test_spread_is_that_of_2_5(job: str, longest: int, expected: int) -> None:
    """Figures of 2.5 itself: a switch moves nobody's hour."""
    assert expected == spread(job, longest)


def test_spread_of_a_job_is_drawn_from_its_longest_interval() -> None:
    """The order of tags means nothing, and without tags there is nothing to spread."""
    assert 2039477 == job_spread("vm01", SCHEDULE)
    assert 2039477 == job_spread("vm01", dict(reversed(SCHEDULE.items())))
    assert 0 == job_spread("vm01", {})


@pytest.mark.parametrize(
    ("now", "interval", "moved", "expected"),
    [
        ("2015-09-01T07:06:47", DAY, 100, "2015-09-02T00:01:40"),
        ("2015-09-02T00:01:39.999999", DAY, 100, "2015-09-02T00:01:40"),
        ("2015-09-02T00:01:40", DAY, 100, "2015-09-03T00:01:40"),
        ("2015-09-02T00:01:40.000001", DAY, 100, "2015-09-03T00:01:40"),
        ("2015-09-02T00:00:00", DAY, 3 * DAY + 100, "2015-09-02T00:01:40"),
        ("2026-11-24T00:00:00", WEEK, 0, "2026-11-30T00:00:00"),
        ("2026-11-23T00:00:00", WEEK, 0, "2026-11-30T00:00:00"),
        ("2026-11-22T23:59:59", WEEK, 0, "2026-11-23T00:00:00"),
        ("2038-01-19T03:14:07", HOUR, 0, "2038-01-19T04:00:00"),
        ("2038-01-19T03:14:08", DAY, 15, "2038-01-20T00:00:15"),
        ("1969-12-31T23:59:59", DAY, 0, "1970-01-01T00:00:00"),
        ("0001-01-01T00:00:00", DAY, 7, "0001-01-01T00:00:07"),
        ("9999-12-31T12:00:00", HOUR, 0, "9999-12-31T13:00:00"),
    ],
)
def test_next_slot_is_that_of_2_5(now: str, interval: int, moved: int, expected: str) -> None:
    """Slots are counted from the year 1, and exactly at a slot the following one is next."""
    found = next_slot(datetime.fromisoformat(now + "Z"), interval, moved)

    assert datetime.fromisoformat(expected + "Z") == found


def test_slots_of_a_week_are_mondays() -> None:
    """7d slots without spread begin Monday 00:00 UTC, whatever the day."""
    slots = [next_slot(NOON + timedelta(days=day), WEEK, 0) for day in range(0, 3000, 5)]

    assert {(0, 0, 0)} == {(slot.weekday(), slot.hour, slot.minute) for slot in slots}


def test_slots_of_30_days_follow_the_rule_of_2_5() -> None:
    """30d slots lie where (day of Unix time + 719162) mod 30 is 0."""
    slots = [next_slot(NOON + timedelta(days=day), MONTH, 0) for day in range(0, 3000, 5)]

    assert {0} == {(int(slot.timestamp()) // DAY + 719162) % 30 for slot in slots}
    assert {0} == {int(slot.timestamp()) % DAY for slot in slots}


@pytest.mark.parametrize("interval", [DAY, 999_999_999_999 * 604_800])
def test_slot_past_the_calendar_is_never(interval: int) -> None:
    """Neither the last day of the year 9999 nor an absurd interval ends in an error."""
    assert NEVER == next_slot(datetime(9999, 12, 31, 12, tzinfo=UTC), interval, 0)
    assert Run(NEVER, ("x",)) == next_run({"x": TagPolicy(interval, 1)}, 0, {}, NEVER, has_history=False)


@pytest.mark.parametrize("hours", [-12, -5, 1, 2, 5.75, 14])
def test_zone_of_the_clock_means_nothing(hours: float) -> None:
    """Summer time changes the zone of a time and not the time, so the slot is the same."""
    local = NOON.astimezone(timezone(timedelta(hours=hours)))

    assert next_slot(NOON, DAY, 100) == next_slot(local, DAY, 100)
    assert missed(SCHEDULE, FRESH, NOON) == missed(SCHEDULE, FRESH, local)


def test_tag_is_missed_from_exactly_one_interval_on() -> None:
    """One interval old is missed, a microsecond less is not, and never taken is."""
    taken = {"daily": NOON - timedelta(days=1), "weekly": NOON - timedelta(days=7, microseconds=-1)}

    assert ("daily", "monthly") == missed(SCHEDULE, taken, NOON)


def test_run_has_all_tags_of_the_earliest_slot() -> None:
    """On a Monday, daily and weekly are due in one run; on other days only daily."""
    sunday = {"daily": NOON - timedelta(days=1), "weekly": NOON, "monthly": NOON}
    before_monday = MONDAY - timedelta(hours=3)

    monday = Run(MONDAY, ("daily", "weekly"))
    assert monday == next_run(SCHEDULE, 0, sunday, before_monday, has_history=True)
    tuesday = Run(MONDAY + timedelta(days=1), ("daily",))
    assert tuesday == next_run(SCHEDULE, 0, FRESH, NOON, has_history=True)


def test_missed_tags_are_made_up_for_at_once() -> None:
    """With a history and a slot that is far, only what is missed runs, now."""
    late = FRESH | {"weekly": NOON - timedelta(days=8)}

    assert Run(NOON, ("weekly",)) == next_run(SCHEDULE, 0, late, NOON, has_history=True)


def test_missed_tags_join_a_slot_that_is_at_most_five_minutes_away() -> None:
    """Exactly five minutes wait for the slot, a second more does not."""
    late = {"daily": MONDAY, "monthly": MONDAY}
    slot = MONDAY + timedelta(days=1)
    near, far = slot - timedelta(minutes=5), slot - timedelta(minutes=5, seconds=1)

    assert Run(slot, ("daily", "weekly")) == next_run(SCHEDULE, 0, late, near, has_history=True)
    assert Run(far, ("weekly",)) == next_run(SCHEDULE, 0, late, far, has_history=True)


def test_job_without_history_waits_for_its_slot_with_all_tags() -> None:
    """A new job does not run at once, or a hundred of them would together."""
    expected = Run(MONDAY + timedelta(days=1), ("daily", "weekly", "monthly"))

    assert expected == next_run(SCHEDULE, 0, {}, NOON, has_history=False)


def test_history_without_good_revisions_is_made_up_for() -> None:
    """Any record makes a job one that has run before."""
    assert Run(NOON, tuple(SCHEDULE)) == next_run(SCHEDULE, 0, {}, NOON, has_history=True)


@pytest.mark.parametrize("has_history", [True, False])
def test_empty_schedule_is_never_due(has_history: bool) -> None:
    """There is no slot and no tag to run for."""
    assert Run(NEVER, ()) == next_run({}, 5, FRESH, NOON, has_history=has_history)


def test_retries_wait_twice_as_long_each_time_up_to_six_hours() -> None:
    """2, 4, 8 … 256, 360 minutes, however often it failed."""
    expected = [2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]

    assert [60 * one for one in expected] == [backoff(failures) for failures in range(1, 12)]
    assert 360 * 60 == backoff(10**9)


_ANY_TIME = st.datetimes(datetime(1, 1, 2), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@repeatable(300)
@given(now=_ANY_TIME, interval=st.integers(1, 10**8), moved=st.integers(0, 10**9), part=st.floats(0, 1))
def test_slot_is_the_first_one_after_now(now: datetime, interval: int, moved: int, part: float) -> None:
    """It lies after now by at most an interval, and any time until then has the same one next."""
    slot = next_slot(now, interval, moved)
    between = now + (slot - now) * part

    assert timedelta(0) < slot - now <= timedelta(seconds=interval)
    assert slot == (next_slot(between, interval, moved) if between < slot else slot)
    assert slot + timedelta(seconds=interval) == next_slot(slot, interval, moved)
    assert 0 == ((slot - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) - moved) % interval


@repeatable(200)
@given(
    intervals=st.lists(st.integers(60, MONTH), min_size=1, max_size=4),
    ages=st.lists(st.none() | st.integers(0, 2 * MONTH), min_size=4, max_size=4),
    moved=st.integers(0, MONTH),
    has_history=st.booleans(),
)
def test_run_always_has_tags_and_all_that_are_missed(
    intervals: list[int], ages: list[int | None], moved: int, *, has_history: bool
) -> None:
    """A run is never in the past, has a tag, and leaves out none that is missed."""
    schedule = {f"tag{number}": TagPolicy(one, 1) for number, one in enumerate(intervals)}
    aged = zip(schedule, ages, strict=False)
    taken = {tag: NOON - timedelta(seconds=age) for tag, age in aged if age is not None}

    run = next_run(schedule, moved, taken, NOON, has_history=has_history)

    assert run.at >= NOON
    assert run.tags
    assert set(missed(schedule, taken, NOON)) <= set(run.tags)
    assert run.tags == tuple(tag for tag in schedule if tag in run.tags)
