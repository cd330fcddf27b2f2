"""T6, T9: repair, distrust and the deletion of reports, disturbed at any step, lose nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashsite import Run, Runner, Scene, points
from test_kill_quarantine import (
    GONE,
    OWN,
    SHARED,
    chunk_file,
    everywhere,
    killed_everywhere,
    reports,
    spoil,
)

from backy.domain.revision import Distrust, Trust
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T6")

ERRORS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE")


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """A fork server for this file."""
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


def damage_of_vm(site: Site) -> dict[str, int]:
    """Damaged bytes of the job's revisions by what their records say."""
    return {one.uuid: one.damaged for one in site.history().revisions}


def left(site: Site) -> list[Path]:
    """What is in the quarantine."""
    return list((site.chunks / "quarantine").iterdir())
