"""T8: one flipped bit in any byte of a store is found, blamed on the right revisions, never restored."""

from pathlib import Path

import pytest
from small_store import SmallStore, damaged, flip

from backy.operation import parallel
from tally import Tally

pytestmark = pytest.mark.proof("T8")

# Every how manieth byte all revisions are restored, and not only those that must fail.
SAMPLE = 16
# Every how manieth byte quick verify is tried on.
QUICK_SAMPLE = 16


@pytest.fixture
def store(memory: Path, monkeypatch: pytest.MonkeyPatch) -> SmallStore:
    """A store with every form of chunk, in memory, and read by one thread: a start costs as much."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    return SmallStore(memory)


@pytest.mark.parametrize("suffixes", [(".rev",), (".map",), ("",)], ids=["records", "maps", "chunks"])
def test_one_flipped_bit_in_any_byte_is_found(
    store: SmallStore, suffixes: tuple[str, ...], tally: Tally
) -> None:
    """Whichever byte of a record, map, chunk or of the format it is; the bit goes round by position."""
    files = [path for path in store.files() if suffix_of(path) in suffixes]
    tried = 0

    for path in files:
        size = path.stat().st_size
        with damaged(path):
            for position in range(size):
                flip(path, position, position % 8)
                store.check(path, all_images=position % SAMPLE == 0)
                flip(path, position, position % 8)
                tried += 1

    tally.tell(tried, f"{tried} flipped bytes: all found")
    assert sum(path.stat().st_size for path in files) == tried > 0
    assert set() == store.verified()


def test_quick_verify_finds_every_flipped_byte_too(store: SmallStore, tally: Tally) -> None:
    """Checksums cover every byte, so quick verify misses only what was wrong before it was sealed."""
    tried = 0

    for path in store.files():
        size = path.stat().st_size
        with damaged(path):
            for position in range(0, size, QUICK_SAMPLE):
                flip(path, position, (position // QUICK_SAMPLE) % 8)
                assert store.hurt_by(path) == store.verified(quick=True), (path, position)
                flip(path, position, (position // QUICK_SAMPLE) % 8)
                tried += 1

    tally.tell(tried, f"{tried} flipped bytes: all found")
    assert set() == store.verified(quick=True)


def suffix_of(path: Path) -> str:
    """`.rev`, `.map`, or nothing for chunks, deltas and the format."""
    return path.suffix if path.suffix in (".rev", ".map") else ""
