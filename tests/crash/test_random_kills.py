"""T2: kill -9 at random times, of commands, and of a scheduler or what it started: nothing is lost.

    pytest -m torture tests/crash/test_random_kills.py        1,000 kills

A step is where the tests beside this one kill; here the time is random, of commands every other time.

Limits: a seed repeats what is drawn, not where a command stands at that time, nor what follows from it.
"""

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from crashsite import Runner, noise, varied_image
from killedcommands import Commands
from small_store import images_of

from backy.daemon.prepare import open_repository, prepare
from backy.domain.chunkmap import NO_DISK
from backy.domain.revision import Origin, Revision
from backy.domain.settings import parse_settings
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.operation.backup import Coding, backup
from backy.operation.progress import NoProgress
from backy.repository import history as histories
from backy.repository.repository import Repository
from backy.source.file import FileSource
from backy.source.group import Group
from scheduled import Scheduled, ended
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T2")


# ..Commands....................................................................................


def test_commands_that_are_killed_at_random_lose_nothing(
    site: Site, runner: Runner, tally: Tally
) -> None:
    """Twenty kills, each on what the one before has left."""
    commands = Commands(site, runner, 0)
    for _ in tally.each(range(20)):
        commands.kill_one()
    commands.check_kills_were_late_enough()
    tally.count(0, seed=0)


@pytest.mark.torture(weight=0.5)
@pytest.mark.parametrize("seed", range(1, 8))
def test_seven_hundred_commands_that_are_killed_at_random_lose_nothing(
    site: Site, runner: Runner, tally: Tally, seed: int
) -> None:
    """A hundred on each repository."""
    commands = Commands(site, runner, seed)
    for _ in tally.each(range(100)):
        commands.kill_one()
    commands.check_kills_were_late_enough()
    tally.count(0, seed=seed)


# ..A scheduler and its children................................................................


class Fleet(Scheduled):
    """A scheduler with three jobs on two workers, and what its jobs must hold."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, jobs=3, workers=2)
        self.random = random.Random(seed)
        self.acknowledged: dict[str, list[str]] = {name: [] for name in self.names}
        self.images: dict[str, bytes] = {}
        document = json.loads(self._document("520w"))
        document["global"]["gc-interval"] = "1s"
        self.configure(json.dumps(document))
        settings = parse_settings(self.config.read_text(), "backy.conf").complete()
        with open_repository(str(self.base), settings.jobs) as repository:
            assert {} == prepare(repository, settings.jobs)
            for name in self.names:
                with repository.job(name) as job:
                    group = Group({NO_DISK: FileSource(str(folder / f"{name}.raw"))})
                    coding = Coding(settings.general.codec)
                    tags = {"before": Origin.FORCED}
                    backup(repository, job, group, tags, coding, SystemClock(), NoProgress())

    def make_due(self) -> None:
        """New images, and no revision with the tag that is wanted; only the newest ones are to stay."""
        for name in self.names:
            (self.folder / f"{name}.raw").write_bytes(
                varied_image(self.random.randrange(5)) + noise(self.random.randrange(99), 4 * CHUNK)
            )
            with Directory.open(str(self.base / name)) as job:
                *older, newest = histories.load(job).revisions
                histories.edit(job, newest.uuid, _kept)
                for one in older:
                    histories.edit(job, one.uuid, _let_go)
                self.acknowledged[name].append(newest.uuid)

    def kill_one(self) -> None:
        """Start it, kill it or one of its children or all, and look at all there is."""
        if all(self._daily(name) for name in self.names):
            self.make_due()
        self.launch()
        time.sleep(self.random.uniform(0.0, 2.5))
        process = self.process
        assert process is not None
        children = self._children()
        victim = self.random.choice(["scheduler", "child", "all"])
        if victim != "child":
            process.kill()
        for pid in children if victim == "all" else children[:1] if victim == "child" else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if victim == "child":
            time.sleep(self.random.uniform(0.0, 0.3))
            process.kill()
        process.wait()
        for pid in [*children, *self._children()]:
            assert ended(pid), "a child outlives its scheduler"
        self._learn()

    def check_all_run_once(self) -> None:
        """Undisturbed, the next scheduler runs what is left, once, and nothing that was done."""
        missing = sum(not self._daily(name) for name in self.names)
        with self:
            for _ in range(missing):
                self.wait_for("backup finished")
        self._learn()
        collected = self.backy("-b", str(self.base), "gc", "--now", "--force")
        assert 0 == collected.returncode, collected
        self._look()
        assert [1] * len(self.names) == [self._daily(name) for name in self.names]

    def _learn(self) -> None:
        """Read what the scheduler acknowledged, and hold the repository against it."""
        process = self.process
        assert process is not None
        assert process.stderr is not None
        lines = [] if process.stderr.closed else process.stderr.readlines()
        process.stderr.close()
        told = [*self.events, *(_parsed(line) for line in lines)]
        self.events.clear()
        for event in told:
            assert "Traceback" not in str(event)
            if event.get("event") == "backup finished":
                self.acknowledged[str(event["job"])].append(str(event["revision"]))
        self._look()

    def _look(self) -> None:
        """All that is there is whole, and all that was acknowledged last is there."""
        with Repository.open(str(self.base)) as repository:
            for name in self.names:
                self._check(repository, name)

    def _check(self, repository: Repository, name: str) -> None:
        image = (self.folder / f"{name}.raw").read_bytes()
        with repository.job(name) as job:
            history = histories.load(job.directory)
            assert ((), ()) == (history.unreadable, history.lost)
            there = [one.uuid for one in history.revisions]
            assert set(self.acknowledged[name][-1:]) <= set(there), "an acknowledged revision is gone"
            assert sum("daily" in one.tags for one in history.revisions) <= 1, "a job ran twice"
        for uuid, content in images_of(self.base, name).items():
            assert self.images.setdefault(uuid, image) == content

    def _daily(self, name: str) -> int:
        with Directory.open(str(self.base / name)) as directory:
            return sum("daily" in one.tags for one in histories.load(directory).revisions)

    def _children(self) -> list[int]:
        assert self.process is not None
        mark = f"BACKY_PARENT={self.process.pid}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found


def _kept(revision: Revision) -> Revision:
    return revision.with_tags({"manual:kept": Origin.MANUAL})


def _let_go(revision: Revision) -> Revision:
    """Expiry removes it after the next backup."""
    return revision.with_tags({"before": Origin.FORCED})


def _parsed(line: bytes) -> dict[str, object]:
    """An event; of a line that was cut off nothing is known."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {"event": line.decode(errors="replace")}


@pytest.mark.torture(weight=3)
@pytest.mark.parametrize("seed", range(3))
def test_three_hundred_kills_of_a_scheduler_and_its_children_lose_nothing(
    tmp_path: Path, tally: Tally, seed: int
) -> None:
    """None of its revisions, no job runs twice, none is left out, and no child outlives it."""
    fleet = Fleet(tmp_path, seed)
    for number in tally.each(range(100)):
        fleet.kill_one()
        if number % 10 == 9:
            fleet.check_all_run_once()
    fleet.check_all_run_once()
    tally.count(0, seed=seed)
