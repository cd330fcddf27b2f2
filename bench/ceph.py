"""Images in Ceph: backups against `rbd export` and `export-diff`, a restore against `rbd import`.

usage: PYTHONPATH=tests:bench python bench/ceph.py [--size MIB] [--fill SHARE] [--work DIR]

Starts a cluster of one monitor and one OSD on this machine (as the tests do, so it needs what they
need), and writes bench/CEPH.md. Nothing here is a test: the figures are the machine's, which is client,
cluster and disk in one.

A share of the image's objects is full, half with noise, half with text; the others do not exist. What
the tools of Ceph read goes through a pipe to nothing. Each figure is the median of three, and what is
compared runs one after the other.
"""

import argparse
import os
import random
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import cephcluster
import machine
from backy.ground.rbd import Pool
from cephcluster import CephCluster
from incremental import BLOCK, GIB, MIB, Row
from measure import Command, Sample, measure, read_into_cache
from run import fresh, say
from scale import same_data
from tool import Backy

HERE = Path(__file__).resolve().parent
SEED = 20261125
OBJECT = 4 * MIB
REPEATS = 3
CHANGED = 0.01
HOT = 0.05
THREADS = 4


class Site:
    """An image in a pool, the same as a raw file, and where everything is."""

    def __init__(self, cluster: CephCluster, pool: Pool, work: Path, size: int, fill: float) -> None:
        self.cluster = cluster
        self.pool = pool
        self.work = work
        self.raw = work / "image.raw"
        self.size = size
        self.log = work / "log"
        self.draw = random.Random(SEED)
        objects = list(range(size // OBJECT))
        self.full = sorted(self.draw.sample(objects, round(len(objects) * fill)))

    @property
    def environment(self) -> dict[str, str]:
        """What all commands see: the cluster's configuration, and Ceph's modules."""
        names = {"CEPH_CONF": str(self.cluster.conf), "PYTHONPATH": str(self.cluster.modules)}
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.work), **names}

    def make(self) -> None:
        """Write the raw file, and import it."""
        text = "".join(chr(self.draw.randrange(97, 123)) for _ in range(5000)).encode()
        with self.raw.open("wb") as file:
            file.truncate(self.size)
            for number in self.full:
                file.seek(number * OBJECT)
                noise = self.draw.randbytes(OBJECT // 2)
                words = b"".join(text[self.draw.randrange(4000) :] for _ in range(OBJECT // 2 // 500))
                file.write(noise + words[: OBJECT // 2])
        self.rbd("import", str(self.raw), f"{self.pool.name}/vm")

    def rbd(self, *words: str) -> Sample:
        """A command of Ceph's."""
        return self.shell(f"rbd {' '.join(words)} --no-progress")

    def piped(self, *words: str) -> Sample:
        """The same, its output through a pipe to nothing."""
        return self.shell(f"rbd {' '.join(words)} - --no-progress | cat >/dev/null")

    def shell(self, line: str) -> Sample:
        """A command line of bash, which fails if any part of it does."""
        words = ("bash", "-o", "pipefail", "-c", line)
        return measure(Command(words, self.work, self.environment), self.log)

    def change(self, objects: list[int]) -> None:
        """Write noise into 1 % of the image's 4 KiB blocks, all of them in these objects."""
        blocks = [number * OBJECT // BLOCK + one for number in objects for one in range(OBJECT // BLOCK)]
        count = min(round(self.size // BLOCK * CHANGED), len(blocks))
        changes = [(one * BLOCK, self.draw.randbytes(BLOCK)) for one in self.draw.sample(blocks, count)]
        with (
            self.pool.image("vm", read_only=False) as image,
            ThreadPoolExecutor(THREADS) as threads,
            self.raw.open("r+b") as file,
        ):
            list(threads.map(lambda one: image.write(one[1], one[0]), changes))
            image.flush()
            for offset, content in changes:
                os.pwrite(file.fileno(), content, offset)


class Job(Backy):
    """A job on the image in Ceph."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        super().__init__(Path(sys.executable).parent / "backy", folder)
        measure(self.job("init", "rbd", f"{site.pool.name}/vm"), self.log)

    def environment(self) -> dict[str, str]:
        """Of all tools here."""
        return {**super().environment(), **self.site.environment}

    def back_up(self) -> Sample:
        """One backup."""
        return measure(self.job("-q", "backup", "daily"), self.log)


def main() -> int:
    """Measure all and write the report."""
    options = parse_options()
    work: Path = fresh(options.work.resolve() / "ceph")
    folder = work / "cluster"
    folder.mkdir()
    if why := cephcluster.missing():
        sys.exit(f"no cluster can be started: {why}")
    rows = []
    try:
        with cephcluster.running(folder) as cluster, cluster.pool() as pool:
            site = Site(cluster, pool, work, options.size * MIB, options.fill)
            say("the image")
            site.make()
            rows += list(backups(site))
            rows += list(restores(site))
    finally:
        shutil.rmtree(work)
    report = render(rows, options, machine.facts(options.work.resolve()))
    (HERE / "CEPH.md").write_text(report)
    print(report)
    return 0


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure backups of and restores to Ceph.")
    parser.add_argument("--size", type=int, default=4096, help="MiB of the image")
    parser.add_argument("--fill", type=float, default=0.5, help="share of its objects that exist")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder for all files")
    return parser.parse_args()


def backups(site: Site) -> Iterator[Row]:
    """Full, incremental, and without a change."""
    image = f"{site.pool.name}/vm"
    say("full backups, and exports of the same")
    site.rbd("snap create", f"{image}@full")
    site.piped("export", f"{image}@full")  # the OSD's cache is warm for all
    ours, theirs = [], []
    for number in range(REPEATS):
        theirs.append(site.piped("export", f"{image}@full"))
        job = Job(site, site.work / f"full{number}")
        ours.append(job.back_up())
        if number < REPEATS - 1:
            shutil.rmtree(job.folder)
    site.rbd("snap rm", f"{image}@full")
    yield from compared("full backup", ours, "rbd export", theirs, 1.6)
    yield Row("full backup: peak memory, MiB", max(one.peak for one in ours) / MIB, 200)
    hot = site.full[: max(round(len(site.full) * HOT), 1)]
    for what, objects, limit in (
        ("1 % changed", site.full, 1.5),
        ("1 % changed within a few objects", hot, None),
    ):
        say(what)
        ours, theirs = [], []
        for _ in range(REPEATS):
            # Ours first, so that no snapshot is older: with several, more is asked (rbd_changes.py).
            job.back_up()
            site.rbd("snap create", f"{image}@before")
            site.change(objects)
            site.rbd("snap create", f"{image}@after")
            theirs.append(site.piped("export-diff --from-snap before", f"{image}@after"))
            ours.append(job.back_up())
            for name in ("before", "after"):
                site.rbd("snap rm", f"{image}@{name}")
        yield from compared(what, ours, "rbd export-diff", theirs, limit)
    say("no change")
    yield Row("no change: wall", median(job.back_up().wall for _ in range(REPEATS)), 1, "s")


def restores(site: Site) -> Iterator[Row]:
    """To a new image, over an old one, and through a pipe."""
    say("restores, and imports of the same")
    job = Job(site, site.work / "restored")
    job.back_up()
    read_into_cache(site.raw, job.repository)
    names: dict[str, list[Sample]] = {"theirs": [], "ours": [], "old": [], "pipe": []}
    pool = site.pool.name
    for _ in range(REPEATS):
        names["theirs"].append(site.rbd("import", str(site.raw), f"{pool}/theirs"))
        names["ours"].append(measure(job.job("-q", "restore", f"rbd:{pool}/ours"), job.log))
        over = job.job("-q", "restore", "--overwrite", f"rbd:{pool}/ours")
        names["old"].append(measure(over, job.log))
        backy = " ".join(job.job("-q", "restore", "-").arguments)
        names["pipe"].append(site.shell(f"{backy} | rbd import --no-progress - {pool}/pipe"))
        check(site, "ours")
        for name in ("theirs", "ours", "pipe"):
            site.rbd("rm", f"{pool}/{name}")
    yield from compared("restore", names["ours"], "rbd import", names["theirs"], 1.25)
    for what, key in (("restore over the old image", "old"), ("restore - | rbd import -", "pipe")):
        yield Row(f"{what}: wall", median(one.wall for one in names[key]), None, "s")


def check(site: Site, name: str) -> None:
    """The restored image is what the raw file is."""
    target = site.work / "exported.raw"
    site.rbd("export", f"{site.pool.name}/{name}", str(target))
    if not same_data(site.raw, target):
        sys.exit("restored something else than the image")
    target.unlink()


def compared(
    what: str, ours: list[Sample], whom: str, theirs: list[Sample], limit: float | None
) -> Iterator[Row]:
    """Both, and the median of the ratios."""
    yield Row(f"{what}: wall", median(one.wall for one in ours), None, "s")
    yield Row(f"{what}: wall of {whom}", median(one.wall for one in theirs), None, "s")
    ratio = median(one.wall / other.wall for one, other in zip(ours, theirs, strict=True))
    yield Row(f"{what}: wall / that of {whom}", ratio, limit)
    yield Row(f"{what}: cores used by others", max(one.others for one in (*ours, *theirs)))


def render(rows: list[Row], options: argparse.Namespace, facts: dict[str, str]) -> str:
    """The report."""
    lines = [
        "# Images in Ceph: results",
        "",
        "Written by `bench/ceph.py`; what it does stands there.",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        f"| image | {options.size / (GIB // MIB):g} GiB, {options.fill:.0%} of it data, seed {SEED} |",
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
