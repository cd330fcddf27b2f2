"""T11: four processes that do everything at once for twenty minutes: no error, nothing lost, no leak.

    pytest -m torture tests/crash/test_soak.py

What each of them does is in soak_worker.py.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from crashsite import noise
from soak_worker import CHUNK, JOBS, PROCESSES

from collecting import gc
from tally import Tally
from testsite import Site

pytestmark = pytest.mark.proof("T11")

SCRIPT = Path(__file__).with_name("soak_worker.py")
MINUTES = 20
PATIENCE = 120
# Bytes that a process may be larger at the end than a quarter of the time before.
SLACK = 4 << 20


def make_jobs(folder: Path) -> Site:
    """Twenty images of sixteen chunks, of which jobs share some."""
    site = Site(folder)
    (folder / "notes").mkdir()
    for number in range(JOBS):
        image = folder / f"vm{number}.raw"
        image.write_bytes(b"".join(noise((number + at) % 40 + 1, CHUNK) for at in range(16)))
        site.add_job(f"vm{number}", image)
    return site


def soak(site: Site, seed: int, *, seconds: float = math.inf, acts: int | None = None) -> list[Any]:
    """Let all processes run so long, or so many acts each; what each of them said."""
    limit = [] if acts is None else ["--acts", str(acts)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(site.folder), str(number), str(seed + number), *limit],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    if math.isfinite(seconds):
        time.sleep(seconds)
        (site.folder / "stop").touch()
    return [json.loads(one.communicate(timeout=PATIENCE)[0]) for one in processes]


def check_nothing_is_lost(site: Site) -> int:
    """Every revision is what was noted of it, and exactly what they need is left; how many there are."""
    for _ in range(2):
        gc(site, waive_grace=True)
    needed: set[str] = set()
    revisions = 0
    for number in range(JOBS):
        job = f"vm{number}"
        history = site.history(job=job)
        assert ((), ()) == (history.unreadable, history.lost)
        assert [] == site.verify(job=job).findings
        for revision in history.revisions:
            note = site.folder / "notes" / revision.uuid
            assert note.read_text() == blake3(site.restored(revision, job=job)).hexdigest()
            needed |= site.chunks_of(revision, job=job)
            revisions += 1
    assert needed == {path.name for path in site.chunk_files()}
    return revisions


def test_four_processes_do_everything_at_once(tmp_path: Path) -> None:
    """Twenty-five acts each."""
    site = make_jobs(tmp_path)

    told = soak(site, 100, acts=25)

    assert [[]] * PROCESSES == [one["errors"] for one in told]
    assert check_nothing_is_lost(site) > 0


@pytest.mark.torture(weight=21, whole=True)  # half a soak is none
def test_four_processes_do_everything_at_once_for_long(tmp_path: Path, tally: Tally) -> None:
    """Twenty minutes; memory and descriptors of each stay what they were."""
    site = make_jobs(tmp_path)
    seed = 1000
    wanted = 60.0 * MINUTES
    seconds = min(tally.time_left - 30, wanted)
    if seconds < wanted:
        tally.cut()

    told = soak(site, seed, seconds=seconds)

    done = sum(sum(one["done"].values()) for one in told)
    errors = [error for one in told for error in one["errors"]]
    tally.count(done, lost=len(errors), seed=seed)
    assert [] == errors
    revisions = check_nothing_is_lost(site)
    growth = [grown(one["samples"]) for one in told]
    tally.tell(0, f"soak: {done} acts in {seconds:.0f} s, {revisions} revisions left, grown by {growth}")
    for resident, descriptors in growth:
        assert resident < SLACK
        assert descriptors <= 0


def grown(samples: list[tuple[float, int, int]]) -> tuple[int, int]:
    """Bytes of memory, and descriptors, between the second quarter of the acts and the last."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[3 * quarter :]
    resident = [int(statistics.median(one[1] for one in part)) for part in (second, last)]
    descriptors = [max(one[2] for one in part) for part in (second, last)]
    return resident[1] - resident[0], descriptors[1] - descriptors[0]
