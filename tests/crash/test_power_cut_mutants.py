"""T4: without a sync, or with one in the wrong place, a power cut on a real file system loses something.

    pytest -m torture tests/crash/test_power_cut_mutants.py

tests/model/test_power_cut_model.py leaves out each single sync of backy on a disk that keeps nothing
unasked. Real file systems keep much, each in its own way; so each mutant is tried on the one that shows
it at once, and what it proves stands in powercut_server beside it.
"""

from pathlib import Path

import pytest
from powercut_server import MUTANTS
from powercut_sweep import Loss, sweep

from tally import Tally

pytestmark = pytest.mark.proof("T4")

IMAGES_OF_A_RECORDING = 300
RECORDINGS = 6

# On which file system, and what the first loss says. In a longer run over all three, `names_unsynced`
# showed on btrfs only and `chunks_named_unsynced` on ext4 only; all others showed on two or on each.
AT_ONCE = {
    "commit_unsynced": ("xfs", "is gone"),
    "map_unsynced": ("ext4", "damaged"),
    # F4: a hit on a chunk that the other writer had named, and not yet synced.
    "names_unsynced": ("btrfs", "missing"),
}
IN_TIME = {
    "no_sync_at_all": "xfs",
    "chunks_named_unsynced": "ext4",
    "chunks_named_too_early": "ext4",
    "record_unsynced": "xfs",
    "commit_too_early": "ext4",
    "forget_unsynced": "xfs",
    "edit_unsynced": "xfs",
}


def first_loss(folder: Path, kind: str, mutant: str) -> Loss | None:
    """What the mutant loses on this file system, if that shows."""
    for seed in range(1, RECORDINGS + 1):
        own = folder / f"{kind}-{seed}"
        own.mkdir()
        swept = sweep(own, kind, seed=seed, images=IMAGES_OF_A_RECORDING, mutant=mutant)
        if swept.losses:
            return swept.losses[0]
    return None


@pytest.mark.root
@pytest.mark.parametrize("mutant", AT_ONCE)
def test_a_missing_sync_shows(tmp_path: Path, mutant: str) -> None:
    """A record, a map and a chunk's name: none of them lasts by itself."""
    kind, why = AT_ONCE[mutant]

    loss = first_loss(tmp_path, kind, mutant)

    assert loss is not None
    assert why in loss.why


@pytest.mark.root
@pytest.mark.torture(weight=0.4, whole=True)
@pytest.mark.parametrize("mutant", IN_TIME)
def test_every_other_mutant_shows(tmp_path: Path, tally: Tally, mutant: str) -> None:
    """Which requests had been carried out, and in what way it is seen."""
    loss = first_loss(tmp_path, IN_TIME[mutant], mutant)

    assert loss is not None
    part = ", a part dropped" if loss.cut.seed is not None else ""
    tally.count(0, seed=loss.seed)
    tally.tell(
        1,
        f"{mutant} on {loss.kind}: lost after request {loss.cut.requests}{part}, seed {loss.seed}",
    )


def test_no_mutant_is_left_out() -> None:
    """Each one is tried somewhere."""
    assert MUTANTS.keys() == AT_ONCE.keys() | IN_TIME.keys()
