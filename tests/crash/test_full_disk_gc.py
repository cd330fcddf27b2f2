"""T7, F15: gc gives space back on a disk without a free byte, and afterwards the backup passes."""

from pathlib import Path

import pytest
from crashsite import Runner, noise
from loopdisk import mounted
from small_store import images_of
from test_full_disk import FullScene, check_went_well

from backy.ground.directory import Directory
from backy.repository import reserve
from tally import Tally

pytestmark = pytest.mark.proof("T7")

# Enough for a rename of every chunk on each of the three file systems; the real one has 64 MiB.
RESERVE = 16 << 20


@pytest.mark.root
@pytest.mark.parametrize(
    # A btrfs whose metadata is full of names refuses every rename; there one block is left.
    ("kind", "leave"),
    [("xfs", 0), ("ext4", 0), ("btrfs", 4096)],
)
def test_gc_runs_without_a_free_byte(
    tmp_path: Path, runner: Runner, tally: Tally, kind: str, leave: int
) -> None:
    """It gives up the reserve, frees what was forgotten, and a backup that did not fit fits."""
    with mounted(tmp_path, kind, 300 << 20) as disk:
        scene = FullScene(disk, "site", tmp_path, runner)
        (scene.site.chunks / "reserve").unlink()
        with Directory.open(str(scene.site.chunks)) as chunks:
            reserve.make(chunks, RESERVE)
        image = tmp_path / "image.raw"
        image.write_bytes(noise(8, 24 << 20))
        large = scene.backup()
        image.write_bytes(noise(3, 12 << 20))
        kept = list(scene.images)[-2]
        with disk.filled(leave):
            assert scene.run("backup", "daily").code == 1
            forget = scene.run("forget", "-r", large)
            check_went_well(forget)
            del scene.images[large]

            gc = scene.run("gc", "--now", "--force")

            check_went_well(gc)
            scene.check_readers()
            assert not (scene.site.chunks / "reserve").exists()
            assert [] == list((scene.site.chunks / "trash").iterdir())
            again = scene.run("backup", "daily")
            check_went_well(again)
            assert kept in scene.listed()
        scene.images[scene.listed()[-1]] = image.read_bytes()
        check_went_well(scene.run("gc"))
        # The blocks of ext4 that hold a list of extents count as well.
        assert 64 << 20 <= reserve_size(scene) < 65 << 20
        scene.check_readers()
    tally.tell(1, f"{kind} without a free byte: gc freed 24 MiB, the backup passed")


def reserve_size(scene: FullScene) -> int:
    """Bytes that the reserve really takes."""
    return (scene.site.chunks / "reserve").stat().st_blocks * 512


@pytest.mark.root
@pytest.mark.torture(weight=0.8)
@pytest.mark.parametrize("kind", ["xfs", "ext4", "btrfs"])
def test_fifty_fillings_beside_gc_lose_nothing(
    tmp_path: Path, runner: Runner, tally: Tally, kind: str
) -> None:
    """Whatever is left, gc ends well or says why, and nothing that was backed up is touched."""
    ended = 0
    with mounted(tmp_path, kind, 300 << 20) as disk:
        scene = FullScene(disk, "site", tmp_path, runner)
        for number in tally.each(range(50), seed=1):
            (tmp_path / "image.raw").write_bytes(noise(100 + number, 6 << 20))
            large = scene.backup()
            with disk.filled(number * (8 << 20) // 50):
                check_went_well(scene.run("forget", "-r", large))
                del scene.images[large]
                noted = (scene.site.job / f"{large}.forgotten").exists()
                gc = scene.run("gc", "--now", "--force")
                if gc.ended_well:
                    ended += 1
                else:
                    gc.check_says_why()
                if noted:
                    scene.check_readers()
                else:
                    assert ("btrfs", 0) == (kind, number)
                    check_half_forgotten(scene, large)
            if not noted:
                check_went_well(scene.run("forget", "-r", large))
            check_went_well(scene.run("gc", "--now", "--force"))
            scene.check_readers()
    tally.tell(0, f"{kind}: fillings beside gc, {ended} ended well: 0 lost")


def check_half_forgotten(scene: FullScene, uuid: str) -> None:
    """A btrfs that is full of names has no room for a note, says what to do and hurts nobody else."""
    status = scene.run("status", "--json")
    assert status.state == "exited"
    assert status.err.endswith(f"'backy forget -r {uuid}' accepts that.\n")
    assert 1 == len(status.err.splitlines())
    assert scene.images == images_of(scene.site.base, "vm")
