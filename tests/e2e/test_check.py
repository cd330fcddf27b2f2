"""`backy check`: what monitoring is told, by line and exit code, about real repositories."""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from filetree import tree
from in_process import Outcome, backy
from small_store import StandingClock

from backy.daemon.prepare import only_daemon
from backy.domain.audit import Audit
from backy.domain.revision import Revision, Trust, serialise
from backy.ground.directory import Directory
from backy.repository import remembered
from fakes import FakeSource, fake_revision
from testsite import CHUNK, Site, run_backy


def ago(hours: float) -> datetime:
    """So long before now; the module may have been loaded a whole suite ago."""
    return datetime.now(UTC) - timedelta(hours=hours)


class Monitored:
    """A configuration with some jobs of a repository, and a scheduler that runs or not."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.file = site.folder / "backy.conf"
        self.jobs: dict[str, Any] = {}
        self.add("vm")

    def add(self, *names: str) -> None:
        """Configure jobs; nobody sets them up."""
        source = {"type": "file", "filename": str(self.site.image)}
        self.jobs |= {name: {"source": source, "schedule": "default"} for name in names}
        self.write()

    def write(self, **sections: object) -> None:
        """Write the configuration, with `sections` on top."""
        document = {
            "global": {"base-dir": str(self.site.base)},
            "schedules": {"default": {"daily": {"interval": "1d", "keep": 9}}},
            "jobs": self.jobs,
        }
        self.file.write_text(yaml.safe_dump({**document, **sections}))

    def back_up(self, hours: float) -> Revision:
        """A revision of `vm` that is so old."""
        self.site.clock = StandingClock(ago(hours))
        return self.site.backup()

    def check(self, *words: str, alive: bool = True) -> Outcome:
        """Run `check`; nothing of it is on stderr, and it writes nothing at all."""
        with scheduler(self.site, alive=alive):
            before = tree(self.site.folder)
            done = backy("-c", str(self.file), "check", *words)
            assert before == tree(self.site.folder)
        assert "" == done.err
        return done

    def said(self, *words: str, alive: bool = True) -> tuple[int, str]:
        """Exit code and first line without performance data."""
        done = self.check(*words, alive=alive)
        return done.code, done.out.splitlines()[0].partition(" | ")[0]


@contextmanager
def scheduler(site: Site, *, alive: bool) -> Iterator[None]:
    """The lock of a scheduler is held inside the block, or nobody's."""
    if not alive:
        yield
        return
    with only_daemon(str(site.base)):
        yield


@pytest.fixture
def monitored(site: Site) -> Monitored:
    """One daily job with a revision of an hour ago."""
    found = Monitored(site)
    found.back_up(1)
    return found


def age(path: Path, hours: float) -> None:
    """Make a file that old."""
    then = ago(hours).timestamp()
    os.utime(path, (then, then))


def test_ok_is_one_line_with_performance_data(monitored: Monitored) -> None:
    """The line of backy's README, on stdout, and code 0."""
    done = monitored.check()

    line, _, data = done.out.partition(" | ")
    assert (0, "OK: 1 job within SLA") == (done.code, line)
    assert ["jobs=1", "late=0"] == data.split()[:2]
    assert 3600 <= int(data.split("oldest=")[1].removesuffix("s\n")) < 3900


def test_process_says_the_same(monitored: Monitored) -> None:
    """As monitoring calls it, with the configuration before or, as for 2.5, after the command."""
    with scheduler(monitored.site, alive=True):
        before = run_backy("-c", str(monitored.file), "check")
        after = run_backy("check", "-c", str(monitored.file))

    assert (0, "") == (before.returncode, before.stderr)
    assert (0, "") == (after.returncode, after.stderr)
    assert (
        "OK: 1 job within SLA" == before.stdout.partition(" | ")[0] == after.stdout.partition(" | ")[0]
    )


@pytest.mark.parametrize(("hours", "code"), [(35.9, 0), (36.1, 2), (1000, 2)])
def test_job_is_late_after_one_and_a_half_intervals(site: Site, hours: float, code: int) -> None:
    """The rule of 2.5, told by name, age and limit."""
    monitored = Monitored(site)
    monitored.back_up(hours)
    done = monitored.check()

    assert code == done.code
    if code:
        assert done.out.startswith("CRITICAL: vm: last good revision 1 d 12 h ago") or hours == 1000
        assert "(limit 1 d 12 h)" in done.out
        assert "CRITICAL vm: last good revision" in done.out.splitlines()[1]


def test_job_that_was_never_backed_up_alarms(monitored: Monitored) -> None:
    """Upstream calls it OK for ever; here it has one and a half intervals from when it was set up."""
    monitored.site.add_job("vm02", monitored.site.image)
    monitored.add("vm02")
    assert 0 == monitored.check().code
    age(monitored.site.base / "vm02/.history", 37)

    text = "CRITICAL: vm02: never backed up, 1 d 13 h after it was configured (limit 1 d 12 h)"
    assert (2, text) == monitored.said()


def test_job_without_a_directory_counts_from_the_configuration(monitored: Monitored) -> None:
    """A scheduler that never set it up is no excuse."""
    monitored.add("vm02")
    assert 0 == monitored.check().code
    age(monitored.file, 37)

    assert (2, "CRITICAL: vm02: never backed up") == (
        monitored.check().code,
        monitored.said()[1].partition(",")[0],
    )


@pytest.mark.parametrize("hidden", ["distrusted", "future"])
def test_revisions_that_are_not_good_keep_no_alarm_quiet(site: Site, hidden: str) -> None:
    """Neither a distrusted one nor one that is dated ahead counts."""
    monitored = Monitored(site)
    found = monitored.back_up(40)
    newer = fake_revision(30_000 if hidden == "future" else 1, "daily", trust=Trust.DISTRUSTED)
    (site.job / f"{newer.uuid}.rev").write_bytes(serialise(newer))
    done = monitored.check()

    assert found in site.history().revisions
    assert (2, hidden == "future") == (done.code, "dated in the future" in done.out)


def test_dead_scheduler_is_told_though_all_jobs_are_fresh(monitored: Monitored) -> None:
    """Nothing will be backed up any more."""
    text = "CRITICAL: the scheduler does not run: nothing is backed up"

    assert (2, text) == monitored.said(alive=False)
    assert (0, "OK: 1 job within SLA") == monitored.said()
    line, more = monitored.check(alive=False).out.splitlines()
    data = line.partition(" | ")[2]
    assert re.fullmatch("jobs=1 late=0 oldest=[0-9]+s", data)
    assert text.replace(":", "", 1) == more


def test_job_that_was_set_up_in_the_future_is_told(monitored: Monitored) -> None:
    """The clock was wrong then, and until that day nobody would miss its first backup."""
    monitored.site.add_job("vm02", monitored.site.image)
    monitored.add("vm02")
    age(monitored.site.base / "vm02/.history", -24 * 365)

    text = "WARNING: vm02: it was set up in the future: check the clock"
    assert (1, text) == monitored.said()


@pytest.mark.parametrize(
    ("harm", "text"), [("rotten", "1 record cannot be read"), ("lost", "1 record is gone")]
)
def test_damage_in_old_records_is_a_warning(monitored: Monitored, harm: str, text: str) -> None:
    """The newest revision is good, so nobody is woken."""
    old = monitored.site.job / f"{monitored.back_up(2).uuid}.rev"
    if harm == "rotten":
        old.write_bytes(b"rotten")
    else:
        old.unlink()

    assert (1, f"WARNING: vm: {text}: see 'backy status'") == monitored.said()


def test_job_with_a_mistake_is_critical(monitored: Monitored) -> None:
    """It is not backed up, and the other jobs are judged all the same."""
    monitored.jobs["vm02"] = {"source": {"type": "file", "filename": "/x"}, "schedule": "weekly"}
    monitored.write()
    code, line = monitored.said()

    assert 2 == code
    assert line.startswith("CRITICAL: configuration: jobs.vm02.schedule: there is no usable schedule")
    assert "jobs=1" in monitored.check().out


UNKNOWN: dict[str, Any] = {
    "missing": None,
    "no table": "just text",
    "bad global": "global: {base-dir: 7}",
    "bad yaml": "jobs: {a: [}",
}


@pytest.mark.parametrize("content", UNKNOWN.values(), ids=UNKNOWN)
def test_configuration_that_cannot_be_used_is_unknown(monitored: Monitored, content: str | None) -> None:
    """Code 3 and one line on stdout, where monitoring looks."""
    monitored.file.unlink()
    if content is not None:
        monitored.file.write_text(content)
    done = monitored.check()

    assert (3, 1) == (done.code, done.out.count("\n"))
    assert done.out.startswith(f"UNKNOWN: {monitored.file}: ")


def test_repository_that_is_not_there_is_unknown(monitored: Monitored) -> None:
    """A disk that is not mounted is no proof of anything."""
    monitored.site.base.rename(monitored.site.folder / "elsewhere")
    done = monitored.check(alive=False)

    assert (3, True) == (done.code, done.out.startswith(f"UNKNOWN: {monitored.site.base} is not a "))


def test_configuration_that_stays_locked_is_unknown(
    monitored: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment tool that hangs while it writes must not make monitoring hang too."""
    monkeypatch.setattr("backy.cli.options.LOCK_SECONDS", 0.0)
    with monitored.file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        state, line = monitored.said()

    assert (3, True) == (state, line.endswith("another process has it locked for more than 0 s."))
    assert 0 == monitored.said()[0]


def test_keys_of_a_later_version_are_passed_over_when_told_so(monitored: Monitored) -> None:
    """As the scheduler does with the same option; without it the file is not understood."""
    monitored.write(later={"x": 1})
    assert 3 == monitored.check().code

    assert (0, "OK: 1 job within SLA") == monitored.said("--lenient")


def test_bug_is_unknown(monitored: Monitored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitoring must never take a traceback's exit code for a warning."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a|b\nc")

    monkeypatch.setattr("backy.cli.check.survey", fail)
    done = monitored.check()

    text = "UNKNOWN: internal error, please report it (ZeroDivisionError: a/b c)\n"
    assert (3, text) == (done.code, done.out)


@pytest.mark.parametrize("words", [("--bogus",), ("extra",), ("-c",)])
def test_wrong_call_is_unknown(monitored: Monitored, words: tuple[str, ...]) -> None:
    """In one line too: a plugin that was called wrongly has not found anything critical."""
    done = monitored.check(*words)

    assert (3, "", 1) == (done.code, done.err, done.out.count("\n"))
    assert done.out.startswith("UNKNOWN: ")
    assert "'backy check --help' tells what there is." in done.out


def test_report_as_json(monitored: Monitored) -> None:
    """State, line and every finding; the exit code is the same."""
    monitored.add("vm02")
    age(monitored.file, 50)
    done = monitored.check("--json", alive=False)
    report = json.loads(done.out)

    assert (2, {"state", "line", "findings"}) == (done.code, set(report))
    assert ("CRITICAL", "CRITICAL:") == (report["state"], report["line"].split()[0])
    assert [None, "vm02"] == [one["job"] for one in report["findings"]]
    assert {"state", "job", "text"} == set(report["findings"][0])


def test_names_that_could_forge_the_line_cannot(monitored: Monitored) -> None:
    """A path in a message may hold a bar and a line end."""
    base = f"{monitored.site.folder}/a|b\nOK: c"
    monitored.write(**{"global": {"base-dir": base}})
    done = monitored.check(alive=False)

    assert (3, 1, 0) == (done.code, done.out.count("\n"), done.out.count("|"))


def test_base_of_the_command_line_counts(monitored: Monitored) -> None:
    """-b overrides the configuration's base directory, as for all commands."""
    monitored.write(**{"global": {"base-dir": "/nowhere"}})
    with scheduler(monitored.site, alive=True):
        done = backy("-b", str(monitored.site.base), "-c", str(monitored.file), "check")

    assert (0, "OK: 1 job within SLA") == (done.code, done.out.partition(" | ")[0])


def test_a_source_that_was_caught_is_critical_until_it_is_settled(
    monitored: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is in time, and still nobody may sleep: wrong revisions were called complete."""
    monkeypatch.setattr(Audit, "picks", lambda *_: False)
    site = monitored.site
    source = FakeSource(os.urandom(8 * CHUNK), frozen=True)

    def back_up(hours: float) -> Revision:
        site.clock = StandingClock(ago(hours))
        return site.backup(source=source)

    back_up(240)
    source.hidden.add(3)
    source.write(3 * CHUNK, os.urandom(CHUNK))
    relied = back_up(239)
    monkeypatch.undo()
    monkeypatch.setattr(Audit, "picks", lambda *_: True)
    back_up(238)

    found = "the source called changed bytes unchanged, so 1 revision is distrusted"
    assert (2, True) == (monitored.check().code, found in monitored.check().out)
    assert 0 == site.cli("forget", "-r", relied.uuid).returncode
    assert 0 == monitored.check().code

    source.hidden.add(4)
    source.write(4 * CHUNK, os.urandom(CHUNK))
    back_up(2)
    code, said = monitored.said()
    assert (2, True) == (code, said.endswith("noticed before a revision relied on it"))


def test_what_the_last_collection_said_is_told(monitored: Monitored) -> None:
    """That it failed is critical, and that it left files alone a warning."""
    now = datetime.now(UTC)
    for outcome, told in (
        (remembered.Outcome(at=now), (0, "OK: 1 job within SLA")),
        (
            remembered.Outcome(at=now, refused=("look at /f: Structure needs cleaning.",)),
            (1, "WARNING: garbage collection left a file alone: look at /f: Structure needs cleaning."),
        ),
        (
            remembered.Outcome(at=now, stopped=("read /f: Input/output error.",)),
            (2, "CRITICAL: garbage collection is stopped: read /f: Input/output error."),
        ),
    ):
        with Directory.open(str(monitored.site.chunks)) as chunks:
            remembered.write_outcome(chunks, outcome)
        assert told == monitored.said()


def test_collections_that_do_not_end_are_told_while_a_scheduler_runs(monitored: Monitored) -> None:
    """It starts one each day; who collects by hand does so when he likes."""
    with Directory.open(str(monitored.site.chunks)) as chunks:
        remembered.write_outcome(chunks, remembered.Outcome(at=ago(4 * 24)))
    text = "WARNING: no garbage collection has ended for 4 d 0 h, and gc-interval is 1d: "
    code, said = monitored.said()
    assert (1, True) == (code, said.startswith(text))
    assert "garbage" not in monitored.check(alive=False).out

    monitored.write(**{"global": {"base-dir": str(monitored.site.base), "gc-interval": "2d"}})
    assert (0, "OK: 1 job within SLA") == monitored.said()


def test_a_writer_that_cannot_be_looked_at_is_unknown_by_its_path(
    monitored: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold the trash for long; and it is no mistake of backy's."""
    user = monitored.site.chunks / "users" / "00000000-0000-4000-8000-00000000dead"
    user.touch()
    opened = Directory.open_file

    def fails(self: Directory, name: str) -> int:
        if name == user.name:
            raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN), name)
        return opened(self, name)

    monkeypatch.setattr(Directory, "open_file", fails)

    assert (3, f"UNKNOWN: read {user}: Structure needs cleaning.") == monitored.said()
