"""A repository with one job on a real file, as the tests of everything above the ground need it.

    site = Site(tmp_path); revision = site.backup(); site.restored(revision)

Small chunks (4 KiB) make a few hundred bytes of Python exercise what 4 MiB chunks do; the command
line is run as a real process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from backy.domain.chunk import parse_codec
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import JobConfig, SourceConfig, SourcesConfig, default_schedule
from backy.domain.revision import Origin, Revision
from backy.ground.clock import Clock, SystemClock
from backy.ground.directory import Directory
from backy.operation.backup import Coding, backup
from backy.operation.progress import NoProgress
from backy.operation.restore import BadRange, restore
from backy.operation.trust import conclude
from backy.operation.verify import Result, Selected, verify
from backy.repository import history as histories
from backy.repository.history import History
from backy.repository.layout import chunk_name
from backy.repository.maps import open_pinned
from backy.repository.repository import Repository, create, create_job
from backy.source.base import Source
from backy.source.group import Group
from backy.source.registry import open_group
from backy.target.base import Target
from backy.target.registry import find_target

CHUNK = 4096


class Site:
    """A repository `base` with the job `vm` on the image file `image`."""

    def __init__(self, folder: Path, *, chunk_size: int = CHUNK) -> None:
        self.folder = folder
        self.base = folder / "backups"
        self.job = self.base / "vm"
        self.chunks = self.base / "chunks"
        self.image = folder / "image.raw"
        self.delta = True
        self.codec = "lz4"
        self.clock: Clock = SystemClock()
        self.image.touch()
        create(str(self.base), [], force=True, chunk_size=chunk_size, reserve_size=0)
        self.add_job("vm", self.image)

    def add_job(self, name: str, image: Path) -> None:
        """Another job of the same repository."""
        source = SourceConfig("file", {"filename": str(image), "clone": "off"})
        with Directory.open(str(self.base)) as base:
            create_job(base, name, JobConfig(source, default_schedule()))

    def add_disks(
        self, name: str, images: Mapping[str, Path], *, clone: str = "off", **settings: str
    ) -> None:
        """Another job, of several disks; `settings` stand beside them."""
        disks = {
            disk: SourceConfig("file", {"filename": str(path), "clone": clone})
            for disk, path in images.items()
        }
        with Directory.open(str(self.base)) as base:
            create_job(base, name, JobConfig(SourcesConfig(disks, settings), default_schedule()))

    def backup(
        self,
        *,
        job: str = "vm",
        tag: str = "daily",
        source: Source | None = None,
        group: Group | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Revision:
        """Back up in this process; the job's image, or another source, or several."""
        with Repository.open(str(self.base)) as repository, repository.job(job) as opened:
            if source is not None:
                group = Group({NO_DISK: source})
            return backup(
                repository,
                opened,
                group or open_group(opened.config().source, opened.config_path, None),
                {tag: Origin.SCHEDULE},
                Coding(parse_codec(self.codec), self.delta),
                self.clock,
                NoProgress(),
                tell,
            )

    def restore(
        self,
        revision: Revision,
        target: Path,
        *,
        job: str = "vm",
        keep_going: bool = False,
        read_back: bool = False,
        disk: str | None = None,
    ) -> list[BadRange]:
        """Restore to a file or device in this process."""
        found = find_target(str(target), -1)
        return self.restore_to(
            revision, found, job=job, keep_going=keep_going, read_back=read_back, disk=disk
        )

    def restore_to(
        self,
        revision: Revision,
        target: Target,
        *,
        job: str = "vm",
        keep_going: bool = False,
        read_back: bool = False,
        disk: str | None = None,
    ) -> list[BadRange]:
        """Restore to any target in this process."""
        with Repository.open(str(self.base)) as repository, repository.job(job) as opened:
            return restore(
                repository,
                opened,
                revision,
                target,
                NoProgress(),
                keep_going=keep_going,
                read_back=read_back,
                disk=disk,
            )

    def restored(self, revision: Revision, *, job: str = "vm", disk: str | None = None) -> bytes:
        """The image of a revision, or of one of its disks."""
        target = self.folder / "restored.raw"
        target.unlink(missing_ok=True)
        self.restore(revision, target, job=job, disk=disk)
        return target.read_bytes()

    def verify(self, *, job: str = "vm", quick: bool = False) -> Result:
        """Verify all revisions of a job in this process."""
        with Repository.open(str(self.base)) as repository, repository.job(job) as opened:
            history = histories.load(opened.directory)
            selected = Selected(opened.name, history, history.revisions)
            return verify(repository, [selected], NoProgress(), quick=quick)

    def concluded(self, *jobs: str, quick: bool = False) -> Result:
        """As the command: verify all of some jobs, move bad chunks aside, and mark whom they hurt."""
        with ExitStack() as stack:
            repository = stack.enter_context(Repository.open(str(self.base)))
            selection = []
            for name in jobs or ("vm",):
                job = stack.enter_context(repository.job(name))
                history = histories.load(job.directory)
                selection.append(Selected(job.name, history, history.revisions))
            result = verify(repository, selection, NoProgress(), quick=quick)
            assert conclude(repository, selection, result, self.clock, quick=quick).failed is None
            return result

    def history(self, *, job: str = "vm") -> History:
        """The job's history."""
        with Directory.open(str(self.base / job)) as directory:
            return histories.load(directory)

    def chunks_of(self, revision: Revision, *, job: str = "vm") -> set[str]:
        """Names of the chunk files that a revision needs."""
        with Directory.open(str(self.base / job)) as directory:
            names = set()
            for digest in revision.maps:
                with open_pinned(directory, revision.uuid, digest) as reader:
                    names |= {chunk_name(entry) for _, entry in reader.used()}
                    names |= {base.hex() for base in reader.bases}
            return names

    def chunk_files(self) -> list[Path]:
        """All chunk files of the store proper, sorted."""
        return sorted(self.chunks.glob("[0-9a-f][0-9a-f]/*"))

    def cli(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run `backy -b BASE/vm …`; see `run_backy`."""
        return run_backy("-b", str(self.job), *words, **options)


def run_backy(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a process of its own; never a traceback, never a negative exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "backy", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "TZ": "UTC"},
        timeout=120,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "internal error" not in done.stderr, done.stderr
    return done


def parsed(done: "subprocess.CompletedProcess[str]") -> Any:
    """The JSON that a command printed."""
    return json.loads(done.stdout)
