"""A repository, the model of what it must hold, and runs of the command line that crash in it.

    with Runner() as runner:
        scene = Scene(site, runner); scene.keep()
        for at in scene.points():
            run = scene.run("backup", "daily", at=at, action="kill")
            scene.check_kept(); scene.rewind()

What was kept is known by its bytes: the revisions' images, and every file of the repository.

Limits: what crashes is a process of its own; what looks at the store afterwards runs in this one, since
a process costs more than all that it would do here.
"""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from in_process import backy
from small_store import image_of

from backy.operation.progress import NoProgress
from backy.operation.verify import Selected, verify
from backy.repository import history as histories
from backy.repository.repository import Repository
from testsite import CHUNK, Site

_NAMES = re.compile("[0-9a-f]{64}|[0-9a-f-]{36}|/[0-9a-f]{2}/")

SCRIPT = Path(__file__).with_name("crashrunner.py")


class Run(NamedTuple):
    """How a run ended, or that it is stopped; see crashrunner."""

    state: str
    code: int
    pid: int
    out: str
    err: str
    steps: list[str]
    peak: int

    @property
    def ended_well(self) -> bool:
        """Exit code 0."""
        return self.state == "exited" and self.code == 0

    def check_says_why(self) -> None:
        """It failed with exit code 1 and one sentence, and without a traceback."""
        assert ("exited", 1) == (self.state, self.code), self
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        said = [line for line in self.err.splitlines() if "no log is kept" not in line]
        assert 1 == len(said), self.err
        assert said[0].startswith("backy: ")
        assert said[0].endswith(".")


class Runner:
    """The fork server of crashrunner, as a context."""

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, str(SCRIPT), "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200", "TZ": "UTC"},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.communicate()

    def run(self, *argv: str, **request: Any) -> Run:
        """Run `backy ARGV` until it ends or stops."""
        return self._ask({"argv": argv, **request})

    def resume(self, stopped: Run) -> Run:
        """Let a stopped run go on to its end."""
        return self._ask({"resume": stopped.pid})

    def _ask(self, request: dict[str, Any]) -> Run:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        reply = json.loads(self._server.stdout.readline())
        reply["steps"] = reply["steps"].splitlines()
        return Run(**reply)


class Scene:
    """A site, the images of its revisions by UUID, and the way back to the state that was kept."""

    def __init__(self, site: Site, runner: Runner) -> None:
        self.site = site
        self.runner = runner
        self.images: dict[str, bytes] = {}
        self._kept: dict[Path, bytes] = {}

    def run(self, *words: str, job: str = "vm", **request: Any) -> Run:
        """Run `backy -b BASE/JOB …`: small batches and one thread, so that each step has its number."""
        settings = {"batch_size": 3 * CHUNK, "threads": 1, **request}
        return self.runner.run("-b", str(self.site.base / job), *words, **settings)

    def kinds_of_steps(self, *words: str, ends: tuple[int, ...] = (0, -1)) -> list[int]:
        """Numbers of a command's steps: by default the first and the last of each kind."""
        run = self.run(*words)
        assert run.ended_well, run
        kinds: dict[str, list[int]] = {}
        for at, step in enumerate(run.steps, start=1):
            kinds.setdefault(_NAMES.sub("*", step), []).append(at)
        return sorted({numbers[end] for numbers in kinds.values() for end in ends})

    def backup(self) -> str:
        """Back up the image as it is now, and return the new revision's UUID."""
        uuid = self.site.backup().uuid
        self.images[uuid] = self.site.image.read_bytes()
        return uuid

    def keep(self) -> None:
        """Remember every file of the repository."""
        self._kept = {path: path.read_bytes() for path in _files(self.site.base)}

    def rewind(self) -> None:
        """Make the repository what it was when it was kept."""
        now = set(_files(self.site.base))
        for path in now - set(self._kept):
            path.unlink()
        for folder in sorted(self.site.chunks.glob("[tq][mru]*/**/"), reverse=True):
            if folder.parent != self.site.chunks and not any(folder.iterdir()):
                folder.rmdir()
        for path, content in self._kept.items():
            if path not in now or path.read_bytes() != content:
                path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(0o440)

    def changed(self) -> list[str]:
        """Names of the kept files, except logs, that are gone or hold something else."""
        return [
            path.name
            for path, content in self._kept.items()
            if path.suffix != ".log" and (not path.exists() or path.read_bytes() != content)
        ]

    def listed(self, job: str = "vm") -> list[str]:
        """UUIDs that `backy status` shows, oldest first; it warns of nothing."""
        status = backy("-b", str(self.site.base / job), "status", "--json")
        assert (0, "") == (status.code, status.err)
        return [one["uuid"] for one in json.loads(status.out)]

    def check_images(self) -> None:
        """All revisions of the model, and no other, are listed, restore bit for bit and verify."""
        assert list(self.images) == self.listed()
        with Repository.open(str(self.site.base)) as repository, repository.job("vm") as job:
            history = histories.load(job.directory)
            assert list(self.images) == [one.uuid for one in history.revisions]
            for revision in history.revisions:
                assert self.images[revision.uuid] == image_of(repository, job, revision)
            selected = Selected(job.name, history, history.revisions)
            assert [] == verify(repository, [selected], NoProgress(), quick=False).findings

    def check_next_backup(self) -> None:
        """A backup succeeds now, without any help, and restores bit for bit."""
        run = self.run("backup", "daily")
        assert run.ended_well, run
        new = self.site.history().revisions[-1]
        assert new.uuid not in self.images
        assert self.site.image.read_bytes() == self.site.restored(new)


def points() -> Iterator[int]:
    """1, 2, 3 …, for loops that end when the armed step is never reached."""
    yield from range(1, 5000)


def noise(seed: int, length: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(length)


def varied_image(seed: int) -> bytes:
    """Chunks of all sorts: random, compressible, twice the same, zeros, and a short last one."""
    twice = noise(seed, CHUNK)
    packed = b"".join(bytes([number]) * CHUNK for number in (1 + seed, 2 + seed, 3 + seed))
    return twice + packed + bytes(2 * CHUNK) + noise(seed + 1, 4 * CHUNK) + twice + b"end"


def _files(base: Path) -> Iterator[Path]:
    folders = [str(base)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield Path(entry.path)
