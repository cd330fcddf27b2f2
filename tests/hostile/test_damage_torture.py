"""T8 in full: every bit of every byte of a small store, and ten thousand bytes of 4 MiB chunks.

pytest -m torture tests/hostile
"""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from small_store import SmallStore, damaged, flip

from backy.ground.errors import BackyError
from backy.operation import parallel
from tally import Tally
from testsite import Site

pytestmark = pytest.mark.proof("T8")

FLIPS = 10_000
SEED = 20261101


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a thread costs as much as what it would do here."""
    monkeypatch.setattr(parallel, "THREADS", 1)


@pytest.mark.torture(weight=0.5)
@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_every_byte_is_found(memory: Path, bit: int, tally: Tally) -> None:
    """All eight bits, every revision restored at every point, quick verify at every point too."""
    store = SmallStore(memory)
    places = [(path, at) for path in store.files() for at in range(path.stat().st_size)]

    for path, position in tally.each(places, seed=bit):
        with damaged(path):
            flip(path, position, bit)
            store.check(path)
            assert store.hurt_by(path) == store.verified(quick=True)

    assert len(places) == tally.figures.tried or tally.is_cut


def flip_large_chunks(site: Site, flips: Iterable[int]) -> int:
    """Flip random bits of 4 MiB chunks of two revisions; returns how many verify found."""
    numbers = random.Random(SEED)
    size = 4 << 20
    for codec in ("none", "lz4"):
        site.codec = codec
        half = numbers.randbytes(size // 2)
        site.image.write_bytes(half + half if codec == "lz4" else numbers.randbytes(size))
        site.backup()
    files = site.chunk_files()
    found = 0
    for _ in flips:
        path = numbers.choice(files)
        at, bit = numbers.randrange(path.stat().st_size), numbers.randrange(8)
        flip(path, at, bit)
        try:
            findings = site.verify(quick=numbers.random() < 0.5).findings
            found += [path.name] == [finding.chunk for finding in findings]
        except BackyError:
            pass
        flip(path, at, bit)
    return found


@pytest.mark.torture(weight=1)
def test_ten_thousand_flips_in_large_chunks_are_found(memory: Path, tally: Tally) -> None:
    """Random bytes of 4 MiB chunks, compressed or not, by either kind of verify."""
    tally.count(0, seed=SEED)

    found = flip_large_chunks(Site(memory, chunk_size=4 << 20), tally.each(range(FLIPS)))

    assert found == tally.figures.tried


def test_flips_in_large_chunks_are_found(tmp_path: Path) -> None:
    """A sample of the sweep above."""
    assert flip_large_chunks(Site(tmp_path, chunk_size=4 << 20), range(25)) == 25
