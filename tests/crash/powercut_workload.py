"""Two writers at once on a recorded disk, and the model of what they were told was done.

    model = record(disk, tmp_path, seed=1)

Each writer has its own job and backs up images that have much in common and change at the same time, so
that each finds chunks and deltas which the other named a moment ago; `record` fails if that did not
happen. In between they forget, edit tags, expire and collect. All are real command lines; images and
their copies lie elsewhere, only the repository is on the recorded disk.

Limits: a seed gives the same images and commands, but not the same interleaving.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Self

from crashsite import Run, Runner, noise
from powercut_model import Deed, Kept, Model
from powercut_recorder import RecordedDisk
from powercut_server import LAZY

from backy.domain.chunkmap import Entry
from backy.domain.config import JobConfig, SourceConfig, default_schedule
from backy.ground.directory import Directory
from backy.ground.linux import PAGE
from backy.repository import history as histories
from backy.repository.maps import open_pinned
from backy.repository.repository import create, create_job

JOBS = ("vm", "other")
REPOSITORY = "backups"
CHUNK = 8 * PAGE
# Half a full chunk, or two small deltas.
BATCH = 4 * PAGE
# These chunks are the same in both images, and change by blocks.
_COMMON = 3
_FEWEST_SHARED = 2
_SERVER = Path(__file__).with_name("powercut_server.py")
_RESERVE = 1 << 20
_PATIENCE = 120
_REVISION = re.compile(r"revision ([0-9a-f-]{36}):")


class ChangedRunner(Runner):
    """The fork server with changes, as a context."""

    def __init__(self, *changes: str) -> None:
        self._changes = changes

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, str(_SERVER), *self._changes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200", "TZ": "UTC"},
        )
        return self


class Writer:
    """One job's operator: what they do, and what they are told."""

    def __init__(
        self, job: str, disk: RecordedDisk, image: Path, runner: Runner, model: Model, seed: int
    ) -> None:
        self._job = job
        self._disk = disk
        self._image = image
        self._runner = runner
        self._model = model
        self._random = Random(f"{seed} {job}")
        self._seed = seed
        # One collects, at most one at a time may; the other backs up more often instead.
        more = self.collect if job == JOBS[0] else self.backup
        deeds: list[Callable[[], None]] = [self.forget, self.tag, self.expire, self.verify, more, more]
        self._random.shuffle(deeds)
        self._deeds = cycle(deeds)

    def work(self, rounds: int, together: threading.Barrier) -> None:
        """In each round back up, at the same time as the other, and do something else."""
        try:
            for number in range(rounds):
                self._change(number)
                together.wait(_PATIENCE)
                self.backup()
                together.wait(_PATIENCE)
                next(self._deeds)()
        except BaseException:
            together.abort()
            raise

    def backup(self) -> None:
        """A revision of the image as it is now."""
        tags = self._random.choice(["daily", "daily,weekly", "manual:x"])
        run, deed = self._run("backup", tags)
        found = _REVISION.match(run.out)
        assert found is not None, run
        image = self._image.read_bytes()
        one = Kept(self._job, found[1], deed, image, frozenset(tags.split(",")))
        self._model.kept[one.uuid] = one

    def forget(self) -> None:
        """One that is not the newest."""
        for one in self._old():
            one.gone = self._run("forget", "-r", one.uuid)[1]

    def tag(self) -> None:
        """Another set of tags for one of them."""
        for one in self._old():
            tags = self._random.choice(["daily", "manual:y", "weekly,manual:x"])
            deed = self._run("tags", "set", "-r", one.uuid, tags)[1]
            one.tags.append((deed, frozenset(tags.split(","))))

    def expire(self) -> None:
        """One without tags goes."""
        for one in self._old():
            deed = self._run("tags", "set", "-r", one.uuid, "")[1]
            one.tags.append((deed, frozenset()))
            one.gone = self._run("expire")[1]

    def collect(self) -> None:
        """Nothing that the model knows changes."""
        self._run("gc", "--now", "--force")

    def verify(self) -> None:
        """Nor here, but records note that they were verified."""
        self._run("verify")

    def _old(self) -> Sequence[Kept]:
        mine = self._model.of(self._job)[:-1]
        return [self._random.choice(mine)] if mine else []

    def _run(self, *words: str) -> tuple[Run, Deed]:
        began = self._disk.position()
        base = self._disk.folder / REPOSITORY
        run = self._runner.run("-b", str(base / self._job), *words, batch_size=BATCH)
        done = self._disk.position()
        assert run.ended_well, run
        return run, Deed(began, done)

    def _change(self, number: int) -> None:
        """Some chunks and blocks are new to this job only, some come up in both jobs in this round."""
        image = bytearray(self._image.read_bytes())
        for _ in range(self._random.randrange(2, 5)):
            at = self._place(image)
            image[at : at + CHUNK] = _content(self._random)
            at = self._place(image) + self._random.randrange(CHUNK // PAGE) * PAGE
            image[at : at + PAGE] = self._random.randbytes(PAGE)
        for which in self._random.sample(range(6), 4):
            # Mostly what is new in this round, sometimes what both have forgotten by now.
            round_of = number if self._random.random() < 0.7 else self._random.randrange(number + 1)
            shared = noise(self._seed * 1000 + round_of * 10 + which, CHUNK)
            at = self._place(image)
            image[at : at + CHUNK] = shared
        both = Random(f"{self._seed} {number}")
        for block in both.sample(range(_COMMON * CHUNK // PAGE), 5):
            image[block * PAGE : (block + 1) * PAGE] = both.randbytes(PAGE)
        self._image.write_bytes(image)

    def _place(self, image: bytearray) -> int:
        """Offset of a chunk that is not common."""
        return self._random.randrange(_COMMON, len(image) // CHUNK) * CHUNK


def _content(random: Random) -> bytes:
    kind = random.choice(["noise", "text", "zeros"])
    if kind == "zeros":
        return bytes(CHUNK)
    return random.randbytes(CHUNK) if kind == "noise" else random.randbytes(1) * CHUNK


def record(
    disk: RecordedDisk, folder: Path, *, seed: int, rounds: int = 6, mutant: str | None = None
) -> Model:
    """Let both writers work that many rounds; a `mutant` is named as in powercut_server."""
    changes = () if mutant is None else (mutant,)
    base = disk.folder / REPOSITORY
    create(str(base), [], force=True, chunk_size=CHUNK, reserve_size=_RESERVE)
    images = {job: folder / f"{job}.raw" for job in JOBS}
    for job, image in images.items():
        image.write_bytes(noise(seed, 8 * CHUNK) + bytes(2 * CHUNK) + noise(seed + 1, 100))
        with Directory.open(str(base)) as opened:
            source = SourceConfig("file", {"filename": str(image)})
            create_job(opened, job, JobConfig(source, default_schedule()))
    model = Model(disk.position())
    together = threading.Barrier(len(JOBS))
    with (
        ChangedRunner(*changes) as direct,
        ChangedRunner(LAZY, *changes) as lazy,
        ThreadPoolExecutor(len(JOBS)) as pool,
    ):
        runners = (direct, lazy) if seed % 2 else (lazy, direct)
        working = [
            pool.submit(Writer(job, disk, images[job], runner, model, seed).work, rounds, together)
            for job, runner in zip(JOBS, runners, strict=True)
        ]
        for one in working:
            one.result()
    mine, others = (_deltas(base, job) for job in JOBS)
    assert len(mine & others) >= _FEWEST_SHARED, "the writers have found too few of each other's deltas"
    return model


def _deltas(base: Path, job: str) -> set[Entry]:
    """The deltas that a job's revisions lean on."""
    found = set()
    with Directory.open(str(base / job)) as directory:
        for revision in histories.load(directory).revisions:
            with open_pinned(directory, revision.uuid, revision.maps[0]) as reader:
                found |= {entry for _, entry in reader.used() if entry.base is not None}
    return found
