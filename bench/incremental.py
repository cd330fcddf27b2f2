"""Incremental backups: hints on XFS against borg, a huge image, fragments, thirty days of deltas.

usage: python bench/incremental.py [--days-size MIB] [--work DIR]        (as root: it mounts an XFS)

Uses the images that bench/run.py has built, and borg where bench/peers.sh has installed it. Writes
bench/INCREMENTAL.md. Nothing here is a test: the figures are the machine's.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import machine
from measure import Sample, measure, read_into_cache
from peers import Borg
from run import DAYS, fresh, say
from scale import same_data
from tool import Backy, Revision

HERE = Path(__file__).resolve().parent
BLOCK = 4096
MIB = 1 << 20
GIB = 1 << 30
SEED = 20261101
REPEATS = 3
FRAGMENTS = 100_000
DAYS_RUN = 30
HUGE = 400 * GIB


class Row(NamedTuple):
    """A goal (limit None: only told), and what was measured."""

    what: str
    measured: float
    limit: float | None = None
    unit: str = ""

    @property
    def mark(self) -> str:
        """Whether the goal was met."""
        if self.limit is None:
            return ""
        return "pass" if self.measured <= self.limit else "MISS"


def main() -> int:
    """Measure all and write the report."""
    options = parse_options()
    work: Path = fresh(options.work.resolve() / "incremental")
    images = options.work.resolve() / "images"
    backy = Path(sys.executable).parent / "backy"
    borg = options.work.resolve() / "peers" / "bin" / "borg"
    rows: list[Row] = []
    try:
        if all((images / day).is_file() for day in DAYS):
            with xfs(work) as volumes:
                rows += list(hinted(backy, borg if borg.is_file() else None, images, volumes, work))
                rows += list(fragmented(backy, volumes, work))
                rows += list(huge(backy, volumes, work))
        else:
            say("no images: run bench/run.py first; the parts on XFS are left out")
        rows += list(thirty_days(backy, options.days_size * MIB, work))
    finally:
        shutil.rmtree(work)
    report = render(rows, options.days_size, machine.facts(options.work.resolve()))
    (HERE / "INCREMENTAL.md").write_text(report)
    print(report)
    return 0


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure incremental backups.")
    parser.add_argument("--days-size", type=int, default=10240, help="MiB of the image of thirty days")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder for all files")
    return parser.parse_args()


@contextmanager
def xfs(work: Path) -> Iterator[Path]:
    """A mounted XFS with reflinks, on a sparse file."""
    disk, folder = work / "xfs.img", work / "xfs"
    with disk.open("wb") as file:
        file.truncate(40 * GIB)
    folder.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        disk.unlink()


class Job(Backy):
    """A job on one image that stays where it is."""

    def __init__(self, program: Path, folder: Path, image: Path) -> None:
        super().__init__(program, folder)
        self.image = image
        measure(self.job("init", "file", image), self.log)

    def back_up(self, *options: str) -> tuple[Sample, dict[str, Any]]:
        """One backup: its cost, and its record."""
        sample = measure(self.job("-q", "backup", *options, "daily"), self.log)
        return sample, self.record()

    def record(self) -> dict[str, Any]:
        """The newest record."""
        command = self.job("log", "--json", "-r", "latest")
        done = subprocess.run(
            command.arguments, env=command.environment, capture_output=True, text=True, check=True
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found[0]

    def check(self, spec: str = "latest") -> Sample:
        """Restore a revision; the newest must be the image."""
        target = self.folder / "restored.raw"
        sample = measure(self.job("-q", "restore", "-r", spec, target), self.log)
        if spec == "latest" and not same_data(self.image, target):
            sys.exit("restored something else than the image")
        target.unlink()
        return sample


def hinted(backy: Path, borg: Path | None, images: Path, volumes: Path, work: Path) -> Iterator[Row]:
    """Day two, written into the image of day one where it differs, on XFS, against borg."""
    say("a day's changes on XFS, with clone and FIEMAP")
    image = volumes / "vm.raw"
    subprocess.run(["cp", "--sparse=always", images / DAYS[0], image], check=True)
    job = Job(backy, work / "hinted", image)
    job.back_up()
    unchanged = [job.back_up()[0].wall for _ in range(REPEATS)]
    yield Row("no change, 4 GiB in few extents: wall, median of three", median(unchanged), 0.4, "s")
    peer = None
    if borg is not None:
        peer = Borg(borg, work / "borg")
        peer.prepare()
        measure(peer.backup(Revision(image, 1)), peer.log)
    written = write_differences(image, images / DAYS[0], images / DAYS[1])
    read_into_cache(image, job.repository)
    sample, record = job.back_up()
    stats = record["stats"]
    since = record["reading"].get("since")
    yield Row("next day: read because of hints (1 yes, 0 no)", float(since is not None))
    yield Row("next day: blocks written, MiB", written / MIB)
    yield Row("next day: changed extents, MiB", stats["bytes_changed"] / MIB)
    wanted = stats["bytes_read"] - stats["bytes_audited"]
    yield Row("next day: read / changed extents", wanted / stats["bytes_changed"], 1.2)
    yield Row("next day: audit reads besides, MiB", stats["bytes_audited"] / MIB)
    yield Row("next day: stored, MiB", stats["bytes_written"] / MIB)
    yield Row("next day: wall", sample.wall, unit="s")
    if peer is not None:
        before = peer.stored_bytes()
        read_into_cache(image, peer.repository)
        other = measure(peer.backup(Revision(image, 2)), peer.log)
        yield Row("next day: wall of borg", other.wall, unit="s")
        yield Row("next day: wall / that of borg", sample.wall / other.wall, 0.15)
        stored = stats["bytes_written"] / (peer.stored_bytes() - before)
        yield Row("next day: stored / that of borg", stored, 0.2)
    unchanged = [job.back_up()[0].wall for _ in range(REPEATS)]
    yield Row("no change, the same after that day: extents", float(count_extents(image)))
    yield Row("no change, the same after that day: wall, median of three", median(unchanged), 0.4, "s")
    job.check()
    image.unlink()


def write_differences(image: Path, before: Path, after: Path) -> int:
    """Write the blocks of one day that differ from another's into an image: how many bytes."""
    written = 0
    with before.open("rb") as old, after.open("rb") as new, image.open("r+b") as file:
        size = os.fstat(new.fileno()).st_size
        for offset in range(0, size, MIB):
            ours, theirs = (os.pread(one.fileno(), MIB, offset) for one in (old, new))
            if ours == theirs:
                continue
            for at in range(0, len(theirs), BLOCK):
                if ours[at : at + BLOCK] != theirs[at : at + BLOCK]:
                    os.pwrite(file.fileno(), theirs[at : at + BLOCK], offset + at)
                    written += BLOCK
        os.fsync(file.fileno())
    return written


def fragmented(backy: Path, volumes: Path, work: Path) -> Iterator[Row]:
    """An image in 160,000 extents: scattered writes while a clone shares its blocks."""
    say(f"{FRAGMENTS} scattered writes")
    image = volumes / "fragments.raw"
    draw = random.Random(SEED)
    with image.open("wb") as file:
        for _ in range(1792):
            file.write(draw.randbytes(MIB))
    job = Job(backy, work / "fragments", image)
    job.back_up()
    blocks = draw.sample(range(image.stat().st_size // BLOCK), FRAGMENTS)
    write_noise(image, blocks, draw)
    job.back_up()
    write_noise(image, blocks[:2000], draw)
    _, record = job.back_up()
    seconds = record["stats"]["seconds"]
    yield Row("fragments: extents of the image", float(count_extents(image)))
    yield Row("fragments: FICLONE", seconds["snapshot"], unit="s")
    yield Row("fragments: comparison", seconds["compare"], 3.0, "s")
    yield Row("fragments: changed extents, MiB", record["stats"]["bytes_changed"] / MIB)
    job.check()
    image.unlink()


def write_noise(image: Path, blocks: list[int], draw: random.Random) -> None:
    """Write noise into blocks."""
    with image.open("r+b", buffering=0) as file:
        for block in blocks:
            os.pwrite(file.fileno(), draw.randbytes(BLOCK), block * BLOCK)
        os.fsync(file.fileno())


def count_extents(image: Path) -> int:
    """As filefrag(8) counts them."""
    done = subprocess.run(["filefrag", image], capture_output=True, text=True, check=True)
    return int(done.stdout.rsplit(":", 1)[1].split()[0])


def huge(backy: Path, volumes: Path, work: Path) -> Iterator[Row]:
    """A sparse image of 400 GiB with 1 GiB of data, unchanged."""
    say("400 GiB, sparse, no change")
    image = volumes / "huge.raw"
    draw = random.Random(SEED)
    with image.open("wb") as file:
        file.truncate(HUGE)
        for number in range(256):
            file.seek(number * (HUGE // 256))
            file.write(draw.randbytes(4 * MIB))
    job = Job(backy, work / "huge", image)
    job.back_up()
    unchanged = [job.back_up()[0] for _ in range(REPEATS)]
    wall = median(sample.wall for sample in unchanged)
    yield Row("no change, 400 GiB sparse: wall, median of three", wall, 0.4, "s")
    peak = max(sample.peak for sample in unchanged) / MIB
    yield Row("no change, 400 GiB sparse: peak memory, MiB", peak, 200)
    image.unlink()


def thirty_days(backy: Path, size: int, work: Path) -> Iterator[Row]:
    """1 % of the blocks written anew each day, scattered, with noise: with deltas and without."""
    image = work / "days.raw"
    say("full backups, with deltas and without")
    yield full_cost(backy, image, size, work / "full")
    say(f"thirty days of 1 % on {size // MIB} MiB, with deltas")
    stored, (first, last) = run_days(backy, image, size, work / "auto", "auto", lambda _: None)
    yield Row("thirty days: stored with deltas, MiB", stored / MIB)
    say("the same without deltas; old revisions go, for want of space")
    whole, _ = run_days(backy, image, size, work / "off", "off", collect)
    yield Row("thirty days: stored without, MiB", whole / MIB)
    yield Row("thirty days: with deltas / without", stored / whole, 0.2)
    yield Row("thirty days: restore of the last day / of the first", last.wall / first.wall, 1.3)


def full_cost(backy: Path, image: Path, size: int, folder: Path) -> Row:
    """Of first backups, in turn: deltas must cost nothing where there is nothing to lean on."""
    write_image(image, min(size, GIB), random.Random(SEED))
    costs: dict[str, list[float]] = {"auto": [], "off": []}
    for _ in range(REPEATS):
        for delta, found in costs.items():
            job = Job(backy, folder, image)
            found.append(job.back_up("--delta", delta)[0].cpu)
            shutil.rmtree(folder)
    image.unlink()
    ratio = median(costs["auto"]) / median(costs["off"])
    return Row("full backup: CPU with deltas / without, medians of three", ratio, 1.05)


def write_image(image: Path, size: int, draw: random.Random) -> None:
    """Noise."""
    with image.open("wb") as file:
        for _ in range(size // MIB):
            file.write(draw.randbytes(MIB))


def run_days(
    backy: Path, image: Path, size: int, folder: Path, delta: str, after: Callable[[Job], None]
) -> tuple[int, tuple[Sample, Sample]]:
    """All days: bytes stored in all of them; restores of the first and the last."""
    draw = random.Random(SEED)
    write_image(image, size, draw)
    job = Job(backy, folder, image)
    stored = job.back_up("--delta", delta)[1]["stats"]["bytes_written"]
    for _ in range(DAYS_RUN - 1):
        count = size // BLOCK // 100
        write_noise(image, draw.sample(range(size // BLOCK), count), draw)
        stored += job.back_up("--delta", delta)[1]["stats"]["bytes_written"]
        after(job)
    restores = job.check("first"), job.check()
    shutil.rmtree(folder)
    image.unlink()
    return stored, restores


def collect(job: Job) -> None:
    """Forget all but the newest revision, and give its space back."""
    if len(list((job.repository / "vm").glob("*.rev"))) > 1:
        measure(job.job("-q", "forget", "--yes", "-r", "not(latest)"), job.log)
    measure(job.command("-q", "-b", job.repository, "gc", "--now", "--force"), job.log)


def render(rows: list[Row], days_size: int, facts: dict[str, str]) -> str:
    """The report."""
    lines = [
        "# Incremental backups: results",
        "",
        "Written by `bench/incremental.py`; what it does stands there.",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        f"| image of thirty days | {days_size} MiB, seed {SEED} |",
        "",
        "| | measured | goal | |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        goal = "" if row.limit is None else f"<= {row.limit:g}{unit}"
        lines.append(f"| {row.what} | {row.measured:.2f}{unit} | {goal} | {row.mark} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
