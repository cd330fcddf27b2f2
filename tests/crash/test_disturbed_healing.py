"""T6, T9, T10: repair, distrust and the deletion of reports, disturbed or frozen at any step."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from crashsite import Run, Runner, Scene, points
from test_kill_quarantine import GONE, OWN, SHARED, everywhere, killed_everywhere, reports

from backy.domain.revision import Distrust, Trust
from damaging import chunk_file, spoil
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T6")

ERRORS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE")


@pytest.fixture(scope="module")
def beside() -> Iterator[Runner]:
    """A second one, for what runs while the first has a frozen one."""
    with Runner() as one:
        yield one


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """Two revisions, of which the older one has a chunk that the image lacks now."""
    scene = Scene(site, runner)
    for second in (GONE, OWN):
        site.image.write_bytes(SHARED + second)
        scene.backup()
    return scene


def failing(scene: Scene, tally: Tally, shift: int, *words: str) -> Iterator[Run]:
    """The runs of a command in which the 1st, 2nd … step failed, until none does."""
    base = ("-b", str(scene.site.base))
    for at in tally.each(points()):
        error = ERRORS[(at + shift) % len(ERRORS)]
        run = scene.runner.run(*base, *words, at=at, action=error, threads=1)
        if len(run.steps) < at:
            return
        assert run.state == "exited"
        assert run.code in (0, 1), run
        assert "Traceback" not in run.err
        assert "internal error" not in run.err
        yield run


@pytest.mark.torture(weight=0.3)
@pytest.mark.parametrize("shift", range(len(ERRORS)))
def test_a_repair_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally, shift: int) -> None:
    """No chunk that was there goes, and the next repair fills what the image still has."""
    site = scene.site
    first, second = scene.images
    for plain in (SHARED, GONE):
        spoil(chunk_file(site, plain))
    assert 1 == everywhere(scene, "verify").code
    scene.keep()
    own = chunk_file(site, OWN)
    for _ in failing(scene, tally, shift, "repair", "vm"):
        assert own.exists()
        again = everywhere(scene, "repair", "vm")
        assert ("exited", 1) == (again.state, again.code), again
        assert {first: CHUNK, second: 0} == damage_of_vm(site)
        assert scene.images[second] == site.restored(site.history().revisions[1])
        scene.rewind()

    assert tally.figures.tried > 10 or tally.is_cut


@pytest.mark.torture(weight=0.3)
@pytest.mark.parametrize("shift", range(len(ERRORS)))
def test_a_distrust_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally, shift: int) -> None:
    """No record says that the store is to blame while the store does not know."""
    site = scene.site
    scene.keep()
    words = ("-j", "vm", "distrust", "--reason", "store")
    for _ in failing(scene, tally, shift, *words):
        distrusted = [one for one in site.history().revisions if one.distrust is Distrust.STORE]
        assert not distrusted or (site.chunks / "distrusted").exists()
        assert everywhere(scene, *words).ended_well
        assert {Trust.DISTRUSTED} == {one.trust for one in site.history().revisions}
        scene.check_images()
        scene.rewind()

    assert tally.figures.tried > 5 or tally.is_cut


@pytest.mark.proof("T9")
def test_the_deletion_of_a_report_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """The report is there or gone, no revision is touched, and it can be deleted once more."""
    site = scene.site
    bad = chunk_file(site, SHARED)
    spoil(bad)
    assert 1 == everywhere(scene, "verify").code
    assert scene.run("backup", "daily").ended_well
    images = [one.uuid for one in site.history().revisions]
    (case,) = [one["case"] for one in reports(scene)]
    scene.keep()
    for _ in tally.each(killed_everywhere(scene, "reports", "delete", case)):
        assert bad.exists()
        if reports(scene):
            assert everywhere(scene, "reports", "delete", case).ended_well
        assert [] == reports(scene)
        assert [] == left(site)
        assert images == scene.listed()
        assert 0 == everywhere(scene, "verify").code
        scene.rewind()

    assert tally.figures.tried >= 3


# ..Beside each other..........................................................................

WORDS = {
    "verify": ("verify",),
    "repair": ("repair", "vm"),
    "backup": ("-j", "vm", "backup", "daily"),
    "gc": ("gc", "--now", "--force"),
    "distrust": ("-j", "vm", "distrust", "--reason", "store"),
}
# Seconds after which an operation is taken to wait.
MOMENT = 3.0
PAIRS = [(frozen, other) for frozen in WORDS for other in WORDS if frozen != other]


@pytest.fixture
def rotten(scene: Scene) -> Scene:
    """One bad chunk has been moved aside, and another one that both image and revision need is bad."""
    site = scene.site
    spoil(chunk_file(site, SHARED))
    assert 1 == everywhere(scene, "verify").code
    spoil(chunk_file(site, OWN))
    scene.keep()
    return scene


def steps_of(scene: Scene, operation: str) -> list[int]:
    """The numbers of its steps; the repository is as before."""
    run = everywhere(scene, *WORDS[operation])
    scene.rewind()
    return list(range(1, len(run.steps) + 1))


def interleave(scene: Scene, beside: Runner, frozen: str, other: str, at: int) -> None:
    """Freeze the one at a step, run the other, wake the first; then everything can be healed.

    An edit of a record waits for another one, and so for the frozen one to be woken.
    """
    site = scene.site
    base = ("-b", str(site.base))
    stopped = scene.runner.run(*base, *WORDS[frozen], at=at, action="stop", threads=1)
    assert "stopped" == stopped.state, stopped
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(beside.run, *base, *WORDS[other], threads=1)
        with suppress(TimeoutError):
            running.result(MOMENT)
        woken = scene.runner.resume(stopped)
        second = running.result()
    for run in (second, woken):
        assert run.state == "exited", run
        assert run.code in (0, 1), run
        assert "Traceback" not in run.err
        assert "internal error" not in run.err
    for revision in site.history().revisions:
        there = [(site.chunks / name[:2] / name).exists() for name in site.chunks_of(revision)]
        # Verify that could not mark, since an edit was frozen, has said so, and the next one will.
        assert all(there) or revision.damaged or "not reported yet" in states(scene), revision

    assert everywhere(scene, *WORDS["verify"]).code in (0, 1)
    healing = everywhere(scene, *WORDS["backup"])
    assert healing.ended_well, healing
    assert everywhere(scene, *WORDS["verify"]).ended_well
    assert {0} == set(damage_of_vm(site).values())
    for uuid, image in {**scene.images, site.history().revisions[-1].uuid: SHARED + OWN}.items():
        revision = next(one for one in site.history().revisions if one.uuid == uuid)
        assert image == site.restored(revision)
    scene.rewind()


@pytest.mark.proof("T10")
@pytest.mark.parametrize(("frozen", "other"), PAIRS)
def test_damage_is_healed_whatever_runs_beside_what(
    rotten: Scene, beside: Runner, frozen: str, other: str
) -> None:
    """At one step of the frozen operation, another for each pair."""
    steps = steps_of(rotten, frozen)

    interleave(rotten, beside, frozen, other, random.Random(frozen + other).choice(steps))


@pytest.mark.proof("T10")
@pytest.mark.torture(weight=0.5)
@pytest.mark.parametrize(("frozen", "other"), PAIRS)
def test_damage_is_healed_whatever_runs_beside_what_at_any_step(
    rotten: Scene, beside: Runner, tally: Tally, frozen: str, other: str
) -> None:
    """At all of them."""
    for at in tally.each(steps_of(rotten, frozen), seed=PAIRS.index((frozen, other))):
        interleave(rotten, beside, frozen, other, at)


def states(scene: Scene) -> set[str]:
    """In what states the reports are."""
    return {one["state"] for one in reports(scene)}


def damage_of_vm(site: Site) -> dict[str, int]:
    """Damaged bytes of the job's revisions by what their records say."""
    return {one.uuid: one.damaged for one in site.history().revisions}


def left(site: Site) -> list[Path]:
    """What is in the quarantine."""
    return list((site.chunks / "quarantine").iterdir())
