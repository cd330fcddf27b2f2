"""Service levels: one and a half intervals, and only good revisions count."""

from datetime import timedelta

import msgspec
import pytest

from backy.domain.config import TagPolicy
from backy.domain.revision import (
    Consistency,
    Distrust,
    Origin,
    Reading,
    Revision,
    SourceIdentity,
    Stats,
    Trust,
)
from backy.domain.sla import (
    FUTURE_TOLERANCE,
    START,
    Figures,
    Sla,
    figures,
    is_future,
    is_good,
    judge,
    smallest_interval,
)

DAY = 86_400
NOW = START + timedelta(days=100)
LONG_AGO = START - timedelta(days=400)


def revision(hours: float, tags: str = "daily", trust: Trust = Trust.TRUSTED) -> Revision:
    """One taken so many hours ago, whose figures are made from that number."""
    number = int(abs(hours) * 1000)
    return Revision(
        uuid=f"00000000-0000-4000-8000-{number:012}",
        taken_at=NOW - timedelta(hours=hours),
        tags=dict.fromkeys(tags.split(), Origin.SCHEDULE),
        trust=trust,
        maps=(),
        source=SourceIdentity(type="file"),
        stats=Stats(duration=number + 0.5, bytes_read=2 * number, bytes_written=number),
    )


def level(*history: Revision, hours_configured: float = 10_000) -> Sla:
    """The service level of a daily job."""
    configured_at = NOW - timedelta(hours=hours_configured)
    return judge(figures(history, NOW), DAY, configured_at=configured_at, now=NOW)


@pytest.mark.parametrize(
    ("hours", "ok"), [(0.0, True), (35.999, True), (36.0, True), (36.001, False), (9000.0, False)]
)
def test_service_level_holds_for_one_and_a_half_intervals(hours: float, ok: bool) -> None:
    """For a daily job 36.0 h are fine and 36.001 h are not; the whole age is told."""
    assert (ok, DAY * 1.5) == (level(revision(hours)).ok, level(revision(hours)).limit)
    assert hours * 3600 == pytest.approx(level(revision(hours)).age)


@pytest.mark.parametrize(("hours", "ok"), [(36.0, True), (36.001, False)])
def test_job_that_was_never_backed_up_has_the_same_time(hours: float, ok: bool) -> None:
    """Its time runs from when it was configured, so that it alarms; upstream's never did."""
    assert ok == level(hours_configured=hours).ok


def test_newest_good_revision_decides() -> None:
    """Old ones before it mean nothing, and neither does when the job was configured."""
    assert level(revision(900), revision(3)).ok
    assert not level(revision(900), revision(37), hours_configured=1).ok


@pytest.mark.parametrize(
    "useless",
    [revision(1, trust=Trust.DISTRUSTED), revision(-0.1), revision(-9000), revision(-0.084)],
    ids=["distrusted", "minutes ahead", "a year ahead", "just too far ahead"],
)
def test_what_is_not_good_does_not_keep_an_alarm_quiet(useless: Revision) -> None:
    """Distrusted and future-dated revisions count as if they were not there."""
    assert not is_good(useless, NOW)
    assert not level(revision(37), useless).ok
    assert not level(useless).ok


def test_clocks_may_differ_by_five_minutes() -> None:
    """Exactly five minutes ahead is still good, a microsecond more is the future."""
    ahead = msgspec.structs.replace(revision(0), taken_at=NOW + FUTURE_TOLERANCE)
    later = msgspec.structs.replace(ahead, taken_at=ahead.taken_at + timedelta(microseconds=1))

    assert (False, True) == (is_future(ahead, NOW), is_good(ahead, NOW))
    assert (True, False) == (is_future(later, NOW), is_good(later, NOW))
    assert level(ahead).ok


@pytest.mark.parametrize("trust", [Trust.TRUSTED, Trust.VERIFIED])
@pytest.mark.parametrize("consistency", Consistency)
def test_trusted_verified_and_torn_revisions_are_good(trust: Trust, consistency: Consistency) -> None:
    """Whether the source changed while it was read is told elsewhere."""
    one = msgspec.structs.replace(revision(1, trust=trust), consistency=consistency)

    assert is_good(one, NOW)


def test_empty_schedule_never_breaks() -> None:
    """No interval promises nothing, however old the history is."""
    assert smallest_interval({}) is None
    for history in ([], [revision(9000)]):
        assert judge(figures(history, NOW), None, configured_at=LONG_AGO, now=NOW).ok


def test_smallest_interval_is_the_one_that_counts() -> None:
    """The order of the tags means nothing."""
    schedule = {"weekly": TagPolicy(7 * DAY, 4), "daily": TagPolicy(DAY, 10), "x": TagPolicy(2 * DAY, 1)}

    assert DAY == smallest_interval(schedule)


def test_figures_are_those_of_the_newest_good_revision() -> None:
    """Times of tags come from good ones only; counts and stored bytes from all."""
    distrusted = revision(4, "daily weekly", Trust.DISTRUSTED)
    future = revision(-9, "daily")
    history = [revision(90, "weekly monthly"), revision(5, "daily manual:x"), distrusted, future]

    expected = Figures(
        newest=NOW - timedelta(hours=5),
        revision=history[1].uuid,
        duration=5000.5,
        bytes_read=10_000,
        bytes_written=5000,
        taken={
            "weekly": NOW - timedelta(hours=90),
            "monthly": NOW - timedelta(hours=90),
            "daily": NOW - timedelta(hours=5),
            "manual:x": NOW - timedelta(hours=5),
        },
        last_tags=("daily", "manual:x"),
        manual_tags=("manual:x",),
        revisions=4,
        stored=90_000 + 5000 + 4000 + 9000,
        distrusted=1,
        future=1,
        unreadable=2,
        lost=3,
    )
    assert expected == figures(history, NOW, unreadable=2, lost=3)


def test_figures_without_a_good_revision_still_count() -> None:
    """What there is is told, and no time is claimed."""
    history = [revision(4, "daily manual:y", Trust.DISTRUSTED), revision(-9)]

    expected = Figures(
        manual_tags=("manual:y",), revisions=2, stored=13_000, distrusted=1, future=1, unreadable=1
    )
    assert expected == figures(history, NOW, unreadable=1)
    assert Figures() == figures([], NOW)


def test_any_record_is_a_history() -> None:
    """One that cannot be read, or is distrusted, shows that the job has run before."""
    assert [False, True, True, True] == [
        figures(history, NOW, unreadable=unreadable).has_history
        for history, unreadable in (
            ([], 0),
            ([], 1),
            ([revision(1)], 0),
            ([revision(1, trust=Trust.DISTRUSTED)], 0),
        )
    ]


def misled(number: int, *, audit_failed: bool = False, since: bool = True) -> Revision:
    """A revision with or without hints; one with hints is distrusted because of the source."""
    uuid = f"00000000-0000-4000-8000-{number:012}"
    reading = Reading(last_full=uuid, since=uuid if since else None, audit_failed=audit_failed)
    changed = msgspec.structs.replace(revision(number), uuid=uuid, reading=reading)
    return changed.with_trust(Trust.DISTRUSTED, Distrust.SOURCE) if since else changed


def test_revisions_that_a_failed_audit_distrusts_are_counted() -> None:
    """Those that an operator distrusts for other reasons are not, nor those that are believed again."""
    full = misled(9, since=False)
    caught = misled(1, since=False, audit_failed=True)

    assert 2 == figures([full, misled(8), misled(7), caught], NOW).misled
    assert 0 == figures([full, misled(8), misled(7)], NOW).misled
    believed = misled(8).with_trust(Trust.TRUSTED)
    assert 0 == figures([full, believed, caught], NOW).misled
