"""`status` and `find`: what there is, for people, for programs, and in the terms of 2.5."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from in_process import backy
from small_store import EPOCH, StandingClock

from testsite import CHUNK, Site, run_backy


@pytest.fixture
def week(site: Site) -> Site:
    """Revisions of five days; the third one is tagged weekly."""
    for day in range(5):
        site.clock = StandingClock(EPOCH + timedelta(days=day))
        site.image.write_bytes(b"%d" % day * CHUNK)
        site.backup(tag="weekly" if day == 2 else "daily")
    return site


def uuids(site: Site) -> list[str]:
    """All UUIDs, oldest first."""
    return [one.uuid for one in site.history().revisions]


def at(site: Site, *words: str) -> str:
    """What a command on the job prints; it succeeds and has no complaints."""
    done = backy("-b", str(site.job), *words)
    assert (0, "") == (done.code, done.err)
    return done.out


def test_status_lists_revisions_oldest_first(week: Site) -> None:
    """A head, a line for each, and the sum; the process says the same as the test's own."""
    done = week.cli("status")

    assert (0, "") == (done.returncode, done.stderr)
    head, *rows, closing = done.stdout.splitlines()
    words = ["Date", "(local)", "Revision", "Image", "Read", "Stored", "Took", "Tags", "Remarks"]
    assert words == head.split()
    assert uuids(week) == [row.split()[2] for row in rows]
    assert ["2026-11-01", "03:00:00"] == rows[0].split()[:2]
    assert ["daily", "daily", "weekly", "daily", "daily"] == [row.split()[-1] for row in rows]
    assert closing.startswith("5 revisions, ")


def test_status_of_an_empty_job_is_no_error(site: Site) -> None:
    """It says that there are none."""
    assert at(site, "status").endswith("0 revisions, 0 B stored\n")
    assert [] == json.loads(at(site, "status", "--json"))
    assert [] == yaml.safe_load(at(site, "status", "--yaml"))


def test_status_as_json_has_the_records(week: Site) -> None:
    """All that a record says, with times in UTC."""
    found = json.loads(at(week, "status", "--json"))

    assert uuids(week) == [one["uuid"] for one in found]
    assert "2026-11-01T03:00:00Z" == found[0]["taken_at"]
    assert {"weekly": "schedule"} == found[2]["tags"]
    assert {"trusted"} == {one["trust"] for one in found}
    assert {"consistent"} == {one["consistency"] for one in found}
    assert [CHUNK] == [one["image_size"] for one in found[0]["maps"]]
    assert str(week.image) == found[0]["source"]["path"]


def test_status_as_yaml_speaks_the_terms_of_2_5(week: Site) -> None:
    """Scripts of then read uuid, timestamp, tags, trust and stats."""
    found: list[dict[str, Any]] = yaml.safe_load(at(week, "status", "--yaml"))

    assert uuids(week) == [one["uuid"] for one in found]
    assert EPOCH == found[0]["timestamp"]
    assert ["weekly"] == found[2]["tags"]
    assert {"trusted"} == {one["trust"] for one in found}
    assert {"chunked"} == {one["backend_type"] for one in found}
    assert all({"bytes_written", "duration"} <= set(one["stats"]) for one in found)
    assert ["", *uuids(week)[:-1]] == [one["parent"] for one in found]


def test_status_lists_only_what_is_asked_for(week: Site) -> None:
    """-r takes any spec."""
    assert uuids(week)[2:3] == [
        one["uuid"] for one in json.loads(at(week, "status", "-r", "tag:weekly", "--json"))
    ]


@pytest.mark.parametrize("form", [[], ["--json"], ["--yaml"]])
def test_status_of_the_repository_lists_the_jobs(week: Site, form: list[str]) -> None:
    """Sorted, with counts, the latest time and what is wrong; a job without revisions says never."""
    week.add_job("idle", week.image)
    done = backy("-b", str(week.base), "status", *form)

    assert (0, "") == (done.code, done.err)
    if form:
        parse = json.loads if form == ["--json"] else yaml.safe_load
        idle, busy = parse(done.out)
        assert ["idle", 0, None] == [idle[key] for key in ("job", "revisions", "latest")]
        assert ["vm", 5, CHUNK, 0, 0] == [
            busy[key] for key in ("job", "revisions", "image_size", "torn", "unusable_records")
        ]
        latest = busy["latest"]
        if isinstance(latest, str):
            latest = datetime.fromisoformat(latest)
        assert EPOCH + timedelta(days=4) == latest.astimezone(UTC)
    else:
        head, idle, busy = done.out.splitlines()
        assert head.startswith("Job ")
        assert ["idle", "0", "never"] == idle.split()[:3]
        assert ["vm", "5", "2026-11-05"] == busy.split()[:3]


def test_status_of_the_repository_counts_unusable_records(week: Site) -> None:
    """The overview shows where to look."""
    (week.job / f"{uuids(week)[0]}.rev").unlink()

    assert "1 records unusable" in backy("-b", str(week.base), "status").out


SPECS = {
    "latest": [4],
    "last": [4],
    "first": [0],
    "0": [4],
    "4": [0],
    "daily": [4],
    "weekly": [2],
    "tag:daily": [0, 1, 3, 4],
    "all": [0, 1, 2, 3, 4],
    "clean": [0, 1, 2, 3, 4],
    "local": [0, 1, 2, 3, 4],
    "trust:trusted": [0, 1, 2, 3, 4],
    "not(tag:daily)": [2],
    "first(tag:daily)": [0],
    "last(tag:daily & not(0))": [3],
    "reverse(tag:daily)": [4, 3, 1, 0],
    "0,tag:daily": [4, 0, 1, 3],
    "2026-11-02..2026-11-04": [1, 2],
    "..2026-11-02": [0],
    "2026-11-04..": [3, 4],
    "weekly..": [2, 3, 4],
    "3..1": [1, 2, 3],
    "(0,1) & tag:daily": [4, 3],
}


@pytest.mark.parametrize(("spec", "days"), SPECS.items())
@pytest.mark.parametrize("command", ["find", "rev-parse"])
def test_find_prints_the_uuids_that_a_spec_names(
    week: Site, command: str, spec: str, days: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One a line, in the spec's order; rev-parse is the same command."""
    monkeypatch.setenv("TZ", "UTC")
    found = at(week, command, "-r", spec).splitlines()

    assert days == [uuids(week).index(one) for one in found]


def test_find_takes_a_uuid_and_its_beginning(week: Site) -> None:
    """As long as it is one revision's only."""
    for uuid in uuids(week):
        assert [f"{uuid}\n"] * 2 == [at(week, "find", "-r", word) for word in (uuid, uuid[:13])]
        assert f"{uuid}\n" == at(week, "find", "--uuid", "-r", uuid.upper())


def test_find_as_json_prints_the_records(week: Site) -> None:
    """The same ones as status."""
    assert json.loads(at(week, "status", "--json")) == json.loads(at(week, "find", "--json"))


def test_log_is_another_name_of_status(week: Site) -> None:
    """As on upstream's main."""
    assert at(week, "status", "--json") == at(week, "log", "--json")


def test_output_that_nobody_reads_is_no_error_of_ours(week: Site) -> None:
    """`backy status | head -0` ends quietly."""
    words = [sys.executable, "-m", "backy", "-b", str(week.job), "status"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"" == process.stderr.read()


def test_dates_are_those_of_the_hosts_zone(week: Site) -> None:
    """Three in the morning UTC is the evening before in America."""
    done = subprocess.run(
        [sys.executable, "-m", "backy", "-b", str(week.job), "status", "-r", "first"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TZ": "America/New_York"},
    )

    assert ["2026-10-31", "23:00:00"] == done.stdout.splitlines()[1].split()[:2]
    assert "2026-11-01" in run_backy("-b", str(week.job), "status", "-r", "first").stdout


def test_statistics_are_shown_in_words(week: Site) -> None:
    """What was read and why, what is new and what it takes, and how long each phase took."""
    first = at(week, "status", "--stats", "-r", "first")

    assert uuids(week)[0] in first
    for said in (
        "  read     4.0 KiB; 4.0 KiB of the image may hold data\n",
        "all of that, because there is no good revision to compare with",
        "  changed  4.0 KiB\n",
        "in 1 chunk, of which 0 deltas; stored as ",
        "0 chunks found, 0 inherited, 0 of 1 are zeros",
        "commit ",
    ):
        assert said in first
    assert 5 == at(week, "status", "--stats").count("  took ")
