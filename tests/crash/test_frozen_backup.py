"""T10: whatever step a backup is frozen at, all else runs to its end, and then so does the backup."""

import pytest
from crashsite import Runner, Scene, noise, points, varied_image

from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T10")


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """Two revisions, an image that has changed since, and another job on an image of its own."""
    scene = Scene(site, runner)
    site.image.write_bytes(noise(5, 3 * CHUNK))
    scene.backup()
    site.image.write_bytes(varied_image(1))
    scene.backup()
    other = site.folder / "other.raw"
    other.write_bytes(varied_image(1)[: 8 * CHUNK] + noise(9, CHUNK))
    site.add_job("other", other)
    site.image.write_bytes(varied_image(1)[: 6 * CHUNK] + noise(7, 5 * CHUNK))
    scene.keep()
    return scene


def check_others_run(scene: Scene) -> None:
    """Status, verify, restore, a second backup, another job's backup, tags and forget, one by one."""
    first, second = list(scene.images)[:2]
    scene.check_images()
    again = scene.run("backup", "daily")
    again.check_says_why()
    assert "is running already" in again.err
    for words in (
        ("tags", "set", "-r", second, "manual:one"),
        ("forget", "-r", first),
    ):
        run = scene.run(*words)
        assert ("exited", 0, "") == (run.state, run.code, run.err)
    del scene.images[first]
    other = scene.run("backup", "daily", job="other")
    assert other.ended_well, other
    revision = scene.site.history(job="other").revisions[-1]
    image = (scene.site.folder / "other.raw").read_bytes()
    assert image == scene.site.restored(revision, job="other")


@pytest.mark.parametrize("all_steps", [False, pytest.param(True, marks=pytest.mark.torture(weight=0.5))])
def test_all_verbs_run_to_their_end_beside_a_backup_that_is_frozen_at_any_step(
    scene: Scene, tally: Tally, all_steps: bool
) -> None:
    """No one waits for it, none of them costs it a chunk, and woken up it makes its revision."""
    images = dict(scene.images)
    numbers = scene.kinds_of_steps("backup", "daily", ends=(-1,))
    if all_steps:
        numbers = list(range(1, numbers[-1] + 1))
    scene.rewind()
    for at in tally.each(numbers, seed=1):
        frozen = scene.run("backup", "daily", at=at, action="stop")
        assert "stopped" == frozen.state, frozen
        new = [uuid for uuid in scene.listed() if uuid not in scene.images]
        for uuid in new:  # it was frozen after its commit
            scene.images[uuid] = scene.site.image.read_bytes()
        if frozen.steps[-1].startswith("remove ") and "/users/" in frozen.steps[-1]:
            assert new
        check_others_run(scene)

        woken = scene.runner.resume(frozen)

        assert ("exited", 0) == (woken.state, woken.code), woken
        revision = scene.site.history().revisions[-1]
        scene.images[revision.uuid] = scene.site.image.read_bytes()
        scene.check_images()
        scene.rewind()
        scene.images = dict(images)

    tally.tell(0, f"a backup frozen at {len(numbers)} steps beside 7 other verbs: 0 lost, 0 waited")
    assert len(numbers) > 15


def test_a_frozen_restore_still_gets_its_chunks_after_its_revision_was_forgotten(
    scene: Scene, tally: Tally
) -> None:
    """Whatever happens to the history meanwhile, the image that comes out is the one asked for."""
    first = next(iter(scene.images))
    target = scene.site.folder / "target.raw"
    image = scene.images[first]
    tried = 0
    for at in points():
        run = scene.run("restore", "-r", first, str(target), at=at, action="stop")
        if run.ended_well:
            break
        tried += 1
        forget = scene.run("forget", "-r", first)
        assert forget.ended_well, forget

        woken = scene.runner.resume(run)

        assert ("exited", 0) == (woken.state, woken.code), woken
        assert image == target.read_bytes()
        target.unlink()
        scene.rewind()

    tally.tell(tried, f"a restore frozen at {tried} steps while its revision was forgotten: right")
    assert tried > 5


def test_two_restores_to_the_same_target_do_not_mix(scene: Scene) -> None:
    """While one is frozen the other refuses, and the first ends with its own image."""
    first, second = scene.images
    target = str(scene.site.folder / "target.raw")
    writes = next(
        at
        for at, step in enumerate(scene.run("restore", "-r", first, target).steps, start=1)
        if step.startswith("write ")
    )
    run = scene.run("restore", "-r", first, target, at=writes, action="stop")

    other = scene.run("restore", "-r", second, target)

    other.check_says_why()
    assert "in use by another restore" in other.err
    assert scene.runner.resume(run).ended_well
    assert scene.images[first] == (scene.site.folder / "target.raw").read_bytes()
