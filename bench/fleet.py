"""The scheduler with 10,000 jobs of 30 revisions: how long it takes to start, decide, reload, check.

usage: python bench/fleet.py [--jobs N] [--work DIR]

Prints one line a figure with its goal. The repository is made of real records and maps' names in DIR
(bench/work/fleet by default), and removed again.

Limits: no backups run; figures of a warm cache.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from backy.daemon.notify import Notifier
from backy.daemon.service import Service
from backy.domain.config import render_job
from backy.domain.revision import MapDigest, Origin, Revision, SourceIdentity, Stats, serialise
from backy.domain.settings import Settings, parse_settings
from backy.ground.clock import SystemClock
from backy.repository.repository import Repository, create

REVISIONS = 30
HERE = Path(__file__).resolve().parent


class Silence:
    """A log that keeps nothing."""

    def info(self, event: str, **fields: object) -> None:
        """See `service.Log`."""

    def warning(self, event: str, **fields: object) -> None:
        """See `service.Log`."""

    def error(self, event: str, **fields: object) -> None:
        """See `service.Log`."""
        print(event, fields)


def configuration(base: Path, jobs: int, keep: int = 10) -> str:
    """A file with so many jobs in the style of a deployment tool."""
    head = f"global: {{base-dir: {base}, worker-limit: 3}}\napi: {{port: 16024}}\n"
    tags = f"daily: {{interval: 1d, keep: {keep}}}, weekly: {{interval: 7d, keep: 4}}"
    head += f"schedules: {{default: {{{tags}}}}}\n"
    source = "source: {type: file, filename: /srv/images/vm.raw}"
    return (
        head + "jobs:\n" + "".join(f"  vm{n:05}: {{schedule: default, {source}}}\n" for n in range(jobs))
    )


def build(base: Path, settings: Settings) -> None:
    """The repository of these jobs: one good revision a day, the newest of an hour ago."""
    base.mkdir(parents=True)
    create(str(base), [], force=True, reserve_size=0)
    now = datetime.now(UTC) - timedelta(hours=1)
    for number, (name, job) in enumerate(settings.jobs.items()):
        folder = base / name
        folder.mkdir()
        (folder / "config").write_text(render_job(job))
        for lock in (".history", ".backup"):
            (folder / lock).touch()
        for day in range(REVISIONS):
            uuid = str(UUID(int=number * 1000 + day, version=4))
            revision = Revision(
                uuid=uuid,
                taken_at=now - timedelta(days=day),
                tags={"daily": Origin.SCHEDULE, "weekly": Origin.SCHEDULE},
                maps=(MapDigest(disk="", size=4096, root="00" * 32, image_size=1 << 30),),
                source=SourceIdentity(type="file", path="/srv/images/vm.raw", size=1 << 30),
                stats=Stats(duration=30.0, bytes_read=1 << 30, bytes_written=1 << 24),
            )
            (folder / f"{uuid}.rev").write_bytes(serialise(revision))
            (folder / f"{uuid}.map").touch()


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def rewrite(config: Path, text: str) -> None:
    """An operator changes every job's schedule."""
    config.write_text(text)


def tell(what: str, value: float, limit: float, unit: str) -> None:
    """One figure and its goal."""
    verdict = "pass" if value < limit else "MISS"
    print(f"{what:<34} {value:8.2f} {unit:<4} (< {limit} {unit}: {verdict})", flush=True)


def measure(base: Path, jobs: int, config: Path) -> None:
    """Start, decide, reload in this process; check in one of its own."""
    started = time.monotonic()
    settings = parse_settings(config.read_text(), str(config))
    with Repository.open(str(base)) as repository:

        async def run() -> None:
            """In a loop, as the daemon runs."""
            service = Service(
                settings,
                lambda: parse_settings(config.read_text(), str(config)),
                repository,
                SystemClock(),
                Silence(),
                Notifier(),
            )
            service.round()
            tell("start-up to the first decision", time.monotonic() - started, 10, "s")
            before = time.process_time()
            service.round()
            tell("a decision round, nothing due", time.process_time() - before, 0.2, "s")
            for name in service.jobs:
                service.request(name)
            before = time.process_time()
            assert service.round()
            tell("a decision round, all due", time.process_time() - before, 0.2, "s")
            rewrite(config, configuration(base, jobs, keep=11))
            before_reload = time.monotonic()
            service.reload()
            tell("reload, every job changed", time.monotonic() - before_reload, 10, "s")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            tell("memory, peak", peak, 500, "MiB")

        asyncio.run(run())
    before = time.monotonic()
    command = [sys.executable, "-m", "backy", "-c", str(config), "check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    tell("backy check", time.monotonic() - before, 10, "s")
    print(done.stdout.splitlines()[0], done.stderr)


def main() -> None:
    """Build, measure, remove."""
    parser = argparse.ArgumentParser(description="The scheduler with many jobs.")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--work", type=Path, default=HERE / "work" / "fleet")
    options = parser.parse_args()
    with temporary(options.work) as work:
        base, config = work / "base", work / "backy.conf"
        text = configuration(base, options.jobs)
        settings = parse_settings(text, str(config))
        print(f"{options.jobs} jobs with {REVISIONS} revisions each, {os.cpu_count()} cores", flush=True)
        build(base, settings)
        config.write_text(text)
        measure(base, options.jobs, config)


if __name__ == "__main__":
    main()
