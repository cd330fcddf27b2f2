"""The command line under clocks that are wrong: years off, at a change of summer time, past 2038 (T12).

The processes are real, and so is what they write; `faketime` (Debian's package of this name) tells them
another time, to all their threads. It leaves the times of files alone.

Limits: skipped where faketime is not installed; the scheduler's own clock is in unit/test_clock_jumps.
"""

import math
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import yaml

from backy.domain.revision import Origin, Trust, serialise
from fakes import fake_revision
from testsite import Site, parsed

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
YEAR = 365 * DAY
SCHEDULE = {"daily": {"interval": "1d", "keep": 3}}

pytestmark = pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")


class Timed:
    """A job whose commands run at a given time, in a given zone."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.site.image.write_bytes(b"image" * 1000)
        self.schedule(SCHEDULE)

    def schedule(self, schedule: object) -> None:
        """Write the job's configuration."""
        source = {"type": "file", "filename": str(self.site.image)}
        (self.site.job / "config").write_text(yaml.safe_dump({"source": source, "schedule": schedule}))

    def at(self, moment: datetime, *words: str, zone: str = "UTC") -> "subprocess.CompletedProcess[str]":
        """Run a command at this time; it succeeds, and says no more than it should."""
        off = math.ceil((moment - datetime.now(UTC)).total_seconds())  # never before the moment
        done = subprocess.run(
            [
                "faketime",
                "-f",
                f"{off:+d}",
                sys.executable,
                "-m",
                "backy",
                "-b",
                str(self.site.job),
                *words,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "TZ": zone, "NO_FAKE_STAT": "1", "COLUMNS": "200"},
        )
        assert (0, False) == (done.returncode, "Traceback" in done.stderr), done.stderr
        return done

    def backed_up(self, moment: datetime, tags: str = "daily") -> str:
        """Back up at this time; the revision's UUID."""
        said = self.at(moment, "backup", tags).stdout
        return said.removeprefix("revision ").partition(":")[0]

    def expire(self, moment: datetime, *words: str) -> str:
        """Expire at this time; what is said of it on stderr."""
        return self.at(moment, "expire", *words).stderr

    def left(self) -> list[str]:
        """UUIDs in the history, oldest first."""
        return [one.uuid for one in self.site.history().revisions]

    def forge(self, number: int, moment: datetime, trust: Trust = Trust.TRUSTED) -> str:
        """Put a record into the history that says what we like, under a seal that is right."""
        made = fake_revision(number, "daily", trust=trust)
        made = msgspec.structs.replace(made, taken_at=moment)
        (self.site.job / f"{made.uuid}.rev").write_bytes(serialise(made))
        return made.uuid


@pytest.fixture
def timed(site: Site) -> Timed:
    """A job with a daily schedule that keeps three."""
    return Timed(site)


def test_clock_that_was_a_year_ahead_costs_no_more_than_the_plan(timed: Timed) -> None:
    """What was taken then is told and not counted afterwards, and neither counted nor removed."""
    days = [timed.backed_up(NOW - age * DAY) for age in (4, 3, 2, 1)]
    ahead = timed.backed_up(NOW + YEAR)
    assert "" == timed.expire(NOW + YEAR)
    assert [*days[2:], ahead] == timed.left()

    fresh = timed.backed_up(NOW)
    assert f"revision {ahead} is dated" in timed.expire(NOW)
    assert [*days[2:], fresh, ahead] == timed.left()
    (told,) = [one for one in parsed(timed.at(NOW, "expire", "-n", "--json")) if one["uuid"] == ahead]
    assert "refused" == told["fate"]
    assert 0 == timed.at(NOW, "verify").returncode


def test_restore_of_what_is_dated_in_the_future_is_told(timed: Timed) -> None:
    """`latest` goes by dates, and one that is a year ahead stays the latest for a year."""
    ahead, target = timed.backed_up(NOW + YEAR), str(timed.site.folder / "out")
    fresh = timed.backed_up(NOW)

    assert f"warning: revision {ahead} is dated" in timed.at(NOW, "restore", target).stderr
    assert "warning" not in timed.at(NOW, "restore", "-r", fresh, target).stderr


def test_clock_that_is_a_year_behind_removes_nothing(timed: Timed) -> None:
    """All that is there is of the future then; once the clock is right, the plan is as ever."""
    days = [timed.backed_up(NOW - age * DAY) for age in (3, 2, 1)]
    behind = timed.backed_up(NOW - YEAR)
    said = timed.expire(NOW - YEAR)
    assert [True] * 3 == [f"revision {one} is dated" in said for one in days]
    assert [behind, *days] == timed.left()

    timed.expire(NOW)
    assert days == timed.left()


def test_end_of_32_bits_is_a_moment_like_any_other(timed: Timed) -> None:
    """Before and after 2038-01-19 03:14:08 UTC: order, dates, retention and restore."""
    end = datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC)
    moments = [end - DAY, end - timedelta(minutes=1), end + timedelta(minutes=1), end + DAY]
    made = [timed.backed_up(moment) for moment in moments]

    assert made == timed.left()
    found = timed.at(end + DAY, "find", "-r", "2038-01-19T03:14:08..2038-01-19T04:00").stdout
    assert [made[2]] == found.split()
    late = end + 60 * YEAR
    last = timed.backed_up(late)
    timed.expire(late)
    assert [*made[2:], last] == timed.left()
    target = timed.site.folder / "restored"
    timed.at(late, "restore", str(target))
    assert timed.site.image.read_bytes() == target.read_bytes()


def test_hour_that_comes_twice_in_autumn_is_two_hours(timed: Timed) -> None:
    """02:30 in Berlin on 2026-10-25, twice: order and retention go by what is between them."""
    summer = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    winter = summer + timedelta(hours=1)
    zone = "Europe/Berlin"
    timed.schedule({"hourly": {"interval": "1h", "keep": 2}})
    made = [timed.backed_up(summer, "hourly"), timed.backed_up(winter, "hourly")]

    assert made == timed.left()
    said = timed.at(winter, "status", zone=zone).stdout
    assert 2 == said.count("2026-10-25 02:30")
    made.append(timed.backed_up(winter + timedelta(minutes=45), "hourly"))
    timed.at(winter + timedelta(minutes=59), "expire", zone=zone)
    assert made == timed.left(), "the oldest is not two hours old, which is what two of 1h means"
    timed.at(winter + timedelta(minutes=62), "expire", zone=zone)
    assert made[1:] == timed.left()


def test_hour_that_is_left_out_in_spring_may_be_asked_for(timed: Timed) -> None:
    """02:30 in Berlin on 2027-03-28 is no time there, and a date in a spec all the same."""
    before = datetime(2027, 3, 28, 0, 59, tzinfo=UTC)
    made = [timed.backed_up(before), timed.backed_up(before + timedelta(minutes=40))]

    def found(begin: str) -> list[str]:
        spec = f"2027-03-28T{begin}..2027-03-28T04:00"
        return timed.at(NOW + YEAR, "find", "-r", spec, zone="Europe/Berlin").stdout.split()

    assert made[1:] == found("03:00")
    assert made == found("02:30"), "an hour early rather than late"


def test_forged_records_of_the_future_push_nothing_out(timed: Timed) -> None:
    """Ten of them, sealed as it should be: none counts, and each is told."""
    days = [timed.backed_up(NOW - age * DAY) for age in (9, 8, 7)]
    forged = [timed.forge(number, NOW + number * DAY) for number in range(1, 11)]
    said = timed.expire(NOW)

    assert [*days, *forged] == timed.left()
    assert [True] * 10 == [f"revision {one} is dated" in said for one in forged]


def test_forged_records_without_a_seal_push_nothing_out(timed: Timed) -> None:
    """A record whose bytes were changed is none: it neither counts nor goes."""
    days = [timed.backed_up(NOW - age * DAY) for age in (9, 8, 7)]
    for number in range(5):
        record = timed.site.job / f"{timed.forge(number, NOW - number * DAY)}.rev"
        record.write_bytes(record.read_bytes().replace(b'"daily"', b'"hourly"'))
    timed.expire(NOW)

    assert days == timed.left()
    assert 8 == len(list(timed.site.job.glob("*.rev")))


def test_distrusted_records_push_nothing_out_and_the_newest_stays_where_none_is_good(
    timed: Timed,
) -> None:
    """Neither with a schedule nor, when it is told to let its tags go, without one."""
    bad = [timed.forge(number, NOW - number * DAY, Trust.DISTRUSTED) for number in range(20, 10, -1)]
    timed.expire(NOW)
    assert bad == timed.left()

    timed.schedule({})
    timed.expire(NOW, "--apply-orphaned-tags")
    assert bad[-1:] == timed.left()


@pytest.mark.parametrize("schedule", [{}, {"nightly": SCHEDULE["daily"]}])
def test_renamed_or_emptied_schedule_removes_nothing_until_told(timed: Timed, schedule: object) -> None:
    """With revisions that are years old; then all go but the newest good one."""
    old = [timed.forge(number, NOW - number * YEAR) for number in (5, 4, 3, 2)]
    timed.forge(1, NOW - YEAR, Trust.DISTRUSTED)
    before = timed.left()
    timed.schedule(schedule)
    timed.expire(NOW)
    assert before == timed.left()

    timed.expire(NOW, "--apply-orphaned-tags")
    assert old[-1:] == timed.left()
    assert {"daily": Origin.SCHEDULE} == timed.site.history().revisions[0].tags
