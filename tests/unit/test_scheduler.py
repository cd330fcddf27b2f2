"""What starts now: pools, the order by slack, and simulated days of a whole fleet (T25)."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backy.daemon.scheduler import FAST_BELOW, STARVING, Pool, Waiting, choose, order, pool_of
from backy.domain.sla import START
from simulate import DAY, first_come, fleet, mixed_fleet, simulate

SLOW = Pool.SLOW


def job(
    name: str, slack: float, duration: float = 60.0, *, pool: Pool = SLOW, manual: bool = False
) -> Waiting:
    """A daily job that is due."""
    return Waiting(name, pool, START, slack, float(DAY), duration, manual)


def names(waiting: list[Waiting]) -> str:
    """Their names in order."""
    return " ".join(one.job for one in waiting)


def test_a_job_without_a_duration_is_slow() -> None:
    """Nobody knows yet how long it takes, so it may not block the fast ones."""
    assert (SLOW, Pool.FAST, SLOW) == (pool_of(None), pool_of(FAST_BELOW - 1), pool_of(FAST_BELOW))


def test_each_pool_starts_as_many_as_it_has_free_workers() -> None:
    """A full pool does not hold the other one up."""
    waiting = [job(f"fast{n}", n, pool=Pool.FAST) for n in range(3)] + [job("slow", 1)]

    assert ["slow"] == choose(waiting, {Pool.FAST: 0, SLOW: 1}, 3)
    assert ["fast0", "fast1"] == choose(waiting, {Pool.FAST: 2, SLOW: 0}, 3)
    assert [] == choose([], {Pool.FAST: 2, SLOW: 2}, 2)


def test_free_workers_below_zero_start_nothing() -> None:
    """After the limit was lowered more may run than it allows."""
    assert [] == choose([job("a", 1)], {SLOW: -1}, 1)


def test_the_nearest_deadline_goes_first() -> None:
    """While all can be in time."""
    assert "a b c" == names(order([job("c", 900), job("a", 300), job("b", 600)], 1))


def test_the_longest_gives_way_when_not_all_can_be_in_time() -> None:
    """One long job is late instead of two short ones: Moore and Hodgson's rule."""
    waiting = [job("long", 500, 500), job("a", 550, 100), job("b", 600, 100)]

    assert "a b long" == names(order(waiting, 1))
    assert "long a b" == names(order(waiting, 2))


def test_what_is_late_already_waits_for_what_can_be_in_time() -> None:
    """Its service level is lost anyway."""
    assert "fine late" == names(order([job("late", -60), job("fine", 5000)], 1))


def test_what_is_late_by_many_intervals_goes_first() -> None:
    """So that no job starves behind others for ever."""
    waiting = [job("fine", 5000), job("worse", -(STARVING + 2) * DAY), job("bad", -(STARVING + 1) * DAY)]

    assert "worse bad fine" == names(order(waiting, 1))


def test_what_an_operator_asked_for_goes_before_all() -> None:
    """In the order in which it was due."""
    waiting = [job("starving", -(STARVING + 1) * DAY), job("asked", 9000, manual=True)]

    assert "asked starving" == names(order(waiting, 1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(-1e7, 1e7), st.floats(0, 1e5), st.booleans()), max_size=30),
    st.integers(1, 5),
)
def test_order_keeps_every_job_once(found: list[tuple[float, float, bool]], workers: int) -> None:
    """Whatever the figures are, no job is dropped or doubled."""
    waiting = [job(str(n), slack, took, manual=m) for n, (slack, took, m) in enumerate(found)]

    assert sorted(waiting) == sorted(order(waiting, workers))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 100)), min_size=1, max_size=7))
def test_no_other_order_has_fewer_late_jobs(found: list[tuple[int, int]]) -> None:
    """With one worker the number of late jobs is the least possible, tried over all subsets."""
    waiting = [job(str(n), slack, took) for n, (slack, took) in enumerate(found)]

    def late(jobs: list[Waiting]) -> int:
        elapsed, count = 0.0, 0
        for one in jobs:
            elapsed += one.duration
            count += elapsed > one.slack
        return count

    by_deadline = sorted(waiting, key=lambda one: one.slack)
    best = min(
        late([one for n, one in enumerate(by_deadline) if mask >> n & 1])
        + sum(1 for n in range(len(waiting)) if not mask >> n & 1)
        for mask in range(1 << len(waiting))
    )

    assert best == late(order(waiting, 1))


def test_ten_simulated_days_starve_no_job_and_run_none_twice() -> None:
    """A thousand jobs on two workers: each runs once a day, at its own hour."""
    found = simulate(fleet(1000, 60), workers=2, days=10)

    assert (0, 0) == (found.never, found.doubled)
    assert 9.0 <= found.runs / 1000 <= 10.0
    assert found.longest_gap < 1.5 * DAY


@pytest.mark.proof("T25")
@pytest.mark.torture(weight=1.2, whole=True)
def test_ninety_simulated_days_of_ten_thousand_jobs_are_even() -> None:
    """T25: no starvation, no double run, every hour's starts within 20 % of even."""
    found = simulate(fleet(10_000, 10), workers=4, days=90)

    assert (0, 0) == (found.never, found.doubled)
    assert found.longest_gap < 1.5 * DAY
    assert found.unevenness < 0.2


def test_with_too_much_work_fewer_jobs_are_late_than_first_come() -> None:
    """1.3 times what two workers can do in a day: a few long jobs give way, not everyone."""
    machines = mixed_fleet(150, 1.3, workers=2)
    ours = simulate(machines, 2, 30, settle=15)
    theirs = simulate(machines, 2, 30, first_come, settle=15)

    assert ours.late_jobs < theirs.late_jobs / 5
    assert ours.never == 0
    assert timedelta(seconds=ours.longest_gap) < timedelta(days=STARVING + 4)
