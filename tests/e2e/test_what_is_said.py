"""-l, -v and -q: what goes to the log, to stderr and to stdout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refused, unchanged

from testsite import CHUNK, Site, run_backy

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \[(info|warning|error) *\] [a-z ]+? +[a-z_]+=\S+.*")
ALL = {
    "backup": ["backup", "daily"],
    "restore": ["restore", "OUT"],
    "verify": ["verify"],
    "tags": ["tags", "add", "-r", "0", "manual:x"],
    "forget": ["forget", "-r", "0"],
}


def words_of(site: Site, command: str) -> list[str]:
    """The words of a command."""
    return [word.replace("OUT", str(site.folder / "out.raw")) for word in ALL[command]]


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with one revision and no log."""
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    return site


@pytest.mark.parametrize("command", ALL)
def test_quiet_says_nothing(backed_up: Site, command: str) -> None:
    """Neither progress nor a closing line, on neither stream; the log is written all the same."""
    done = run_backy("-q", "-b", str(backed_up.job), *words_of(backed_up, command))

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert (backed_up.job / "backy.log").read_text()


@pytest.mark.parametrize("command", ALL)
def test_what_was_done_goes_to_the_jobs_log(backed_up: Site, command: str) -> None:
    """One line an event, with a time, a level, and fields for grep; nothing on stderr."""
    done = backed_up.cli(*words_of(backed_up, command))

    assert (0, "") == (done.returncode, done.stderr)
    lines = (backed_up.job / "backy.log").read_text().splitlines()
    assert lines
    assert [] == [line for line in lines if LINE.fullmatch(line) is None]
    assert all("job=vm" in line for line in lines)


@pytest.mark.parametrize("command", ALL)
def test_verbose_shows_the_log_on_stderr_too(backed_up: Site, command: str) -> None:
    """The same lines in both places."""
    done = run_backy("-v", "-b", str(backed_up.job), *words_of(backed_up, command))

    assert 0 == done.returncode
    assert (backed_up.job / "backy.log").read_text() == done.stderr != ""


def test_l_names_another_log(backed_up: Site) -> None:
    """It is appended to, and the job's own is not."""
    log = backed_up.folder / "backy.log"
    log.write_text("before\n")

    for _ in range(2):
        assert 0 == run_backy("-l", str(log), "-b", str(backed_up.job), "backup", "daily").returncode

    lines = log.read_text().splitlines()
    assert "before" == lines[0]
    assert 2 == sum("backup finished" in line for line in lines)
    assert not (backed_up.job / "backy.log").exists()


def test_a_log_that_cannot_be_opened_is_told_before_anything_is_done(backed_up: Site) -> None:
    """One that was asked for is wanted."""
    with unchanged(backed_up):
        done = run_backy("-l", "/nowhere/log", "-b", str(backed_up.job), "backup", "daily")
        refused(done, 1, "open log /nowhere/log: No such file or directory.")


def test_failures_are_logged_with_their_reason(backed_up: Site) -> None:
    """The same sentence that the operator sees."""
    backed_up.image.unlink()

    done = backed_up.cli("backup", "daily")

    log = (backed_up.job / "backy.log").read_text()
    assert done.stderr.removeprefix("backy: ").strip() in log
    assert "[error" in log


def test_errors_are_told_even_in_quiet(site: Site) -> None:
    """-q means errors only."""
    site.image.unlink()

    refused(run_backy("-q", "-b", str(site.job), "backup", "daily"), 1, "it does not exist.")


def test_a_closing_line_says_what_was_done(backed_up: Site, tmp_path: Path) -> None:
    """On stdout, one line a command."""
    backup = backed_up.cli("backup", "daily").stdout
    restore = backed_up.cli("restore", "--read-back", str(tmp_path / "out.raw")).stdout

    assert re.fullmatch(
        r"revision [0-9a-f-]{36}: 16\.0 KiB read in \d+\.\d s, 0 new chunks, 0 B stored\n", backup
    )
    assert re.fullmatch(
        r"revision [0-9a-f-]{36} of [0-9-]{10} [0-9:]{8} is in \S+/out\.raw: "
        r"16\.0 KiB in \d+\.\d s, read back\n",
        restore,
    )


def with_closed(site: Site, descriptors: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """`site.cli` from a shell that has closed some of the standard descriptors."""
    backy = [sys.executable, "-m", "backy", "-b", str(site.job)]
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {descriptors}', "sh", *backy, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("words", [["status"], ["backup", "daily"], ["restore", "-"]])
def test_a_closed_standard_output_is_refused(backed_up: Site, words: list[str]) -> None:
    """In one sentence, before anything is done."""
    with unchanged(backed_up):
        refused(with_closed(backed_up, ">&-", *words), 1, "standard output is closed: redirect it")


def test_a_closed_standard_error_and_input_hurt_nobody(backed_up: Site) -> None:
    """No file of the store gets their numbers."""
    backed_up.image.write_bytes(b"more" * CHUNK)

    done = with_closed(backed_up, "<&- 2>&-", "backup", "daily")

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == backed_up.verify().findings
