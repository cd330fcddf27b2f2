"""T1: kill -9 at every mutating call of a backup costs nothing but the revision that was being made."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from crashsite import SCRIPT, Runner, Scene, noise, points, varied_image

from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T1")


def kill_everywhere(
    scene: Scene, steps: Iterable[int] | None = None, **settings: Any
) -> tuple[int, int]:
    """(points, commits that a kill did not undo): kill a backup at each step, and check all there is."""
    scene.keep()
    images = dict(scene.images)
    committed = 0
    for at in steps or points():
        run = scene.run("backup", "daily", at=at, action="kill", **settings)
        if run.ended_well:
            return at - 1, committed
        assert ("killed", signal.SIGKILL) == (run.state, run.code), run
        new = [uuid for uuid in scene.listed() if uuid not in images]
        if new:
            # Only the record's rename makes a revision, so then everything else is done.
            assert any(step.startswith("rename ") for step in run.steps)
            scene.images[new[0]] = scene.site.image.read_bytes()
            committed += 1
        scene.check_images()
        scene.check_next_backup()
        assert [] == scene.changed()
        scene.images = dict(images)
        scene.rewind()
    return 0, committed


def test_the_first_backup_may_be_killed_at_every_step(site: Site, runner: Runner, tally: Tally) -> None:
    """Nothing is visible before the commit, everything after it, and the next backup needs no help."""
    site.image.write_bytes(varied_image(1))

    tried, committed = kill_everywhere(Scene(site, runner))

    tally.tell(
        tried, f"kill -9 at {tried} steps of a first backup: 0 lost, {committed} after the commit"
    )
    assert tried > 40
    assert 1 <= committed <= 4


def test_a_backup_of_changes_may_be_killed_at_every_step(
    site: Site, runner: Runner, tally: Tally
) -> None:
    """The earlier revision, whose chunks are shared, restores bit for bit after every kill."""
    scene = Scene(site, runner)
    site.image.write_bytes(varied_image(1))
    scene.backup()
    site.image.write_bytes(varied_image(1)[: 6 * CHUNK] + noise(7, 5 * CHUNK))

    tried, committed = kill_everywhere(scene)

    tally.tell(
        tried, f"kill -9 at {tried} steps of a second backup: 0 lost, {committed} after the commit"
    )
    assert tried > 25


def test_a_backup_without_changes_may_be_killed_at_every_step(
    site: Site, runner: Runner, tally: Tally
) -> None:
    """A revision that stores no chunk of its own is as safe as any."""
    scene = Scene(site, runner)
    site.image.write_bytes(varied_image(1))
    scene.backup()

    tried, committed = kill_everywhere(scene)

    tally.tell(
        tried, f"kill -9 at {tried} steps of an unchanged backup: 0 lost, {committed} after the commit"
    )
    assert tried > 15


@pytest.mark.torture(weight=0.3)
@pytest.mark.parametrize("seed", range(4))
def test_a_backup_with_many_threads_may_be_killed_at_every_step(
    site: Site, runner: Runner, tally: Tally, seed: int
) -> None:
    """The same with threads, whose steps come in any order."""
    scene = Scene(site, runner)
    site.image.write_bytes(varied_image(seed) + noise(seed, 8 * CHUNK))
    scene.backup()
    site.image.write_bytes(noise(seed + 9, 20 * CHUNK) + varied_image(seed))

    tally.count(0, seed=seed)
    kill_everywhere(scene, tally.each(points()), threads=4)

    assert tally.figures.tried > 40 or tally.is_cut


def test_a_backup_that_is_killed_right_before_and_after_its_commit_as_a_real_process(
    site: Site, runner: Runner
) -> None:
    """Without the fork server too: before the rename of the record there is nothing, after it all."""
    site.image.write_bytes(varied_image(1))
    scene = Scene(site, runner)
    scene.keep()
    steps = [step.split()[0] for step in scene.run("backup", "daily", threads=1).steps]
    scene.rewind()
    commit = len(steps) - steps[::-1].index("rename")

    for at, revisions in ((commit, 0), (commit + 1, 1)):
        request = {"argv": ["-b", str(site.job), "backup", "daily"], "at": at, "threads": 1}
        small = {"batch_size": 3 * CHUNK, "action": "kill"}
        command = [sys.executable, str(SCRIPT), json.dumps({**request, **small})]

        done = subprocess.run(command, check=False, capture_output=True, timeout=120)

        assert -signal.SIGKILL == done.returncode
        assert revisions == len(site.history().revisions)
        assert 0 == site.cli("verify").returncode
        assert [site.image.read_bytes()] * revisions == [
            site.restored(one) for one in site.history().revisions
        ]
        assert 0 == site.cli("backup", "daily").returncode
        scene.rewind()
