"""One of the processes of the soak: does at random what backy can, on jobs of all, until it is ended.

    python soak_worker.py FOLDER NUMBER SEED        ends when FOLDER/stop is there, or after --acts N

Each process writes the images of its own jobs only, and before a backup of one notes what the new
revision must hold by its size and BLAKE3; any process restores and verifies any of them. At its end it
prints a JSON object: how often each act was done, what was refused for a reason that is none of ours,
errors, and samples of resident memory and open descriptors.

Limits: runs the operations in this process, so that what leaks adds up.
"""

import argparse
import json
import os
import random
import time
import traceback
from collections import Counter
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from blake3 import blake3

from backy.domain.chunk import parse_codec
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import TagPolicy
from backy.domain.retention import plan_expiry
from backy.domain.revision import Origin, Revision
from backy.ground.clock import SystemClock
from backy.ground.errors import BackyError, CollectorBusy, RevisionGone
from backy.operation.backup import Coding, backup
from backy.operation.collect import collect
from backy.operation.expire import execute_expiry
from backy.operation.progress import NoProgress
from backy.operation.restore import restore
from backy.operation.verify import Selected, verify
from backy.repository import history as histories
from backy.repository.repository import Job, Repository
from backy.source.file import FileSource
from backy.source.group import Group
from backy.target.registry import find_target

JOBS = 20
PROCESSES = 4
MOST = 8  # revisions of a job, since those that operators have tagged do not expire
CHUNK = 4096
SCHEDULE = {"daily": TagPolicy(1, 3)}  # three revisions, and all of the last three seconds
ACTS = ("backup",) * 6 + ("expire",) * 2 + ("restore",) * 3 + ("verify", "gc", "forget", "tags")


class _NothingThereError(Exception):
    """The job has no revision."""


class Worker:
    """See the module's docstring."""

    def __init__(self, folder: Path, number: int, seed: int) -> None:
        self._folder = folder
        self._number = number
        self._random = random.Random(seed)
        self._clock = SystemClock()
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.samples: list[tuple[float, int, int]] = []  # seconds, resident bytes, descriptors
        self._begun = time.monotonic()

    def run(self, acts: int) -> None:
        """Act until told to stop."""
        while sum(self.done.values()) < acts and not (self._folder / "stop").exists():
            act = self._random.choice(ACTS)
            try:
                with Repository.open(str(self._folder / "backups")) as repository:
                    getattr(self, f"_{act}")(repository)
                self.done[act] += 1
            except CollectorBusy:
                self.done["gc beside another"] += 1
            except (RevisionGone, _NothingThereError):
                self.done[f"{act} of what is not there, or no more"] += 1
            except (BackyError, AssertionError, OSError):
                self.errors.append(f"{act}: {traceback.format_exc()}")
                return
            self._sample()

    def _backup(self, repository: Repository) -> None:
        """Change an image of ours, note it, back it up, and forget what is beyond keep later."""
        name = f"vm{self._number + PROCESSES * self._random.randrange(JOBS // PROCESSES)}"
        image = self._folder / f"{name}.raw"
        content = bytearray(image.read_bytes())
        for _ in range(self._random.randrange(6)):
            at = self._random.randrange(len(content) // CHUNK) * CHUNK
            seed = self._random.choice([0, self._random.randrange(40)])  # chunks that others have too
            content[at : at + CHUNK] = random.Random(seed).randbytes(CHUNK) if seed else bytes(CHUNK)
        image.write_bytes(content)
        with repository.job(name) as job:
            revision = backup(
                repository,
                job,
                Group({NO_DISK: FileSource(str(image))}),
                {"daily": Origin.SCHEDULE},
                Coding(parse_codec("lz4")),
                self._clock,
                NoProgress(),
            )
        new = self._folder / "notes" / f"{revision.uuid}.new"
        new.write_text(blake3(content).hexdigest())
        new.rename(new.with_suffix(""))

    def _expire(self, repository: Repository) -> None:
        with self._job(repository) as job:
            history = histories.load(job.directory)
            planner = partial(plan_expiry, schedule=SCHEDULE, now=self._clock.now())
            execute_expiry(job, planner(history.revisions), planner)

    def _restore(self, repository: Repository) -> None:
        with self._job(repository) as job:
            revision = self._pick(job)
            target = self._folder / f"out-{self._number}.raw"
            target.unlink(missing_ok=True)
            to = find_target(str(target), -1)
            restore(repository, job, revision, to, NoProgress(), keep_going=False, read_back=False)
            note = self._folder / "notes" / revision.uuid
            if note.exists():  # else it was committed a moment ago
                assert note.read_text() == blake3(target.read_bytes()).hexdigest(), revision.uuid

    def _verify(self, repository: Repository) -> None:
        with self._job(repository) as job:
            history = histories.load(job.directory)
            assert ((), ()) == (history.unreadable, history.lost)
            found = verify(
                repository, [Selected(job.name, history, history.revisions)], NoProgress(), quick=False
            )
            assert () == tuple(found.findings), found

    def _gc(self, repository: Repository) -> None:
        waive = self._random.random() < 0.7
        collect(repository, self._clock, NoProgress(), waive_grace=waive, force=True)

    def _forget(self, repository: Repository) -> None:
        with self._job(repository) as job:
            found = len(histories.load(job.directory).revisions)
            for _ in range(max(found - MOST, int(found > 2))):
                histories.forget(job.directory, self._pick(job).uuid)

    def _tags(self, repository: Repository) -> None:
        with self._job(repository) as job:
            tag = f"manual:{self._random.randrange(3)}"

            def turned(revision: Revision) -> Revision:
                kept = {name: origin for name, origin in revision.tags.items() if name != tag}
                added = {} if tag in revision.tags else {tag: Origin.MANUAL}
                return revision.with_tags({**kept, **added} or {"daily": Origin.SCHEDULE})

            histories.edit(job.directory, self._pick(job).uuid, turned)

    def _job(self, repository: Repository) -> AbstractContextManager[Job]:
        return repository.job(f"vm{self._random.randrange(JOBS)}")

    def _pick(self, job: Job) -> Revision:
        revisions = histories.load(job.directory).revisions
        if not revisions:
            raise _NothingThereError
        return self._random.choice(revisions)

    def _sample(self) -> None:
        now = time.monotonic() - self._begun
        if self.samples and now - self.samples[-1][0] < 1:
            return
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = len(os.listdir("/proc/self/fd"))
        self.samples.append((now, resident, descriptors))


def main() -> None:
    """Act, and print what was done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--acts", type=int, default=1 << 60)
    options = parser.parse_args()
    worker = Worker(options.folder, options.number, options.seed)
    worker.run(options.acts)
    found = {"done": worker.done, "errors": worker.errors, "samples": worker.samples}
    print(json.dumps(found))  # noqa: T201 - a script's answer


if __name__ == "__main__":
    main()
