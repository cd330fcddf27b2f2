"""`backy gc`: what it says, what it removes, and what it refuses."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filetree import tree
from in_process import Outcome, backy
from loops import mounted, run
from refusals import refused, unchanged
from small_store import EPOCH

from backy.domain.revision import Revision
from backy.ground import failpoint
from backy.repository.repository import Repository, collecting
from backy.repository.users import registered
from collecting import back_up, forget, gc, in_trash, names
from testsite import Site, run_backy

LINE = "{} removed ({}), {} put into the trash ({}), {} left\n"
NOTHING = ("0 chunks", "0 B")


@pytest.fixture
def kept(site: Site) -> Revision:
    """A revision that is kept, beside one that was forgotten."""
    revision = back_up(site, 1)
    forget(site, back_up(site, 2))
    return revision


def call(site: Site, *words: str) -> Outcome:
    """Run `backy -b BASE …`."""
    return backy("-b", str(site.base), *words)


def document(site: Site, *words: str) -> dict[str, Any]:
    """What it prints as JSON."""
    done = call(site, "gc", "--json", *words)
    assert (0, "") == (done.code, done.err)
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


# ..What it says...............................................................................


def test_gc_puts_into_the_trash_and_says_until_when(site: Site, kept: Revision) -> None:
    """As an installed command, with the line that counts at the end."""
    done = run_backy("-b", str(site.base), "gc")

    head, row, line = done.stdout.splitlines()
    assert (0, "") == (done.returncode, done.stderr)
    assert ["In the trash", "Since (local)", "Goes after", "Held by"] == re.split("  +", head)
    assert row.endswith("  -")
    assert line.startswith("0 chunks removed (0 B), 3 chunks put into the trash (")
    assert line.endswith(", 3 left")
    assert (site.chunks_of(kept), 3) == (names(site), len(in_trash(site)))


def test_gc_now_removes_at_once(site: Site, kept: Revision) -> None:
    """Under its other name, too; then there is nothing left to do."""
    done = call(site, "purge", "--now")

    assert (0, "") == (done.code, done.err)
    assert done.out.startswith("3 chunks removed (")
    assert (site.chunks_of(kept), set()) == (names(site), in_trash(site))
    assert (0, LINE.format(*NOTHING, *NOTHING, 3), "") == call(site, "gc", "--now")


def test_dry_run_says_what_would_go_and_changes_nothing(site: Site, kept: Revision) -> None:
    """Not even a time or a lock."""
    before = tree(site.base)
    done = call(site, "gc", "-n")
    found = document(site, "--dry-run")

    assert before == tree(site.base)
    assert (0, "") == (done.code, done.err)
    assert done.out.startswith("3 chunks of 6 would go: ")
    unneeded = [path for path in site.chunk_files() if path.name not in site.chunks_of(kept)]
    counted = {"files": 3, "bytes": sum(path.stat().st_blocks * 512 for path in unneeded)}
    nothing: dict[str, object] = {"waiting": [], "foreign": [], "refused": []}
    assert {"total": 6, "unneeded": counted, "trash": {"files": 0, "bytes": 0}, **nothing} == found

    call(site, "gc")
    again = document(site, "-n")
    assert (counted, {"files": 0, "bytes": 0}) == (again["trash"], again["unneeded"])
    assert "0 chunks of 3 would go: 0 B, besides 3 chunks in the trash (" in call(site, "gc", "-n").out


def test_json_has_all_that_was_done(site: Site, kept: Revision) -> None:
    """With the generation that waits, and who holds it."""
    with (
        Repository.open(str(site.base)) as repository,
        registered(repository.chunks, "vm", EPOCH) as user,
    ):
        found = document(site)

    (waiting,) = found.pop("waiting")
    assert {"maps", "left", "condemned", "purged", "rescued", "foreign", "refused"} == set(found)
    assert (1, 3, 0, [], []) == tuple(
        found[name] for name in ("maps", "left", "rescued", "foreign", "refused")
    )
    assert {"files": 0, "bytes": 0} == found["purged"]
    assert [
        {"name": user.name, "job": "vm", "pid": os.getpid(), "since": "2026-11-01T03:00:00Z"}
    ] == waiting["writers"]
    assert {"generation", "sealed_at", "ripe_at", "writers"} == set(waiting)


def test_who_holds_the_trash_is_told(site: Site, kept: Revision) -> None:
    """With job, process and time, so that a hung one is found."""
    with Repository.open(str(site.base)) as repository, registered(repository.chunks, "vm", EPOCH):
        told = call(site, "gc", "--now").out
        assert f"vm (pid {os.getpid()}, since " in told
        assert f"vm (pid {os.getpid()}, since " in call(site, "gc", "-n").out
    assert call(site, "gc", "--now").out.startswith("3 chunks removed")


def test_quiet_gc_says_nothing(site: Site, kept: Revision) -> None:
    """As the scheduler calls it; what went wrong is said all the same."""
    assert (0, "", "") == backy("-q", "-b", str(site.base), "gc")
    (site.chunks / "ab" / "note").touch()

    assert f"backy: warning: {site.chunks}/ab/note is not" in backy("-q", "-b", str(site.base), "gc").err


def test_a_log_has_what_was_done(site: Site, kept: Revision) -> None:
    """Where one is named: it is the repository's matter, and no job's."""
    log = site.folder / "gc.log"
    assert 0 == backy("-b", str(site.job), "-l", str(log), "gc", "--now").code

    assert "collection finished" in log.read_text()
    assert not (site.job / "backy.log").exists()


def test_files_of_others_are_told_in_one_line(site: Site, kept: Revision) -> None:
    """The first, and how many more; it is no failure."""
    (site.chunks / "ab" / "one").touch()
    done = call(site, "gc")
    line = f"backy: warning: {site.chunks}/ab/one is not a file of this store: it was left alone.\n"
    assert (0, line) == (done.code, done.err)

    (site.chunks / "tmp" / "three").touch()
    assert "left alone (and 1 more).\n" in call(site, "gc", "-n").err


def test_files_that_the_system_refuses_are_told_in_one_line(site: Site, kept: Revision) -> None:
    """The first, with the error, and how many more; it is no failure, and the log has it."""
    bad = [path for path in site.chunk_files() if path.name not in site.chunks_of(kept)][:2]

    def fail(step: str) -> None:
        if step in [f"move {path}" for path in bad]:
            raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))

    failpoint.install(fail)
    done = call(site, "-l", str(site.folder / "log"), "gc")
    failpoint.install(None)

    said = f"move {bad[0]}: Structure needs cleaning"
    assert (0, f"backy: warning: {said}: it was left alone (and 1 more).\n") == (done.code, done.err)
    assert 2 == (site.folder / "log").read_text().count("that the system refuses was left alone")


def test_a_hostile_name_does_not_steer_the_terminal(site: Site) -> None:
    """Anybody may write a file into a folder of theirs."""
    (site.chunks / "ab" / "\x1b[2Jx\nbacky: all is well").touch()
    done = call(site, "gc")

    assert 1 == done.err.count("\n")
    assert "\x1b" not in done.err


# ..What it refuses............................................................................


def test_a_stranger_in_any_folder_is_told_and_stays(site: Site, kept: Revision) -> None:
    """Collection understands all that it passes over, or says that it does not."""
    folders = [
        site.chunks,
        *(site.chunks / name for name in ("ab", "tmp", "users", "trash", "quarantine")),
    ]
    strangers = [folder / "README" for folder in folders]
    for path in strangers:
        path.write_text("mine")

    assert sorted(map(str, strangers)) == sorted(document(site)["foreign"])
    assert sorted(map(str, strangers)) == sorted(document(site, "-n")["foreign"])
    assert all(path.read_text() == "mine" for path in strangers)


def test_a_name_that_is_not_utf8_is_escaped_in_json(site: Site) -> None:
    """JSON has no other way to tell of it."""
    (site.chunks / "00" / os.fsdecode(b"b\xff")).touch()

    assert [str(site.chunks / "00" / "b\\xff")] == document(site)["foreign"]


def test_a_second_gc_is_refused(site: Site, kept: Revision) -> None:
    """At once, with one sentence."""
    with Repository.open(str(site.base)) as repository, collecting(repository.chunks), unchanged(site):
        refused(run_backy("-b", str(site.base), "gc"), 1, "another garbage collection is running")
        assert 0 == call(site, "gc", "-n").code


def test_what_stops_gc_is_named(site: Site, kept: Revision) -> None:
    """With the way out."""
    record = site.job / f"{kept.uuid}.rev"
    record.unlink()
    with unchanged(site):
        done = run_backy("-b", str(site.base), "gc", "--dry-run")
    refused(done, 1, f"nothing was collected, because of {site.job}/{kept.uuid}.map: ", "'backy forget'")

    refused(run_backy("-b", str(site.base), "gc"), 1, "its record is gone")
    assert 0 == site.cli("forget", "-r", kept.uuid).returncode
    assert 0 == call(site, "gc", "--force").code


def test_more_than_half_is_refused_without_force(site: Site, kept: Revision) -> None:
    """So a job that is missing at the very first run does not go by itself."""
    forget(site, kept)
    refused(
        run_backy("-b", str(site.base), "gc"), 1, "6 of the store's 6 chunks would go at once", "--force"
    )

    assert 6 == len(names(site))
    assert call(site, "gc", "--now", "--force").out.startswith("6 chunks removed")


def test_a_job_that_is_gone_has_to_be_named(site: Site, kept: Revision) -> None:
    """It may be a disk that is not mounted."""
    gc(site, waive_grace=True)
    site.add_job("other", site.image)
    shutil.rmtree(site.job)
    refused(
        run_backy("-b", str(site.base), "gc"), 1, f"{site.job}: the job's directory is gone", "--gone"
    )

    done = call(site, "gc", "--now", "--gone", "vm", "--force")
    assert (0, True, set()) == (done.code, done.out.startswith("3 chunks removed ("), names(site))


@pytest.mark.parametrize("words", [("--grace", "1d"), ("now",), ("--gone",)])
def test_mistakes_are_usage_errors(site: Site, kept: Revision, words: tuple[str, ...]) -> None:
    """Nothing is looked at then."""
    with unchanged(site):
        assert 2 == call(site, "gc", *words).code


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    """As by every command."""
    assert 1 == backy("-b", str(tmp_path), "gc").code
    assert [] == list(tmp_path.iterdir())


# ..A disk that may only be read...............................................................


@pytest.fixture
def read_only(as_root: None, site: Site, kept: Revision) -> Iterator[str]:
    """The repository as a read-only mount."""
    with mounted(site.base, site.folder / "ro", "--bind", "-o", "ro") as folder:
        run("mount", "-o", "remount,bind,ro", str(folder))
        yield str(folder)


@pytest.mark.root
def test_on_a_read_only_mount_only_the_dry_run_works(site: Site, read_only: str) -> None:
    """The other says so in one sentence; what it would do can be seen, and so can who needs what."""
    with unchanged(site):
        refused(run_backy("-b", read_only, "gc"), 1, "the file system is mounted read-only.")
        done = backy("-b", read_only, "gc", "--dry-run")
        assert (0, "") == (done.code, done.err)
        assert done.out.startswith("3 chunks of 6 would go")
        assert (0, "") == ((used := backy("-b", read_only, "du")).code, used.err)
