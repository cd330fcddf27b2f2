"""Revision specs: ranges between revisions and dates, with both ends included.

The history has one revision a day at 00:00 UTC, from 2024-01-01 (4) to 2024-01-05 (0).
"""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import revspec
from backy.ground.errors import SpecError
from fakes import fake_revision
from strategies import EPOCH, repeatable

HISTORY = [fake_revision(day, "daily") for day in range(5)]


def days(spec: str) -> list[int]:
    """Days of the revisions that a spec selects, in its order."""
    return [int(one.uuid[:8], 16) for one in revspec.select(spec, HISTORY)]


@pytest.fixture
def in_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run in another local time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("3..1", [1, 2, 3]),
        ("1..3", [1, 2, 3]),
        ("2..2", [2]),
        ("first..last", [0, 1, 2, 3, 4]),
        ("last..first", [0, 1, 2, 3, 4]),
        ("1..", [3, 4]),
        ("..1", [0, 1, 2, 3]),
        ("..", [0, 1, 2, 3, 4]),
        ("4..4", [0]),
        ("(3)..(1)", [1, 2, 3]),
        ("first(all)..last(1,2)", [0, 1, 2]),
        ("00000001-0..00000003-0", [1, 2, 3]),
        (" 3 .. 1 ", [1, 2, 3]),
        ("daily..", [4]),
        ("..,0", [0, 1, 2, 3, 4]),
        ("reverse(..2)", [2, 1, 0]),
        ("not(1..)", [0, 1, 2]),
    ],
)
def test_range_between_revisions_is_inclusive_and_oldest_first(spec: str, selected: list[int]) -> None:
    """Both ends belong to a range, in whichever order they are given; one left out is open."""
    assert selected == days(spec)


@pytest.mark.parametrize("spec", ["9..0", "0..9", "ffff0000-0..", "hourly..0", "9..2024-01-03T00Z"])
def test_range_with_an_end_that_is_no_revision_is_empty(spec: str) -> None:
    """Where an end names nothing, nobody can say what lies between."""
    assert [] == days(spec)


@pytest.mark.parametrize(
    "spec", ["all..0", "0..all", "tag:daily..", "not(0)..", "(0,1)..2", "(0..1)..2"]
)
def test_list_as_the_end_of_a_range_is_an_error(spec: str) -> None:
    """An end is one revision or a date."""
    with pytest.raises(SpecError, match="is a list, a range's end is one revision"):
        days(spec)


@pytest.mark.parametrize("in_zone", ["UTC"], indirect=True)
@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("2024-01-02..2024-01-04", [1, 2, 3]),
        ("2024-01-04..2024-01-02", [1, 2, 3]),
        ("20240102..20240104", [1, 2, 3]),
        ("2024-01-02..20240104", [1, 2, 3]),
        ("2024-01-02T00:00:01..2024-01-03T23:59:59", [2]),
        ("2024-01-03T23:59:59..2024-01-02T00:00:01", [2]),
        ("2024-01-02 12:00..2024-01-04 12:00", [2, 3]),
        ("2024-01-02T00:00Z..2024-01-02T00:00:00+00:00", [1]),
        ("2024-01-02T01:00+01:00..", [1, 2, 3, 4]),
        ("2024-01-03..", [2, 3, 4]),
        ("..2024-01-03", [0, 1, 2]),
        ("2024-01-01..", [0, 1, 2, 3, 4]),
        ("2024-01-01..2024-01-01", [0]),
        ("..2024-01-01", [0]),
        ("2024-01-05..", [4]),
        ("2024-01-05T00:00:01..", []),
        ("..2023-12-31T23:59:59", []),
        ("2023-01-01..2023-12-31", []),
        ("2023-01-01..2025-01-01", [0, 1, 2, 3, 4]),
        ("2025-01-01..2023-01-01", [0, 1, 2, 3, 4]),
        ("2024-01-02..1", [1, 2, 3]),
        ("1..2024-01-02", [1, 2, 3]),
        ("2024-01-04..first", [0, 1, 2, 3]),
        ("2024-01-03..2024-01-03", [2]),
        ("2024-01-02T10..2024-01-02T11", []),
    ],
)
def test_range_between_dates_is_inclusive(spec: str, selected: list[int], in_zone: None) -> None:
    """A date is 00:00; a revision of exactly that instant belongs to the range, the oldest one too."""
    assert selected == days(spec)


@pytest.mark.parametrize(
    ("in_zone", "selected"),
    [("UTC", [1, 2]), ("Etc/GMT-2", [1, 2]), ("Etc/GMT+2", [2])],
    indirect=["in_zone"],
)
def test_date_without_a_zone_is_local(selected: list[int], in_zone: None) -> None:
    """A bare date begins at the operator's midnight: two hours earlier or later than UTC's."""
    assert selected == days("2024-01-02..2024-01-03T12:00Z")


@pytest.mark.parametrize("in_zone", ["UTC", "Etc/GMT-14", "Etc/GMT+12"], indirect=True)
@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("0001-01-01..", [0, 1, 2, 3, 4]),
        ("..0001-01-01", []),
        ("0001-01-01T00:00:00+14:00..", [0, 1, 2, 3, 4]),
        ("..9999-12-31T23:59:59-14:00", [0, 1, 2, 3, 4]),
        ("9999-12-31..", []),
        ("..9999-12-31T23:59:59", [0, 1, 2, 3, 4]),
    ],
)
def test_dates_at_the_ends_of_the_calendar_are_dates(
    spec: str, selected: list[int], in_zone: None
) -> None:
    """The first and the last day that can be written are ends like any other, in every zone."""
    assert selected == days(spec)


@pytest.mark.parametrize("text", ["2024-01-02", "2024-01-02T10:00", "0, 2024-01-02", "not(2024-01-02)"])
def test_date_that_is_no_end_of_a_range_is_an_error(text: str) -> None:
    """A date alone names no revision; the error says how to write a range."""
    with pytest.raises(SpecError, match=r"as in DATE\.\."):
        days(text)


@pytest.mark.parametrize(
    ("text", "position"), [("2024-13-02..", 0), ("0..2024-01-32", 3), ("2024-01-02T25:00..", 0)]
)
def test_day_that_the_calendar_does_not_have_is_an_error(text: str, position: int) -> None:
    """It is not taken for a tag that no revision has; the error says where and how."""
    with pytest.raises(SpecError, match="is no date; they are written as") as caught:
        days(text)

    assert position == caught.value.position


def test_digits_are_a_number_or_a_date_by_place() -> None:
    """Eight digits are a date at the end of a range."""
    assert [2, 3, 4] == days("20240103..")
    assert [4] == days("0..20240105T00Z")


@repeatable(200)
@given(
    ends=st.tuples(
        *[st.none() | st.integers(-3600, 6 * 86400) | st.integers(-1, 5).map(lambda d: d * 86400)] * 2
    )
)
def test_range_of_instants_agrees_with_comparing_times(ends: tuple[int | None, int | None]) -> None:
    """Any two instants, in any order, select the revisions whose time lies between or on them."""
    at = [None if end is None else EPOCH + timedelta(seconds=end) for end in ends]
    spec = "..".join("" if one is None else one.isoformat() for one in at)
    low, high = at[0] or datetime.min.replace(tzinfo=UTC), at[1] or datetime.max.replace(tzinfo=UTC)
    if None not in at:
        low, high = min(low, high), max(low, high)

    expected = [day for day, one in enumerate(HISTORY) if low <= one.taken_at <= high]
    assert expected == days(spec)
