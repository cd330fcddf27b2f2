"""T16: what a source hides is found by the audit when doc/design.md says, whatever it hides, and where.

    pytest -m torture tests/model/test_lying_sources.py        thousands of places and last full reads

Two parts: which runs read which chunks, by the audit alone, for images of ten thousand chunks; and whole
backups of a small image, in which one block is hidden, until the lie is found.

Limits: what each run reads at random besides is switched off, but for the test that is about it.
"""

import random
import statistics
from pathlib import Path
from uuid import UUID

import pytest
from delta_sources import lie_until_found

from backy.domain import audit
from backy.domain.audit import STRATA, Audit
from backy.domain.chunkmap import PAGE_ENTRIES
from backy.ground.linux import PAGE
from backy.operation import backup as backups
from fakes import FakeSource
from tally import Tally
from testsite import Site

pytestmark = pytest.mark.proof("T16")

CHUNKS = 10_000
C = 16 * PAGE
# A chunk's stratum is a byte modulo 30, so the first half of a cycle reads 9 of 256 chunks, the other 8.
RUNS = [byte % STRATA or STRATA for byte in range(256)]
EXPECTED = sum(RUNS) / len(RUNS)


def last_full(seed: int) -> str:
    """The UUID of a revision that read everything."""
    return str(UUID(int=random.Random(seed).getrandbits(128), version=4))


def runs_until(seed: int, index: int, audits: list[Audit]) -> int:
    """In which run after the last full read a chunk is read; the audits are those of the runs from 1."""
    number, slot = divmod(index, PAGE_ENTRIES)
    return next(run for run, one in enumerate(audits, start=1) if one.picks(number, slot, index))


def audits_of(seed: int, used: int) -> list[Audit]:
    """Those of thirty runs."""
    return [Audit(last_full(seed), run, used) for run in range(1, STRATA + 1)]


def mean(seeds: range, used: int) -> float:
    """Of the runs until a chunk is read, over places at random and last full reads."""
    found = []
    for seed in seeds:
        audits = audits_of(seed, used)
        numbers = random.Random(seed)
        found += [runs_until(seed, numbers.randrange(CHUNKS), audits) for _ in range(20)]
    return sum(found) / len(found)


def test_thirty_runs_read_every_chunk_once(tally: Tally) -> None:
    """So one hidden chunk of ten thousand is found within thirty runs, with certainty."""
    for seed in range(3):
        audits = audits_of(seed, 0)
        for index in range(CHUNKS):
            number, slot = divmod(index, PAGE_ENTRIES)
            assert 1 == sum(one.picks(number, slot, index) for one in audits)

    tally.tell(CHUNKS * 3, f"audit: each of {CHUNKS} chunks is read once in {STRATA} runs, 3 seeds")


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(3000), marks=pytest.mark.torture)], ids=["some", "many"]
)
def test_one_hidden_chunk_is_found_after_fifteen_runs_on_average(seeds: range, tally: Tally) -> None:
    """With the strata alone: 15.1; the mean of so many draws lies within four standard errors."""
    found = mean(seeds, 0)

    deviation = (statistics.pvariance(RUNS) / (20 * len(seeds))) ** 0.5
    tally.tell(
        len(seeds),
        f"audit: one hidden chunk of {CHUNKS} is found after {found:.2f} runs on average, "
        f"expected {EXPECTED:.2f}",
    )
    assert abs(found - EXPECTED) < 4 * deviation


def test_chunks_at_random_only_help(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """In an image of 20 chunks, four more a run are many: found after four runs instead of 15."""
    drawn = random.Random(4)
    monkeypatch.setattr(random, "SystemRandom", lambda: drawn)
    found = []
    for seed in range(60):
        index = random.Random(seed).randrange(20)
        found.append(runs_until(seed, index, audits_of(seed, 20)))

    tally.tell(60, f"audit: one hidden chunk of 20 is found after {sum(found) / 60:.1f} runs on average")
    assert max(found) <= STRATA
    # 1 / (1 - 29/30 * 4/5) is 4.4; the mean of 60 has a standard error of a half.
    assert 2.4 < sum(found) / 60 < 6.9


def test_a_guest_cannot_tell_where_it_is_read_last() -> None:
    """Another last full read, another order: no chunk is late for most of them."""
    late = [runs_until(seed, 17, audits_of(seed, 0)) > 20 for seed in range(300)]

    assert 60 < sum(late) < 140


@pytest.mark.parametrize(
    "seeds",
    [range(4), pytest.param(range(4, 300), marks=pytest.mark.torture(weight=3))],
    ids=["some", "many"],
)
def test_a_lie_ends_within_thirty_backups(
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Tally,
    seeds: range,
) -> None:
    """Whatever else changes meanwhile, and how: full of deltas, stitched, inherited or zero."""
    ids = random.Random(seeds[0])
    monkeypatch.setattr(audit, "AT_RANDOM", 0)
    monkeypatch.setattr(backups, "uuid4", lambda: UUID(int=ids.getrandbits(128), version=4))
    runs = []
    for seed in tally.seeds(seeds):
        folder = memory / str(seed)
        folder.mkdir()
        site = Site(folder, chunk_size=C)
        runs.append(lie_until_found(site, random.Random(seed)))

    average = sum(runs) / len(runs)
    tally.tell(0, f"{len(runs)} lying sources are found after {average:.1f} backups on average")
    assert 1 <= min(runs) <= max(runs) <= STRATA


def test_a_lie_is_never_trusted_where_hints_must_not_be_used(tmp_path: Path) -> None:
    """After a resize, a lost snapshot, or a distrusted parent nothing that the source says counts."""
    site = Site(tmp_path, chunk_size=C)
    source = FakeSource(random.Random(1).randbytes(10 * C), frozen=True)
    site.backup(source=source)
    for number, happens in enumerate(("grow", "shrink", "lose", "distrust")):
        block = 20 + number
        source.hidden.add(block)
        source.write(block * PAGE, random.Random(number).randbytes(PAGE))
        if happens == "grow":
            source.content += bytes(PAGE)
        elif happens == "shrink":
            del source.content[-2 * PAGE :]
        elif happens == "lose":
            source.kept.clear()
        else:
            assert 0 == site.cli("distrust", "--reason", "store").returncode

        revision = site.backup(source=source)

        assert revision.reading is not None
        assert revision.reading.since is None
        assert bytes(source.content) == site.restored(revision)
