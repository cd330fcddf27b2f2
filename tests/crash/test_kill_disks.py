"""T1 with several disks: kill -9 at every mutating call of a backup of two disks.

Nothing is visible before the commit, everything of both disks after it; no snapshot of either disk is
ever without its line.
"""

import json
import signal
from pathlib import Path

import pytest
from clonesource import Clones
from crashsite import Runner, Scene, noise, points
from modelfaults import Killed, armed, killing

from backy.domain.revision import SnapshotName
from backy.ground.directory import Directory
from backy.ground.linux import PAGE
from backy.operation import parallel
from backy.repository import snapshots
from backy.source.group import Group
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T1")

C = 4 * PAGE
ROOT, DATA = "root", "data"


class Guest:
    """The job `guest` of two image files, and the images of its revisions by UUID."""

    def __init__(self, site: Site, runner: Runner) -> None:
        self.scene = Scene(site, runner)
        self.site = site
        self.paths = {name: site.folder / f"{name}.raw" for name in (ROOT, DATA)}
        self.images: dict[str, dict[str, bytes]] = {}
        site.add_disks("guest", self.paths)

    def write(self, seed: int) -> None:
        """New content in the middle of both disks, of which a part is the same."""
        for number, path in enumerate(self.paths.values()):
            content = noise(1, 4 * CHUNK) + noise(seed + number, 2 * CHUNK) + noise(9 + number, CHUNK)
            path.write_bytes(content)

    def now(self) -> dict[str, bytes]:
        """What the disks hold."""
        return {name: path.read_bytes() for name, path in self.paths.items()}

    def listed(self) -> list[str]:
        """UUIDs that `backy status` shows; it warns of nothing."""
        status = self.scene.run("status", "--json", job="guest")
        assert ("exited", 0, "") == (status.state, status.code, status.err)
        return [one["uuid"] for one in json.loads(status.out)]

    def check(self) -> None:
        """All revisions of the model and no other, both disks bit for bit, and all verifies."""
        assert list(self.images) == self.listed()
        for revision in self.site.history(job="guest").revisions:
            for name, content in self.images[revision.uuid].items():
                assert content == self.site.restored(revision, job="guest", disk=name)
        assert self.scene.run("verify", "--no-quarantine", job="guest").ended_well


def test_a_backup_of_two_disks_may_be_killed_at_every_step(
    memory: Path, runner: Runner, tally: Tally
) -> None:
    """All of it or nothing, and the next backup needs no help."""
    guest = Guest(Site(memory), runner)
    guest.write(20)
    guest.images[guest.site.backup(job="guest").uuid] = guest.now()
    guest.write(30)
    guest.scene.keep()
    before = dict(guest.images)
    tried = committed = 0
    for at in points():
        run = guest.scene.run("backup", "daily", job="guest", at=at, action="kill")
        if run.ended_well:
            break
        assert ("killed", signal.SIGKILL) == (run.state, run.code), run
        tried = at
        new = [uuid for uuid in guest.listed() if uuid not in before]
        for uuid in new:
            assert any(step.startswith("rename ") for step in run.steps)
            guest.images[uuid] = guest.now()
            committed += 1
        assert list(guest.images) == guest.listed()
        assert guest.scene.run("backup", "daily", job="guest").ended_well
        guest.images[guest.listed()[-1]] = guest.now()
        guest.check()
        guest.images = dict(before)
        guest.scene.rewind()

    tally.tell(
        tried, f"kill -9 at {tried} steps of a backup of two disks: 0 lost, {committed} after the commit"
    )
    assert tried > 25
    assert 1 <= committed <= 4


def test_a_backup_of_two_disks_with_hints_may_be_killed_at_every_step(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Snapshots of both are listed or gone; the next run compares both with the newest revision."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    monkeypatch.setattr("backy.repository.chunks.BATCH_SIZE", 3 * PAGE)
    site = Site(memory, chunk_size=C)
    shelf: dict[str, dict[str, bytes]] = {}
    disks = {
        name: Clones(noise(seed, 3 * C), frozen=True, place=name, shelf=shelf)
        for seed, name in enumerate((ROOT, DATA))
    }
    group = Group(disks)
    images = {site.backup(group=group).uuid: content_of(disks)}
    tried = committed = 0
    for at in points():
        for number, (block, source) in enumerate(
            (block, source) for source in disks.values() for block in (at % 4, 5, 9)
        ):
            source.write(block * PAGE, noise(at * 10 + number, PAGE))
        before = [*images][-1]
        try:
            with armed(killing(at)):
                site.backup(group=group)
        except Killed:
            tried = at
        else:
            break
        new = {one.uuid for one in site.history().revisions} - set(images)
        assert len(new) <= 1
        for uuid in new:
            images[uuid] = content_of(disks)
            committed += 1
        kept = {SnapshotName(uuid, name) for name, one in disks.items() for uuid in one.kept}
        assert kept <= listed(site)
        for source in disks.values():
            assert {before, *new} & set(source.kept)

        after = site.backup(group=group)

        images[after.uuid] = content_of(disks)
        assert {SnapshotName(after.uuid, name) for name in disks} == listed(site)
        assert [[after.uuid]] * 2 == [list(one.kept) for one in disks.values()]
        expected = new.pop() if new else before
        assert [expected, expected] == [one.since for one in after.readings]
        for revision in site.history().revisions[-3:]:
            for name in disks:
                assert images[revision.uuid][name] == site.restored(revision, disk=name)

    tally.tell(
        tried,
        f"kill -9 at {tried} steps of a backup of two disks with hints: 0 lost, "
        f"{committed} after the commit",
    )
    assert tried > 40
    assert [] == site.verify().findings


def content_of(disks: dict[str, Clones]) -> dict[str, bytes]:
    """What the disks hold now."""
    return {name: bytes(source.content) for name, source in disks.items()}


def listed(site: Site) -> set[SnapshotName]:
    """Snapshots that JOB/snapshots names."""
    with Directory.open(str(site.job)) as job:
        return set(snapshots.listed(job))
