"""T3: power cuts at the writes and flushes of two writers, on real file systems: nothing is lost.

    pytest -m torture tests/crash/test_power_cuts.py        2,000 images of each file system

Where something is lost, the recording stays in the test's folder, and the message names the cut.
"""

import os
from pathlib import Path

import pytest
from crashsite import noise
from powercut_disk import KINDS
from powercut_log import SECTOR, Kind, read_log
from powercut_model import NEVER, Deed, Kept
from powercut_recorder import recording
from powercut_replay import Cut, Replay
from powercut_sweep import sweep

from tally import Tally

SEEDS = range(2, 10)
IMAGES_OF_A_RECORDING = 250


@pytest.mark.root
@pytest.mark.proof("T3")
@pytest.mark.parametrize(("kind", "images"), [("xfs", 150), ("ext4", 20), ("btrfs", 20)])
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    tmp_path: Path, tally: Tally, kind: str, images: int
) -> None:
    """Two writers with hits on each other's chunks; a quarter of the cuts drops unflushed writes."""
    swept = sweep(tmp_path, kind, seed=1, images=images)

    tally.count(0, lost=len(swept.losses), seed=1)
    tally.tell(swept.images, f"power cuts on {kind}: {swept.images} tried, {len(swept.losses)} lost")
    assert () == swept.losses
    assert images == swept.images


@pytest.mark.root
@pytest.mark.proof("T3")
@pytest.mark.torture(weight=1.3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_two_thousand_power_cuts_of_each_file_system_lose_nothing(
    tmp_path: Path, tally: Tally, kind: str, seed: int
) -> None:
    """The same with other seeds and longer histories."""
    images = tally.within(IMAGES_OF_A_RECORDING, seconds=0.2, before=10)

    swept = sweep(tmp_path, kind, seed=seed, images=images, rounds=8)

    tally.count(swept.images, lost=len(swept.losses), seed=seed)
    assert () == swept.losses
    assert images == swept.images


# ..The instruments............................................................................


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_log_makes_the_disk_as_it_was_left(tmp_path: Path, kind: str) -> None:
    """So nothing that the file system wrote is missing in the log, and each piece lands in its place."""
    content = noise(1, 3 << 20)
    with recording(tmp_path, kind) as disk:
        before = disk.position()
        for number in range(3):
            (disk.folder / f"file-{number}").write_bytes(content)
        (disk.folder / "file-1").unlink()
    entries = read_log(disk.log)
    assert len(content) < disk.position() - before
    assert disk.position() == entries[-1].end
    assert {Kind.WRITE, Kind.FLUSH} <= {entry.kind for entry in entries}

    replay = Replay(disk.start, disk.log, kind, tmp_path / "replayed")
    try:
        with replay.image(Cut(len(entries))) as image, open(image, "rb", closefd=False) as made:
            assert made.read() == disk.disk.read_bytes()
        with replay.after(Cut(len(entries))) as mounted:
            assert content == (mounted / "file-0").read_bytes() == (mounted / "file-2").read_bytes()
            assert not (mounted / "file-1").exists()
    finally:
        replay.close()


@pytest.mark.root
def test_a_cut_keeps_what_was_synced_and_forgets_what_was_not(tmp_path: Path) -> None:
    """At the very request after which fsync returned; and a lost part is another one for each seed."""
    with recording(tmp_path, "xfs") as disk:
        with (disk.folder / "synced").open("wb") as file:
            file.write(noise(2, 64 << 10))
            file.flush()
            os.fsync(file.fileno())
        acknowledged = disk.position()
        (disk.folder / "written").write_bytes(noise(3, 64 << 10))
        assert acknowledged == disk.position()
    replay = Replay(disk.start, disk.log, "xfs", tmp_path / "replayed")
    try:
        ends = [entry.end for entry in replay.entries]
        for seed in (None, 1, 2, 3):
            with replay.after(Cut(ends.index(acknowledged) + 1, seed)) as mounted:
                assert noise(2, 64 << 10) == (mounted / "synced").read_bytes()
                assert not (mounted / "written").exists()
    finally:
        replay.close()


def test_a_log_that_ends_within_an_entry_ends_before_it(tmp_path: Path) -> None:
    """As it is found while the daemon writes; and what is no log is refused."""
    log = tmp_path / "log"
    head = (0x6A736677736872).to_bytes(8, "little") + (1).to_bytes(8, "little")
    entry = b"".join(number.to_bytes(8, "little") for number in (7, 2, 0, 0)).ljust(SECTOR, b"\0")
    content = head.ljust(24, b"\0") + SECTOR.to_bytes(4, "little")
    content = content.ljust(SECTOR, b"\0") + entry + bytes(2 * SECTOR) + entry + bytes(SECTOR)
    log.write_bytes(content)

    assert [(Kind.WRITE, 7 * SECTOR, 2 * SECTOR, 4 * SECTOR)] == read_log(log)
    log.write_bytes(b"x" * SECTOR)
    with pytest.raises(ValueError, match="is no log of writes"):
        read_log(log)


def test_the_model_knows_what_must_be_and_what_may_be(tmp_path: Path) -> None:
    """Before a deed has begun, while it goes on, and when it was acknowledged."""
    deed = Deed(10, 20)
    assert [(False, False), (False, True), (True, True)] == [
        (deed.surely(position), deed.perhaps(position)) for position in (10, 19, 20)
    ]
    one = Kept("vm", "uuid", deed, b"", frozenset({"daily"}))
    one.tags.append((Deed(30, 40), frozenset({"weekly"})))
    one.tags.append((Deed(40, 40), frozenset()))  # without a write: there as soon as it began
    assert [[{"daily"}], [{"daily"}], [{"daily"}, {"weekly"}], [set()]] == [
        one.tags_at(position) for position in (15, 30, 39, 40)
    ]
    assert not one.gone.perhaps(NEVER - 1)
