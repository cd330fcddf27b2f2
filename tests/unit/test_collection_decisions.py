"""Decisions of collection: what vanished stops it, what is ripe may go, and what is too much."""

from datetime import UTC, datetime, timedelta

import pytest

from backy.domain.collection import (
    ABSENCE,
    GRACE,
    Known,
    Seal,
    Vanished,
    is_ripe,
    is_too_much,
    still_known,
    vanished,
)

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
A, B, C = "a", "b", "c"


def known(**jobs: tuple[str, ...]) -> Known:
    """What a collection saw."""
    return Known(jobs=jobs)


# ..What vanished..............................................................................


def test_nothing_vanished_where_all_is_there() -> None:
    """Whether more came or not."""
    assert [] == vanished(known(vm=(A,)), {"vm": {A, B}, "new": {C}}, NOW, ())
    assert [] == vanished(known(), {"vm": {A}}, NOW, ())
    assert [] == vanished(known(), {}, NOW, ())


def test_a_revision_without_any_file_has_vanished() -> None:
    """It was not forgotten: that leaves a file with its UUID."""
    assert [Vanished("vm", (A,), None)] == vanished(known(vm=(A, B)), {"vm": {B}}, NOW, ())


def test_an_empty_directory_is_not_explained_by_age() -> None:
    """It may be where a disk is to be mounted."""
    before = Known(jobs={"vm": (A,)}, absent={"vm": NOW - 9 * ABSENCE})

    assert [Vanished("vm", (A,), None)] == vanished(before, {"vm": ()}, NOW, ())


def test_a_revision_that_lies_in_another_job_did_not_vanish() -> None:
    """The directory of a job may be renamed."""
    assert [] == vanished(known(vm=(A, B)), {"vm-old": {A, B}}, NOW, ())
    assert [Vanished("vm", (B,), NOW)] == vanished(known(vm=(A, B)), {"vm-old": {A}}, NOW, ())


def test_an_absent_directory_counts_as_removed_after_a_week() -> None:
    """And not a second before."""
    for age, stops in ((timedelta(0), 1), (ABSENCE - SECOND, 1), (ABSENCE, 0), (2 * ABSENCE, 0)):
        before = Known(jobs={"vm": (A,)}, absent={"vm": NOW - age})
        found = vanished(before, {}, NOW, ())
        assert [Vanished("vm", (A,), NOW - age)] * stops == found


def test_absence_begins_when_it_is_seen_first() -> None:
    """Before, nobody could have missed it."""
    assert [Vanished("vm", (A,), NOW)] == vanished(known(vm=(A,)), {}, NOW, ())


def test_absence_noted_by_a_wrong_clock_begins_now() -> None:
    """Otherwise it would be missed until that day of the future has passed."""
    before = Known(jobs={"vm": (A,)}, absent={"vm": NOW + timedelta(days=4000)})

    assert [Vanished("vm", (A,), NOW)] == vanished(before, {}, NOW, ())


@pytest.mark.parametrize("present", [{}, {"vm": ()}])
def test_what_the_operator_gave_up_stops_nothing(present: dict[str, tuple[str, ...]]) -> None:
    """By the job's name, or by the UUIDs of all; one of two is not enough."""
    before = known(vm=(A, B))

    assert [] == vanished(before, present, NOW, ("vm",))
    assert [] == vanished(before, present, NOW, (A, B))
    assert [(B,)] == [one.uuids for one in vanished(before, present, NOW, (A, "other"))]


# ..What is remembered.........................................................................


def test_what_is_missing_is_remembered_until_it_is_explained() -> None:
    """With the day since when, for absent directories."""
    missing = [Vanished("vm", (A,), None), Vanished("gone", (B,), NOW)]
    found = still_known({"vm": {C}, "empty": ()}, missing)

    assert Known(jobs={"vm": (C, A), "gone": (B,)}, absent={"gone": NOW}) == found
    assert missing == vanished(found, {"vm": {C}}, NOW, ())


def test_absence_does_not_begin_anew_with_each_run() -> None:
    """A week of nightly runs ends it."""
    found = known(vm=(A,))
    for day in range(7):
        now = NOW + timedelta(days=day)
        missing = vanished(found, {}, now, ())
        assert [NOW] == [one.since for one in missing]
        found = still_known({}, missing)

    assert [] == vanished(found, {}, NOW + ABSENCE, ())


def test_what_was_explained_is_not_remembered() -> None:
    """So that it is asked once."""
    assert known(vm=(B,)) == still_known({"vm": {B}}, [])


# ..What is ripe...............................................................................


@pytest.mark.parametrize(
    ("writers", "living", "age", "ripe"),
    [
        ((), (), GRACE, True),
        ((), (), GRACE - SECOND, False),
        ((A,), (), GRACE, True),
        ((A,), (A,), 9 * GRACE, False),
        ((A, B), (B,), 9 * GRACE, False),
        ((A,), (B, C), GRACE, True),
        ((), (A,), GRACE, True),
        ((), (), -SECOND, False),
    ],
)
def test_generation_is_ripe_when_the_writers_of_its_census_have_ended(
    writers: tuple[str, ...], living: tuple[str, ...], age: timedelta, ripe: bool
) -> None:
    """And the grace is over; writers that came later do not count."""
    assert ripe is is_ripe(Seal(at=NOW - age, writers=writers), living, NOW, GRACE)


def test_without_grace_only_writers_and_the_future_hold() -> None:
    """As `--now` has it."""
    waived = timedelta(0)

    assert is_ripe(Seal(at=NOW, writers=()), (A,), NOW, waived)
    assert not is_ripe(Seal(at=NOW, writers=(A,)), (A,), NOW, waived)
    assert not is_ripe(Seal(at=NOW + SECOND, writers=()), (), NOW, waived)


@pytest.mark.parametrize(
    ("unmarked", "total", "much"),
    [(0, 0, False), (0, 1, False), (1, 2, False), (1, 1, True), (51, 100, True)],
)
def test_more_than_half_is_too_much(unmarked: int, total: int, much: bool) -> None:
    """Half is not."""
    assert much is is_too_much(unmarked, total)
