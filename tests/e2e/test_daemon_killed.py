"""A scheduler that is killed at each transition of a job's run, and the next one (T25).

Two jobs that have a history and miss their tag, and one worker: so both are due at once, and while one
runs the other waits. At one place of the first run the scheduler gets SIGKILL, from its own child, so
that it surely stands there. Whatever the place: all that it started ends, the next scheduler runs
what was not finished, once, and never again what was.

A slot is ten years away, so that nothing but the missed tag starts a job.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.daemon.prepare import open_repository, prepare
from backy.domain.chunkmap import NO_DISK
from backy.domain.revision import Origin
from backy.domain.settings import parse_settings
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.operation.backup import Coding, backup
from backy.operation.progress import NoProgress
from backy.repository import history as histories
from backy.source.file import FileSource
from backy.source.group import Group
from scheduled import SECONDS, Scheduled, ended

MARK = "BACKY_TEST_SITE"

_CHILD = """
import os, signal, sys
from backy.ground import failpoint
def kill_at(place, wait=True):
    try:
        os.unlink(os.path.join({folder!r}, "kill-at-" + place))
    except FileNotFoundError:
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    os.kill(int(os.environ["BACKY_PARENT"]), signal.SIGKILL)
    if wait:
        os.read(told, 1)  # until the kernel tells that the scheduler is gone
verb = next(word for word in sys.argv if word in ("backup", "expire", "gc"))
seen = []
def reached(step):
    seen.append(step)
    if len(seen) == 1:
        kill_at(verb + "-begins")
    if step.startswith("rename "):
        kill_at(verb + "-commits")
if verb == "expire":
    failpoint.install(lambda step: kill_at("expire-acts"))
    kill_at("expire-starts", wait=False)
else:
    failpoint.install(reached)
from backy.cli.main import run
try:
    run()
finally:
    kill_at(verb + "-ends", wait=False)
"""

_CALLBACK = """#!/bin/sh
if rm "{folder}/kill-at-callback" 2> /dev/null; then
  sleep 1000 &
  until [ -s {folder}/pid ]; do :; done
  kill -KILL "$(cat {folder}/pid)"
  wait
fi
echo "$1" >> "{folder}/called"
"""


class Killed(Scheduled):
    """A scheduler whose jobs have two revisions that the first expiry removes, and are due."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, jobs=2, workers=1)
        self.configure(interval="520w")
        (folder / "child.py").write_text(_CHILD.format(folder=str(folder)))
        (folder / "completed").write_text(_CALLBACK.format(folder=folder))
        settings = parse_settings(self.config.read_text(), "backy.conf").complete()
        with open_repository(str(self.base), settings.jobs) as repository:
            assert {} == prepare(repository, settings.jobs)
            for name in self.names * 2:
                with repository.job(name) as job:
                    group = Group({NO_DISK: FileSource(str(folder / f"{name}.raw"))})
                    tags = {"before": Origin.FORCED}
                    coding = Coding(settings.general.codec)
                    backup(repository, job, group, tags, coding, SystemClock(), NoProgress())

    def launch(self) -> None:
        """Start it, and let its callback know its process id."""
        super().launch()
        assert self.process is not None
        (self.folder / "pid").write_text(str(self.process.pid))

    def dies(self) -> None:
        """Wait until it has been killed, and all that it started has ended."""
        assert self.process is not None
        assert self.process.stderr is not None
        assert -signal.SIGKILL == self.process.wait(SECONDS)
        self.process.stderr.close()
        for pid in self.descendants():
            assert ended(pid)
        assert [] == self.descendants()

    def descendants(self) -> list[int]:
        """All processes that have our mark in their environment: those that it started, and theirs."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def tags(self, name: str) -> list[str]:
        """The tags of each revision of a job, sorted."""
        with Directory.open(str(self.base / name)) as directory:
            return sorted(",".join(one.tags) for one in histories.load(directory).revisions)


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Killed]:
    """Two jobs that are due, and no scheduler yet; none is left where a test fails."""
    monkeypatch.setenv(MARK, str(tmp_path))
    site = Killed(tmp_path)
    yield site
    for pid in site.descendants():
        os.kill(pid, signal.SIGKILL)
    if site.process is not None:
        site.process.wait(SECONDS)


# Where it is killed, and how many of the two jobs have their revision by then.
PLACES = {
    "backup-begins": 0,
    "backup-commits": 0,
    "backup-ends": 1,
    "expire-starts": 1,
    "expire-ends": 1,
    "callback": 1,
}


@pytest.mark.parametrize("place", PLACES)
def test_killed_scheduler_leaves_nothing_running_and_the_next_runs_what_is_left(
    killed: Killed, place: str
) -> None:
    """No job is starved, none runs twice, and no child outlives its scheduler."""
    (killed.folder / f"kill-at-{place}").touch()
    killed.launch()  # its log may be cut off with it
    killed.dies()
    before = [killed.tags(name).count("daily") for name in killed.names]
    assert PLACES[place] == sum(before)
    assert not (killed.folder / f"kill-at-{place}").exists()

    with killed:
        for _ in range(2 - sum(before)):
            killed.wait_for("backup finished")
        idle = killed.client("jobs").stdout.splitlines()[1:]
        assert 2 == sum("waiting for deadline" in line for line in idle), idle
        finished = [one["job"] for one in killed.events if one["event"] == "backup finished"]

    assert [name for name, done in zip(killed.names, before, strict=True) if not done] == sorted(
        finished
    )
    assert [1, 1] == [killed.tags(name).count("daily") for name in killed.names]
    assert [] == killed.descendants()
    told = (killed.folder / "called").read_text().split()
    assert len(finished) <= len(told) == len(set(told)), "no run is told twice"


def test_expiry_that_was_cut_off_is_made_up_for_by_the_next_run(killed: Killed) -> None:
    """Between two removals: what is left of the plan goes with the next backup, nothing else."""
    (killed.folder / "kill-at-expire-acts").touch()
    killed.launch()  # its log may be cut off with it
    killed.dies()
    cut = next(name for name in killed.names if "daily" in killed.tags(name))
    assert ["before", "before", "daily"] == killed.tags(cut)

    with killed:
        killed.wait_for("backup finished")
        killed.request(cut)
        killed.wait_for("backup finished", job=cut)

    assert ["daily", "daily"] == killed.tags(cut)


def test_terminated_scheduler_ends_a_callback_and_what_it_started(killed: Killed) -> None:
    """SIGTERM while a program of the operator hangs: code 0 and nothing left."""
    told = killed.folder / "told"
    os.mkfifo(told)
    (killed.folder / "completed").write_text(f"#!/bin/sh\nsleep 1000 &\necho hangs > {told}\nwait\n")
    with killed:
        assert "hangs\n" == told.read_text()
        assert len(killed.descendants()) > 1
        assert 0 == killed.end()
        assert [] == killed.descendants()


_HANGING = """
import threading
from backy.cli import edge
def hang():
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        threading.Event().wait()
edge._LAST_SECONDS = 1
edge.leave(hang)
"""


def test_a_child_that_hangs_at_its_end_is_ended_by_the_kernel() -> None:
    """Nobody else would be left to do it, and the job's lock would be held for ever."""
    words = [sys.executable, "-c", _HANGING]
    environment = {**os.environ, "BACKY_PARENT": str(os.getpid())}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert "ready\n" == child.stdout.readline()

        child.terminate()

        assert -signal.SIGALRM == child.wait(SECONDS)
