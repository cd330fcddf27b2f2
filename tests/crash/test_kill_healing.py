"""T9: a backup that heals in a distrusted store, killed at any step: nothing is lost in silence."""

import signal
from collections.abc import Iterable

import pytest
from crashsite import Runner, Scene, noise, points
from test_kill_quarantine import GONE, OWN, SHARED, damage_of, everywhere, reports

from damaging import chunk_file, spoil
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T9")


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """A chunk of all revisions is known to be lost; the store is distrusted, and rightly so.

    The image has both chunks still, so a backup heals the one, and moves the other aside and heals it.
    """
    scene = Scene(site, runner)
    other = site.folder / "other.raw"
    other.write_bytes(SHARED + noise(4, CHUNK))
    site.add_job("other", other)
    for second in (GONE, OWN):
        site.image.write_bytes(SHARED + second)
        scene.backup()
    site.backup(job="other")
    spoil(chunk_file(site, SHARED))
    assert 1 == everywhere(scene, "verify").code
    assert everywhere(scene, "-j", "vm", "distrust", "--reason", "store").ended_well
    spoil(chunk_file(site, OWN))
    scene.keep()
    return scene


def killed(scene: Scene, steps: Iterable[int]) -> int:
    """Kill the backup at these steps, and let the next backup and verify finish: how often."""
    site = scene.site
    tried = 0
    for at in steps:
        run = scene.run("backup", "daily", at=at, action="kill")
        if run.state == "exited":
            assert run.ended_well, run
            break
        assert ("killed", signal.SIGKILL) == (run.state, run.code), run
        tried += 1
        check_no_silent_loss(scene)
        again = scene.run("backup", "daily")
        assert again.ended_well, again
        assert {0} == set(damage_of(site).values())
        assert {"healed"} == {one["state"] for one in reports(scene)}
        proven = everywhere(scene, "verify")
        assert proven.ended_well, (run.steps[-1], proven)
        assert not (site.chunks / "distrusted").exists()
        scene.rewind()
    return tried


def check_no_silent_loss(scene: Scene) -> None:
    """What lacks a chunk says so by its record, unless a case is still to be told of."""
    site = scene.site
    if "not reported yet" in {one["state"] for one in reports(scene)}:
        return
    for revision in site.history().revisions:
        whole = all((site.chunks / name[:2] / name).exists() for name in site.chunks_of(revision))
        assert whole or revision.damaged, revision


def test_a_backup_that_heals_may_be_killed_wherever_it_renames(scene: Scene) -> None:
    """And when the bad chunk is aside: the next one heals the rest, and verify proves all of it."""
    steps = scene.run("backup", "daily").steps
    scene.rewind()
    renames = [at for at, step in enumerate(steps, start=1) if step.startswith("rename ")]
    (moved,) = (at for at, step in enumerate(steps, start=1) if step.startswith("move "))
    assert len(renames) > 6

    chosen = [moved, moved + 1, *renames]
    assert len(chosen) == killed(scene, chosen)


@pytest.mark.torture(weight=0.3)
def test_a_backup_that_heals_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """As above, at each."""
    tried = killed(scene, tally.each(points()))

    assert tried > 40 or tally.is_cut
