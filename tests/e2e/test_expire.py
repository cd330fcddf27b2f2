"""`backy expire`: the plan is shown with its reasons, and carried out as shown."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from in_process import backy
from refusals import refused, unchanged
from small_store import StandingClock

from backy.domain.revision import Origin, serialise
from fakes import fake_revision
from testsite import CHUNK, Site

TODAY = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def old(site: Site) -> Site:
    """Six daily revisions, the newest of today; the schedule keeps three; one has an own tag too."""
    schedule(site, {"daily": {"interval": "1d", "keep": 3}})
    for day in (20, 15, 10, 5, 1, 0):
        site.clock = StandingClock(TODAY - timedelta(days=day))
        site.image.write_bytes(b"%d" % day * CHUNK)
        site.backup()
    edited = site.history().revisions[1]
    record = site.job / f"{edited.uuid}.rev"
    record.write_bytes(serialise(edited.with_tags({**edited.tags, "manual:x": Origin.MANUAL})))
    return site


def schedule(site: Site, found: dict[str, Any]) -> None:
    """Make this the job's schedule."""
    path = site.job / "config"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "schedule": found}))


def uuids(site: Site) -> list[str]:
    """All UUIDs, oldest first."""
    return [one.uuid for one in site.history().revisions]


def expire(site: Site, *words: str) -> str:
    """What `expire` prints; it succeeds and has no complaints."""
    done = backy("-b", str(site.job), "expire", *words)
    assert (0, "") == (done.code, done.err)
    return done.out


def test_revisions_beyond_keep_go(old: Site) -> None:
    """Two of six; the one with a tag of the operator's only loses the schedule's."""
    before = uuids(old)
    done = old.cli("expire")

    assert (0, "removed 2 revisions of 6\n", "") == (done.returncode, done.stdout, done.stderr)
    assert [before[1], *before[3:]] == uuids(old)
    assert {"manual:x": Origin.MANUAL} == old.history().revisions[0].tags
    assert "removed 0 revisions of 4\n" == expire(old)


def test_what_is_left_can_be_restored(old: Site) -> None:
    """Expiry removes records, never data that others use."""
    expire(old)

    assert [b"15", b"5", b"1", b"0"] == [
        old.restored(one)[: len(name)]
        for one, name in zip(old.history().revisions, (b"15", b"5", b"1", b"0"), strict=True)
    ]
    assert [] == list(old.verify().findings)


def test_dry_run_shows_reasons_and_changes_nothing(old: Site) -> None:
    """A line for each revision, oldest first, and the sum."""
    with unchanged(old):
        head, *rows, closing = expire(old, "--dry-run").splitlines()

    assert ["Date", "(local)", "Revision", "Fate", "Loses", "Why"] == head.split()
    assert uuids(old) == [row.split()[2] for row in rows]
    assert ["remove", "untag", "remove", "keep", "keep", "keep"] == [row.split()[3] for row in rows]
    assert ["daily", "daily", "daily", "-", "-", "-"] == [row.split()[4] for row in rows]
    assert rows[0].endswith("daily: 5 newer ones, and older than 3 x 1d")
    assert rows[1].endswith("older than 3 x 1d; manual:x: set by hand")
    assert rows[-1].endswith("the newest good revision")
    assert "6 revisions, 2 to remove" == closing


def test_dry_run_is_what_is_done(old: Site) -> None:
    """The plan as JSON names exactly those that are gone afterwards."""
    plan = json.loads(expire(old, "-n", "--json"))
    before = uuids(old)
    assert plan == json.loads(expire(old, "--json"))

    assert before == [one["uuid"] for one in plan]
    assert uuids(old) == [one["uuid"] for one in plan if one["fate"] != "remove"]
    assert {"uuid", "taken_at", "tags", "fate", "lost", "reasons"} == set(plan[0])


def test_every_removal_is_logged(old: Site) -> None:
    """Whoever misses a revision finds out what took it."""
    gone = {one["uuid"] for one in json.loads(expire(old, "--json")) if one["fate"] == "remove"}
    lines = (old.job / "backy.log").read_text().splitlines()

    assert gone == {
        line.split("revision=")[1].split()[0] for line in lines if "revision expired" in line
    }


RENAMED = {"nightly": {"interval": "1d", "keep": 3}}


@pytest.mark.parametrize("left", [RENAMED, {}], ids=["renamed", "empty"])
def test_schedule_that_was_renamed_or_emptied_deletes_nothing(old: Site, left: dict[str, Any]) -> None:
    """Upstream deletes all there is then."""
    schedule(old, left)
    with unchanged(old):
        assert "removed 0 revisions of 6\n" == expire(old)

    assert expire(old, "--dry-run").count("--apply-orphaned-tags lets it go") == 5


@pytest.mark.parametrize("left", [RENAMED, {}], ids=["renamed", "empty"])
def test_orphaned_tags_go_when_the_operator_says_so(old: Site, left: dict[str, Any]) -> None:
    """All but the newest revision and what has a tag of the operator's."""
    schedule(old, left)
    before = uuids(old)

    assert "removed 4 revisions of 6\n" == expire(old, "--apply-orphaned-tags")
    assert [before[1], before[-1]] == uuids(old)


def test_revision_of_the_future_is_told_and_neither_counts_nor_goes(old: Site) -> None:
    """A clock that was wrong once must not make the real revisions look old."""
    expire(old)
    future = fake_revision(20_000, "daily")
    (old.job / f"{future.uuid}.rev").write_bytes(serialise(future))
    (old.job / f"{future.uuid}.map").touch()
    with unchanged(old):
        done = backy("-b", str(old.job), "expire")

    assert (0, "removed 0 revisions of 5\n") == (done.code, done.out)
    assert done.err.startswith(f"backy: warning: revision {future.uuid} is dated 2078-10-0")
    assert "check the clock" in done.err
    assert "refused" in backy("-b", str(old.job), "expire", "-n").out


def test_unreadable_record_is_no_part_of_the_plan(old: Site) -> None:
    """It is neither counted nor removed."""
    record = old.job / f"{uuids(old)[0]}.rev"
    record.write_bytes(b"rotten")

    assert "removed 1 revision of 5\n" == expire(old)
    assert b"rotten" == record.read_bytes()


def test_empty_history_is_no_error(site: Site) -> None:
    """There is nothing to do."""
    assert "removed 0 revisions of 0\n" == expire(site)
    assert [] == json.loads(expire(site, "--json"))


def test_quiet_expiry_says_nothing(old: Site) -> None:
    """As the scheduler calls it."""
    done = backy("-q", "-b", str(old.job), "expire")

    assert (0, "", "", 4) == (done.code, done.out, done.err, len(uuids(old)))


def test_job_without_settings_is_refused(old: Site) -> None:
    """Without a schedule nobody knows what may go."""
    (old.job / "config").unlink()
    with unchanged(old):
        refused(old.cli("expire"), 1, "config: it cannot be read")


def test_broken_settings_are_refused(old: Site) -> None:
    """A schedule with a mistake is none."""
    schedule(old, {"daily": {"interval": "1 day", "keep": 3}})
    with unchanged(old):
        refused(old.cli("expire"), 1, "schedule.daily.interval")


def test_repository_without_jobs_is_refused(site: Site) -> None:
    """The job has to be named or the only one."""
    site.add_job("vm02", site.image)
    done = backy("-b", str(site.base), "expire")

    assert (2, "") == (done.code, done.out)
    assert "say which of vm, vm02" in done.err
