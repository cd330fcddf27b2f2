"""A real scheduler: it runs jobs, survives its children, dies with them, and reloads."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from backy.ground.directory import Directory
from backy.repository import remembered
from backy.repository.remembered import Outcome
from scheduled import Scheduled, ended


def test_three_jobs_run_and_are_told_to_the_callback(tmp_path: Path) -> None:
    """Backup, expiry and callback, with the history as 2.5's YAML on standard input."""
    with Scheduled(tmp_path) as daemon:
        assert "3 jobs run as workers become free\n" == daemon.client("runall").stdout
        for _ in range(3):
            daemon.wait_for("backup finished")

        assert [1, 1, 1] == [daemon.revisions(name) for name in daemon.names]
        assert {f"completed {name}" for name in daemon.names} == set(
            daemon.called.read_text().split("\n")
        ) - {""}
        entry = yaml.safe_load((tmp_path / "completed.yaml").read_text())[0]
        assert {"uuid", "trust", "timestamp", "tags", "stats"} <= entry.keys()
        assert 0 == daemon.backy("check").returncode
        assert "OK: 3 jobs within SLA" == daemon.client("check").stdout.strip()

    assert 2 == daemon.backy("check").returncode


def test_a_killed_child_is_a_failure_that_is_tried_again(tmp_path: Path) -> None:
    """The other jobs go on, the failed callback is called, and a request runs it at once."""
    with Scheduled(tmp_path) as daemon:
        child = daemon.hold("vm0")
        daemon.request("vm1")
        daemon.wait_for("backup finished", job="vm1")
        os.kill(child, signal.SIGKILL)
        failed = daemon.wait_for("backup failed", job="vm0")

        assert "it ended with code -9" == failed["error"]
        assert "failed vm0" in daemon.called.read_text()
        assert (0, 1) == (daemon.revisions("vm0"), daemon.revisions("vm1"))

        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
        assert 1 == daemon.revisions("vm0")


def test_collection_runs_for_the_whole_repository(tmp_path: Path) -> None:
    """As a child of the scheduler, once it is due, beside the jobs."""
    with Scheduled(tmp_path) as daemon:
        daemon.client("runall")
        for _ in daemon.names:
            daemon.wait_for("backup finished")
        daemon.end(signal.SIGTERM)
        assert 0 == daemon.backy("-b", str(daemon.base / "vm0"), "forget", "-r", "0").returncode
        with Directory.open(str(daemon.base / "chunks")) as chunks:
            assert remembered.read_outcome(chunks) is None
            remembered.write_outcome(chunks, Outcome(at=datetime(2026, 1, 1, tzinfo=UTC)))
            daemon.start()
            daemon.wait_for("collection finished")

            outcome = remembered.read_outcome(chunks)

        assert outcome is not None
        assert datetime.now(UTC) - outcome.at < timedelta(minutes=1)
        assert [] == list((daemon.base / "vm0").glob("*.map"))


def test_a_collection_that_stops_is_told(tmp_path: Path) -> None:
    """In the log, and by check."""
    with Scheduled(tmp_path) as daemon:
        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
        daemon.end(signal.SIGTERM)
        (record,) = (daemon.base / "vm0").glob("*.rev")
        record.unlink()
        with Directory.open(str(daemon.base / "chunks")) as chunks:
            remembered.write_outcome(chunks, Outcome(at=datetime(2026, 1, 1, tzinfo=UTC)))
        daemon.start()

        failed = daemon.wait_for("collection failed")

        assert "its record is gone" in failed["error"]
        check = daemon.backy("check")
        assert 2 == check.returncode
        assert "garbage collection is stopped" in check.stdout


def test_children_die_with_a_killed_scheduler_and_the_next_one_works(tmp_path: Path) -> None:
    """Kill -9 of the daemon orphans nobody, loses nothing and needs no unlocking."""
    with Scheduled(tmp_path) as daemon:
        daemon.request("vm1")
        daemon.wait_for("backup finished", job="vm1")
        child = daemon.hold("vm0")
        assert -signal.SIGKILL == daemon.end(signal.SIGKILL)

        assert ended(child)
        assert [] == daemon.left_running()

        daemon.start()
        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
        assert (1, 1) == (daemon.revisions("vm0"), daemon.revisions("vm1"))


def test_a_terminated_scheduler_ends_its_children_and_exits_cleanly(tmp_path: Path) -> None:
    """SIGTERM: code 0, nothing is left running, nothing half visible."""
    with Scheduled(tmp_path) as daemon:
        child = daemon.hold("vm0")

        assert 0 == daemon.end()
        assert ended(child)
        assert [] == daemon.left_running()
        assert 0 == daemon.revisions("vm0")
        assert "scheduler stopped" == daemon.events[-1]["event"]


def test_a_bad_file_keeps_the_old_configuration(tmp_path: Path) -> None:
    """By SIGHUP the log says so, by `backy reload` the caller; jobs run as before."""
    with Scheduled(tmp_path) as daemon:
        daemon.configure("jobs: {vm0: {schedule: nope}}")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        told = daemon.wait_for("configuration not reloaded, the old one stays")
        assert "jobs.vm0.schedule" in told["error"]

        daemon.configure()
        daemon.names.append("vm3")
        daemon.configure()
        daemon.process.send_signal(signal.SIGHUP)
        assert 4 == daemon.wait_for("configuration reloaded")["jobs"]
        daemon.request("vm3")
        daemon.wait_for("backup finished", job="vm3")


def test_a_changed_job_starts_anew_and_the_others_notice_nothing(tmp_path: Path) -> None:
    """Its running backup is ended; a job that left the configuration keeps its revisions."""
    with Scheduled(tmp_path) as daemon:
        daemon.request("vm2")
        daemon.wait_for("backup finished", job="vm2")
        child = daemon.hold("vm0")
        daemon.names.remove("vm2")
        daemon.configure(interval="2d")
        assert 0 == daemon.backy("reload").returncode
        daemon.wait_for("backup ended", job="vm0")
        assert ended(child)

        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
        assert (1, 1) == (daemon.revisions("vm0"), daemon.revisions("vm2"))


def test_a_second_scheduler_is_refused(tmp_path: Path) -> None:
    """With exit code 69 and one sentence."""
    with Scheduled(tmp_path) as daemon:
        done = daemon.backy("scheduler")

        assert 69 == done.returncode
        assert "another scheduler runs on" in done.stderr
        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")


def test_a_job_that_cannot_be_used_does_not_stop_the_others(tmp_path: Path) -> None:
    """One with a mistake, one whose image is missing: told, and the rest runs."""
    daemon = Scheduled(tmp_path)
    (tmp_path / "vm1.raw").unlink()
    text = daemon.config.read_text()
    daemon.configure(text.replace('"jobs": {', '"jobs": {"bad": {"schedule": "nope"}, '))
    with daemon:
        assert ["vm0", "vm1", "vm2"] == [
            line.split()[0] for line in daemon.client("jobs").stdout.splitlines()[1:]
        ]
        daemon.request("vm1")
        failed = daemon.wait_for("backup failed", job="vm1")
        assert "vm1.raw: it does not exist" in failed["error"]
        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
