"""T1: kill -9 at every mutating call of restore, tags, forget and init."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crashsite import Run, Runner, Scene, noise, points, varied_image

from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T1")


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """A site with two revisions of different images."""
    scene = Scene(site, runner)
    site.image.write_bytes(noise(5, 3 * CHUNK))
    scene.backup()
    site.image.write_bytes(varied_image(1))
    scene.backup()
    scene.keep()
    return scene


def killed_everywhere(scene: Scene, *words: str, **settings: Any) -> Iterator[Run]:
    """The runs of a command that were killed at their 1st, 2nd … step, until one ends well."""
    for at in points():
        run = scene.run(*words, at=at, action="kill", **settings)
        if run.ended_well:
            return
        assert ("killed", signal.SIGKILL) == (run.state, run.code), run
        yield run


@pytest.mark.parametrize("before", [None, b"what stood here"])
def test_a_restore_may_be_killed_at_every_step(scene: Scene, tally: Tally, before: bytes | None) -> None:
    """The target is as it was or whole, and the next restore succeeds over what is left."""
    target = scene.site.folder / "target.raw"
    whole = scene.site.image.read_bytes()
    tried = 0
    for path in (target, Path(f"{target}.partial")):
        path.unlink(missing_ok=True)
    if before is not None:
        target.write_bytes(before)
    for run in killed_everywhere(scene, "restore", str(target)):
        tried += 1
        found = target.read_bytes() if target.exists() else None
        renamed = any(step.startswith("sync directory") for step in run.steps)
        assert (whole if renamed else before) == found
        again = scene.run("restore", "--read-back", str(target))
        assert again.ended_well, again
        assert whole == target.read_bytes()
        assert not Path(f"{target}.partial").exists()
        target.unlink()
        if before is not None:
            target.write_bytes(before)
        # What a killed run leaves is what the next killed run finds, so leave it one.
        scene.run("restore", str(target), at=4, action="kill")
        assert [] == scene.changed()
    scene.check_images()

    tally.tell(tried, f"kill -9 at {tried} steps of a restore: the target was always old or whole")
    assert tried > 6


def test_an_edit_of_tags_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """The record holds the old tags or the new ones, and the next edit succeeds over what is left."""
    tried = 0
    for _ in killed_everywhere(scene, "tags", "set", "-r", "latest", "manual:one,weekly"):
        tried += 1
        tags = set(scene.site.history().revisions[-1].tags)
        assert tags in ({"daily"}, {"manual:one", "weekly"})
        scene.check_images()
        again = scene.run("tags", "set", "-r", "latest", "monthly")
        assert again.ended_well, again
        assert {"monthly"} == set(scene.site.history().revisions[-1].tags)
        scene.check_next_backup()
        # The leftovers stay for the next round, only the records are what they were.
        again = scene.run("tags", "set", "-r", "last(tag:monthly)", "daily")
        assert again.ended_well, again
        newest = scene.site.history().revisions[-1].uuid
        assert scene.run("forget", "-r", newest).ended_well

    tally.tell(tried, f"kill -9 at {tried} steps of an edit of tags: 0 lost")
    assert tried > 4


def test_forget_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """The revision is there whole or gone, its neighbour untouched, and forget can be repeated."""
    first, second = scene.images
    images = dict(scene.images)
    tried = 0
    for _ in killed_everywhere(scene, "forget", "-r", first):
        tried += 1
        if first not in scene.listed():
            del scene.images[first]
        scene.check_images()
        again = scene.run("forget", "-r", first)
        assert (first in scene.images) == again.ended_well
        assert [second] == scene.listed()
        scene.check_next_backup()
        scene.rewind()
        scene.images = dict(images)

    tally.tell(tried, f"kill -9 at {tried} steps of forget: 0 lost")
    assert tried >= 2


def test_init_may_be_killed_at_every_step(memory: Path, runner: Runner, tally: Tally) -> None:
    """Repeating it succeeds, or says that the job is there; then a backup succeeds."""
    image = memory / "image.raw"
    image.write_bytes(noise(1, 9000))
    reached: list[str] = []
    tried = 0
    for at in points():
        base = memory / f"at-{at}"
        job = str(base / "vm")
        request = {"reserve_size": 1 << 20, "threads": 1}
        if len(reached) > at and _is_one_of_many(reached[at - 1]):
            continue
        run = runner.run("-b", job, "init", "file", str(image), at=at, action="kill", **request)
        if run.ended_well:
            break
        tried += 1
        reached = reached or _whole_init(runner, memory / "whole" / "vm", image)
        again = runner.run("-b", job, "init", "file", str(image), **request)
        if not again.ended_well:
            again.check_says_why()
            assert "exists already" in again.err
        backup = runner.run("-b", job, "backup", "daily")
        assert backup.ended_well, backup
        restore = runner.run("-b", job, "restore", str(memory / "out"))
        assert restore.ended_well, restore
        assert image.read_bytes() == (memory / "out").read_bytes()

    tally.tell(tried, f"kill -9 at {tried} steps of init: each could be repeated")
    assert tried > 10


def _whole_init(runner: Runner, job: Path, image: Path) -> list[str]:
    """The steps of an init that nothing disturbs."""
    run = runner.run("-b", str(job), "init", "file", str(image), reserve_size=1 << 20)
    assert run.ended_well, run
    return run.steps


def _is_one_of_many(step: str) -> bool:
    """One of the 256 folders of the store, of which a few stand for all."""
    name = step.rpartition("/chunks/")[2]
    return step.startswith("make ") and len(name) == 2 and name not in {"00", "7f", "ff"}
