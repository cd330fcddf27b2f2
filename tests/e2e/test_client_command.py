"""`backy client` and `reload`: with a scheduler, with none, and with a wrong token.

Limits: how the scheduler itself answers is tests/contract/test_api_routes.py; what else may listen in
its place is `test_client_strangers`.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from in_process import backy

from backy.cli.render import local_time
from daemonsite import CLIENT_TOKEN, SCHEDULE, TOKEN, Daemon, DaemonSite, local_token
from testsite import parsed, run_backy

COMMANDS = (
    ("client", "jobs"),
    ("client", "status"),
    ("client", "run", "vm"),
    ("client", "runall"),
    ("client", "reload"),
    ("reload",),
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A scheduler whose command line finds the token that it left for this host."""
    site = DaemonSite(tmp_path)
    site.configure(api={"port": site.port, "tokens": {TOKEN: "tests"}})
    with site.running() as running:
        yield running


def ask(on: DaemonSite, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command with this configuration, as a process."""
    return run_backy("-c", str(on.config), *words)


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command that succeeded printed."""
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


# ..With a scheduler..........................................................................


def test_jobs_lists_what_the_api_says(daemon: Daemon) -> None:
    """All or those that match, as a table and as JSON."""
    entries = daemon.ask("GET", "/v1/status").document
    head, *rows = said(ask(daemon.on, "client", "jobs")).splitlines()

    assert ["Job", "SLA", "Overdue", "Status", "Last (local)", "Tags"] == re.split("  +", head)[:6]
    assert [["fresh", "OK", "-"], ["sick", "OK", "-"], ["vm", "OK", "-"]] == [
        row.split()[:3] for row in rows
    ]
    assert local_time(datetime.fromisoformat(entries[2]["last_time"])) in rows[2]
    assert entries == parsed(ask(daemon.on, "client", "--json", "jobs"))
    assert entries[2:] == parsed(ask(daemon.on, "client", "--json", "jobs", "^v"))
    assert 1 == len(said(ask(daemon.on, "client", "jobs", "nobody")).splitlines())


def test_status_counts_jobs(daemon: Daemon) -> None:
    """By what they are doing."""
    assert "waiting for deadline     3" == said(ask(daemon.on, "client", "status")).splitlines()[1]
    assert {"waiting for deadline": 3} == parsed(ask(daemon.on, "client", "--json", "status"))


def test_run_and_runall_start_backups(daemon: Daemon) -> None:
    """One by its name, or all; with -q without a word."""
    told = said(ask(daemon.on, "client", "run", "fresh"))
    daemon.wait_for("backup finished", "fresh")
    assert "job 'fresh' runs as soon as a worker is free\n" == told
    assert 1 == len(daemon.on.site.history(job="fresh").revisions)

    assert "" == said(run_backy("-q", "-c", str(daemon.on.config), "client", "run", "fresh"))
    daemon.wait_for("backup finished", "fresh")

    assert "3 jobs to run as workers become free\n" == said(ask(daemon.on, "client", "runall"))
    left = {"fresh", "sick", "vm"}
    while left:
        line = daemon.wait_for("backup f")
        left -= {name for name in left if f"job={name}" in line}
    assert (3, 0, 2) == tuple(
        len(daemon.on.site.history(job=name).revisions) for name in ("fresh", "sick", "vm")
    )


def test_a_job_without_a_schedule_is_not_run(daemon: Daemon) -> None:
    """A request is refused, instead of waiting for ever; `runall` leaves it out, and says so."""
    source = {"type": "file", "filename": str(daemon.on.site.image)}
    daemon.on.configure(
        api={"port": daemon.on.port, "tokens": {TOKEN: "tests"}},
        schedules={"rarely": SCHEDULE, "never": {}},
        jobs={
            "vm": {"source": source, "schedule": "rarely"},
            "idle": {"source": source, "schedule": "never"},
        },
    )
    said(ask(daemon.on, "reload"))

    refused = ask(daemon.on, "client", "run", "idle")

    assert (1, "") == (refused.returncode, refused.stdout)
    assert "the schedule of job 'idle' is empty" in refused.stderr
    assert 409 == daemon.ask("POST", "/v1/jobs/idle/run").status
    told = "1 job to run as workers become free; 1 without a schedule left out\n"
    assert told == said(ask(daemon.on, "client", "runall"))
    daemon.wait_for("backup finished", "vm")


@pytest.mark.parametrize("words", [("client", "reload"), ("reload",), ("reload-daemon",)])
def test_reload_is_done_or_its_mistakes_are_told(daemon: Daemon, words: tuple[str, ...]) -> None:
    """By either command, and the file that the scheduler was started with counts."""
    done = "the scheduler has read its configuration again\n"
    source = {"type": "file", "filename": str(daemon.on.site.image)}
    api = {"port": daemon.on.port, "tokens": {TOKEN: "tests"}}
    daemon.on.configure(api=api, jobs={"vm": {"source": source, "schedule": "rarely"}})
    assert done == said(ask(daemon.on, *words))
    assert {"waiting for deadline": 1} == parsed(ask(daemon.on, "client", "--json", "status"))

    daemon.on.configure(api=api, jobs={"vm": {"source": source, "schedule": "rarly"}})
    refused = ask(daemon.on, *words)
    assert (1, "") == (refused.returncode, refused.stdout)
    assert (
        "jobs.vm.schedule: there is no usable schedule 'rarly'; did you mean 'rarely'?" in refused.stderr
    )
    assert {"waiting for deadline": 1} == parsed(ask(daemon.on, "client", "--json", "status"))


def test_check_tells_who_is_late(tmp_path: Path) -> None:
    """As Nagios reads it: OK with 0; CRITICAL with 2 and a line for each job that is out of SLA."""
    site = DaemonSite(tmp_path)
    site.configure(api={"port": site.port})
    with site.running():
        assert "OK: 3 jobs within SLA | jobs=3 late=0\n" == said(ask(site, "client", "check"))
        assert [] == parsed(ask(site, "client", "--json", "check"))

    # By this file's time `sick` is configured, and not backed up, since 1970.
    os.utime(site.site.base / "sick/.history", (0, 0))
    with site.running() as daemon:
        answer = daemon.ask("GET", "/v1/status?filter=sick", token=local_token(site.site.base))
        done = ask(site, "client", "check")
        late = ask(site, "client", "--json", "check")
    head, line = done.stdout.splitlines()
    assert (2, "") == (done.returncode, done.stderr)
    assert "CRITICAL: 1 of 3 jobs out of SLA | jobs=3 late=1" == head
    days = answer.document[0]["sla_overdue"] // 86400
    assert line.startswith(f"CRITICAL sick: TOO OLD, {days} d ")
    assert (2, ["sick"]) == (late.returncode, [one["job"] for one in parsed(late)])


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("run", "nobody"), 1, "there is no job 'nobody': it is not in the scheduler's configuration."),
        (("run", "left"), 1, "there is no job 'left'"),
        (("run", "../left"), 1, "there is no job '../left'"),
        (("run", "a\x1b[2Jb\n"), 1, r"there is no job 'a\x1b[2Jb\n'"),
        (("run", "\udcff"), 1, "there is no job"),
        (("run", ""), 1, "Not Found"),
        (("jobs", "["), 1, "the filter is no regular expression"),
        (("run",), 2, "run needs the name of a job"),
        (("status", "vm"), 2, "status takes no argument"),
        (("nothing",), 2, "'nothing' is not one of"),
    ],
)
def test_what_cannot_be_meant_is_told(
    refusing: Daemon, words: tuple[str, ...], code: int, part: str
) -> None:
    """In the scheduler's words or the command line's; nothing steers a terminal."""
    done = backy("-c", str(refusing.on.config), "client", *words)

    assert (code, "") == (done.code, done.out)
    assert part in done.err
    assert "\x1b" not in done.err


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A scheduler for what it refuses."""
    site = DaemonSite(tmp_path_factory.mktemp("client"))
    site.configure(api={"port": site.port})
    with site.running() as running:
        yield running


# ..Without one...............................................................................


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_wrong_token_is_refused(refusing: Daemon, words: tuple[str, ...], tmp_path: Path) -> None:
    """With code 1 and the reason, and without the token."""
    config = tmp_path / "other.conf"
    text = refusing.on.config.read_text()
    config.write_text(text.replace("api:\n", f"api:\n  cli-default: {{token: {CLIENT_TOKEN}}}\n"))

    done = backy("-c", str(config), *words)

    why = f"backy: the scheduler at {refusing.url}: a valid bearer token is needed.\n"
    assert (1, "", why) == (done.code, done.out, done.err)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_scheduler_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    """With code 1 and what to do: nothing listens, or it never ran."""
    site = DaemonSite(tmp_path)
    nobody = backy("-c", str(site.config), *words)
    site.configure(api={"port": site.port})
    never = backy("-c", str(site.config), *words)

    url = f"the scheduler at http://127.0.0.1:{site.port}: "
    assert (1, "", f"backy: {url}Connection refused; start 'backy scheduler' there.\n") == (
        *(nobody.code, nobody.out),
        nobody.err,
    )
    assert (1, "") == (never.code, never.out)
    assert f"{url}no token: {site.site.base}/.api-token: No such file or directory; set " in never.err


@pytest.mark.parametrize("content", [b"", b"\n", b"to\nken", b"to\x1b[2Jken", b"\xff\xfe", bytes(300)])
def test_a_damaged_token_file_is_told(tmp_path: Path, content: bytes) -> None:
    """Without what it holds."""
    site = DaemonSite(tmp_path)
    site.configure(api={"port": site.port})
    (site.site.base / ".api-token").write_bytes(content)

    done = backy("-c", str(site.config), "client", "jobs")

    assert 1 == done.code
    assert f"no token: {site.site.base}/.api-token: it is damaged; set api.cli-default.token" in done.err
    assert "ken" not in done.err.replace("token", "")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://nowhere.invalid:1", "Name or service not known"),
        ("http://127.0.0.1:{port}/prefix", "Connection refused"),
        ("http://[::1]:{port}", "Connection refused"),
    ],
)
def test_a_host_that_is_not_there_is_told_in_the_systems_words(
    tmp_path: Path, url: str, part: str
) -> None:
    """Also where the number of the error is none of the system's."""
    site = DaemonSite(tmp_path)
    place = url.format(port=site.port)
    site.configure(api={"port": site.port, "cli-default": {"url": place, "token": CLIENT_TOKEN}})

    done = backy("-c", str(site.config), "client", "jobs")

    assert 1 == done.code
    assert done.err.startswith(f"backy: the scheduler at {place}: ")
    assert part in done.err or "name resolution" in done.err
    assert "Unknown error" not in done.err


def test_a_scheduler_that_was_stopped_is_told_as_none(tmp_path: Path) -> None:
    """Its token is there yet, its port is not."""
    site = DaemonSite(tmp_path)
    site.configure(api={"port": site.port})
    with site.running():
        assert 0 == backy("-c", str(site.config), "client", "check").code
    done = backy("-c", str(site.config), "client", "jobs")
    assert (1, True) == (done.code, "Connection refused" in done.err)


def test_check_without_a_scheduler_is_unknown(tmp_path: Path) -> None:
    """In one line on standard output, as monitoring reads it; as JSON there is nothing to print."""
    site = DaemonSite(tmp_path)
    why = f"UNKNOWN: the scheduler at http://127.0.0.1:{site.port}: Connection refused;"

    done = backy("-c", str(site.config), "client", "check")
    as_json = backy("-c", str(site.config), "client", "--json", "check")

    assert (3, "") == (done.code, done.err)
    assert [True] == [line.startswith(why) for line in done.out.splitlines()]
    assert (3, "", True) == (as_json.code, as_json.out, why in as_json.err)
