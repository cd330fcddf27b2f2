"""What each route does, on a real repository (COMPAT b11): answers, refusals, and what changed on disk.

Limits: who may ask is `test_api_access`, how much is `test_api_limits`; purge and peers are not there.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from daemonsite import SCHEDULE, Daemon, DaemonSite

TAGS = "/v1/backups/left/revs/{}/tags"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A scheduler of its own for each test."""
    with DaemonSite(tmp_path).running() as running:
        yield running


def edit(old: list[str], new: list[str]) -> bytes:
    """The body that replaces tags."""
    return json.dumps({"old_tags": old, "new_tags": new}).encode()


def tags(daemon: Daemon, job: str = "left") -> list[list[str]]:
    """Tags of a job's revisions, oldest first."""
    return [list(one.tags) for one in daemon.on.site.history(job=job).revisions]


# ..The scheduler.............................................................................


def test_status_tells_of_every_job(daemon: Daemon) -> None:
    """By name; times of its newest revision, null where there is none."""
    (taken,) = daemon.on.site.history(job="vm").revisions
    fresh, sick, vm = daemon.ask("GET", "/v1/status").document

    assert ("fresh", "sick", "vm") == (fresh["job"], sick["job"], vm["job"])
    assert taken.taken_at == datetime.fromisoformat(vm["last_time"])
    assert ("OK", 0, "waiting for deadline") == (vm["sla"], vm["sla_overdue"], vm["status"])
    assert ("daily", taken.stats.duration, 1) == (vm["last_tags"], vm["last_duration"], vm["local_revs"])
    assert ("daily", "", 0, 0) == (
        *(vm["next_tags"], vm["manual_tags"]),
        *(vm["problem_reports"], vm["unsynced_revs"]),
    )
    assert (None, "", None, 0) == (
        *(fresh["last_time"], fresh["last_tags"]),
        *(fresh["last_duration"], fresh["local_revs"]),
    )


def test_filter_is_a_regular_expression_for_names(daemon: Daemon) -> None:
    """It is searched for, and counts with its own case; one that is none is 400."""
    found = {
        pattern: [one["job"] for one in daemon.ask("GET", f"/v1/status?filter={pattern}").document]
        for pattern in ("", "^v", "s", "^s", "S", "(%3Fi)S", "vm%7Cfresh", "^$", "[[s]")
    }
    refused = ("[", "(", "*", "(%3FP<", "a{2,1}", "%5C", "(" * 3000, "a{99999999999999999999}")

    assert ["fresh", "sick", "vm"] == found[""]
    assert (["vm"], ["fresh", "sick"], ["sick"], []) == tuple(
        found[one] for one in ("^v", "s", "^s", "S")
    )
    assert (["fresh", "sick"], ["fresh", "vm"], []) == (
        *(found["(%3Fi)S"], found["vm%7Cfresh"]),
        found["^$"],
    )
    for pattern in refused:
        answer = daemon.ask("GET", f"/v1/status?filter={pattern}")
        assert (400, True) == (answer.status, "regular expression" in answer.error), pattern
    assert not [line for line in daemon.lines if "Warning" in line]


def test_jobs_are_those_of_the_configuration(daemon: Daemon) -> None:
    """Name, path, status and schedule, with intervals in seconds."""
    base = daemon.on.site.base

    assert [
        {
            "name": name,
            "path": f"{base}/{name}",
            "status": "waiting for deadline",
            "schedule": {"daily": {"interval": 520 * 7 * 86400, "keep": 3}},
        }
        for name in ("fresh", "sick", "vm")
    ] == daemon.ask("GET", "/v1/jobs").document


def test_run_starts_a_job_and_does_not_wait(daemon: Daemon) -> None:
    """202; then it has a revision, or, where its image is missing, failed."""
    answer = daemon.ask("POST", "/v1/jobs/fresh/run")
    assert (202, b"") == (answer.status, answer.body)
    daemon.wait_for("backup finished", "fresh")
    assert [["daily"]] == tags(daemon, "fresh")
    (entry,) = daemon.ask("GET", "/v1/status?filter=fresh").document
    assert (1, "daily", "waiting for deadline") == (
        *(entry["local_revs"], entry["last_tags"]),
        entry["status"],
    )

    assert 202 == daemon.ask("POST", "/v1/jobs/sick/run").status
    daemon.wait_for("backup failed", "sick")
    (entry,) = daemon.ask("GET", "/v1/status?filter=sick").document
    assert ("failed", 0) == (entry["status"], entry["local_revs"])


def test_run_of_what_is_no_job_here_is_404(daemon: Daemon) -> None:
    """An unknown name, a directory that was left behind, the chunk store."""
    for name in ("nobody", "left", "chunks", "VM", "vm%20", "vm%00"):
        answer = daemon.ask("POST", f"/v1/jobs/{name}/run")
        assert (404, True) == (answer.status, "there is no job" in answer.error)


def test_reload_takes_the_file_as_it_is_now(daemon: Daemon) -> None:
    """A new job is there, one that left becomes a mere directory with its revisions."""
    source = {"type": "file", "filename": str(daemon.on.site.image)}
    job = {"source": source, "schedule": "rarely"}
    daemon.on.configure(jobs={"fresh": job, "new": job})

    answer = daemon.ask("POST", "/v1/reload")

    assert (204, b"") == (answer.status, answer.body)
    assert ["fresh", "new"] == [one["name"] for one in daemon.ask("GET", "/v1/jobs").document]
    assert ["left", "sick", "spare", "vm"] == daemon.ask("GET", "/v1/backups").document
    assert 1 == len(daemon.ask("GET", "/v1/backups/vm/revs").document)


def test_reload_of_a_file_with_a_mistake_changes_nothing(daemon: Daemon) -> None:
    """409 with all its mistakes, and everything goes on as before."""
    daemon.on.configure(
        schedules={"rarely": {"daily": {"interval": "nope"}}, "other": SCHEDULE}, extra=1
    )

    answer = daemon.ask("POST", "/v1/reload")

    assert 409 == answer.status
    assert "schedules.rarely.daily" in answer.error
    assert "extra" in answer.error
    assert ["fresh", "sick", "vm"] == [one["name"] for one in daemon.ask("GET", "/v1/jobs").document]
    daemon.ask("POST", "/v1/jobs/fresh/run")
    daemon.wait_for("backup finished", "fresh")


# ..Histories.................................................................................


def test_backups_are_directories_without_a_job(daemon: Daemon) -> None:
    """Not the configured ones, not the store, not what is no job at all."""
    base = daemon.on.site.base
    (base / "empty").mkdir()
    (base / "a-file").touch()
    (base / "a-link").symlink_to(base / "left")

    assert ["left", "spare"] == daemon.ask("GET", "/v1/backups").document


def test_purge_collects_what_forgotten_revisions_left(daemon: Daemon) -> None:
    """For a directory that is no job here; a configured job is 403, what is no job at all 404."""
    left = daemon.on.site.base / "left"
    assert 204 == daemon.ask("PUT", f"{TAGS.format('all')}?autoremove=1", edit(["daily"], [])).status
    assert 2 == len(list(left.glob("*.map")))

    assert 202 == daemon.ask("POST", "/v1/backups/left/purge").status
    daemon.wait_for("collection requested")
    daemon.wait_for("collection finished")

    assert [] == list(left.glob("*.map"))
    assert 403 == daemon.ask("POST", "/v1/backups/vm/purge").status
    for name in ("nobody", "chunks", "%2e%2e", ".lock"):
        assert 404 == daemon.ask("POST", f"/v1/backups/{name}/purge").status


def test_task_of_the_caller_is_in_the_log(daemon: Daemon) -> None:
    """Of few letters and short, so that it can forge nothing; anything else is passed over."""
    for task in ("another-server:17", "x" * 65, "a b", "\x1b[2J"):
        daemon.ask("POST", "/v1/jobs/nobody/run", headers={"taskid": task})
    lines = [daemon.wait_for("request", "/v1/jobs/nobody/run") for _ in range(3)]

    assert [True, False, False] == ["task=" in line for line in lines]
    assert "task=another-server:17" in lines[0]


def test_touch_sets_the_time_of_the_directory(daemon: Daemon) -> None:
    """And of nothing else; what is no job is 404."""
    left = daemon.on.site.base / "left"
    os.utime(left, (1, 1))
    before = {one.name: one.stat().st_mtime_ns for one in left.iterdir()}

    assert 204 == daemon.ask("POST", "/v1/backups/left/touch").status
    assert left.stat().st_mtime > 1_000_000_000
    assert before == {one.name: one.stat().st_mtime_ns for one in left.iterdir()}
    for name in ("nobody", "chunks", "%2e%2e", ".lock"):
        assert 404 == daemon.ask("POST", f"/v1/backups/{name}/touch").status


def test_revisions_are_listed_oldest_first(daemon: Daemon) -> None:
    """For configured jobs and others; `only_clean` is 0 or 1 and all are clean."""
    for job in ("vm", "left", "spare"):
        known = daemon.on.site.history(job=job).revisions
        answer = daemon.ask("GET", f"/v1/backups/{job}/revs")

        assert answer.body == daemon.ask("GET", f"/v1/backups/{job}/revs?only_clean=1").body
        assert [
            (one.uuid, one.taken_at, list(one.tags), one.trust.value, one.image_size) for one in known
        ] == [
            (
                *(one["uuid"], datetime.fromisoformat(one["timestamp"])),
                *(one["tags"], one["trust"], one["image_size"]),
            )
            for one in answer.document
        ]
    assert (404, 404) == tuple(
        daemon.ask("GET", f"/v1/backups/{name}/revs").status for name in ("nobody", "chunks")
    )
    assert "only_clean is 0 or 1" == daemon.ask("GET", "/v1/backups/vm/revs?only_clean=yes").error


def test_tags_are_replaced_on_disk(daemon: Daemon) -> None:
    """204, for the revisions that the spec names, and what they were before is asked for."""
    assert 204 == daemon.ask("PUT", TAGS.format("first"), edit(["daily"], ["manual:kept", "b"])).status
    assert [["manual:kept", "b"], ["daily"]] == tags(daemon)

    assert 204 == daemon.ask("PUT", TAGS.format("last"), edit(["daily"], [])).status
    assert [["manual:kept", "b"], []] == tags(daemon)

    old_in_another_order = edit(["b", "manual:kept", "b"], ["daily"])
    uuid = daemon.on.site.history(job="left").revisions[0].uuid
    assert 204 == daemon.ask("PUT", TAGS.format(uuid), old_in_another_order).status
    assert [["daily"], []] == tags(daemon)


def test_tags_that_differ_from_what_the_caller_saw_stay(daemon: Daemon) -> None:
    """412 names the revision; of several, those before it are changed, as documented."""
    answer = daemon.ask("PUT", TAGS.format("last"), edit(["weekly"], ["manual:x"]))
    newest = daemon.on.site.history(job="left").revisions[-1].uuid

    assert (412, True) == (answer.status, newest in answer.error)
    assert [["daily"], ["daily"]] == tags(daemon)

    assert 204 == daemon.ask("PUT", TAGS.format("last"), edit(["daily"], ["weekly"])).status
    assert 412 == daemon.ask("PUT", TAGS.format("all"), edit(["daily"], ["manual:x"])).status
    assert [["manual:x"], ["weekly"]] == tags(daemon)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"null", b"[]", b"{}", b"\xff", b'"text"', b"[" * 60_000),
        b'{"old_tags": ["daily"]}',
        b'{"old_tags": "daily", "new_tags": []}',
        b'{"old_tags": ["daily"], "new_tags": [1]}',
        b'{"old_tags": ["daily"], "new_tags": [], "more": 1}',
        *(edit(["daily"], [tag]) for tag in ("", " ", "a b", "a,b", "../x", "a\n", "\x1b[2J", "x" * 64)),
    ],
)
def test_body_that_is_no_tag_edit_is_400(daemon_shared: Daemon, body: bytes) -> None:
    """Its form and its new tags are checked before anything is changed."""
    answer = daemon_shared.ask("PUT", TAGS.format("all"), body)

    assert 400 == answer.status
    assert answer.error
    assert [["daily"], ["daily"]] == tags(daemon_shared)


@pytest.fixture(scope="module")
def daemon_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One scheduler for requests that change nothing."""
    with DaemonSite(tmp_path_factory.mktemp("routes")).running() as running:
        yield running


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        ("/v1/backups/vm/revs/last/tags", 403, "its schedule sets its tags"),
        ("/v1/backups/nobody/revs/last/tags", 404, "there is no job 'nobody'"),
        ("/v1/backups/chunks/revs/last/tags", 404, "chunk store"),
        ("/v1/backups/spare/revs/tag:daily/tags", 404, "no revision of 'spare' matches"),
        ("/v1/backups/left/revs/17/tags", 404, "no revision of 'left' matches"),
        ("/v1/backups/left/revs/tag:none/tags", 404, "matches 'tag:none'"),
        ("/v1/backups/left/revs/last(/tags", 400, "revision spec"),
        ("/v1/backups/left/revs/%20/tags", 400, "revision spec"),
        ("/v1/backups/left/revs/last/tags?autoremove=yes", 400, "autoremove is 0 or 1"),
    ],
)
def test_tags_of_what_cannot_be_meant_are_refused(
    daemon_shared: Daemon, path: str, status: int, part: str
) -> None:
    """Each with its own status and a sentence."""
    answer = daemon_shared.ask("PUT", path, edit(["daily"], ["manual:x"]))

    assert (status, True) == (answer.status, part in answer.error), answer
    assert [["daily"], ["daily"]] == tags(daemon_shared)


def test_revisions_without_tags_are_forgotten_when_asked_to(daemon: Daemon) -> None:
    """With autoremove=1 and no new tags only, and not if the tags differ."""
    path = TAGS.format("first") + "?autoremove=1"

    assert 412 == daemon.ask("PUT", path, edit(["weekly"], [])).status
    assert 204 == daemon.ask("PUT", path, edit(["daily"], ["manual:x"])).status
    assert [["manual:x"], ["daily"]] == tags(daemon)
    assert 204 == daemon.ask("PUT", path.replace("=1", "=0"), edit(["manual:x"], [])).status
    assert [[], ["daily"]] == tags(daemon)
    assert 204 == daemon.ask("PUT", path, edit([], [])).status
    assert [["daily"]] == tags(daemon)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock as another process would."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_history_that_another_process_holds_is_503(daemon: Daemon) -> None:
    """At once, however often, and without harm to backups of other jobs or to the end."""
    with locked(daemon.on.site.base / "left/.history"):
        answers = [daemon.ask("PUT", TAGS.format("last"), edit(["daily"], [])) for _ in range(10)]
        assert [503] * 10 == [one.status for one in answers]
        assert ".history" in answers[0].error
        assert 2 == len(daemon.ask("GET", "/v1/backups/left/revs").document)
        assert 202 == daemon.ask("POST", "/v1/jobs/fresh/run").status
        daemon.wait_for("backup finished", "fresh")

    assert [["daily"], ["daily"]] == tags(daemon)
    assert 204 == daemon.ask("PUT", TAGS.format("last"), edit(["daily"], [])).status


def test_history_that_cannot_be_locked_is_503(daemon: Daemon) -> None:
    """Such as one whose lock is a link to elsewhere, which is not followed."""
    outside = daemon.on.site.folder / "outside"
    lock = daemon.on.site.base / "left/.history"
    lock.unlink(missing_ok=True)
    lock.symlink_to(outside)

    assert 503 == daemon.ask("PUT", TAGS.format("last"), edit(["daily"], [])).status
    assert not outside.exists()
    assert [["daily"], ["daily"]] == tags(daemon)


def test_record_that_cannot_be_read_keeps_relative_specs_from_working(daemon: Daemon) -> None:
    """409: nobody knows which revision is the last; by its UUID each other one can be named."""
    old, new = daemon.on.site.history(job="left").revisions
    record = daemon.on.site.base / f"left/{new.uuid}.rev"
    record.write_bytes(record.read_bytes()[:-10])

    unclear = daemon.ask("PUT", TAGS.format("last"), edit(["daily"], ["manual:x"]))
    damaged = daemon.ask("PUT", TAGS.format(new.uuid), edit(["daily"], ["manual:x"]))

    assert (409, True) == (unclear.status, f"{new.uuid}.rev" in unclear.error)
    assert (500, True) == (damaged.status, f"{new.uuid}.rev" in damaged.error)
    assert [old.uuid] == [one["uuid"] for one in daemon.ask("GET", "/v1/backups/left/revs").document]
    assert 204 == daemon.ask("PUT", TAGS.format(old.uuid), edit(["daily"], ["manual:x"])).status
