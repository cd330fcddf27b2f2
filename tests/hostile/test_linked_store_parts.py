"""T20: parts of a store that are links lead nowhere: what they point to keeps contents and times."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filetree import tree
from in_process import backy

from backy.repository import layout
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T20")

CONTENT = [b"one" * CHUNK, b"two" * CHUNK]
# As any user, generation or case might be called.
UUID = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with two revisions and all the files that commands make."""
    for content in CONTENT:
        site.image.write_bytes(content)
        site.backup()
    for words in (
        ["tags", "add", "-r", "0", "manual:x"],
        ["status"],
        ["gc"],
        ["verify", "--slice", "1h"],
    ):
        assert 0 == backy("-b", str(site.job), *words).code
    return site


def link_away(part: Path, outside: Path) -> None:
    """Move a part of the store outside, where it is as good as before, and leave a link."""
    outside.mkdir(exist_ok=True)
    moved = outside / part.name
    if os.path.lexists(part):
        shutil.move(part, moved)
    elif part.name in FILES or "." in part.name:
        moved.write_bytes(b"precious")
    else:
        moved.mkdir()
        for name in ("ab" * 32, "sealed", "report"):
            (moved / name).write_bytes(b"precious")
    part.symlink_to(moved)


def among_the_chunks(name: str) -> Callable[[Site], Path]:
    """A part beside the folders of chunks."""
    return lambda site: site.chunks / name


FILES = ("known", "collection", "reserve", "gc.lock", "distrusted", "verified")
PARTS: dict[str, Callable[[Site], Path]] = {
    "chunks": lambda site: site.chunks,
    "chunks/format": lambda site: site.chunks / "format",
    "chunks/tmp": lambda site: site.chunks / "tmp",
    "chunks/users": lambda site: site.chunks / "users",
    "chunks/trash": lambda site: site.chunks / "trash",
    "chunks/quarantine": lambda site: site.chunks / "quarantine",
    "a folder of chunks": lambda site: site.chunk_files()[0].parent,
    "an empty folder of chunks": lambda site: next(
        site.chunks / name for name in layout.FANOUT if not any((site.chunks / name).iterdir())
    ),
    "a chunk": lambda site: site.chunk_files()[0],
    "a generation of the trash": lambda site: site.chunks / "trash" / "1",
    "a folder in the trash": lambda site: site.chunks / "trash" / UUID,
    "a writer's folder": lambda site: site.chunks / "tmp" / UUID,
    "a writer": lambda site: site.chunks / "users" / UUID,
    "a case of the quarantine": lambda site: site.chunks / "quarantine" / UUID,
    **{f"chunks/{name}": among_the_chunks(name) for name in FILES},
    "JOB": lambda site: site.job,
    "JOB/config": lambda site: site.job / "config",
    "JOB/backy.log": lambda site: site.job / "backy.log",
    "JOB/.backup": lambda site: site.job / ".backup",
    "JOB/.history": lambda site: site.job / ".history",
    "a record": lambda site: site.job / f"{site.history().revisions[-1].uuid}.rev",
    "a map": lambda site: site.job / f"{site.history().revisions[-1].uuid}.map",
    "a record that is being edited": lambda site: (
        site.job / f".{site.history().revisions[-1].uuid}.rev.new"
    ),
}
COMMANDS = [
    ["backup", "daily"],
    ["verify"],
    ["verify", "--quick"],
    ["restore", "OUT"],
    ["status"],
    ["find"],
    ["tags", "add", "-r", "0", "manual:y"],
    ["distrust", "--reason", "store"],
    ["backup", "daily"],
    ["repair"],
    ["verify", "--slice", "1h"],
    ["tags", "set", "-f", "-r", "all", "forced"],
    ["expire"],
    ["forget", "-r", "0"],
    ["gc", "--now", "--force"],
    ["forget", "-r", "all", "--yes"],
    ["gc", "--now", "--force"],
    ["init", "file", "IMAGE"],
]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
def test_a_linked_part_is_not_written_through(backed_up: Site, part: Callable[[Site], Path]) -> None:
    """Every command either does without the link or ends with a sentence; the outside stays the same."""
    outside = backed_up.folder / "outside"
    link_away(part(backed_up), outside)
    (outside / "sentinel").write_text("precious")
    out = backed_up.folder / "out.raw"
    before = tree(outside)

    for command in COMMANDS:
        words = [{"OUT": str(out), "IMAGE": str(backed_up.image)}.get(word, word) for word in command]
        done = backy("-b", str(backed_up.job), *words)
        assert done.code in (0, 1, 2), (command, done)
        assert done.code == 0 or done.err or command[0] in ("verify", "repair"), command
        assert before == tree(outside), command
        if command[0] == "restore" and done.code == 0:
            assert out.read_bytes() in CONTENT


MUST_FAIL = {
    "chunks": 2,
    "chunks/format": 2,
    "chunks/tmp": 2,
    "chunks/users": 2,
    "chunks/trash": 2,
    "chunks/quarantine": 2,
    "a folder of chunks": 2,
    "an empty folder of chunks": 2,
    "a chunk": 1,
    "JOB": 2,
    "a record": 1,
    "a map": 1,
}


@pytest.mark.parametrize(("name", "code"), MUST_FAIL.items())
def test_verify_tells_of_a_linked_part(backed_up: Site, name: str, code: int) -> None:
    """A link where data lies is damage, even if it leads to the right bytes."""
    link_away(PARTS[name](backed_up), backed_up.folder / "outside")

    done = backy("-b", str(backed_up.base), "-j", "vm", "verify")

    assert code == done.code, done


def test_a_backup_does_not_lock_through_a_link(backed_up: Site) -> None:
    """A lock on a file elsewhere would shut out others, and lock nothing here."""
    for name in (".backup", ".history"):
        (backed_up.job / name).unlink(missing_ok=True)
        (backed_up.job / name).symlink_to("/dev/null")

    for words in (["backup", "daily"], ["forget", "-r", "0"]):
        done = backy("-b", str(backed_up.job), *words)
        assert (1, 1) == (done.code, done.err.count("\n"))
    assert 2 == len(backed_up.history().revisions)


def test_a_log_that_is_a_link_is_done_without(backed_up: Site) -> None:
    """A log of the job or repository is nobody's way to append to another file; the command goes on."""
    outside = backed_up.folder / "precious"
    outside.write_text("precious\n")
    (backed_up.job / "backy.log").unlink()
    (backed_up.job / "backy.log").symlink_to(outside)
    (backed_up.base / "backy.log").unlink()
    (backed_up.base / "backy.log").symlink_to(outside)

    assert 0 == backy("-b", str(backed_up.job), "backup", "daily").code
    assert 0 == backy("-b", str(backed_up.base), "gc").code
    assert "precious\n" == outside.read_text()


def test_a_log_that_is_a_pipe_does_not_hang(backed_up: Site) -> None:
    """Nobody reads it, so nothing is logged."""
    (backed_up.job / "backy.log").unlink()
    os.mkfifo(backed_up.job / "backy.log")

    assert 0 == backy("-b", str(backed_up.job), "backup", "daily").code


def test_a_repository_reached_by_a_link_works(backed_up: Site) -> None:
    """What the operator names may be a link; only what lies below may not."""
    (backed_up.folder / "link").symlink_to(backed_up.base)

    for words in (["backup", "daily"], ["verify"], ["status"]):
        assert 0 == backy("-b", str(backed_up.folder / "link" / "vm"), *words).code
    assert 3 == len(backed_up.history().revisions)
