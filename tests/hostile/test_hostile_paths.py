"""T20: paths with newlines, escapes and bytes that are no text do what they say, or are refused."""

import json
import os
from pathlib import Path

import pytest
from filetree import tree
from hostile_names import NAMES, controls_in
from in_process import backy

from testsite import CHUNK, Site, run_backy

pytestmark = pytest.mark.proof("T20")

# What a file may be called and a program may stumble over.
ODD = {
    "a newline": "a\nbacky: all is well",
    "an escape": "a\x1b[2Jb",
    "quotes": "a'b\"c`d",
    "blanks": "  a  ",
    "a leading dash": "-rf",
    "no text": "a\udcff\udcfe.raw",
    "another alphabet": "\u0436\u4e2d\U0001f4be",
    "direction marks": "\u202egpj.raw",
    "a percent sign": "%s%n",
}


@pytest.fixture
def backed_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with one revision, and an empty working directory."""
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    (site.folder / "cwd").mkdir()
    monkeypatch.chdir(site.folder / "cwd")
    return site


@pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
def test_a_target_may_have_any_name(backed_up: Site, name: str) -> None:
    """The restore succeeds, says so without steering the terminal, and the log keeps one line each."""
    done = backy("-b", str(backed_up.job), "restore", "--", name)

    assert (0, "", 1) == (done.code, done.err, done.out.count("\n"))
    assert set() == controls_in(done.out)
    assert backed_up.image.read_bytes() == Path(name).read_bytes()
    assert [os.fsencode(name)] == os.listdir(b".")
    lines = (backed_up.job / "backy.log").read_text().splitlines()
    assert [True, True] == ["restore started" in lines[0], "restore finished" in lines[-1]]
    assert 2 == len(lines)


@pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
def test_a_source_has_any_name_or_is_refused(backed_up: Site, name: str) -> None:
    """What is text can be backed up; what is none is refused before a job is made of it."""
    Path(name).write_bytes(b"odd" * 100)
    before = tree(backed_up.base)

    done = backy("-b", str(backed_up.base), "-j", "odd", "init", "file", "--", name)

    assert set() == controls_in(done.out + done.err)
    if "\udcff" in name:
        assert (2, 1) == (done.code, done.err.count("\n"))
        assert before == tree(backed_up.base)
        return
    assert (0, "") == (done.code, done.err)
    at = ("-b", str(backed_up.base), "-j", "odd")
    assert 0 == backy(*at, "backup", "daily").code
    (record,) = json.loads(backy(*at, "status", "--json").out)
    assert str(Path(name).absolute()) == record["source"]["path"]


@pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
def test_a_missing_source_of_any_name_is_told_in_one_line(backed_up: Site, name: str) -> None:
    """A name with a newline in it does not look like a second message."""
    done = backy("-b", str(backed_up.base), "-j", "odd", "init", "file", "--", name)

    assert ("", 1) == (done.out, done.err.count("\n"))
    if "\udcff" in name:
        assert "its path is not UTF-8" in done.err
    else:
        assert (1, True) == (done.code, done.err.endswith("it does not exist.\n"))
    assert set() == controls_in(done.err)


@pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
def test_a_repository_may_have_any_path(site: Site, name: str) -> None:
    """Under every name of its directory it is made, filled, listed and restored from."""
    base = os.path.join(site.folder, name)
    site.image.write_bytes(b"data")
    at = ("-b", base, "-j", "vm")

    assert 0 == backy(*at, "init", "file", str(site.image)).code
    for words in (
        ["backup", "daily"],
        ["status"],
        ["verify"],
        ["restore", str(site.folder / "out.raw")],
    ):
        done = backy(*at, *words)
        # The first backup says so where an image cannot be cloned.
        told = [line for line in done.err.splitlines() if " is read in place, " not in line]
        assert (0, []) == (done.code, told)
        assert set() == controls_in(done.out + done.err)
    assert b"data" == (site.folder / "out.raw").read_bytes()


@pytest.mark.parametrize("name", ["a\nbacky: all is well", "a\udcff\udcfe.raw"])
def test_the_real_process_takes_such_names_too(backed_up: Site, name: str) -> None:
    """The sample that goes through the installed command's own start and its standard output."""
    done = run_backy("-b", str(backed_up.job), "restore", "--", name)

    assert (0, "", 1) == (done.returncode, done.stderr, done.stdout.count("\n"))
    assert backed_up.image.read_bytes() == Path(name).read_bytes()


@pytest.mark.parametrize("option", ["-l", "-c"])
def test_the_log_and_the_configuration_may_have_any_name(backed_up: Site, option: str) -> None:
    """They are paths like any other, and errors about them are one line."""
    for name in ODD.values():
        done = backy("-b", str(backed_up.job), f"{option}{name}", "backup", "daily")
        if option == "-l":
            assert (0, "") == (done.code, done.err)
            assert "backup finished" in Path(name).read_text()
        else:
            assert (1, 1) == (done.code, done.err.count("\n"))
            assert set() == controls_in(done.err)


def test_no_path_of_a_source_makes_anything(backed_up: Site) -> None:
    """Two hundred names as SOURCE of a new job: none exists, so nothing is made."""
    before = tree(backed_up.base)
    for name in NAMES:
        if "\ud800" in name or os.path.exists(name.replace("\0", "")):
            continue
        done = backy("-b", str(backed_up.base), "-j", "new", "init", "file", "--", name)
        assert done.code in (1, 2), (name, done)
        assert set() == controls_in(done.err)
    assert before == tree(backed_up.base)
    assert [] == os.listdir()
