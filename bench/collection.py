"""How long and in how much memory garbage collection marks and walks a large store.

    python bench/collection.py --chunks 10000000 [--folder DIR]

Writes a repository of maps that name so many chunks, of their files, empty, since collection reads names
only, and of a ninth more files that no map names; then runs `backy gc` on it as a process of its own,
twice: the first run condemns these, the second what the marks of the first kept by chance. Writes
bench/COLLECTION.md.

Limits: needs an inode a chunk below DIR (default: bench/work); what it wrote is removed at the end.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import machine
from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import MAX_CHUNK, NO_DISK, Entry, Layout
from backy.domain.config import JobConfig, SourceConfig, default_schedule
from backy.domain.revision import Origin, Revision, SourceIdentity, Stats, serialise
from backy.ground import durable
from backy.ground.directory import Directory
from backy.repository.maps import MapWriter
from backy.repository.repository import create, create_job

IDS_A_MAP = 100_000
MOST_SECONDS = 120
MOST_MIB = 340


def write_job(base: str, number: int, ids: int) -> int:
    """One job, one revision of `ids` chunks, their files, a ninth more that nobody needs: how many."""
    name = f"vm{number}"
    with Directory.open(base) as opened:
        source = SourceConfig("file", {"filename": "/nowhere"})
        create_job(opened, name, JobConfig(source, default_schedule()))
        uuid = str(uuid4())
        image = Layout(MAX_CHUNK, ids * MAX_CHUNK)
        idents = os.urandom(32 * (ids + ids // 9))
        with opened.enter(name) as job:
            writer = MapWriter(job, uuid, NO_DISK, image)
            for index in range(ids):
                writer.expect(index)
                writer.set(index, Entry(ChunkId(idents[index * 32 : index * 32 + 32])))
            digest = writer.seal()
            writer.link()
            writer.close()
            revision = Revision(
                uuid=uuid,
                taken_at=datetime.now(UTC) - timedelta(hours=number),
                tags={"daily": Origin.SCHEDULE},
                maps=(digest,),
                source=SourceIdentity(type="file"),
                stats=Stats(),
            )
            durable.publish(job, f"{uuid}.rev", serialise(revision))
        for at in range(0, len(idents), 32):
            ident = idents[at : at + 32].hex()
            os.mknod(f"{base}/chunks/{ident[:2]}/{ident}", 0o440)
    return len(idents) // 32


class Run(NamedTuple):
    """Seconds, peak bytes and last line of one `backy gc`."""

    seconds: float
    peak: int
    said: str


def measured(base: str) -> Run:
    """Run `backy gc`."""
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "backy", "-b", base, "gc"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"gc ended with {process.returncode}")
    return Run(time.monotonic() - begun, usage.ru_maxrss * 1024, said.strip().splitlines()[-1])


def main() -> None:
    """Write the store, measure, remove it, write the report."""
    parser = argparse.ArgumentParser(description="Time garbage collection on a large store.")
    parser.add_argument("--chunks", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "work")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    base = options.folder / f"collection-{os.getpid()}"
    try:
        create(str(base), [], force=True, reserve_size=0)
        begun = time.monotonic()
        jobs = [
            (str(base), number, min(IDS_A_MAP, options.chunks - at))
            for number, at in enumerate(range(0, options.chunks, IDS_A_MAP))
        ]
        with multiprocessing.Pool(os.cpu_count()) as pool:
            names = sum(pool.starmap(write_job, jobs, chunksize=1))
        print(f"written in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        runs = [measured(str(base)) for _ in range(2)]
    finally:
        shutil.rmtree(base, ignore_errors=True)
    report = render(runs, options.chunks, names, machine.facts(options.folder))
    (Path(__file__).parent / "COLLECTION.md").write_text(report)
    print(report)


def render(runs: list[Run], ids: int, names: int, facts: dict[str, str]) -> str:
    """The report."""
    lines = [
        "# Garbage collection of a large store: results",
        "",
        "Written by `bench/collection.py`; what it does stands there.",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        f"| ids in maps | {ids:,} |",
        f"| names in the store | {names:,} |",
        "",
        f"| run | seconds (goal: {MOST_SECONDS}) | peak, MiB (goal: {MOST_MIB}) | it said |",
        "| --- | --- | --- | --- |",
    ]
    for number, run in enumerate(runs, start=1):
        lines.append(f"| {number} | {run.seconds:.1f} | {run.peak >> 20} | {run.said} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
