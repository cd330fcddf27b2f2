"""T8 with deltas: whatever byte of a base, a delta or a map is damaged, all that it hurts are named.

The store is one that backups wrote: a full chunk, two deltas on it in two revisions, a chunk of all
three revisions, and a revision that has the base no more.

    pytest -m torture tests/hostile/test_damaged_deltas.py      every bit, by either kind of verify
"""

import random
from datetime import timedelta
from itertools import combinations
from pathlib import Path

import pytest
from small_store import EPOCH, SmallStore, StandingClock, damaged, flip, remove

from backy.ground.linux import PAGE
from backy.operation import parallel
from tally import Tally
from testsite import Site

pytestmark = pytest.mark.proof("T8")


C = 4 * PAGE
# Every how manieth byte all revisions are restored, and not only those that must fail.
SAMPLE = 16


class DeltaStore(SmallStore):
    """Four revisions: `base`, `one` and `both` lean on it, `other` has nothing of it."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder, chunk_size=C)
        self.images: dict[str, bytes] = {}
        blocks = [bytes([64 + number]) * PAGE for number in range(12)]
        same = b"the same on every day".ljust(C, b".")
        for day, first in enumerate(((0, 1, 2, 3), (0, 9, 2, 3), (0, 9, 2, 8), (4, 5, 6, 7))):
            self.site.clock = StandingClock(EPOCH + timedelta(days=day))
            self.site.codec = "zstd:3" if day == 2 else "lz4"
            content = b"".join(blocks[number] for number in first) + same
            self.site.image.write_bytes(content)
            self.images[self.site.backup().uuid] = content
        self.uuids = tuple(self.images)
        self.leaning = {uuid: set(self._needs(uuid)) for uuid in self.uuids}

    def bases(self) -> list[Path]:
        """Files on which deltas stand."""
        names = {path.name[65:] for path in self.deltas()}
        return [path for path in self.files() if path.name in names]

    def deltas(self) -> list[Path]:
        """Files of deltas."""
        return [path for path in self.chunk_files() if "." in path.name]


@pytest.fixture
def store(memory: Path, monkeypatch: pytest.MonkeyPatch) -> DeltaStore:
    """Such a store."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    return DeltaStore(memory)


def test_a_base_hurts_all_that_stand_on_it(store: DeltaStore) -> None:
    """What the other tests here take for granted: two deltas on a base that only the first image has."""
    first, one, both, other = store.uuids
    (base,) = store.bases()

    assert {first, one, both} == store.hurt_by(base)
    assert [{one}, {both}] == sorted(map(store.hurt_by, store.deltas()), key=lambda hurt: both in hurt)
    assert {other} not in map(store.hurt_by, store.deltas())
    assert set() == store.verified() | store.verified(quick=True)


def test_one_flipped_bit_in_any_byte_is_found(store: DeltaStore, tally: Tally) -> None:
    """The bit goes round by position, and so does the kind of verify."""
    files = [*store.chunk_files(), *store.files(".map")]
    tried = 0
    for path in files:
        with damaged(path):
            for position in range(path.stat().st_size):
                flip(path, position, position % 8)
                store.check(path, quick=position % 3 == 0, all_images=position % SAMPLE == 0)
                flip(path, position, position % 8)
                tried += 1

    tally.tell(tried, f"{tried} flipped bytes of a store with deltas: all found")
    assert sum(path.stat().st_size for path in files) == tried > 500
    assert set() == store.verified()


@pytest.mark.torture(weight=0.6)
@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_every_byte_is_found(store: DeltaStore, bit: int, tally: Tally) -> None:
    """All files, all revisions restored at every point, both kinds of verify."""
    places = [(path, at) for path in store.files() for at in range(path.stat().st_size)]
    for path, position in tally.each(places, seed=bit):
        with damaged(path):
            flip(path, position, bit)
            store.check(path)
            assert store.hurt_by(path) == store.verified(quick=True)

    tally.tell(0, f"{tally.figures.tried} flips of bit {bit} in a store with deltas: all found")


def test_every_cut_is_found(store: DeltaStore, tally: Tally) -> None:
    """At any length; one byte too many; and gone altogether."""
    tried = 0
    for path in [*store.chunk_files(), *store.files(".map")]:
        content = path.read_bytes()
        with damaged(path):
            remove(path)
            store.check(path)
            for length in (*range(0, len(content), 5), len(content) - 1):
                path.write_bytes(content[:length])
                store.check(path, quick=length % 2 == 0, all_images=length % SAMPLE == 0)
                tried += 1
            path.write_bytes(content + b"\0")
            store.check(path)
            tried += 2

    tally.tell(tried, f"{tried} files of a store with deltas cut, continued or removed: all found")
    assert set() == store.verified()


def test_files_that_changed_places_are_found(store: DeltaStore, tally: Tally) -> None:
    """Any two chunk files: each is whole, under the other's name; and each in the place of the other."""
    tried = 0
    for one, other in combinations(store.chunk_files(), 2):
        contents = one.read_bytes(), other.read_bytes()
        hurt = store.hurt_by(one) | store.hurt_by(other)
        with damaged(one, other):
            one.write_bytes(contents[1])
            store.check(one)
            other.write_bytes(contents[0])
            for quick in (False, True):
                assert hurt == store.verified(quick=quick)
            for uuid in store.uuids:
                assert (None if uuid in hurt else store.images[uuid]) == store.image_of(uuid)
        tried += 2

    tally.tell(tried, f"{tried} files of a store with deltas in the place of others: all found")
    assert set() == store.verified()


def test_random_garbage_is_found(store: DeltaStore) -> None:
    """Of the right length, or with a right header."""
    numbers = random.Random(8)
    for path in store.chunk_files():
        content = path.read_bytes()
        with damaged(path):
            path.write_bytes(numbers.randbytes(len(content)))
            store.check(path)
            path.write_bytes(content[:64] + numbers.randbytes(len(content) - 64))
            store.check(path)
