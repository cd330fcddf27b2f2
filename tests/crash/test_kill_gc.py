"""T1, R14: kill -9 at every mutating call of gc; nothing is lost, and the next run reclaims the rest."""

import signal

import pytest
from crashsite import Runner, Scene, noise, points, varied_image

from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T1")

COLLECT = ("gc", "--now", "--force")


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """Revisions, kept and forgotten, of two jobs that share chunks, and what a killed backup left."""
    scene = Scene(site, runner)
    other = site.folder / "other.raw"
    other.write_bytes(varied_image(1)[: 8 * CHUNK] + noise(9, CHUNK))
    site.add_job("other", other)
    site.backup(job="other")
    for seed in (5, 1, 2):
        site.image.write_bytes(varied_image(seed))
        scene.backup()
    killed = scene.run("backup", "daily", at=12, action="kill")
    assert "killed" == killed.state
    first = next(iter(scene.images))
    assert scene.run("forget", "-r", first).ended_well
    del scene.images[first]
    site.image.write_bytes(varied_image(3))
    assert "killed" == scene.run("backup", "daily", at=14, action="kill").state
    return scene


def needed(scene: Scene) -> set[str]:
    """Names of the chunk files that some revision needs: those of a store that holds only them."""
    names: set[str] = set()
    for job in ("vm", "other"):
        for revision in scene.site.history(job=job).revisions:
            names |= scene.site.chunks_of(revision, job=job)
    return names


def check_all_reclaimed(scene: Scene) -> None:
    """Exactly what the revisions need is left."""
    site = scene.site
    assert needed(scene) == {path.name for path in site.chunk_files()}
    for folder in ("users", "tmp", "trash"):
        assert [] == sorted((site.chunks / folder).iterdir()), folder
    maps = {path.name.partition(".")[0] for path in site.job.glob("*.map")}
    assert set(scene.images) == maps
    assert [] == [*site.job.glob("*.pending"), *site.job.glob("*.forgotten")]


def test_gc_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """Every revision stays whole, and the next run goes on without any help."""
    scene.keep()
    tried = 0
    for at in points():
        run = scene.run(*COLLECT, at=at, action="kill")
        if run.ended_well:
            break
        assert ("killed", signal.SIGKILL) == (run.state, run.code), run
        tried += 1
        scene.check_images()
        again = scene.run(*COLLECT)
        assert again.ended_well, again
        # A generation that was sealed by the killed run, or found unsealed, may take one more.
        assert scene.run(*COLLECT).ended_well
        scene.check_images()
        check_all_reclaimed(scene)
        scene.rewind()

    tally.tell(tried, f"kill -9 at {tried} steps of gc: 0 lost, all reclaimed by the next")
    assert tried > 40


def test_gc_killed_again_and_again_comes_to_its_end(scene: Scene) -> None:
    """Each run gets a few steps further than it would alone; in the end all is reclaimed."""
    for at in points():
        run = scene.run(*COLLECT, at=25, action="kill")
        scene.check_images()
        if run.ended_well:
            break
        assert at < 30
    check_all_reclaimed(scene)


ERRORS = ("EIO", "ENOSPC", "EROFS", "EMFILE")


@pytest.mark.parametrize(
    "shift", [0, *(pytest.param(shift, marks=pytest.mark.torture(weight=0.2)) for shift in (1, 2, 3))]
)
def test_gc_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally, shift: int) -> None:
    """One sentence, exit code 1, nothing lost; and the next run reclaims all."""
    scene.keep()
    last = len(scene.run(*COLLECT).steps)
    scene.rewind()
    # Each error at every fourth step; the torture run shifts them over all steps.
    for at in tally.each(range(1 + shift, last + 1, 1 if shift else 2), seed=shift):
        run = scene.run(*COLLECT, at=at, action=ERRORS[(at // 2 + shift) % len(ERRORS)])
        if not run.ended_well:
            run.check_says_why()
        scene.check_images()
        assert scene.run(*COLLECT).ended_well
        assert scene.run(*COLLECT).ended_well
        check_all_reclaimed(scene)
        scene.rewind()

    assert tally.figures.tried > 20 or tally.is_cut


@pytest.mark.parametrize("all_steps", [False, pytest.param(True, marks=pytest.mark.torture(weight=0.3))])
def test_gc_runs_to_its_end_beside_a_backup_that_is_frozen_at_any_step(
    scene: Scene, tally: Tally, all_steps: bool
) -> None:
    """What the backup has found or stored stays, though every revision that had it is forgotten."""
    site = scene.site
    site.image.write_bytes(varied_image(2)[: 6 * CHUNK] + noise(7, 5 * CHUNK))
    images = dict(scene.images)
    scene.keep()
    numbers = scene.kinds_of_steps("backup", "daily", ends=(0, -1))
    if all_steps:
        numbers = list(range(1, numbers[-1] + 1))
    scene.rewind()
    for at in tally.each(numbers, seed=1):
        frozen = scene.run("backup", "daily", at=at, action="stop")
        assert "stopped" == frozen.state, frozen
        for uuid in images:
            assert scene.run("forget", "-r", uuid).ended_well
        for _ in range(2):
            assert scene.run(*COLLECT).ended_well

        woken = scene.runner.resume(frozen)

        assert ("exited", 0) == (woken.state, woken.code), woken
        newest = scene.site.history().revisions[-1].uuid
        scene.images = {newest: site.image.read_bytes()}
        scene.check_images()
        for _ in range(2):
            assert scene.run(*COLLECT).ended_well
        scene.check_images()
        check_all_reclaimed(scene)
        scene.rewind()
        scene.images = dict(images)

    tally.tell(0, f"a backup frozen at {len(numbers)} steps beside two gc: 0 lost")
    assert len(numbers) > 20
