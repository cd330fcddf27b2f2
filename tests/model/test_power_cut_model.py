"""T5, T4: power cuts on a disk that loses what was not synced; without any one sync, something is lost.

A script of operations on two jobs that share chunks runs on the lossy disk; it is cut at a step, and
what is left has to hold every revision that was acknowledged before, restore it bit for bit, and go on.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from crashsite import noise, varied_image
from lossydisk import LossyDisk
from modelfaults import Hook, Killed, armed, killing
from small_store import image_of

import syncsites
from backy.domain.revision import Origin, Revision
from backy.ground import durable
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.ground.errors import BackyError
from backy.operation import parallel
from backy.operation.collect import collect
from backy.operation.progress import NoProgress
from backy.operation.verify import Selected, verify
from backy.repository import chunks
from backy.repository import history as histories
from backy.repository.repository import Repository
from backy.source import file as file_source
from tally import Tally
from testsite import CHUNK, Site


class LostError(AssertionError):
    """Something that was acknowledged is not there, or not what it was."""


class World:
    """A repository with two jobs on the lossy disk, and the model of what it must hold."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.site.add_job("other", folder / "other.raw")
        (folder / "other.raw").write_bytes(b"")
        self.images: dict[str, dict[str, bytes]] = {"vm": {}, "other": {}}
        self.tags: dict[str, set[str]] = {}
        self.uncertain: set[str] = set()
        self.forgotten: set[str] = set()
        self.tagging: tuple[str, int] | None = None
        self.disk = LossyDisk(self.site.base)

    def write(self, job: str, content: bytes) -> None:
        """The job's image is that from now on."""
        self.path(job).write_bytes(content)

    def path(self, job: str) -> Path:
        """Its image."""
        return self.site.image if job == "vm" else self.site.folder / "other.raw"

    def backup(self, job: str) -> None:
        """Acknowledged when it returns; cut short, the revision may be there or not."""
        self.images[job][self.site.backup(job=job).uuid] = self.path(job).read_bytes()

    def forget(self, job: str, number: int) -> None:
        """Gone for good when it returns."""
        uuid = list(self.images[job])[number % len(self.images[job])]
        self.uncertain.add(uuid)
        with Directory.open(str(self.site.base / job)) as opened:
            histories.forget(opened, uuid)
        del self.images[job][uuid]
        self.uncertain.discard(uuid)
        self.forgotten.add(uuid)

    def tag(self, job: str, number: int) -> None:
        """The record is replaced."""
        uuid = list(self.images[job])[number % len(self.images[job])]

        def add(revision: Revision) -> Revision:
            return revision.with_tags({**revision.tags, "manual:x": Origin.MANUAL})

        self.tags.pop(uuid, None)
        self.tagging = job, number
        with Directory.open(str(self.site.base / job)) as opened:
            self.tags[uuid] = set(histories.edit(opened, uuid, add).tags)
        self.tagging = None

    def repeat(self) -> None:
        """An edit that was killed is made again, and is acknowledged then, whatever it still changed."""
        if self.tagging is not None:
            self.tag(*self.tagging)

    def collect(self) -> None:
        """Condemn and purge."""
        with Repository.open(str(self.site.base)) as repository:
            collect(repository, SystemClock(), NoProgress(), waive_grace=True, force=True)

    def check(self) -> None:
        """Every acknowledged revision is there and restores; nothing else is half there."""
        with Repository.open(str(self.site.base)) as repository:
            for job, images in self.images.items():
                try:
                    self._check_job(repository, job, images)
                except BackyError as error:
                    raise LostError(f"{job}: {error.message}") from error
        self.uncertain.clear()

    def _check_job(self, repository: Repository, name: str, images: dict[str, bytes]) -> None:
        with repository.job(name) as job:
            history = histories.load(job.directory)
            if history.unreadable or history.lost:
                raise LostError(f"{name}: {history.unreadable} {history.lost}")
            found = {one.uuid: one for one in history.revisions}
            for uuid in self.uncertain - found.keys():
                images.pop(uuid, None)
            if missing := images.keys() - found.keys():
                raise LostError(f"{name}: {missing} missing")
            if back := self.forgotten & found.keys():
                raise LostError(f"{name}: {back} came back")
            for uuid, revision in found.items():
                if self.tags.get(uuid, set(revision.tags)) != set(revision.tags):
                    raise LostError(f"{name}: {uuid} has lost a tag")
                content = image_of(repository, job, revision)
                if uuid in images and images[uuid] != content:
                    raise LostError(f"{name}: {uuid} is wrong")
                images[uuid] = content
            selected = Selected(job.name, history, history.revisions)
            if verify(repository, [selected], NoProgress(), quick=False).findings:
                raise LostError(f"{name}: verify found something")


def script(world: World, random: Random) -> None:
    """What happens to two jobs in some days; LostError if an operation fails."""
    try:
        _operate(world, random)
    except BackyError as error:
        raise LostError(error.message) from error


def _operate(world: World, random: Random) -> None:
    for number in range(6):
        job = random.choice(["vm", "other"])
        act = random.choice(["backup", "backup", "backup", "forget", "tag", "collect"])
        if act == "backup" or not world.images[job]:
            seeds = random.randrange(4)
            tail = noise(random.randrange(3), 2 * CHUNK)
            world.write(job, varied_image(seeds)[: 8 * CHUNK] + tail)
            world.backup(job)
        elif act == "forget" and len(world.images[job]) > 1:
            world.forget(job, number)
        elif act == "collect":
            world.collect()
        else:
            world.tag(job, number)


_EDITED = re.compile(r"^rename .*\.rev\.new$")


def killing_behind_an_edit(at: int) -> Hook:
    """Kill at the step that follows the N-th replacement of a record, which is to make it last."""
    count = 0

    def hook(step: str) -> None:
        nonlocal count
        if count >= at:
            raise Killed
        count += _EDITED.search(step) is not None

    return hook


_NEAR_RECORDS = re.compile(r"\.(pending|map|rev|forgotten)$|^sync .*/(vm|other)$")


def killing_near_records(at: int) -> Hook:
    """Kill at the N-th step that moves a record or a map, or makes that last."""
    count = 0

    def hook(step: str) -> None:
        nonlocal count
        count += _NEAR_RECORDS.search(step) is not None
        if count >= at:
            raise Killed

    return hook


def play(folder: Path, seed: int) -> None:
    """Three power cuts, each at some step of some script, one on what the other left; LostError."""
    random = Random(seed)
    world = World(folder)
    with world.disk:
        for _ in range(3):
            # Most can be lost where records move, and every other step comes too.
            near = killing_near_records(random.randrange(1, 30))
            hook = random.choice([near, killing(random.randrange(1, 160)), killing_behind_an_edit(1)])
            with armed(hook), suppress(Killed):
                script(world, random)
            world.repeat()
            world.disk.cut(random)
            world.check()
        try:
            world.collect()
            for job in world.images:
                world.write(job, noise(seed, 3 * CHUNK))
                world.backup(job)
        except BackyError as error:
            raise LostError(error.message) from error
        world.check()


@pytest.fixture(autouse=True)
def small_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and small batches, so that a seed always gives the same run."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    monkeypatch.setattr(chunks, "BATCH_SIZE", 3 * CHUNK)
    monkeypatch.setattr(file_source, "_TICK_NS", 0)


def first_loss(seeds: Iterable[int]) -> int | None:
    """The first seed with which something is lost."""
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="lossy-", dir="/dev/shm") as folder:
            try:
                play(Path(folder), seed)
            except LostError:
                return seed
    return None


@pytest.mark.proof("T5")
def test_power_cuts_lose_nothing(tally: Tally) -> None:
    """A hundred runs with three power cuts each."""
    assert first_loss(tally.seeds(range(100))) is None
    tally.tell(0, "300 power cuts on a disk that loses what was not synced: 0 lost")


@pytest.mark.proof("T5")
@pytest.mark.torture(weight=2)
@pytest.mark.parametrize("first", range(100, 10_100, 2500))
def test_many_power_cuts_lose_nothing(tally: Tally, first: int) -> None:
    """Ten thousand runs."""
    assert first_loss(tally.seeds(range(first, first + 2500))) is None


# ..T4: every sync is needed...................................................................

SYNCS = [
    (durable, "sync_directory"),
    (durable, "sync_all"),
    (durable.UnnamedFile, "sync"),
    (durable.Batch, "sync"),
]


class Sites:
    """The places in backy that call for a sync: counted, or one of them left out."""

    def __init__(self, patch: pytest.MonkeyPatch, left_out: str | None = None) -> None:
        self.seen: set[str] = set()
        for owner, name in SYNCS:
            real = getattr(owner, name)
            patch.setattr(owner, name, self._watched(real, left_out))

    def _watched(self, real: Callable[..., None], left_out: str | None) -> Callable[..., None]:
        def sync(*arguments: object) -> None:
            if vars(durable)["os"] is os:  # nothing is recorded yet
                real(*arguments)
                return
            frame = sys._getframe(1)
            site = f"{frame.f_globals['__name__'].removeprefix('backy.')}.{frame.f_code.co_qualname}"
            site += f":{frame.f_lineno}"
            self.seen.add(site)
            if site != left_out:
                real(*arguments)

        return sync


def all_sites() -> list[str]:
    """Every place that a few runs come by, named by function and line."""
    with pytest.MonkeyPatch.context() as patch:
        sites = Sites(patch)
        assert first_loss(range(12)) is None
        return sorted(sites.seen)


def survivors(sites: Iterable[str], seeds: range) -> list[str]:
    """Those of these places whose sync may be left out without any loss with these seeds."""
    found = []
    for site in sites:
        with pytest.MonkeyPatch.context() as patch:
            Sites(patch, site)
            if first_loss(seeds) is None:
                found.append(site)
    return found


@pytest.mark.proof("T4")
def test_without_any_one_sync_something_is_lost(tally: Tally) -> None:
    """So the model can see, and each sync is needed; what it does not come by has a test of its own."""
    named = {f"{one.module}.{one.function}:{one.line}": name for name, one in syncsites.sites().items()}
    seen = {site: named[site] for site in all_sites()}
    wanted = syncsites.sites().keys() - syncsites.NOTICED.keys() - syncsites.HARMLESS.keys()
    assert wanted == set(seen.values()) - syncsites.HARMLESS.keys()

    sites = [site for site, name in seen.items() if name in wanted]
    assert [] == survivors(sites, range(250))
    tally.tell(len(sites), f"each of {len(sites)} syncs left out: lost")


def test_the_disk_loses_what_was_not_synced(tmp_path: Path) -> None:
    """A file that was only linked may be missing or torn; one that was synced never is."""
    outcomes = set()
    for seed in range(40):
        base = tmp_path / f"base-{seed}"
        base.mkdir()
        with LossyDisk(base) as disk, Directory.open(str(base)) as directory:
            durable.publish(directory, "lasting", b"content")
            durable.sync_directory(directory)
            file = durable.UnnamedFile(directory)
            file.append(b"content")
            file.link("loose")
            file.close()
            disk.cut(Random(seed))
        assert (base / "lasting").read_bytes() == b"content"
        loose = base / "loose"
        outcomes.add(loose.read_bytes() if loose.exists() else None)

    assert {None, b"", b"content", bytes(7)} < outcomes


def test_a_name_below_another_directory_lasts_with_that_one(tmp_path: Path) -> None:
    """A link by a path is a name of the directory at the path's end, and so is its removal."""
    base = tmp_path / "base"
    (base / "below").mkdir(parents=True)
    with LossyDisk(base) as disk, Directory.open(str(base)) as directory:
        with directory.enter("below") as below:
            for name in ("kept", "gone"):
                durable.publish(directory, name, name.encode())
                durable.link(directory, name, directory, f"below/{name}")
            durable.sync_directory(below)
            durable.remove(below, "gone")
            durable.sync_directory(below)
        disk.cut(Random(1))

    assert {"kept": b"kept"} == {path.name: path.read_bytes() for path in (base / "below").iterdir()}


def test_a_directory_is_settled_again_and_again(tmp_path: Path) -> None:
    """After each of many cuts what was synced is there, whatever was moved or removed since."""
    for seed in range(20):
        base = tmp_path / f"base-{seed}"
        base.mkdir()
        with LossyDisk(base) as disk, Directory.open(str(base)) as directory:
            durable.make_directory(directory, "folder")
            with directory.enter("folder") as folder:
                durable.publish(folder, "one", b"1")
                durable.sync_directory(folder)
            durable.sync_directory(directory)
            durable.move(directory, "folder", directory, "moved")
            (base / "nobody's").write_bytes(b"")
            disk.cut(Random(seed))
            (left,) = base.iterdir()
            assert left.name in ("folder", "moved")
            assert ["one"] == [path.name for path in left.iterdir()]
            (left / "one").unlink()
            disk.cut(Random(seed))
            assert b"1" == (left / "one").read_bytes()
