"""The verdict of `backy check`: one Nagios line, what stands behind it, and the exit code.

    >>> report = assess([JobHealth("vm01", Sla(True, 60.0, 129600.0))], [], daemon_alive=True)
    >>> report.line
    'OK: 1 job within SLA | jobs=1 late=0 oldest=60s'

States and the form of the line: Nagios plugin guidelines (0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN;
performance data behind a bar).

Limits: pure; `operation.survey` reads the histories.
"""

import enum
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backy.domain.cycle import Cycle
from backy.domain.sla import Sla
from backy.ground.units import format_duration, format_interval

HELD_TOO_LONG = timedelta(days=2)
COLLECTIONS_MISSED = 3
VERIFIED_TOO_LONG_AGO = timedelta(days=60)


class State(enum.IntEnum):
    """What monitoring is told; the value is the exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class JobHealth(NamedTuple):
    """A job's service level, and what is to be told about it besides."""

    job: str
    sla: Sla
    never: bool = False
    problem: str | None = None
    warnings: tuple[str, ...] = ()


class Finding(NamedTuple):
    """One line behind the first."""

    state: State
    job: str | None
    text: str


class Report(NamedTuple):
    """All that `check` prints; `line` is what monitoring shows."""

    state: State
    line: str
    findings: tuple[Finding, ...]


def assess(
    jobs: Sequence[JobHealth],
    mistakes: Sequence[str],
    store: Sequence[Finding] = (),
    *,
    daemon_alive: bool,
) -> Report:
    """Judge all jobs, the configuration's mistakes, the store and the scheduler together."""
    findings = [Finding(State.CRITICAL, None, f"configuration: {one}") for one in mistakes]
    findings += store
    if not daemon_alive:
        findings.append(
            Finding(State.CRITICAL, None, "the scheduler does not run: nothing is backed up")
        )
    late = [one for one in jobs if not one.sla.ok]
    for one in sorted(late, key=lambda job: (-job.sla.age, job.job)):
        ago = format_duration(one.sla.age)
        what = (
            f"never backed up, {ago} after it was configured"
            if one.never
            else f"last good revision {ago} ago"
        )
        findings.append(
            Finding(State.CRITICAL, one.job, f"{what} (limit {format_duration(one.sla.limit)})")
        )
    for one in jobs:
        if one.problem is not None:
            findings.append(Finding(State.CRITICAL, one.job, one.problem))
        findings += [Finding(State.WARNING, one.job, text) for text in one.warnings]
    state = max((one.state for one in findings), default=State.OK)
    oldest = max((max(one.sla.age, 0) for one in jobs), default=0.0)
    data = f"jobs={len(jobs)} late={len(late)} oldest={oldest:.0f}s"
    return Report(state, f"{state.name}: {_summary(jobs, findings)} | {data}", tuple(findings))


class HeldTrash(NamedTuple):
    """Condemned chunks that wait for a writer: since when, and who it is, in words."""

    since: datetime
    writer: str


def judge_collection(
    stopped: Sequence[str], held: Sequence[HeldTrash], now: datetime, refused: Sequence[str] = ()
) -> list[Finding]:
    """What is to be told about garbage collection: why it stopped, and what or who keeps garbage."""
    findings = [
        Finding(State.CRITICAL, None, f"garbage collection is stopped: {one}") for one in stopped
    ]
    findings += [
        Finding(State.WARNING, None, f"garbage collection left a file alone: {one}") for one in refused
    ]
    for one in held:
        age = now - one.since
        if age >= HELD_TOO_LONG:
            ago = format_duration(age.total_seconds())
            text = f"{one.writer} keeps garbage from going since {ago}: does it hang?"
            findings.append(Finding(State.WARNING, None, text))
    return findings


def judge_last_collection(
    ended_at: datetime | None, interval: timedelta, now: datetime
) -> list[Finding]:
    """Whether collections come to an end, where a scheduler runs that starts one each `interval`.

    It counts from the last one, by hand or not. So where none has ended for three intervals, and three
    days, they hang, are killed, or cannot say how they ended. Before the first, none is missed.
    """
    if ended_at is None or now - ended_at < COLLECTIONS_MISSED * max(interval, timedelta(days=1)):
        return []
    ago = format_duration((now - ended_at).total_seconds())
    due = format_interval(int(interval.total_seconds()))
    text = (
        f"no garbage collection has ended for {ago}, and gc-interval is {due}: see the scheduler's log"
    )
    return [Finding(State.WARNING, None, text)]


def judge_store(open_reports: int, cycle: Cycle | None, now: datetime) -> list[Finding]:
    """What is to be told about damaged chunks, and about a walk of `verify --slice` that is late.

    Who has never verified by slices has other ways, or will be told by nothing here.
    """
    findings = []
    if open_reports:
        chunks = "1 damaged chunk is" if open_reports == 1 else f"{open_reports} damaged chunks are"
        text = f"{chunks} in quarantine and not healed: see 'backy reports'"
        findings.append(Finding(State.WARNING, None, text))
    if cycle is not None and cycle.unsettled is not None:
        why = f"it could not mark what it found: {cycle.unsettled}"
        text = f"'backy verify --slice' does not get on, since {why}"
        findings.append(Finding(State.WARNING, None, text))
    if cycle is not None and cycle.unlisted:
        folders = _some([*cycle.unlisted])
        text = f"'backy verify --slice' could not list folders of chunks, namely {folders}"
        findings.append(Finding(State.WARNING, None, text))
    if cycle is not None and cycle.uncompared:
        jobs = _some(cycle.uncompared)
        text = f"'backy verify --slice' could not compare records with the store, of {jobs}"
        findings.append(Finding(State.WARNING, None, text))
    since = None if cycle is None else cycle.finished_at or cycle.started_at
    if since is not None and now - since >= VERIFIED_TOO_LONG_AGO:
        ago = format_duration((now - since).total_seconds())
        text = f"the whole store was not verified for {ago}: longer or more frequent slices would help"
        findings.append(Finding(State.WARNING, None, text))
    return findings


def _some(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def unknown(why: str) -> Report:
    """The report where nothing could be looked at."""
    return Report(State.UNKNOWN, f"UNKNOWN: {_one_line(why)}", ())


def _summary(jobs: Sequence[JobHealth], findings: Sequence[Finding]) -> str:
    if not findings:
        return f"{len(jobs)} job{'' if len(jobs) == 1 else 's'} within SLA"
    worst = max(one.state for one in findings)
    named = [f"{one.job}: {one.text}" if one.job else one.text for one in findings if one.state is worst]
    more = f" (and {len(named) - 3} more)" if len(named) > 3 else ""
    return _one_line("; ".join(named[:3]) + more)


def _one_line(text: str) -> str:
    """Without what Nagios reads as the begin of performance data or of the next line."""
    return " ".join(text.replace("|", "/").split())
