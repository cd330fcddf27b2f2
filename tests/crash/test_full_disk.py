"""T7: a full disk, and one that turned read-only: writers fail cleanly, readers and forget work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashsite import Run, Runner, Scene, noise
from loopdisk import Disk, mounted

from tally import Tally
from testsite import Site

pytestmark = pytest.mark.proof("T7")

CHUNK = 64 << 10
IMAGE = 12 << 20
# Bytes that are left, and whether there is a log already.
LEVELS = ((0, True), (0, False), (4 << 10, True), (256 << 10, False), (5 << 20, True))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """One small XFS for all levels."""
    with mounted(tmp_path_factory.mktemp("disk"), "xfs", 300 << 20) as one:
        yield one


def check_went_well(run: Run) -> None:
    """Exit code 0, and not a word except that the log could not be written."""
    assert ("exited", 0) == (run.state, run.code), run
    assert all("no log is kept" in line for line in run.err.splitlines()), run.err


class FullScene(Scene):
    """A repository with two revisions on the small disk; image and target lie elsewhere."""

    def __init__(self, disk: Disk, name: str, elsewhere: Path, runner: Runner) -> None:
        folder = disk.folder / name
        folder.mkdir()
        super().__init__(Site(folder, chunk_size=CHUNK), runner)
        self.target = elsewhere / "out.raw"
        image = elsewhere / "image.raw"
        self.site.image.unlink()
        self.site.image.symlink_to(image)
        for seed in (1, 2):
            image.write_bytes(noise(seed, 2 << 20))
            self.backup()
        image.write_bytes(noise(3, IMAGE))

    def run(self, *words: str, job: str = "vm", **request: object) -> Run:
        """As in any scene, with batches of 1 MiB and all threads."""
        return self.runner.run(
            "-b", str(self.site.base / job), *words, **{"batch_size": 1 << 20, **request}
        )

    def check_readers(self) -> None:
        """Status, restore and verify work, and complain of nothing but the log."""
        assert list(self.images) == self.listed()
        for uuid, image in self.images.items():
            restore = self.run("restore", "-r", uuid, str(self.target))
            check_went_well(restore)
            assert image == self.target.read_bytes()
        verify = self.run("verify")
        check_went_well(verify)


@pytest.mark.root
@pytest.mark.parametrize(("leave", "logged"), LEVELS)
def test_a_backup_on_a_full_disk_fails_cleanly_and_all_else_works(
    disk: Disk,
    tmp_path: Path,
    runner: Runner,
    tally: Tally,
    leave: int,
    logged: bool,
) -> None:
    """One sentence, own files gone, readers fine, forget works, and with room the backup passes."""
    scene = FullScene(disk, f"leave-{leave}-{logged}", tmp_path, runner)
    first, second = scene.images
    if logged:  # so that not one more line fits into the log's last block
        (scene.site.job / "backy.log").write_bytes(b"\n" * 4096)
    with disk.filled(leave):
        backup = scene.run("backup", "daily")

        backup.check_says_why()
        assert "the disk is full" in backup.err
        assert [] == list((scene.site.chunks / "tmp").iterdir())
        assert [] == list((scene.site.chunks / "users").iterdir())
        scene.check_readers()
        forget = scene.run("forget", "-r", first)
        check_went_well(forget)
        del scene.images[first]
        scene.check_readers()

    again = scene.run("backup", "daily")
    assert again.ended_well, again
    assert second == scene.listed()[0]
    assert scene.run("restore", str(scene.target)).ended_well
    assert noise(3, IMAGE) == scene.target.read_bytes()
    tally.tell(1, f"full disk, {leave} bytes left: failed cleanly, passed with room")


@pytest.mark.root
def test_a_read_only_repository_can_be_read_and_says_so_to_writers(
    disk: Disk, tmp_path: Path, runner: Runner
) -> None:
    """F15: readers pin by a lock on the map and need no new file; each writer says read-only."""
    scene = FullScene(disk, "read-only", tmp_path, runner)
    disk.remount("ro")
    try:
        scene.check_readers()
        for words in (
            ("backup", "daily"),
            ("forget", "-r", "latest"),
            ("tags", "add", "-r", "latest", "manual:one"),
        ):
            run = scene.run(*words)
            run.check_says_why()
            assert "read-only" in run.err, run
    finally:
        disk.remount("rw")
    scene.check_next_backup()


def test_a_log_that_cannot_be_written_stops_nothing(site: Site, runner: Runner) -> None:
    """The backup is complete, says so, and tells in one line that there is no log of it."""
    site.image.write_bytes(noise(1, 9000))

    run = runner.run("-l", "/dev/full", "-b", str(site.job), "backup", "daily")

    check_went_well(run)
    assert 1 == len(run.err.splitlines())
    assert 1 == len(site.history().revisions)


@pytest.mark.root
@pytest.mark.torture(weight=0.3)
def test_fifty_fillings_of_a_disk_lose_nothing(
    disk: Disk, tmp_path: Path, runner: Runner, tally: Tally
) -> None:
    """The same at fifty levels between nothing and what the backup needs."""
    scene = FullScene(disk, "fifty", tmp_path, runner)
    scene.keep()
    failed = 0
    for number in tally.each(range(50), seed=1):
        with disk.filled(number * (16 << 20) // 50):
            backup = scene.run("backup", "daily")
            if not backup.ended_well:
                failed += 1
                backup.check_says_why()
                assert [] == list((scene.site.chunks / "tmp").iterdir())
                scene.check_readers()
        scene.rewind()

    assert failed > 20 or tally.is_cut
