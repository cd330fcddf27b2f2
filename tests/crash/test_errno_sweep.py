"""T6: a system call that fails, at any step, gives one sentence, exit code 1, and a clean retry."""

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from crashsite import Run, Runner, Scene, noise, points, varied_image

from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T6")

ERRORS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE")


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """A site with two revisions, and an image that has changed since."""
    scene = Scene(site, runner)
    site.image.write_bytes(noise(5, 3 * CHUNK))
    scene.backup()
    site.image.write_bytes(varied_image(1))
    scene.backup()
    site.image.write_bytes(varied_image(1)[: 6 * CHUNK] + noise(7, 5 * CHUNK))
    scene.keep()
    return scene


class Sweep:
    """The runs of a command in which one step failed: the 1st, 2nd … or those of `numbers`.

    `shift` turns the errors, so that five sweeps try each at each step; with `every` all later steps
    fail too, as on a disk that has gone.
    """

    def __init__(
        self, scene: Scene, numbers: Iterable[int] | None = None, *, shift: int = 0, every: bool = False
    ) -> None:
        self.tried = 0
        self._scene = scene
        self._numbers = numbers
        self._shift = shift
        self._every = every

    def runs(self, *words: str) -> Iterator[tuple[Run, str]]:
        """(run, the step that failed) until a run is not disturbed any more."""
        for at in self._numbers or points():
            name = ERRORS[(at + self._shift) % len(ERRORS)]
            run = self._scene.run(*words, at=at, action=name, every=self._every)
            if len(run.steps) < at:
                assert run.ended_well, run
                return
            self.tried += 1
            yield run, run.steps[at - 1]


def _is_unregistration(step: str) -> bool:
    """A step after the commit, whose failure costs nothing: collection removes what is left."""
    action, _, path = step.partition(" ")
    folder, user = Path(path).parts[-2:]
    return action == "remove" and folder in {"tmp", "users"} and len(user) == 36


def sweep_backup(scene: Scene, sweep: Sweep) -> None:
    """Steps of a backup fail, one in each run."""
    for run, step in sweep.runs("backup", "daily"):
        if run.ended_well:
            assert _is_unregistration(step), step
            assert 3 == len(scene.listed())
        else:
            run.check_says_why()
            scene.check_images()
            assert [] == list((scene.site.chunks / "tmp").iterdir()), step
            assert [] == list((scene.site.chunks / "users").iterdir()), step
        assert [] == scene.changed()
        scene.check_next_backup()
        scene.rewind()


def sweep_restore(scene: Scene, sweep: Sweep) -> None:
    """Every step of a restore over an existing file fails once."""
    target = scene.site.folder / "target.raw"
    target.write_bytes(b"old")
    newest = list(scene.images)[-1]
    for run, step in sweep.runs("restore", str(target)):
        run.check_says_why()
        renamed = step.startswith("sync directory of")
        assert (scene.images[newest] if renamed else b"old") == target.read_bytes()
        again = scene.run("restore", str(target))
        assert again.ended_well, again
        assert scene.images[newest] == target.read_bytes()
        assert [] == scene.changed()
        target.write_bytes(b"old")


def sweep_tags(scene: Scene, sweep: Sweep) -> None:
    """Every step of an edit of tags fails once."""
    for run, _ in sweep.runs("tags", "set", "-r", "latest", "manual:one"):
        run.check_says_why()
        scene.check_images()
        assert set(scene.site.history().revisions[-1].tags) in ({"daily"}, {"manual:one"})
        again = scene.run("tags", "set", "-r", "latest", "manual:one")
        assert again.ended_well, again
        assert {"manual:one"} == set(scene.site.history().revisions[-1].tags)
        # A leftover of the failed edit stays in the way of the next round; the record goes back.
        assert scene.run("tags", "set", "-r", "latest", "daily").ended_well


def sweep_forget(scene: Scene, sweep: Sweep) -> None:
    """Every step of forget fails once; only a rename that fails has a way round."""
    first, second = scene.images
    images = dict(scene.images)
    for run, step in sweep.runs("forget", "-r", first):
        if not run.ended_well:
            run.check_says_why()
        if not scene.site.job.joinpath(f"{first}.rev").exists():
            del scene.images[first]
        assert (first not in scene.images) or not run.ended_well
        assert run.ended_well == step.startswith("rename "), step
        scene.check_images()
        assert (first in scene.images) == scene.run("forget", "-r", first).ended_well
        assert [second] == scene.listed()
        scene.rewind()
        scene.images = dict(images)


def test_a_backup_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally) -> None:
    """No revision, no trace in tmp or users, all others intact, and the retry succeeds."""
    numbers = scene.kinds_of_steps("backup", "daily")
    scene.rewind()
    sweep = Sweep(scene, numbers)
    sweep_backup(scene, sweep)

    tally.tell(sweep.tried, f"{sweep.tried} steps of a backup failed: 0 lost")
    assert sweep.tried > 15


def test_a_backup_fails_cleanly_when_nothing_works_from_a_step_on(scene: Scene, tally: Tally) -> None:
    """The same where cleaning up fails too, as on a disk that has gone."""
    numbers = scene.kinds_of_steps("backup", "daily", ends=(-1,))
    scene.rewind()
    sweep = Sweep(scene, numbers, every=True)
    for run, step in sweep.runs("backup", "daily"):
        if run.ended_well:
            assert _is_unregistration(step), step
        else:
            run.check_says_why()
        assert [] == scene.changed()
        for revision in scene.site.history().revisions:
            expected = scene.images.get(revision.uuid, scene.site.image.read_bytes())
            assert expected == scene.site.restored(revision)
        scene.check_next_backup()
        scene.rewind()

    tally.tell(sweep.tried, f"a backup whose disk went at each of {sweep.tried} steps: 0 lost")


def test_a_restore_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally) -> None:
    """The target keeps what it held until the restore has succeeded, and the retry does."""
    sweep = Sweep(scene)
    sweep_restore(scene, sweep)

    tally.tell(
        sweep.tried, f"{sweep.tried} steps of a restore failed: the target was always old or whole"
    )
    assert sweep.tried > 5


def test_an_edit_of_tags_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally) -> None:
    """The record is the old or the new one, and the retry makes it the new one."""
    sweep = Sweep(scene)
    sweep_tags(scene, sweep)

    tally.tell(sweep.tried, f"{sweep.tried} steps of an edit of tags failed: 0 lost")
    assert sweep.tried >= 6


def test_forget_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally) -> None:
    """The revision is there whole or forgotten, and nobody misses a record afterwards."""
    sweep = Sweep(scene)
    sweep_forget(scene, sweep)

    tally.tell(sweep.tried, f"{sweep.tried} steps of forget failed: 0 lost")
    assert sweep.tried >= 2


def test_every_error_of_the_system_has_a_sentence_of_its_own(scene: Scene) -> None:
    """What the operator reads names the cause: full, read-only, quota, too many files."""
    said = {}
    for name in ERRORS:
        said[name] = scene.run("backup", "daily", at=1, action=name).err.strip().rpartition(": ")[2]

    assert len(ERRORS) == len(set(said.values()))
    assert all(hasattr(errno, name) for name in said)
    assert "read-only" in said["EROFS"]


SWEEPS = {
    ("backup", "daily"): sweep_backup,
    ("restore", "TARGET"): sweep_restore,
    ("tags", "set", "-r", "latest", "manual:one"): sweep_tags,
    ("forget", "-r", "FIRST"): sweep_forget,
}


@pytest.mark.torture(weight=0.3)
@pytest.mark.parametrize("words", SWEEPS, ids=lambda words: words[0])
@pytest.mark.parametrize("shift", range(len(ERRORS)))
def test_all_verbs_fail_cleanly_with_every_error_at_every_step(
    scene: Scene, tally: Tally, words: tuple[str, ...], shift: int
) -> None:
    """The default sweeps try one error at each step, of a backup at some; these try all at all."""
    places = {"TARGET": str(scene.site.folder / "target.raw"), "FIRST": next(iter(scene.images))}
    whole = scene.run(*(places.get(word, word) for word in words))
    assert whole.ended_well, whole
    scene.rewind()

    SWEEPS[words](
        scene, Sweep(scene, tally.each(range(1, len(whole.steps) + 1), seed=shift), shift=shift)
    )
