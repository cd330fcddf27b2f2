"""T1 with deltas: kill -9 at every mutating call of what writes them, collects them, sets bases aside.

As test_kill_backup.py, test_kill_gc.py and test_kill_quarantine.py, with chunks of 16 blocks. A source
that keeps snapshots and tells changes is one in memory, so its backups are killed within this process.

    pytest -m torture tests/crash/test_kill_deltas.py       every step, and not one of each kind
"""

import signal
from pathlib import Path

import pytest
from clonesource import Clones
from crashsite import Run, Runner, Scene, noise, points
from modelfaults import Killed, armed, killing

from backy.domain.chunk import chunk_id
from backy.domain.revision import Revision
from backy.ground.directory import Directory
from backy.ground.linux import PAGE
from backy.operation import parallel
from backy.repository import snapshots
from tally import Tally
from testsite import Site

pytestmark = pytest.mark.proof("T1")


C = 16 * PAGE
COLLECT = ("gc", "--now", "--force")

all_steps = pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.torture)], ids=["some", "all"]
)


@pytest.fixture
def scene(memory: Path, runner: Runner) -> Scene:
    """A revision of four chunks, and one with a delta in place of the first two."""
    scene = Scene(Site(memory, chunk_size=C), runner)
    scene.site.image.write_bytes(noise(1, 4 * C + 100))
    scene.backup()
    change(scene, 0, 17)
    scene.backup()
    return scene


def change(scene: Scene, *blocks: int) -> None:
    """Other noise in blocks of the image."""
    with scene.site.image.open("r+b") as file:
        for block in blocks:
            file.seek(block * PAGE)
            file.write(noise(1000 * len(scene.images) + block, PAGE))


def deltas(site: Site) -> set[str]:
    """Names of the deltas in the store."""
    return {path.name for path in site.chunk_files() if "." in path.name}


def steps_to_kill(scene: Scene, *words: str, every: bool) -> list[int]:
    """All steps of a command, or the last of each kind, and the very first."""
    numbers = scene.kinds_of_steps(*words, ends=(-1,))
    scene.rewind()
    return list(range(1, numbers[-1] + 1)) if every else sorted({1, *numbers})


def killed_at(scene: Scene, at: int, *words: str) -> Run:
    """A command that is killed at a step."""
    run = scene.run(*words, at=at, action="kill")
    assert ("killed", signal.SIGKILL) == (run.state, run.code), run
    return run


@all_steps
def test_a_backup_that_writes_deltas_may_be_killed_at_every_step(
    scene: Scene, tally: Tally, *, every: bool
) -> None:
    """No revision loses a base; what was named before the kill is a hit for the next backup."""
    site = scene.site
    change(scene, 1, 2, 18, 40, 50, 64)
    scene.keep()
    images = dict(scene.images)
    before = deltas(site)
    numbers = steps_to_kill(scene, "backup", "daily", every=every)
    reused = committed = 0
    for at in numbers:
        killed_at(scene, at, "backup", "daily")
        new = [uuid for uuid in scene.listed() if uuid not in images]
        if new:
            scene.images[new[0]] = site.image.read_bytes()
            committed += 1
        scene.check_images()
        left = deltas(site) - before
        scene.check_next_backup()
        assert 4 == len(deltas(site) - before)
        assert left <= site.chunks_of(site.history().revisions[-1])
        reused += bool(left) and not new
        assert [] == scene.changed()
        scene.images = dict(images)
        scene.rewind()

    tally.tell(
        len(numbers),
        f"kill -9 at {len(numbers)} steps of a backup of deltas: 0 lost, {committed} after the commit",
    )
    assert len(numbers) > 15
    assert reused
    assert committed


@all_steps
def test_gc_that_takes_deltas_and_bases_may_be_killed_at_every_step(
    scene: Scene, tally: Tally, *, every: bool
) -> None:
    """What stands on a base that others need no more is whole after every kill; the rest goes."""
    site = scene.site
    # The first chunk gets a base of its own, on which the last revision has a delta.
    change(scene, *range(16))
    scene.backup()
    change(scene, 3, 18)
    scene.backup()
    for uuid in [*scene.images][:2]:
        assert scene.run("forget", "-r", uuid).ended_well
        del scene.images[uuid]
    scene.keep()
    needed: set[str] = set()
    for revision in site.history().revisions:
        needed |= site.chunks_of(revision)
    goes = {path.name for path in site.chunk_files()} - needed
    bases = {name[65:] for name in deltas(site)}
    assert goes & deltas(site)
    assert goes & bases
    assert needed & deltas(site)
    numbers = steps_to_kill(scene, *COLLECT, every=every)
    for at in numbers:
        killed_at(scene, at, *COLLECT)
        scene.check_images()
        for name in deltas(site):
            base = name[65:]
            assert (site.chunks / base[:2] / base).exists() or name in goes
        for _ in range(2):
            assert scene.run(*COLLECT).ended_well
        if every:
            scene.check_images()
        assert needed == {path.name for path in site.chunk_files()}
        assert [] == list((site.chunks / "trash").iterdir())
        scene.rewind()

    tally.tell(
        len(numbers),
        f"kill -9 at {len(numbers)} steps of gc with deltas: 0 lost, all reclaimed by the next",
    )
    assert len(numbers) > 15


@all_steps
def test_verify_that_sets_a_base_aside_may_be_killed_at_every_step(
    scene: Scene, tally: Tally, *, every: bool
) -> None:
    """The next verify marks all that stand on the base; the next backup heals what the image has."""
    site = scene.site
    first, second = scene.images
    base = chunk_id(scene.images[first][:C]).hex()
    path = site.chunks / base[:2] / base
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    scene.keep()
    steps = scene.run("verify").steps
    scene.rewind()
    tried = 0
    for at in range(1, len(steps) + 1, 1 if every else 3):
        killed_at(scene, at, "verify")
        tried += 1
        assert set(scene.changed()) <= {base, f"{first}.rev", f"{second}.rev"}
        again = scene.run("verify")
        assert ("exited", 1) == (again.state, again.code), again
        assert "its delta stands on a bad base" in again.out
        assert [C, C] == [one.damaged for one in site.history().revisions]
        assert scene.run("backup", "daily").ended_well
        assert [C, 0, 0] == [one.damaged for one in site.history().revisions]
        for revision in site.history().revisions[1:]:
            assert scene.images[second] == site.restored(revision)
        left = scene.run("verify")
        assert (1, 1) == (left.code, left.out.count("chunk  vm")), left
        assert first in left.out
        scene.rewind()

    tally.tell(tried, f"kill -9 at {tried} steps of a verify that sets a base aside: 0 lost, all healed")
    assert tried > 5


# ..A source that tells changes................................................................


def revision_of(site: Site, uuid: str) -> Revision:
    """What the history says of it."""
    return next(one for one in site.history().revisions if one.uuid == uuid)


def listed(site: Site) -> set[str]:
    """Revisions of which JOB/snapshots says that there is a snapshot."""
    with Directory.open(str(site.job)) as job:
        return {name.revision for name in snapshots.listed(job)}


def test_a_backup_with_hints_may_be_killed_at_every_step(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """No snapshot is ever without its line; the newest revision's stays, and the next run uses it."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    monkeypatch.setattr("backy.repository.chunks.BATCH_SIZE", 3 * PAGE)
    site = Site(memory, chunk_size=C)
    source = Clones(noise(1, 6 * C), frozen=True)
    images = {site.backup(source=source).uuid: bytes(source.content)}
    hinted = committed = 0
    for at in points():
        for number, block in enumerate((at % 16, 17, 40, 41, 70)):
            source.write(block * PAGE, noise(at * 10 + number, PAGE))
        before = [*images][-1]
        try:
            with armed(killing(at)):
                site.backup(source=source)
        except Killed:
            pass
        else:
            break
        new = {one.uuid for one in site.history().revisions} - set(images)
        assert len(new) <= 1
        for uuid in new:
            images[uuid] = bytes(source.content)
            committed += 1
        assert set(source.kept) <= listed(site)
        # The base goes when the next one is there.
        assert {before, *new} & set(source.kept)
        assert images[before] == site.restored(revision_of(site, before))

        after = site.backup(source=source)

        images[after.uuid] = bytes(source.content)
        assert [after.uuid] == list(source.kept) == [*listed(site)]
        assert after.reading is not None
        assert after.reading.since == (new.pop() if new else before)
        hinted += 1
        for revision in site.history().revisions[-3:]:
            assert images[revision.uuid] == site.restored(revision)
    assert [] == site.verify().findings
    assert any("." in path.name for path in site.chunk_files())

    tally.tell(
        hinted, f"kill -9 at {hinted} steps of a backup with hints: 0 lost, {committed} after the commit"
    )
    assert hinted > 30
    assert committed
