"""The log for collectors: a JSON object a line, tied to the run by its task; rotation loses none."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from in_process import backy

from backy.cli import log as logs
from backy.ground.errors import StorageFailed
from testsite import Site

TASK = "5a7c5b0e-0000-4000-8000-000000000001"


def run(site: Site, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on the job as a process, under other variables."""
    return subprocess.run(
        [sys.executable, "-m", "backy", "-b", str(site.job), *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TZ": "America/New_York", **environment},
        timeout=60,
    )


def lines(path: Path) -> list[Any]:
    """Every line as JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_json_with_job_and_revision(site: Site) -> None:
    """What a collector indexes: time in UTC, level, event, and fields with their types."""
    site.image.write_bytes(b"x" * 5000)
    before = datetime.now(UTC).replace(microsecond=0)
    assert 0 == run(site, "--log-format", "json", "backup", "daily").returncode
    after = datetime.now(UTC)

    begun, ended = lines(site.job / "backy.log")
    revision = site.history().revisions[0]
    assert ["backup started", "backup finished"] == [begun["event"], ended["event"]]
    assert {"timestamp", "level", "event", "job", "tags"} == set(begun)
    assert ("info", "vm", "daily") == (begun["level"], begun["job"], begun["tags"])
    assert (revision.uuid, "consistent") == (ended["revision"], ended["consistency"])
    assert (5000, revision.stats.bytes_written) == (ended["bytes_read"], ended["bytes_written"])
    assert all(before <= datetime.fromisoformat(one["timestamp"]) <= after for one in (begun, ended))


def test_task_of_the_scheduler_is_in_every_line(site: Site) -> None:
    """So that a backup's lines are found by what the scheduler logged."""
    run(site, "--log-format", "json", "backup", "daily", BACKY_TASK_ID=TASK)
    run(site, "--log-format", "json", "expire", BACKY_TASK_ID=TASK)
    run(site, "--log-format", "json", "backup", "daily", BACKY_TASK_ID="")

    found = lines(site.job / "backy.log")
    assert [TASK, TASK, None, None] == [one.get("task") for one in found]


def test_task_is_in_lines_for_people_too(site: Site) -> None:
    """As key=value."""
    run(site, "backup", "daily", BACKY_TASK_ID=TASK)

    assert [True, True] == [
        f"task={TASK}" in line for line in (site.job / "backy.log").read_text().splitlines()
    ]


def test_failure_is_an_error_with_its_sentence(site: Site) -> None:
    """The same sentence as on stderr."""
    site.image.unlink()
    done = run(site, "--log-format", "json", "backup", "daily")

    _, failed = lines(site.job / "backy.log")
    assert ("backup failed", "error", "vm") == (failed["event"], failed["level"], failed["job"])
    assert f"backy: {failed['error']}\n" == done.stderr


def test_verbose_lines_on_stderr_have_the_same_form(site: Site) -> None:
    """A scheduler under systemd logs to stderr."""
    done = run(site, "-v", "-q", "--log-format", "json", "backup", "daily")

    assert lines(site.job / "backy.log") == [json.loads(line) for line in done.stderr.splitlines()]


def test_other_formats_are_refused(site: Site) -> None:
    """With the choice that there is."""
    done = backy("-b", str(site.job), "--log-format", "xml", "status")

    assert 2 == done.code
    assert "'text', 'json'" in done.err


# ..The log itself............................................................................


def test_values_that_are_no_json_are_texts(tmp_path: Path) -> None:
    """No field can break a line: line ends, bytes and objects are written as texts."""
    path = tmp_path / "log"
    with logs.opened(str(path), asked_for=True, verbose=False, json_lines=True) as log:
        log.info("a\nb", path=Path("/x"), text='"\n\x1b[2J', found=None, broken="\udcff")

    (found,) = lines(path)
    assert ("a\nb", "/x", '"\n\x1b[2J', None, "\udcff") == tuple(
        found[key] for key in ("event", "path", "text", "found", "broken")
    )
    assert path.read_text().removesuffix("\n").isprintable()


def test_levels_are_those_of_the_calls(tmp_path: Path) -> None:
    """In the order of the calls."""
    path = tmp_path / "log"
    with logs.opened(str(path), asked_for=True, verbose=False, json_lines=True) as log:
        log.info("1")
        log.warning("2")
        log.error("3")

    found = [("info", "1"), ("warning", "2"), ("error", "3")]
    assert found == [(one["level"], one["event"]) for one in lines(path)]


class Written:
    """A log stream whose lines are written at once, in this thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = logs._Stream(str(path), asked_for=True)

    def say(self, text: str) -> None:
        """Write a line."""
        self.stream.write(text + "\n")


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A log with one line."""
    found = Written(tmp_path / "log")
    found.say("one")
    return found


def test_log_that_was_rotated_away_is_opened_anew(written: Written) -> None:
    """Logrotate renames, and the next line begins a new file; 2.5 wrote on into the old one."""
    old = written.path.rename(written.path.with_suffix(".1"))
    written.say("two")
    written.say("three")
    written.stream.close()

    assert ("one\n", "two\nthree\n") == (old.read_text(), written.path.read_text())


def test_log_that_was_replaced_is_opened_anew(written: Written) -> None:
    """Logrotate's `create` makes the new file itself."""
    written.path.rename(written.path.with_suffix(".1"))
    written.path.touch()
    written.say("two")
    written.stream.close()

    assert "two\n" == written.path.read_text()


def test_log_that_was_removed_is_made_again(written: Written) -> None:
    """Lines do not go where nobody finds them."""
    written.path.unlink()
    written.say("two")
    written.stream.close()

    assert "two\n" == written.path.read_text()


def test_log_that_was_cut_is_written_on(written: Written) -> None:
    """Logrotate's `copytruncate` keeps the file: no hole is left at its begin."""
    os.truncate(written.path, 0)
    written.say("two")
    written.stream.close()

    assert "two\n" == written.path.read_text()


def test_log_that_was_not_rotated_stays_open(written: Written) -> None:
    """A line costs no new descriptor."""
    before = written.stream._file
    written.say("two")

    assert before is written.stream._file
    written.stream.close()
    assert "one\ntwo\n" == written.path.read_text()


def test_rotation_that_leaves_no_folder_gives_the_log_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning, and the command goes on without a log."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with logs.opened(str(folder / "log"), asked_for=True, verbose=False) as log:
        (folder / "log").unlink()
        folder.rmdir()
        log.info("one")
        log.info("two")

    said = capsys.readouterr().err
    assert f"backy: warning: {folder}/log: No such file or directory; no log is kept.\n" == said


def test_jobs_own_log_is_never_a_link_after_rotation(tmp_path: Path) -> None:
    """Who may write in the job's folder cannot turn its log upon another file."""
    path, victim = tmp_path / "log", tmp_path / "victim"
    victim.write_text("precious")
    stream = logs._Stream(str(path), asked_for=False)
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        stream.write("two\n")
    stream.close()

    assert "precious" == victim.read_text()


def test_log_that_was_asked_for_and_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    """It is told before anything is done."""
    with (
        pytest.raises(StorageFailed, match="open log"),
        logs.opened(str(tmp_path / "none/log"), asked_for=True, verbose=False),
    ):
        pytest.fail("it was opened")


def test_lines_for_people_hold_together(tmp_path: Path) -> None:
    """No value breaks a line or looks like another key: what is no plain word stands in quotes."""
    path = tmp_path / "log"
    with logs.opened(str(path), asked_for=True, verbose=False, fields={"task": "t"}) as log:
        log.warning("a\nb", text='x y="1"\n\x1b[2J', empty="", number=7, path=Path("/x=y"), found=None)

    moment, _, rest = path.read_text().partition(" ")
    assert moment.endswith("Z")
    said = '[warning  ] "a\\nb"' + 25 * " "
    values = 'empty="" found=None number=7 path="/x=y" task=t text="x y=\\"1\\"\\n\\u001b[2J"'
    assert f"{said}{values}\n" == rest


def test_lines_of_threads_do_not_mix(tmp_path: Path) -> None:
    """Every line is whole, and none is missing."""
    path = tmp_path / "log"
    with logs.opened(str(path), asked_for=True, verbose=False, json_lines=True) as log:

        def say(name: int) -> None:
            for number in range(100):
                log.info("line", name=name, number=number)

        threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    wanted = {(name, number) for name in range(4) for number in range(100)}
    assert wanted == {(one["name"], one["number"]) for one in lines(path)}


def test_commands_load_no_library_for_the_log(site: Site) -> None:
    """A backup of an unchanged image takes not many times what such a library takes to load."""
    done = run(site, "backup", "daily", PYTHONPROFILEIMPORTTIME="1")

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "backy.cli.log" in loaded
    assert not {"asyncio", "logging", "rich", "structlog"} & loaded
