"""What the scheduler does for the whole repository: when it is due, and when it is not."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.daemon.chores import (
    FIRST_AFTER,
    RETRY_AFTER,
    SLICE_INTERVAL,
    Chore,
    Last,
    due,
    wanted,
)
from backy.domain.config import GlobalConfig

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
DAY = timedelta(days=1)
GC = Chore("collection", ("gc",), DAY)
OTHER = Chore("other", ("other",), 7 * DAY)


@pytest.mark.parametrize(
    ("last", "up", "is_due"),
    [
        (None, FIRST_AFTER - timedelta(seconds=1), False),
        (None, FIRST_AFTER, True),
        (Last(NOW - DAY), timedelta(0), True),
        (Last(NOW - DAY + timedelta(seconds=1)), 9 * DAY, False),
        (Last(NOW - RETRY_AFTER, failed=True), timedelta(0), True),
        (Last(NOW - RETRY_AFTER + timedelta(seconds=1), failed=True), 9 * DAY, False),
    ],
)
def test_a_chore_is_due_an_interval_after_its_last_end(
    last: Last | None, up: timedelta, is_due: bool
) -> None:
    """Or an hour after the start, or after a failure."""
    ended = {} if last is None else {"collection": last}

    assert (GC if is_due else None) == due([GC], ended, NOW - up, NOW)


def test_the_chore_that_waits_longest_comes_first() -> None:
    """So none starves."""
    ended = {"collection": Last(NOW - 2 * DAY), "other": Last(NOW - 9 * DAY)}

    assert OTHER == due([GC, OTHER], ended, NOW, NOW)
    assert GC == due([GC, OTHER], ended | {"other": Last(NOW - 7 * DAY)}, NOW, NOW)


def test_what_was_asked_for_comes_before_what_is_due() -> None:
    """At once, also on a day on which it was done already."""
    ended = {"collection": Last(NOW), "other": Last(NOW - 9 * DAY)}

    assert GC == due([GC, OTHER], ended, NOW, NOW, asked={"collection"})
    assert OTHER == due([GC, OTHER], ended, NOW, NOW, asked={"of another configuration"})


@given(st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=40_000)))
def test_an_end_in_the_future_neither_storms_nor_stops(ahead: timedelta) -> None:
    """After the clock was set back a chore runs once, and then an interval later, not years."""
    assert GC == due([GC], {"collection": Last(NOW + ahead)}, NOW, NOW)

    assert due([GC], {"collection": Last(NOW)}, NOW, NOW) is None
    assert GC == due([GC], {"collection": Last(NOW)}, NOW, NOW + DAY)


def test_the_configuration_says_which_chores_there_are() -> None:
    """Collection always, a slice of verification unless it is 0 long."""
    general = GlobalConfig(gc_interval=3600, verify_slice=5400)

    assert [
        Chore("collection", ("gc",), timedelta(hours=1)),
        Chore("verification", ("verify", "--slice", "90m"), SLICE_INTERVAL, finding=1),
    ] == wanted(general)
    assert ["collection"] == [one.name for one in wanted(general._replace(verify_slice=0))]
