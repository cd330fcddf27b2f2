"""The verdict of `check`: the worst state wins, and what jobs say cannot break the line."""

from datetime import UTC, datetime, timedelta

import pytest

from backy.domain.health import (
    Finding,
    HeldTrash,
    JobHealth,
    Report,
    State,
    assess,
    judge_collection,
    judge_last_collection,
    unknown,
)
from backy.domain.sla import START, Figures, Sla, judge

DAY = 86_400.0
NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def healthy(job: str, *, age: float = 3600.0, warnings: tuple[str, ...] = ()) -> JobHealth:
    """A daily job within its service level."""
    return JobHealth(job, Sla(True, age, 1.5 * DAY), warnings=warnings)


def late(job: str, days: float, *, never: bool = False) -> JobHealth:
    """A daily job whose newest good revision is so many days old."""
    return JobHealth(job, Sla(False, days * DAY, 1.5 * DAY), never=never)


def judged(*jobs: JobHealth, mistakes: tuple[str, ...] = (), daemon_alive: bool = True) -> Report:
    """The report on these jobs."""
    return assess(jobs, mistakes, daemon_alive=daemon_alive)


def test_states_are_the_exit_codes_of_nagios() -> None:
    """0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN, whose order is that of badness."""
    assert {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3} == {one.name: one.value for one in State}


@pytest.mark.parametrize(("count", "said"), [(0, "0 jobs"), (1, "1 job"), (9, "9 jobs")])
def test_all_is_well_in_one_line(count: int, said: str) -> None:
    """The line that backy's README promises, with performance data behind the bar."""
    report = judged(*(healthy(f"vm{number}", age=number) for number in range(count)))

    oldest = max(count - 1, 0)
    assert State.OK is report.state
    assert f"OK: {said} within SLA | jobs={count} late=0 oldest={oldest}s" == report.line
    assert () == report.findings


def test_late_job_is_critical_and_named() -> None:
    """The line says which, how old and what the limit is."""
    report = judged(healthy("vm01"), late("vm02", 2.5))

    text = "last good revision 2 d 12 h ago (limit 1 d 12 h)"
    assert (Finding(State.CRITICAL, "vm02", text),) == report.findings
    assert f"CRITICAL: vm02: {text} | jobs=2 late=1 oldest=216000s" == report.line
    assert State.CRITICAL is report.state


def test_job_that_was_never_backed_up_is_told_as_such() -> None:
    """Since when it should have been is said instead of a revision's age."""
    report = judged(late("vm01", 3, never=True))

    assert ["never backed up, 3 d 0 h after it was configured (limit 1 d 12 h)"] == [
        one.text for one in report.findings
    ]


def test_late_jobs_stand_in_order_of_age() -> None:
    """The worst comes first, and jobs of one age by name."""
    report = judged(late("b", 2), late("c", 9), late("a", 2), late("d", 3))

    assert ["c", "d", "a", "b"] == [one.job for one in report.findings]


def test_line_names_three_and_counts_the_others() -> None:
    """A line for a pager stays short; all findings follow behind it."""
    report = judged(*(late(f"vm{number}", 10 - number) for number in range(5)))

    shown, _, data = report.line.partition(" | ")
    assert ["vm0", "vm1", "vm2"] == [one.split(": ")[-2] for one in shown.split("; ")]
    assert shown.endswith(" (and 2 more)")
    assert "jobs=5 late=5 oldest=864000s" == data
    assert 5 == len(report.findings)


def test_exactly_three_are_named_without_a_count() -> None:
    """No `(and 0 more)`."""
    assert "more)" not in judged(*(late(f"vm{number}", 2) for number in range(3))).line


def test_warnings_alone_are_a_warning() -> None:
    """Damage in old records is to be looked at, and wakes nobody."""
    report = judged(
        healthy("vm01", warnings=("1 records are gone", "2 cannot be read")), healthy("vm02")
    )

    assert State.WARNING is report.state
    assert (
        "WARNING: vm01: 1 records are gone; vm01: 2 cannot be read | jobs=2 late=0 oldest=3600s"
        == report.line
    )


def test_line_shows_only_what_is_worst() -> None:
    """A warning beside a late job stands behind the line, not in it."""
    report = judged(healthy("vm01", warnings=("dusty",)), late("vm02", 2))

    assert State.CRITICAL is report.state
    assert "dusty" not in report.line
    assert [("vm02", State.CRITICAL), ("vm01", State.WARNING)] == [
        (one.job, one.state) for one in report.findings
    ]


def test_job_that_cannot_be_read_is_critical() -> None:
    """Nobody knows whether it has a revision at all."""
    report = judged(healthy("vm01")._replace(problem="vm01: Permission denied."))

    assert (State.CRITICAL, 1) == (report.state, len(report.findings))
    assert "vm01: Permission denied." in report.line


def test_dead_scheduler_is_critical_even_where_all_jobs_are_fresh() -> None:
    """It will be late soon; better to know today."""
    report = judged(healthy("vm01"), daemon_alive=False)

    assert State.CRITICAL is report.state
    assert "CRITICAL: the scheduler does not run: nothing is backed up | jobs=1 late=0 oldest=3600s" == (
        report.line
    )


def test_mistakes_of_the_configuration_are_critical_and_come_first() -> None:
    """A job that is not configured because of a typing error is a job without backups."""
    report = judged(healthy("vm01"), mistakes=("jobs.vm02: it is missing",), daemon_alive=False)

    assert [None, None] == [one.job for one in report.findings]
    assert report.line.startswith("CRITICAL: configuration: jobs.vm02: it is missing; the scheduler ")


HOSTILE = ["a|b=1;2", "a\nOK: all is well", "a\r\nb", "a\x0b\x0cb", "a\u2028b\u2029c", "\x85", "|" * 9]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["problem", "warning", "mistake", "unknown"])
def test_line_has_one_bar_and_no_line_end_whatever_jobs_say(kind: str, text: str) -> None:
    """What stands in a record or a file's name can forge neither performance data nor a line."""
    report = {
        "problem": lambda: judged(healthy("vm01")._replace(problem=text)),
        "warning": lambda: judged(healthy("vm01", warnings=(text,))),
        "mistake": lambda: judged(healthy("vm01"), mistakes=(text,)),
        "unknown": lambda: unknown(text),
    }[kind]()

    assert [report.line] == report.line.splitlines()
    assert (0 if kind == "unknown" else 1) == report.line.count("|")
    assert report.line.startswith(f"{report.state.name}: ")


def test_what_could_not_be_looked_at_is_unknown() -> None:
    """Neither OK nor CRITICAL, without figures that nobody has."""
    assert Report(State.UNKNOWN, "UNKNOWN: /srv: no repository.", ()) == unknown("/srv: no repository.")


def test_revision_of_the_future_does_not_make_the_oldest_negative() -> None:
    """Performance data stays a number that graphs can show."""
    assert judged(healthy("vm01", age=-200.0)).line.endswith("oldest=0s")


def test_job_without_a_schedule_is_never_late() -> None:
    """It promises nothing, and its limit is never written as a number."""
    level = judge(Figures(), None, configured_at=START, now=START + timedelta(days=9999))
    report = judged(JobHealth("vm01", level, never=True))

    assert State.OK is report.state
    assert "inf" not in report.line


@pytest.mark.parametrize(
    ("interval", "age", "late"),
    [
        (timedelta(days=1), timedelta(days=3), True),
        (timedelta(days=1), timedelta(days=3, seconds=-1), False),
        (timedelta(hours=1), timedelta(days=3, seconds=-1), False),
        (timedelta(days=7), timedelta(days=20), False),
        (timedelta(days=7), timedelta(days=21), True),
        (timedelta(days=1), timedelta(days=-99), False),
    ],
)
def test_collections_that_do_not_end_are_a_warning(
    interval: timedelta, age: timedelta, *, late: bool
) -> None:
    """After three intervals, and three days, since one run may take long."""
    found = judge_last_collection(NOW - age, interval, NOW)

    assert [State.WARNING] * late == [one.state for one in found]


def test_a_collection_that_does_not_end_is_told_with_its_age() -> None:
    """And where to look."""
    (found,) = judge_last_collection(NOW - timedelta(days=4), timedelta(days=1), NOW)

    text = "no garbage collection has ended for 4 d 0 h, and gc-interval is 1d: see the scheduler's log"
    assert (State.WARNING, None, text) == found


def test_before_the_first_collection_none_is_missed() -> None:
    """Nobody knows since when one is due."""
    assert [] == judge_last_collection(None, timedelta(days=1), NOW)


def test_files_that_a_collection_left_alone_are_a_warning() -> None:
    """All other garbage goes, but they are a sign of a bad disk."""
    (found,) = judge_collection((), [], NOW, ["move /srv/f: Structure needs cleaning."])

    text = "garbage collection left a file alone: move /srv/f: Structure needs cleaning."
    assert (State.WARNING, None, text) == found


def test_a_stopped_collection_is_critical() -> None:
    """With each reason; nothing is lost meanwhile, but the disk fills."""
    found = judge_collection(["/srv/backy/vm: it is gone", "why"], [], NOW)

    assert [State.CRITICAL] * 2 == [one.state for one in found]
    assert "garbage collection is stopped: /srv/backy/vm: it is gone" == found[0].text


@pytest.mark.parametrize(("hours", "told"), [(47.9, False), (48, True)])
def test_a_writer_that_holds_the_trash_for_two_days_is_told(hours: float, told: bool) -> None:
    """It hangs, or was stopped; the check names it."""
    held = [HeldTrash(NOW - timedelta(hours=hours), "vm (pid 7)")]

    found = judge_collection([], held, NOW)

    assert told == bool(found)
    assert all(one.state is State.WARNING and "vm (pid 7)" in one.text for one in found)
    report = assess([], [], found, daemon_alive=True)
    assert (State.WARNING if told else State.OK) is report.state
