"""T20: names of jobs, tags and revisions lead nowhere outside the repository, whatever they are."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filetree import tree
from hostile_names import NAMES, controls_in, is_fine_job, is_fine_tag
from in_process import Outcome, backy

from tally import Tally
from testsite import CHUNK, Site, run_backy

pytestmark = pytest.mark.proof("T20")


@pytest.fixture
def guarded(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with one revision, beside files that must stay as they are, times included."""
    outside = site.folder / "outside"
    outside.mkdir()
    for name in ("file", "x.map", "x.rev", "config"):
        (outside / name).write_text(f"precious {name}")
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    (site.job / "backy.log").touch()
    (site.job / ".history").touch(mode=0o600)
    (site.folder / "cwd").mkdir()
    monkeypatch.chdir(site.folder / "cwd")
    before, listed = tree(outside), sorted(path.name for path in site.folder.iterdir())
    yield site
    assert before == tree(outside)
    assert listed == sorted(path.name for path in site.folder.iterdir())
    assert [] == list((site.folder / "cwd").iterdir())


def unlogged(site: Site) -> dict[str, tuple[object, ...]]:
    """The repository without the log."""
    return {path: what for path, what in tree(site.base, times=False).items() if "backy.log" not in path}


def check_sentence(done: Outcome) -> None:
    """An error is told in words that leave the terminal alone."""
    assert done.err
    assert set() == controls_in(done.err)
    assert len(done.err) < 1000 or len(done.err.splitlines()) == 1 or "^" in done.err


def test_there_are_two_hundred_names() -> None:
    """As many as RELIABILITY asks for."""
    assert len(NAMES) >= 200
    assert sum(map(is_fine_job, NAMES)) >= 15


def test_a_job_is_made_under_fine_names_only(guarded: Site, tally: Tally) -> None:
    """Any other name is refused as a usage error, and the repository stays as it is."""
    made = {"vm", "chunks"}
    before = unlogged(guarded)
    for name in NAMES:
        done = backy("-b", str(guarded.base), "-j", name, "-q", "init", "file", str(guarded.image))
        if is_fine_job(name) and name != "vm":
            assert (0, "") == (done.code, done.err), name
            made.add(name)
        else:
            assert (1 if name == "vm" else 2) == done.code, (name, done)
            check_sentence(done)
        assert len(made) == len(os.listdir(guarded.base)), name
    tally.tell(len(NAMES), f"{len(NAMES)} names of jobs: none led out of the repository")
    assert made == set(os.listdir(guarded.base))
    after = unlogged(guarded)
    assert before == {path: after[path] for path in before}
    fresh = {tuple(path.split("/")[1:]) for path in set(after) - set(before)}
    assert {(), ("config",), (".history",), (".backup",)} == fresh


COMMANDS = {
    "backup": ["backup", "daily"],
    "status": ["status"],
    "restore": ["restore", "out.raw"],
    "verify": ["verify"],
    "find": ["find"],
    "forget": ["forget", "-r", "0"],
    "tags": ["tags", "add", "-r", "0", "manual:x"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_no_command_finds_a_job_under_another_name(guarded: Site, words: list[str]) -> None:
    """Neither as -j nor as the last part of -b."""
    before = unlogged(guarded)
    for name in NAMES:
        if name == "vm":
            continue
        done = backy("-b", str(guarded.base), "-j", name, *words)
        if is_fine_job(name):
            assert (2 if words == ["verify"] else 1) == done.code, (name, done)
        else:
            assert 2 == done.code, (name, done)
        check_sentence(done)
    assert before == unlogged(guarded)


def is_no_path(name: str) -> bool:
    """Whether no command line can hold this: a NUL, or half of a character."""
    return "\0" in name or "\ud800" in name


@pytest.mark.parametrize("words", [["status"], ["verify"], ["restore", "out.raw"], ["backup", "daily"]])
def test_a_path_that_climbs_is_a_path_and_no_name(guarded: Site, words: list[str]) -> None:
    """-b BASE/NAME opens what the path means, or nothing; it never makes anything."""
    before = unlogged(guarded)
    for name in NAMES:
        path = Path(f"{guarded.base}/{name}")
        if is_no_path(name) or path.resolve() in (guarded.base, guarded.job):
            continue
        done = backy("-b", f"{guarded.base}/{name}", *words)
        assert done.code in (1, 2), (name, done)
        check_sentence(done)
    assert before == unlogged(guarded)


def test_a_tag_is_set_under_fine_names_only(guarded: Site, tally: Tally) -> None:
    """Even by force: the list of a revision's tags holds nothing that is no tag."""
    for name in NAMES:
        if "," in name or not name.strip():
            continue
        done = backy("-b", str(guarded.job), "tags", "set", "-f", "-r", "0", "--", name)
        (revision,) = guarded.history().revisions
        if is_fine_tag(name.strip()):
            assert (0, [name.strip()]) == (done.code, list(revision.tags)), done
        else:
            assert 2 == done.code, (name, done)
            check_sentence(done)
        assert all(map(is_fine_tag, revision.tags))
    tally.tell(len(NAMES), f"{len(NAMES)} names of tags: none was taken that is no tag")


def test_a_backup_takes_fine_tags_only(guarded: Site) -> None:
    """Without force those of the schedule and manual:NAME; nothing is begun for the others."""
    before = unlogged(guarded)
    made = 1
    for name in NAMES:
        done = backy("-b", str(guarded.job), "backup", "--", f"daily,{name}")
        given = {one.strip() for one in name.split(",")} - {""}
        if all(is_fine_tag(one) and one.startswith("manual:") and one != "manual:" for one in given):
            assert 0 == done.code, (name, done)
            assert {"daily", *given} == set(guarded.history().revisions[-1].tags)
            made += 1
        else:
            assert done.code in (1, 2), (name, done)
            check_sentence(done)
        assert made == len(list(guarded.job.glob("*.rev"))), name
    after = unlogged(guarded)
    assert before == {path: after[path] for path in before}
    assert {".rev", ".map"} == {Path(path).suffix for path in set(after) - set(before)}


@pytest.mark.parametrize(
    "words", [["find"], ["restore", "out.raw"], ["verify", "--no-quarantine"], ["status"]]
)
def test_a_spec_is_only_a_spec(guarded: Site, words: list[str]) -> None:
    """As a revision spec every name means a revision of this history, or nothing."""
    before = unlogged(guarded)
    means_all = {"0", "server:"}
    for name in NAMES:
        done = backy("-b", str(guarded.job), *words[:1], f"--revision={name}", *words[1:])
        if done.code == 0:
            (guarded.folder / "cwd" / "out.raw").unlink(missing_ok=True)
            assert name.strip() in means_all or ".." in name, (name, done)
            continue
        assert done.code in (1, 2), (name, done)
        check_sentence(done)
    assert before == unlogged(guarded)


@pytest.mark.parametrize(
    "name", ["..", "../outside", "a/b", "chunks", "a\nb", "\u202evm", "x" * 64, "-", ""]
)
def test_the_real_process_refuses_names_too(guarded: Site, name: str) -> None:
    """The sample that goes through the installed command's own start."""
    before = unlogged(guarded)

    done = run_backy("-b", str(guarded.base), "-j", name, "backup", "daily")

    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "is no job name: " in done.stderr
    assert before == unlogged(guarded)
