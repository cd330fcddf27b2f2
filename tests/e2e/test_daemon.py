"""A real scheduler: it runs jobs, survives its children, dies with them, and reloads."""

import asyncio
import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from loopdisk import mounted

from backy.daemon import workers
from backy.daemon.prepare import open_repository, prepare
from backy.domain.cycle import Cycle
from backy.domain.settings import parse_settings
from backy.ground.directory import Directory
from backy.repository import remembered, trust
from backy.repository.remembered import Outcome
from scheduled import Scheduled, ended


def test_three_jobs_run_and_are_told_to_the_callback(tmp_path: Path) -> None:
    """Backup, expiry and callback, with the history as 2.5's YAML on standard input."""
    with Scheduled(tmp_path) as daemon:
        assert "3 jobs to run as workers become free\n" == daemon.client("runall").stdout
        for _ in range(3):
            told = daemon.wait_for("backup finished")
            assert (daemon.base / str(told["job"]) / f"{told['revision']}.rev").exists()

        assert [1, 1, 1] == [daemon.revisions(name) for name in daemon.names]
        assert {f"completed {name}" for name in daemon.names} == set(
            daemon.called.read_text().split("\n")
        ) - {""}
        entry = yaml.safe_load((tmp_path / "completed.yaml").read_text())[0]
        assert {"uuid", "trust", "timestamp", "tags", "stats"} <= entry.keys()
        assert 0 == daemon.backy("check").returncode
        assert "OK: 3 jobs within SLA | jobs=3 late=0" == daemon.client("check").stdout.strip()

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
        told = [json.loads(line) for line in (daemon.base / "backy.log").read_text().splitlines()]
        assert ["collection started", "collection finished"] == [one["event"] for one in told]
        assert {daemon.events[-1]["task"]} == {one["task"] for one in told}


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


def test_a_daily_slice_proves_the_store_and_tells_what_is_bad(tmp_path: Path) -> None:
    """A day after the last one; what it finds is a finding and no failure of the slice."""
    with Scheduled(tmp_path) as daemon:
        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
        daemon.end(signal.SIGTERM)
        past = datetime(2026, 1, 1, tzinfo=UTC)
        rotten = next((daemon.base / "chunks").glob("??/*"))
        rotten.write_bytes(b"rot")
        with Directory.open(str(daemon.base / "chunks")) as chunks:
            trust.write_cycle(chunks, Cycle(started_at=past, sliced_at=past))
            daemon.start()
            found = daemon.wait_for("verification found damage")
            cycle = trust.read_cycle(chunks)

        assert rotten.name in found["error"]
        assert cycle is not None
        assert cycle.sliced_at is not None
        assert datetime.now(UTC) - cycle.sliced_at < timedelta(minutes=1)
        check = daemon.backy("check")
        assert 1 == check.returncode
        assert "1 damaged chunk is in quarantine" in check.stdout


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


def test_settings_of_older_versions_are_named_once(tmp_path: Path) -> None:
    """Not with every reload: the log would be full of what nobody needs to change."""
    with Scheduled(tmp_path) as daemon:
        daemon.configure(daemon.config.read_text().replace('"base-dir"', '"telnet-port": 1, "base-dir"'))
        for _ in range(2):
            assert 0 == daemon.backy("reload").returncode
            daemon.wait_for("configuration reloaded")

        assert ["global.telnet-port"] == [
            one["keys"] for one in daemon.events if one["event"].startswith("settings of older")
        ]


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


@pytest.mark.root
def test_a_full_disk_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    """It is its collection that makes room there; clients go on with the token of the last start."""
    with mounted(tmp_path, "ext4", 300 << 20) as disk, Scheduled(disk.folder) as daemon:
        token = (daemon.base / ".api-token").read_text()
        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
        daemon.end(signal.SIGTERM)
        with disk.filled(0):
            daemon.start()
            daemon.request("vm0")
            failed = daemon.wait_for("backup failed", job="vm0")

            assert "the disk is full" in failed["error"]
            assert token == (daemon.base / ".api-token").read_text()
            daemon.end(signal.SIGTERM)
        assert "the token of this host was not renewed" in [one["event"] for one in daemon.events]


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


def test_a_directory_that_is_gone_is_made_anew_by_the_next_run(tmp_path: Path) -> None:
    """Also one that could not be made at the start; nobody has to reload for it."""
    with Scheduled(tmp_path) as daemon:
        shutil.rmtree(daemon.base / "vm0")
        daemon.request("vm0")
        daemon.wait_for("backup finished", job="vm0")
        assert 1 == daemon.revisions("vm0")

        shutil.rmtree(daemon.base / "vm1")
        (daemon.base / "vm1").touch()
        daemon.request("vm1")
        failed = daemon.wait_for("backup failed", job="vm1")
        assert f"{daemon.base}/vm1" in failed["error"]


def test_limits_of_the_pools_change_while_jobs_run(tmp_path: Path) -> None:
    """With one worker that is busy the next job waits; with two it starts."""
    with Scheduled(tmp_path, jobs=2, workers=1) as daemon:
        child = daemon.hold("vm0")
        daemon.request("vm1")
        assert "waiting for worker slot" in daemon.client("jobs", "vm1").stdout
        daemon.workers = 2
        daemon.configure()
        assert 0 == daemon.backy("reload").returncode

        daemon.wait_for("backup finished", job="vm1")
        assert (0, 1) == (daemon.revisions("vm0"), daemon.revisions("vm1"))
        assert not [one for one in daemon.events if one["event"] == "backup ended"]
        os.kill(child, signal.SIGKILL)


def test_a_reload_asked_for_during_the_start_is_done_after_it(tmp_path: Path) -> None:
    """SIGHUP while histories are read does not end the process."""
    daemon = Scheduled(tmp_path, jobs=1)
    settings = parse_settings(daemon.config.read_text(), "backy.conf").complete()
    with open_repository(str(daemon.base), settings.jobs) as repository:
        prepare(repository, settings.jobs)
    gate = daemon.base / "vm0/config"
    gate.unlink()
    os.mkfifo(gate)

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(daemon.start)
        with gate.open("w"):  # until it reads there, in the middle of its start
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
        started.result()
    daemon.wait_for("configuration reloaded")
    assert 0 == daemon.end()


def test_log_that_was_rotated_is_opened_anew_and_no_line_is_lost(tmp_path: Path) -> None:
    """As logrotate does it: renamed, and a new file made, or not; no signal, no line twice."""
    log = tmp_path / "scheduler.log"
    daemon = Scheduled(tmp_path)
    daemon.options = ("-l", str(log))
    with daemon:
        for number, name in enumerate(daemon.names):
            log.rename(tmp_path / f"scheduler.log.{number}")
            if number == 1:
                log.touch(mode=0o640)
            daemon.request(name)
            daemon.wait_for("backup finished", job=name)

    parts = [*(tmp_path / f"scheduler.log.{number}" for number in range(3)), log]
    lines = [[yaml.safe_load(line) for line in part.read_text().splitlines()] for part in parts]
    assert [line["event"] for line in daemon.events] == [one["event"] for part in lines for one in part]
    for name, part in zip(daemon.names, lines[1:], strict=True):
        assert ("backup started", name) in [(one["event"], one.get("job")) for one in part]
    assert "scheduler stopped" == lines[-1][-1]["event"]


_CALLBACK = """#!/bin/sh
echo "$BACKY_TASK_ID" > {folder}/task-$1
case $1 in
vm0) sleep 1000 & echo hangs > {folder}/told; wait ;;
vm1) echo "no route to host" >&2; exit 3 ;;
vm2) head -c 3000000 /dev/zero | tr '\\\\0' x; echo; echo "the last line"; exit 4 ;;
esac
"""


def test_callback_that_hangs_fails_or_floods_harms_nobody_else(tmp_path: Path) -> None:
    """Its code and last words are logged; one that hangs has its worker, until the job is changed."""
    os.mkfifo(tmp_path / "told")
    with Scheduled(tmp_path) as daemon:
        (tmp_path / "completed").write_text(_CALLBACK.format(folder=tmp_path))
        daemon.request("vm0")
        assert "hangs\n" == (tmp_path / "told").read_text()
        daemon.request("vm1")
        failed = daemon.wait_for("callback failed", job="vm1")
        assert (3, "no route to host", "warning") == (failed["code"], failed["said"], failed["level"])
        assert failed["task"] == (tmp_path / "task-vm1").read_text().strip()
        daemon.wait_for("backup finished", job="vm1")

        daemon.request("vm2")
        flooded = daemon.wait_for("callback failed", job="vm2")
        assert flooded["said"].endswith("\nthe last line")
        assert len(flooded["said"]) <= 4096
        daemon.wait_for("backup finished", job="vm2")

        assert "running" in daemon.client("jobs", "vm0").stdout
        daemon.configure(interval="2d")
        assert 0 == daemon.backy("reload").returncode
        daemon.wait_for("backup ended", job="vm0")
        assert 1 == daemon.revisions("vm0")


def test_callback_that_cannot_be_called_is_told_and_the_run_succeeds(tmp_path: Path) -> None:
    """A path without a program."""
    with Scheduled(tmp_path, jobs=1) as daemon:
        (tmp_path / "completed").unlink()
        daemon.request("vm0")
        failed = daemon.wait_for("callback failed", job="vm0")
        assert "No such file or directory" in failed["said"]
        daemon.wait_for("backup finished", job="vm0")


def test_failed_callback_gets_the_history_too(tmp_path: Path) -> None:
    """The revisions that there are, though the last backup failed; a long list is no deadlock."""
    program = tmp_path / "failed"
    with Scheduled(tmp_path, jobs=1) as daemon:
        daemon.request("vm0")
        daemon.wait_for("backup finished")
        (tmp_path / "vm0.raw").unlink()
        program.write_text(f'#!/bin/sh\ncat > {tmp_path}/failed.yaml\necho "$1: told" >&2\nexit 1\n')
        daemon.request("vm0")
        assert "vm0: told" == daemon.wait_for("callback failed", job="vm0")["said"]
        daemon.wait_for("backup failed", job="vm0")

        (entry,) = yaml.safe_load((tmp_path / "failed.yaml").read_text())
        assert (["daily"], "trusted") == (entry["tags"], entry["trust"])


def test_program_that_takes_too_long_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where it ignores SIGTERM."""
    script = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/pid; wait"
    monkeypatch.setattr(workers, "TERMINATION_SECONDS", 0.1)
    ran = workers.run_program(["/bin/sh", "-c", script], "task", b"", seconds=1.0)
    with pytest.raises(TimeoutError, match="did not end within 1 s"):
        asyncio.run(ran)

    assert ended(int((tmp_path / "pid").read_text()))


def test_program_that_reads_late_or_never_gets_no_one_stuck(tmp_path: Path) -> None:
    """More on both pipes than they hold, and a process left behind that keeps one open."""
    given = b"x" * 1_000_000
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; head -c 1000000 /dev/zero; wc -c > {tmp_path}/read"
    try:
        done = asyncio.run(workers.run_program(["/bin/sh", "-c", script], "task", given))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    assert 0 == done.code
    assert str(len(given)) == (tmp_path / "read").read_text().strip()
