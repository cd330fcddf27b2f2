"""What Prometheus gets: a real scrape over HTTP, read by prometheus_client's parser.

Expected values come from the histories themselves, names and labels from doc/monitoring.md.

Limits: the size of the file system is compared as a whole, since others write there too.
"""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from pages import DOC, first_table
from prometheus_client.parser import text_string_to_metric_families

from backy.domain.revision import Trust
from backy.ground.directory import Directory
from backy.repository import history as histories
from daemonsite import SCHEDULE, TOKEN, Daemon, DaemonSite
from scheduled import Scheduled

PAGE = (DOC / "monitoring.md").read_text()
Scrape = dict[tuple[str, ...], float]


def scrape(url: str, token: str) -> tuple[Scrape, dict[str, str]]:
    """Values by name and labels' values, and the type of each metric, as Prometheus asks for them."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
    headers = {"Authorization": f"Bearer {token}", "Accept": accept, "Accept-Encoding": "gzip"}
    with urlopen(Request(f"{url}/metrics", headers=headers), timeout=30) as answer:
        assert "text/plain; version=0.0.4; charset=utf-8" == answer.headers["Content-Type"]
        text = answer.read().decode()
    values: Scrape = {}
    types = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in values
            values[key] = sample.value
            types[sample.name] = family.type
    return values, types


def labels(url: str, token: str) -> dict[str, str]:
    """The names of each metric's labels."""
    with urlopen(Request(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {one.name: ", ".join(one.labels) for family in families for one in family.samples}


def known_site(folder: Path) -> DaemonSite:
    """`vm` with three revisions, the newest of them distrusted; `idle` has an empty schedule."""
    site = DaemonSite(folder)
    source = {"type": "file", "filename": str(site.site.image)}
    names = {"vm": "rarely", "fresh": "rarely", "idle": "never"}
    site.configure(
        schedules={"rarely": SCHEDULE, "never": {}},
        jobs={name: {"source": source, "schedule": schedule} for name, schedule in names.items()},
    )
    site.site.image.write_bytes(bytes(range(256)) * 400)
    site.site.backup()
    site.site.image.write_bytes(bytes(range(255, -1, -1)) * 500)
    newest = site.site.backup()
    with Directory.open(str(site.site.job)) as job:
        histories.edit(job, newest.uuid, lambda one: one.with_trust(Trust.DISTRUSTED))
    return site


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A scheduler for scrapes of a repository that stays as it is."""
    with known_site(tmp_path_factory.mktemp("metrics")).running() as running:
        yield running


def test_every_documented_metric_is_there_and_no_other(daemon: Daemon) -> None:
    """With the labels of the table."""
    found = labels(daemon.url, TOKEN)
    rows = first_table(PAGE, "metrics")

    assert {row[0]: row[1] for row in rows} == found


def test_counters_are_counters_and_the_rest_gauges(daemon: Daemon) -> None:
    """By their names, as Prometheus' conventions have it."""
    _, types = scrape(daemon.url, TOKEN)

    assert {"counter"} == {kind for name, kind in types.items() if name.endswith("_total")}
    assert {"gauge"} == {kind for name, kind in types.items() if not name.endswith("_total")}


def test_a_job_has_the_figures_of_its_newest_good_revision(daemon: Daemon) -> None:
    """Not of the distrusted one, which counts among the revisions all the same."""
    history = daemon.on.site.history()
    good, bad = history.revisions[1:]
    assert (3, True) == (len(history.revisions), bad.is_distrusted)
    earliest = time.time()
    values, _ = scrape(daemon.url, TOKEN)
    latest = time.time()

    taken = good.taken_at.timestamp()
    age = values["backy_job_age_seconds", "vm"]
    assert earliest - taken <= age <= latest - taken
    assert {
        "sla_ok": 1.0,
        "sla_limit_seconds": 1.5 * 520 * 7 * 86400,
        "duration_seconds": good.stats.duration,
        "read_bytes": good.stats.bytes_read,
        "stored_bytes": good.stats.bytes_written,
        "last_result": 1.0,
        "revisions": 3.0,
    } == {
        name.removeprefix("backy_job_"): value
        for (name, *of), value in values.items()
        if of == ["vm"] and name != "backy_job_age_seconds"
    }
    assert good.stats.bytes_written > 0


def test_a_job_without_a_revision_has_an_age_and_no_figures(daemon: Daemon) -> None:
    """Since it was configured; one with an empty schedule never breaks its service level."""
    values, _ = scrape(daemon.url, TOKEN)

    for job in ("fresh", "idle"):
        assert {"age_seconds", "sla_ok", "sla_limit_seconds", "revisions"} == {
            name.removeprefix("backy_job_") for (name, *of) in values if of == [job]
        }
        assert 0 <= values["backy_job_age_seconds", job] < 600
        assert (1, 0) == (values["backy_job_sla_ok", job], values["backy_job_revisions", job])
    assert math.inf == values["backy_job_sla_limit_seconds", "idle"]


def test_the_store_is_measured_by_all_revisions_and_the_file_system(daemon: Daemon) -> None:
    """Of the jobs that are configured: what is left of others is not read."""
    revisions = daemon.on.site.history().revisions
    stored = sum(one.stats.bytes_written for one in revisions)
    logical = sum(one.image_size for one in revisions)
    values, _ = scrape(daemon.url, TOKEN)
    disk = os.statvfs(daemon.on.site.base)

    assert stored == values["backy_stored_bytes",]
    assert logical / stored == pytest.approx(values["backy_dedup_ratio",])
    assert values["backy_store_used_bytes",] > 0
    assert (disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize == (
        values["backy_store_used_bytes",] + values["backy_store_free_bytes",]
    )


def test_runs_are_counted_by_their_end(tmp_path: Path) -> None:
    """From nothing; a failure shows in the job's result, a success in its revisions too."""
    earliest = time.time()
    with DaemonSite(tmp_path).running() as daemon:
        values, _ = scrape(daemon.url, TOKEN)
        assert earliest <= values["backy_start_time_seconds",] <= time.time()
        assert (0, 0) == tuple(values["backy_backups_total", one] for one in ("succeeded", "failed"))
        assert ("backy_job_last_result", "sick") not in values

        for name, end in (("vm", "finished"), ("sick", "failed"), ("fresh", "finished")):
            daemon.ask("POST", f"/v1/jobs/{name}/run")
            daemon.wait_for(f"backup {end}", name)
        values, _ = scrape(daemon.url, TOKEN)

        assert (2, 1) == tuple(values["backy_backups_total", one] for one in ("succeeded", "failed"))
        assert {"vm": 1, "sick": 0, "fresh": 1} == {
            job: values["backy_job_last_result", job] for job in ("vm", "sick", "fresh")
        }
        assert {"vm": 2, "sick": 0, "fresh": 1} == {
            job: values["backy_job_revisions", job] for job in ("vm", "sick", "fresh")
        }


def test_a_job_that_left_the_configuration_is_told_no_more(tmp_path: Path) -> None:
    """Otherwise its age would raise an alarm for ever."""
    with DaemonSite(tmp_path).running() as daemon:
        source = {"type": "file", "filename": str(daemon.on.site.image)}
        daemon.on.configure(jobs={"fresh": {"source": source, "schedule": "rarely"}})
        assert 204 == daemon.ask("POST", "/v1/reload").status

        values, _ = scrape(daemon.url, TOKEN)

    assert {"fresh"} == {of[0] for (name, *of) in values if name.startswith("backy_job_")}


def test_pools_and_queue_show_who_runs_and_who_waits(tmp_path: Path) -> None:
    """With one worker that is busy, another job waits; none of it when they are done.

    Both are new, so nobody knows that they are fast.
    """
    with Scheduled(tmp_path, jobs=2, workers=1) as daemon:
        url, token = f"http://127.0.0.1:{daemon.port}", (daemon.base / ".api-token").read_text()
        daemon.hold("vm0")
        daemon.request("vm1")
        busy, _ = scrape(url, token)
        (tmp_path / "go-on").write_text("")
        for name in ("vm0", "vm1"):
            daemon.wait_for("backup finished", job=name)
        idle, _ = scrape(url, token)

    assert {"fast": 1, "slow": 1} == {pool: busy["backy_pool_limit", pool] for pool in ("fast", "slow")}
    assert (0, 1, 1) == (
        *(busy["backy_pool_running", "fast"], busy["backy_pool_running", "slow"]),
        busy["backy_queue_jobs",],
    )
    assert (0, 0) == (idle["backy_pool_running", "slow"], idle["backy_queue_jobs",])
