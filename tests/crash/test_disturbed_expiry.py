"""T1, T6: expiry that is killed, or whose calls fail, at any step removes only what the plan removes."""

import signal
from datetime import UTC, datetime, timedelta

import pytest
from crashsite import Runner, Scene, points, varied_image
from small_store import StandingClock

from backy.domain.config import JobConfig, SourceConfig, TagPolicy, render_job
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T1")

ERRORS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE")


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """Six revisions, of which two are beyond `keep`, and a third but for a tag of the operator's."""
    scene = Scene(site, runner)
    source = SourceConfig("file", {"filename": str(site.image)})
    (site.job / "config").unlink()
    (site.job / "config").write_text(render_job(JobConfig(source, {"daily": TagPolicy(86400, 3)})))
    for days in (30, 25, 20, 10, 5, 1):
        site.clock = StandingClock(datetime.now(UTC) - timedelta(days=days))
        site.image.write_bytes(varied_image(days)[: 5 * CHUNK])
        scene.backup()
    second = list(scene.images)[1]
    assert scene.run("tags", "add", "-r", second, "manual:mine").ended_well
    scene.keep()
    return scene


def check_what_is_left(scene: Scene, images: dict[str, bytes]) -> None:
    """What the plan keeps is there and whole, what it removes is there whole or gone."""
    first, second, third, *kept = images
    listed = scene.listed()
    assert [second, *kept] == [uuid for uuid in listed if uuid not in (first, third)]
    scene.images = {uuid: images[uuid] for uuid in listed}
    scene.check_images()
    tags = {one.uuid: set(one.tags) for one in scene.site.history().revisions}
    assert tags[second] in ({"daily", "manual:mine"}, {"manual:mine"})
    assert {frozenset({"daily"})} == {frozenset(tags[uuid]) for uuid in kept}


def check_the_next_does_the_rest(scene: Scene, images: dict[str, bytes]) -> None:
    """Without any help, and no more than the rest; then everything is again as it was kept."""
    _, second, _, *kept = images
    again = scene.run("expire")
    assert again.ended_well, again
    assert [second, *kept] == scene.listed()
    assert {"manual:mine"} == set(scene.site.history().revisions[0].tags)
    scene.images = {uuid: images[uuid] for uuid in (second, *kept)}
    scene.check_images()
    scene.rewind()
    scene.images = dict(images)


def test_expire_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """The plan is carried out as far as it came, and the next run carries out the rest."""
    images = dict(scene.images)
    for at in tally.each(points()):
        run = scene.run("expire", at=at, action="kill")
        if run.ended_well:
            break
        assert ("killed", signal.SIGKILL) == (run.state, run.code), run
        check_what_is_left(scene, images)
        check_the_next_does_the_rest(scene, images)

    assert tally.figures.tried > 8


@pytest.mark.parametrize(
    "shift", [0, *(pytest.param(n, marks=pytest.mark.torture) for n in range(1, 5))]
)
@pytest.mark.proof("T6")
def test_expire_fails_cleanly_whatever_step_fails(scene: Scene, tally: Tally, shift: int) -> None:
    """One sentence, and what is left is what a kill leaves; or it found a way round."""
    images = dict(scene.images)
    for at in tally.each(points()):
        run = scene.run("expire", at=at, action=ERRORS[(at + shift) % len(ERRORS)])
        if len(run.steps) < at:
            break
        if not run.ended_well:
            run.check_says_why()
        check_what_is_left(scene, images)
        check_the_next_does_the_rest(scene, images)

    assert tally.figures.tried > 8
