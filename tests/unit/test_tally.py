"""What tests count of themselves, their shares of the time, and the table that is made of it."""

import math
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import torture
from tally import Budget, Figures, Need, Tally, read

NEEDS = {"a": Need(1.0), "b": Need(3.0), "c": Need(4.0)}


def figures(test: str = "a", **others: object) -> Figures:
    """A test of power cuts."""
    # Fields of several types by name, which mypy cannot follow.
    return Figures(test, "T3", "", **others)  # type: ignore[arg-type]


def counted(ends: float = math.inf) -> Tally:
    """One that has all the time, or until then."""
    return Tally(figures(), ends)


def test_shares_go_by_weight(tmp_path: Path) -> None:
    """Two processes have a hundred seconds: 25, 75 and 100 of the two hundred."""
    budget = Budget(tmp_path, 100.0, 2)

    assert [25.0, 75.0, 100.0] == [budget.share(test, NEEDS, 0.0) for test in NEEDS]


def test_time_that_was_left_goes_to_those_that_follow(tmp_path: Path) -> None:
    """One has ended early, one runs until its end, and the third has the rest, but no hour twice."""
    budget = Budget(tmp_path, 100.0, 2)
    budget.write(figures("a", state="passed"))
    budget.write(figures("b", ends=60.0))

    assert 90.0 == budget.share("c", NEEDS, 10.0)
    budget.write(figures("b", ends=95.0))
    assert 75.0 == budget.share("c", NEEDS, 15.0 + 0.0) - 10.0
    assert 0.0 == budget.share("c", NEEDS, 101.0)


def test_what_cannot_be_cut_has_its_time_set_aside(tmp_path: Path) -> None:
    """However little its weight would give it; nobody else gets it, before nor while it runs."""
    needs = {"whole": Need(1.0, whole=True), "a": Need(30.0), "b": Need(90.0)}
    budget = Budget(tmp_path, 100.0, 2)

    assert [60.0, 35.0, 100.0] == [budget.share(test, needs, 0.0) for test in needs]
    budget.write(figures("whole", ends=60.0))
    assert 35.0 == budget.share("a", needs, 0.0)
    budget.write(figures("whole", state="passed"))
    assert 50.0 == budget.share("a", needs, 0.0)
    assert 3.0 == budget.share("whole", needs, 97.0)


def test_figures_are_what_was_written(tmp_path: Path) -> None:
    """The last that a test wrote, of each test."""
    budget = Budget(tmp_path, 100.0, 2)
    budget.write(figures("a/b[c]"))
    last = figures("a/b[c]", tried=7, seeds=[1, 2], state="cut")
    budget.write(last)

    assert [last] == read(tmp_path)


def test_each_counts_what_was_done(tmp_path: Path) -> None:
    """Not the item at which the loop was left."""
    whole, left = counted(), counted()

    assert [1, 2, 3] == list(whole.each([1, 2, 3]))
    for item in left.each(range(9)):
        if item == 4:
            break

    assert (3, 3, False) == (whole.figures.tried, whole.figures.planned, whole.is_cut)
    assert (4, 9, False) == (left.figures.tried, left.figures.planned, left.is_cut)


def test_each_is_in_the_order_of_its_seed() -> None:
    """Another for another seed, and the same items."""
    first, again, other = (list(counted().each(range(50), seed=seed)) for seed in (1, 1, 2))

    assert first == again != other
    assert list(range(50)) == sorted(first) == sorted(other)


def test_what_is_over_its_share_is_cut() -> None:
    """And says so, whatever it was going to try."""
    late = counted(time.monotonic() - 1)

    assert [] == list(late.seeds(range(4)))
    assert (True, 0, 4) == (late.is_cut, late.figures.tried, late.figures.planned)
    assert 1 == late.within(200, seconds=0.1, before=5)
    assert 200 == counted().within(200, seconds=0.1, before=5)


@pytest.mark.parametrize(
    ("seeds", "told"),
    [(set(), "-"), ({3}, "3"), ({1, 2, 3, 7, 9, 10}, "1 to 3, 7, 9 to 10")],
)
def test_seeds_are_told_as_ranges(seeds: set[int], told: str) -> None:
    """As short as they can be."""
    assert told == torture.ranges(seeds)


def test_the_table_hides_nothing() -> None:
    """Neither a loss, nor a cut, nor what did not run or did not end."""
    page = torture.render(
        [
            figures("crash/a.py::test_one[x]", state="passed", tried=1500, planned=1500, seeds=[1]),
            figures("crash/a.py::test_one[y]", state="cut", tried=10, planned=20, seeds=[2]),
            figures("crash/a.py::test_two", state="failed", tried=5, lost=1, why="assert a | b"),
            Figures("x.py::test_three", "T11", "", state="skipped", why="needs root"),
            Figures("x.py::test_four", "T11", ""),
        ],
        40,
        datetime(2026, 11, 1, 3, 5, tzinfo=UTC),
        39,
    )

    assert "MINUTES=40` wrote this page, from 2026-11-01 03:05 UTC, in 39 minutes." in page
    assert "**Lost: 1**, in 5 tests." in page
    assert "| 1,515 of 1,525 | 1 | 1 to 2 | 0.0 | 1 **failed**: assert a   b; 1 cut; 1 passed |" in page
    assert "| 0 | 0 | - | 0.0 | 1 did not end; 1 skipped: needs root |" in page
    assert "| T3 | one (`crash/a.py`) | 1,510 of 1,520 | 0 | 1 to 2 | 0.0 | 1 cut; 1 passed |" in page
