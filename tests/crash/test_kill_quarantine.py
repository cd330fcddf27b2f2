"""T9: verify, repair and distrust killed at every step, or frozen beside a backup, lose nothing."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crashsite import Run, Runner, Scene, noise, points

from backy.domain.revision import Distrust, Trust
from damaging import chunk_file, spoil
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T9")

SHARED, OWN, GONE = noise(1, CHUNK), noise(2, CHUNK), noise(3, CHUNK)


@pytest.fixture
def scene(site: Site, runner: Runner) -> Scene:
    """Two jobs that share a chunk; the older revision of the first has one that its image lacks now."""
    scene = Scene(site, runner)
    other = site.folder / "other.raw"
    other.write_bytes(SHARED + noise(4, CHUNK))
    site.add_job("other", other)
    site.image.write_bytes(SHARED + GONE)
    scene.backup()
    site.image.write_bytes(SHARED + OWN)
    scene.backup()
    site.backup(job="other")
    return scene


def damage_of(site: Site) -> dict[str, int]:
    """Damaged bytes of all revisions by what their records say."""
    return {one.uuid: one.damaged for job in ("vm", "other") for one in site.history(job=job).revisions}


def killed_everywhere(scene: Scene, *words: str, **settings: Any) -> Iterator[Run]:
    """The runs of a command that were killed at their 1st, 2nd … step, until one is not."""
    for at in points():
        run = scene.runner.run(
            "-b", str(scene.site.base), *words, at=at, action="kill", threads=1, **settings
        )
        if run.state == "exited":
            return
        assert ("killed", signal.SIGKILL) == (run.state, run.code), run
        yield run


def everywhere(scene: Scene, *words: str) -> Run:
    """A command on the whole repository, undisturbed."""
    return scene.runner.run("-b", str(scene.site.base), *words, threads=1)


def reports(scene: Scene) -> list[dict[str, Any]]:
    """What `backy reports` lists."""
    listed: list[dict[str, Any]] = json.loads(everywhere(scene, "reports", "--json").out)
    return listed


def check_nothing_but_the_bad_chunk_is_lost(scene: Scene, bad: Path) -> None:
    """All other kept files are there; the bad one is in quarantine or in place."""
    lost = set(scene.changed())
    assert lost <= {bad.name, *(one for one in lost if one.endswith(".rev"))}
    aside = list(scene.site.chunks.glob(f"quarantine/*/{bad.name}"))
    assert 1 == len(aside) + bad.exists() or (aside and bad.exists())


@pytest.mark.parametrize("words", [("verify",), ("verify", "--slice", "1h")], ids=["verify", "slice"])
def test_verify_may_be_killed_at_every_step_of_a_quarantine(
    scene: Scene, words: tuple[str, ...], tally: Tally
) -> None:
    """The next verify completes the case, and marks whom it hurts; the next backup heals all."""
    site = scene.site
    bad = chunk_file(site, SHARED)
    spoil(bad)
    scene.keep()
    tried = 0
    for _ in killed_everywhere(scene, *words):
        tried += 1
        check_nothing_but_the_bad_chunk_is_lost(scene, bad)
        again = everywhere(scene, *words)
        healed_already = {one["state"] for one in reports(scene)}
        assert again.state == "exited"
        assert again.code in (0, 1), again
        assert {"open"} == healed_already
        assert [bad.name] == [one["chunk"] for one in reports(scene)]
        assert [CHUNK] * 3 == list(damage_of(site).values())
        backup = scene.run("backup", "daily")
        assert backup.ended_well, backup
        assert [0] * 4 == list(damage_of(site).values())
        assert [0, 0] == [everywhere(scene, *one).code for one in (["verify"], words)]
        assert ["healed"] == [one["state"] for one in reports(scene)]
        scene.rewind()

    tally.tell(
        tried, f"kill -9 at {tried} steps of {' '.join(words)}: 0 lost, each completed by the next"
    )
    assert tried > 15


def test_a_repair_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """The next repair fills what the image still has, and says what it has not."""
    site = scene.site
    first, second = list(scene.images)
    for plain in (SHARED, GONE):
        spoil(chunk_file(site, plain))
    assert 1 == everywhere(scene, "verify").code
    scene.keep()
    tried = 0
    for _ in killed_everywhere(scene, "repair", "vm"):
        tried += 1
        again = everywhere(scene, "repair", "vm")
        assert ("exited", 1) == (again.state, again.code), again
        assert f"{first}  {CHUNK}+{CHUNK}" in again.out
        assert {first: CHUNK, second: 0} == {uuid: damage_of(site)[uuid] for uuid in (first, second)}
        assert scene.images[second] == site.restored(site.history().revisions[1])
        assert 1 == everywhere(scene, "verify").code
        assert {"healed", "open"} == {one["state"] for one in reports(scene)}
        assert sorted(damage_of(site).values())[:2] == [0, 0]
        scene.rewind()

    tally.tell(tried, f"kill -9 at {tried} steps of repair: 0 lost, each could be repeated")
    assert tried > 15


def test_a_distrust_may_be_killed_at_every_step(scene: Scene, tally: Tally) -> None:
    """No record is distrusted because of the store while the marker is missing."""
    site = scene.site
    scene.keep()
    words = ("-j", "vm", "distrust", "--reason", "store")
    tried = 0
    for _ in killed_everywhere(scene, *words):
        tried += 1
        distrusted = [one for one in site.history().revisions if one.distrust is Distrust.STORE]
        assert not distrusted or (site.chunks / "distrusted").exists()
        assert everywhere(scene, *words).ended_well
        assert {Trust.DISTRUSTED} == {one.trust for one in site.history().revisions}
        assert everywhere(scene, "verify").ended_well
        assert {Trust.VERIFIED} == {one.trust for one in site.history().revisions}
        assert not (site.chunks / "distrusted").exists()
        scene.rewind()

    tally.tell(tried, f"kill -9 at {tried} steps of distrust: the marker was always there first")
    assert tried > 5


def test_verify_may_be_killed_while_it_clears_distrust(scene: Scene) -> None:
    """The marker goes last, and the next verify finishes."""
    site = scene.site
    assert everywhere(scene, "-j", "vm", "distrust", "--reason", "store").ended_well
    scene.keep()
    tried = 0
    for _ in killed_everywhere(scene, "verify"):
        tried += 1
        distrusted = [one for one in site.history().revisions if one.distrust is Distrust.STORE]
        assert not distrusted or (site.chunks / "distrusted").exists()
        assert everywhere(scene, "verify").ended_well
        assert not (site.chunks / "distrusted").exists()
        scene.rewind()

    assert tried > 5


def test_a_backup_completes_what_a_killed_verify_left(scene: Scene) -> None:
    """The chunk is aside and nobody was told: the next backup of any job marks whom it hurts."""
    site = scene.site
    spoil(chunk_file(site, GONE))
    scene.keep()
    steps = steps_of(scene, "verify")
    moved = next(at for at, step in enumerate(steps, start=1) if step.startswith("move "))
    scene.runner.run("-b", str(site.base), "verify", at=moved + 1, action="kill", threads=1)
    assert ["not reported yet"] == [one["state"] for one in reports(scene)]
    assert [0] * 3 == list(damage_of(site).values())

    assert scene.run("backup", "daily", job="other").ended_well

    assert ["open"] == [one["state"] for one in reports(scene)]
    assert CHUNK == damage_of(site)[next(iter(scene.images))]


@pytest.mark.parametrize(
    ("words", "errno"),
    [(("verify",), "ENOSPC"), (("verify", "--slice", "1h"), "EROFS")],
    ids=["verify", "slice"],
)
def test_a_verify_that_cannot_write_tells_what_it_found(
    scene: Scene, words: tuple[str, ...], errno: str, tally: Tally
) -> None:
    """Whichever step fails: exit code 1, one warning, nothing lost; the next one completes it."""
    site = scene.site
    bad = chunk_file(site, SHARED)
    spoil(bad)
    scene.keep()
    tried = len(steps_of(scene, *words))
    for at in range(1, tried + 1):
        run = scene.runner.run("-b", str(site.base), *words, at=at, action=errno, every=True, threads=1)
        assert ("exited", 1) == (run.state, run.code), run
        assert bad.name in run.out
        assert run.err.count("\n") <= 1
        assert "internal error" not in run.err
        assert run.err == "" or run.err.startswith("backy: warning: "), run
        check_nothing_but_the_bad_chunk_is_lost(scene, bad)
        assert everywhere(scene, *words).code in (0, 1)
        assert [CHUNK] * 3 == list(damage_of(site).values())
        scene.rewind()

    tally.tell(tried, f"{errno} from each of {tried} steps of {' '.join(words)} on: 0 lost")
    assert tried > 15


def steps_of(scene: Scene, *words: str) -> list[str]:
    """The steps of a command that nothing disturbs; the repository is as before."""
    run = everywhere(scene, *words)
    scene.rewind()
    return run.steps


@pytest.mark.parametrize("changed", [False, True], ids=["source unchanged", "source changed"])
def test_a_backup_and_a_quarantine_see_each_other_in_any_interleaving(
    scene: Scene, *, changed: bool, tally: Tally
) -> None:
    """A backup that leans on a chunk which verify moves aside heals, or says it is damaged (F9).

    Verify is frozen at each of its steps while the backup runs, and the other way round.
    """
    site = scene.site
    bad = chunk_file(site, SHARED)
    spoil(bad)
    scene.keep()
    tried = 0
    base = ("-b", str(site.base))
    backup = ("-j", "vm", "backup", "daily")
    image = site.image.read_bytes()
    told = 0
    for frozen, other in ((("verify",), backup), (backup, ("verify",))):
        steps = steps_of(scene, *frozen)
        for at in range(1, len(steps) + 1):
            stopped = scene.runner.run(*base, *frozen, at=at, action="stop", threads=1)
            assert "stopped" == stopped.state, stopped
            second = scene.runner.run(*base, *other, threads=1)
            assert "exited" == second.state, second
            if changed and frozen is backup:
                site.image.write_bytes(noise(9, 2 * CHUNK))
            ended = scene.runner.resume(stopped)
            assert "exited" == ended.state, ended
            told += frozen is backup and "it is marked, make another one." in ended.err
            site.image.write_bytes(image)
            check_no_silent_loss(scene)
            tried += 1
            scene.rewind()

    tally.tell(
        tried, f"a backup beside a verify with a bad chunk, {tried} interleavings: 0 silent losses"
    )
    assert tried > 40
    assert changed == bool(told)


def check_no_silent_loss(scene: Scene) -> None:
    """Each revision has all of its chunks, or says by its record that it is damaged."""
    site = scene.site
    for revision in site.history().revisions:
        chunks = [site.chunks / name[:2] / name for name in site.chunks_of(revision)]
        whole = all(path.exists() for path in chunks)
        assert whole == (revision.damaged == 0), (revision, chunks)
    again = json.loads(everywhere(scene, "verify", "--json").out)
    damaged = {uuid for uuid, lost in damage_of(site).items() if lost}
    assert damaged == {one["revision"] for one in again["findings"]}
