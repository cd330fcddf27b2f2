"""T10: every cell of the table in doc/design.md, "Operations at the same time", as it runs.

The operation of the column is frozen at a step, that of the row runs to its end, and then so does the
frozen one. Nobody waits, nobody fails but a second backup or collection, and nothing is lost.
"""

import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from crashsite import Run, Runner, Scene, noise, varied_image
from small_store import StandingClock, images_of

from backy.domain.config import JobConfig, SourceConfig, TagPolicy, render_job
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T10")

DESIGN = Path(__file__).parents[2] / "doc" / "design.md"

# What the operations of the table are as commands; FIRST and SECOND are revisions, OUT a target.
WORDS = {
    "init": ("init", "file", "IMAGE"),
    "backup": ("backup", "daily"),
    "restore": ("restore", "-r", "SECOND", "OUT"),
    "verify": ("verify",),
    "status, find": ("status", "--json"),
    "forget": ("forget", "-r", "FIRST"),
    "tags": ("tags", "set", "-r", "SECOND", "manual:one"),
    "gc": ("gc", "--now", "--force"),
    "expire": ("expire",),
}
# The daemon's tests are those of tests/e2e; what it runs are the commands above.
NOT_A_COMMAND = {"daemon"}
# Whoever is the second of these is told so at once.
EXCLUSIVE = {"backup": "is running already", "gc": "another garbage collection", "init": "exists"}


def table() -> list[list[str]]:
    """The cells of the locking table, its head first."""
    text = DESIGN.read_text().split("## Operations at the same time\n", 1)[1].split("\n| | |\n", 1)[0]
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [row for row in rows if not set("".join(row)) <= set("- ")]


HEAD, *ROWS = table()
# Columns that write nothing, or nothing that stands already, cannot be frozen.
PAIRS = [
    (row[0], column)
    for row in ROWS
    for column in HEAD[1:]
    if not {row[0], column} & NOT_A_COMMAND and column not in ("status, find", "init")
]
# Edits of one history wait for each other, for the moment that each takes.
WAITING = {"H"}
# What only a forgotten revision has, and the image again.
GARBAGE = noise(60, 4 * CHUNK)


def test_the_table_is_whole() -> None:
    """Each operation has a row and a column, and each cell an answer that the legend explains."""
    names = [*WORDS, *NOT_A_COMMAND]
    legend = DESIGN.read_text().split("\n| | |\n", 1)[1].split("\n\n", 1)[0]
    letters = set(re.findall(r"^\| (\S) \|", legend, re.MULTILINE))

    assert sorted(names) == sorted(HEAD[1:]) == sorted(row[0] for row in ROWS)
    for row in ROWS:
        assert len(HEAD) == len(row)
        assert all(cell and set(cell.split()) <= letters for cell in row[1:]), row


@pytest.fixture(scope="module")
def other_runner() -> Iterator[Runner]:
    """A second one, for what has to wait for the first."""
    with Runner() as one:
        yield one


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """Three revisions, of which two are to be kept; trash, garbage, and an image that needs some of it.

    A collection purges the one and condemns the other, and rescues what a backup has found meanwhile.
    """
    scene = Scene(site, runner)
    schedule = {"daily": TagPolicy(86400, 2)}
    config = JobConfig(SourceConfig("file", {"filename": str(site.image)}), schedule)
    (site.job / "config").unlink()
    (site.job / "config").write_text(render_job(config))
    for days, seed in ((30, 5), (20, 1), (10, 2), (5, 3), (4, 4)):
        site.clock = StandingClock(datetime.now(UTC) - timedelta(days=days))
        site.image.write_bytes(varied_image(seed))
        scene.backup()
    for _ in range(2):
        first = next(iter(scene.images))
        assert scene.run("forget", "-r", first).ended_well
        del scene.images[first]
        assert scene.run("gc").ended_well
    site.image.write_bytes(GARBAGE)
    garbage = scene.backup()
    assert scene.run("forget", "-r", garbage).ended_well
    del scene.images[garbage]
    site.image.write_bytes(varied_image(2)[: 6 * CHUNK] + GARBAGE + noise(7, CHUNK))
    scene.keep()
    return scene


def words_of(scene: Scene, operation: str) -> tuple[str, ...]:
    """The command line of an operation."""
    first, second = list(scene.images)[:2]
    places = {
        "FIRST": first,
        "SECOND": second,
        "IMAGE": str(scene.site.image),
        "OUT": str(scene.site.folder / f"out-{random.Random(operation).random()}.raw"),
    }
    return tuple(places.get(word, word) for word in WORDS[operation])


def check_end(run: Run, operation: str, other: str) -> bool:
    """It ended well, or is the second of two that exclude each other; whether it did its work."""
    if operation == "init" or (operation == other and operation in EXCLUSIVE and not run.ended_well):
        run.check_says_why()
        assert EXCLUSIVE[operation] in run.err
        return False
    if operation == "forget" and other in ("forget", "expire") and not run.ended_well:
        run.check_says_why()  # the other one has removed it
        return False
    if operation == other == "restore" and not run.ended_well:
        run.check_says_why()
        assert "in use by another restore" in run.err
        return False
    assert ("exited", 0) == (run.state, run.code), run
    return True


def cell(row: str, column: str) -> set[str]:
    """What the table says of a pair."""
    found = next(one for one in ROWS if one[0] == row)
    return set(found[HEAD.index(column)].split())


def interleave(scene: Scene, other: Runner, row: str, column: str, at: int) -> None:
    """Freeze the column's operation at a step, run the row's, wake the first, and look at the end."""
    first, second, newest = scene.images
    frozen = scene.run(*words_of(scene, column), at=at, action="stop")
    assert "stopped" == frozen.state, frozen
    if cell(row, column) & WAITING:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(Scene(scene.site, other).run, *words_of(scene, row))
            woken = scene.runner.resume(frozen)
            run = waiting.result()
    else:
        try:
            run = scene.run(*words_of(scene, row))
        finally:
            woken = scene.runner.resume(frozen)
    done = [row] if check_end(run, row, column) else []
    done += [column] if check_end(woken, column, row) else []

    listed = scene.listed()
    new = [uuid for uuid in listed if uuid not in scene.images]
    assert done.count("backup") == len(new)
    assert newest in listed
    if "tags" in done and "expire" in done:
        pass  # without the tag of the second, the first is one of the two that are kept
    else:
        assert (first not in listed) == bool({"forget", "expire"} & set(done))
    assert second in listed or {"expire", "backup"} <= set(done)
    scene.images = {uuid: scene.images.get(uuid, scene.site.image.read_bytes()) for uuid in listed}
    assert scene.images == images_of(scene.site.base, "vm")
    assert scene.run("gc", "--now", "--force").ended_well
    scene.check_images()


def test_a_backup_finds_chunks_that_a_frozen_collection_is_about_to_condemn(
    scene: Scene, other_runner: Runner
) -> None:
    """It condemns them all the same, some before the backup and some after, and rescues them."""
    images = dict(scene.images)
    steps = scene.run(*words_of(scene, "gc")).steps
    moves = [at for at, step in enumerate(steps, start=1) if step.startswith("move ")]
    assert len(GARBAGE) // CHUNK == len(moves)

    for at in (moves[0], moves[-1], moves[-1] + 1):
        scene.rewind()
        scene.images = dict(images)
        interleave(scene, other_runner, "backup", "gc", at)


@pytest.mark.parametrize(("row", "column"), PAIRS)
def test_an_operation_runs_beside_another_that_is_frozen(
    scene: Scene, other_runner: Runner, row: str, column: str
) -> None:
    """At one step of each pair, another for each."""
    steps = scene.kinds_of_steps(*words_of(scene, column))
    scene.rewind()

    interleave(scene, other_runner, row, column, random.Random(row + column).choice(steps))


@pytest.mark.torture(weight=0.15)
@pytest.mark.parametrize(("row", "column"), PAIRS)
def test_an_operation_runs_beside_another_at_every_step(
    scene: Scene,
    other_runner: Runner,
    tally: Tally,
    row: str,
    column: str,
) -> None:
    """At every step of the frozen one."""
    images = dict(scene.images)
    steps = len(scene.run(*words_of(scene, column)).steps)
    for at in tally.each(range(1, steps + 1), seed=PAIRS.index((row, column))):
        scene.rewind()
        scene.images = dict(images)
        for path in scene.site.folder.glob("out-*"):
            path.unlink()
        interleave(scene, other_runner, row, column, at)
