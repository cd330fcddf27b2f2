"""`backy jobs`: what is configured, how it stands, and the load that the schedules make."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import yaml
from in_process import backy
from small_store import StandingClock

from backy.cli import jobs as jobs_command
from backy.daemon.prepare import only_daemon
from backy.domain.revision import Origin, serialise
from backy.domain.schedule import job_spread, next_slot
from backy.domain.settings import Settings, parse_settings
from backy.repository.repository import Repository
from fakes import fake_revision
from testsite import Site, run_backy

NOW = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Configured:
    """A site with a configuration file; the commands' time stands still at NOW."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.file = site.folder / "backy.conf"

    def write(self, jobs: dict[str, str], schedules: dict[str, Any]) -> Settings:
        """Configure jobs with the names of their schedules, and set them up."""
        source = {"type": "file", "filename": str(self.site.image)}
        document = {
            "global": {"base-dir": str(self.site.base)},
            "schedules": schedules,
            "jobs": {name: {"source": source, "schedule": one} for name, one in jobs.items()},
        }
        self.file.write_text(yaml.safe_dump(document))
        for name in jobs:
            if not (self.site.base / name).exists():
                self.site.add_job(name, self.site.image)
            # The job was set up at that time too.
            os.utime(self.site.base / name / ".history", (NOW.timestamp(), NOW.timestamp()))
        return parse_settings(self.file.read_text(), "backy.conf")

    def back_up(self, job: str, tag: str, ago: timedelta, duration: float = 0.0) -> None:
        """A record of a backup that took so long."""
        number = int(ago.total_seconds())
        found = msgspec.structs.replace(
            fake_revision(number),
            taken_at=NOW - ago,
            tags=dict.fromkeys(tag.split(","), Origin.SCHEDULE),
        )
        stats = msgspec.structs.replace(found.stats, duration=duration)
        found = msgspec.structs.replace(found, stats=stats)
        (self.site.base / job / f"{found.uuid}.rev").write_bytes(serialise(found))

    def shown(self, *words: str) -> str:
        """What the command prints; it succeeds without complaints."""
        done = backy("-c", str(self.file), "jobs", *words)
        assert (0, "") == (done.code, done.err)
        return done.out

    def document(self, *words: str) -> Any:
        """Its JSON."""
        return json.loads(self.shown("--json", *words))


@pytest.fixture
def configured(site: Site, monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Nothing is configured yet."""
    monkeypatch.setattr(jobs_command, "SystemClock", lambda: StandingClock(NOW))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return Configured(site)


DAILY = {"daily": {"interval": "1d", "keep": 3}}
HOURLY = {"hourly": {"interval": "1h", "keep": 3}, "daily": {"interval": "1d", "keep": 3}}
TWO = ({"vm": "rarely", "vm02": "rarely"}, {"rarely": DAILY})


def test_table_has_a_line_for_each_job(configured: Configured) -> None:
    """Service level, last and next run; by the file's order."""
    configured.write(*TWO)
    configured.back_up("vm", "daily,manual:x", timedelta(hours=50))
    head, *rows = configured.shown().splitlines()

    assert ["Job", "SLA", "Overdue", "Status", "Last", "(local)", "Tags", "Next", "(local)", "Tags"] == (
        head.split()
    )
    assert ["vm", "vm02"] == [row.split()[0] for row in rows]
    assert "TOO OLD  2 d 2 h  no scheduler runs  2026-11-22 08:30:00  manual:x,daily" in rows[0]
    assert "never" in rows[1]


def test_process_shows_the_same_jobs(configured: Configured) -> None:
    """Under both names, and with the file where 2.5 takes it."""
    configured.write(*TWO)
    for words in (["-c", str(configured.file), "jobs"], ["show-jobs", "-c", str(configured.file)]):
        done = run_backy(*words)
        assert (0, "") == (done.returncode, done.stderr)
        assert ["vm", "vm02"] == [line.split()[0] for line in done.stdout.splitlines()[1:]]


def test_json_has_the_entries_of_2_5(configured: Configured) -> None:
    """All members of upstream's status entry, under its names."""
    settings = configured.write(*TWO)
    configured.back_up("vm", "daily,manual:x", timedelta(hours=50), duration=7.5)
    first, second = configured.document()

    schedule = settings.jobs["vm02"].schedule
    slot = next_slot(NOW, 86400, job_spread("vm02", schedule))
    assert {
        "job": "vm",
        "sla": "TOO OLD",
        "sla_overdue": 50 * 3600,
        "status": "no scheduler runs",
        "last_time": "2026-11-22T08:30:00Z",
        "last_tags": "manual:x,daily",
        "last_duration": 7.5,
        "next_time": "2026-11-24T10:30:00Z",
        "next_tags": "daily",
        "manual_tags": "manual:x",
        "problem_reports": 0,
        "unsynced_revs": 0,
        "local_revs": 1,
    } == first
    assert (None, "", None) == (second["last_time"], second["last_tags"], second["last_duration"])
    assert slot == datetime.fromisoformat(second["next_time"])


def test_status_says_what_a_job_is_doing(configured: Configured) -> None:
    """Waiting while a scheduler runs, running under the backup's lock, or not there."""
    configured.write({"vm": "rarely", "vm02": "rarely", "vm03": "rarely"}, {"rarely": DAILY})
    (configured.site.base / "vm03" / "config").unlink()
    with (
        only_daemon(str(configured.site.base)),
        Repository.open(str(configured.site.base)) as repository,
        repository.job("vm") as job,
        job.backing_up(),
    ):
        assert ["running", "waiting for deadline", "not set up yet"] == [
            one["status"] for one in configured.document()
        ]


def test_job_with_a_mistake_is_left_out(configured: Configured) -> None:
    """With a warning, since it would be missed; check-config tells which. The others are listed."""
    configured.write({"vm": "rarely", "vm02": "none"}, {"rarely": DAILY})

    done = backy("-c", str(configured.file), "jobs", "--json")

    assert (0, ["vm"]) == (done.code, [one["job"] for one in json.loads(done.out)])
    why = "has 1 mistake and jobs may be left out: see check-config."
    assert f"backy: warning: {configured.file} {why}\n" == done.err


def test_empty_configuration_lists_nothing(configured: Configured) -> None:
    """A head and no error."""
    configured.write({}, {})

    assert ([], 1) == (configured.document(), configured.shown().count("\n"))


def hours(configured: Configured) -> list[dict[str, Any]]:
    """The forecast as JSON."""
    found = configured.document("--forecast")
    assert isinstance(found, list)
    return found


def test_forecast_has_the_next_24_hours(configured: Configured) -> None:
    """From the begun hour on, one after the other, also where nothing starts."""
    configured.write({}, {})
    found = hours(configured)

    first = NOW.replace(minute=0)
    assert [first + number * HOUR for number in range(24)] == [
        datetime.fromisoformat(one["begin"]) for one in found
    ]
    assert {(0, 0.0)} == {(one["starts"], one["busy"]) for one in found}


def test_forecast_counts_every_start_once(configured: Configured) -> None:
    """A daily job starts once in a day, and an hourly one in each hour at its minute."""
    settings = configured.write({"vm": "daily", "vm02": "hourly"}, {"daily": DAILY, "hourly": HOURLY})
    moved = job_spread("vm02", settings.jobs["vm02"].schedule)
    slots = [next_slot(NOW + number * HOUR, 3600, moved) for number in range(24)]
    end = NOW.replace(minute=0) + 24 * HOUR
    daily = next_slot(NOW, 86400, job_spread("vm", settings.jobs["vm"].schedule))
    found = hours(configured)

    for one in found:
        begin = datetime.fromisoformat(one["begin"])
        expected = [at for at in [*slots, daily] if begin <= at < begin + HOUR and at < end]
        assert len(expected) == one["starts"]


def test_forecast_sums_the_seconds_of_workers(configured: Configured) -> None:
    """A job that takes an hour and a half keeps one worker busy for so long, over several hours."""
    configured.write({"vm": "daily"}, {"daily": DAILY})
    configured.back_up("vm", "daily", timedelta(hours=1), duration=5400.0)
    settings = parse_settings(configured.file.read_text(), "backy.conf")
    at = next_slot(NOW, 86400, job_spread("vm", settings.jobs["vm"].schedule))
    found = hours(configured)

    assert 1 == sum(one["starts"] for one in found)
    left = (NOW.replace(minute=0) + 24 * HOUR - at).total_seconds()
    assert min(5400.0, left) / 3600 == pytest.approx(sum(one["busy"] for one in found), abs=0.003)
    assert all(0 <= one["busy"] <= 1 for one in found)


def test_forecast_shows_what_is_missed_now(configured: Configured) -> None:
    """A job that is behind starts in the first hour."""
    configured.write({"vm": "daily"}, {"daily": DAILY})
    configured.back_up("vm", "daily", timedelta(days=3), duration=60.0)

    assert (1, 0.017) == (hours(configured)[0]["starts"], hours(configured)[0]["busy"])


def test_forecast_as_a_table(configured: Configured) -> None:
    """The same figures, for people."""
    configured.write({"vm": "daily", "vm02": "hourly"}, {"daily": DAILY, "hourly": HOURLY})
    head, *rows = configured.shown("--forecast").splitlines()

    assert ["Hour", "(local)", "Starts", "Workers", "busy"] == head.split()
    assert [(str(one["starts"]), f"{one['busy']:.2f}") for one in hours(configured)] == [
        (row.split()[-2], row.split()[-1]) for row in rows
    ]
