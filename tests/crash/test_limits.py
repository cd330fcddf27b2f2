"""T23: few descriptors, small files, an image that is nearly all holes."""

import os
from pathlib import Path

import pytest
from crashsite import Run, Runner, Scene, noise, varied_image

from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T23")

FEW_FILES = {"NOFILE": 64}
MEMORY = 300 << 20
TIB = 1 << 40


def as_configured(scene: Scene, *words: str, **request: object) -> Run:
    """Run with the batch size and the threads of a normal installation."""
    return scene.runner.run("-b", str(scene.site.job), *words, **request)


def test_all_verbs_get_by_with_64_descriptors(site: Site, runner: Runner) -> None:
    """No descriptor is kept for a chunk, a batch or a revision."""
    scene = Scene(site, runner)
    for seed in range(40):
        site.image.write_bytes(varied_image(seed))
        scene.backup()
    site.image.write_bytes(noise(1, 300 * CHUNK))

    backup = scene.run("backup", "daily", limits=FEW_FILES, threads=8)
    assert backup.ended_well, backup
    restore = ("restore", str(site.folder / "out.raw"))
    others = (("status",), ("du",), ("expire",), ("gc", "--now"), ("repair",))
    for words in (restore, ("verify",), ("verify", "--slice", "1h"), *others):
        run = as_configured(scene, *words, limits=FEW_FILES, threads=8)
        assert run.ended_well, run
    assert site.image.read_bytes() == (site.folder / "out.raw").read_bytes()


def test_too_few_descriptors_fail_cleanly(site: Site, runner: Runner) -> None:
    """From none left to just enough: one sentence that names the limit, nothing lost, or success."""
    scene = Scene(site, runner)
    site.image.write_bytes(varied_image(1))
    scene.backup()
    scene.keep()
    ended = []
    for limit in range(5, 40):
        for words in (("backup", "daily"), ("restore", str(site.folder / "out.raw"))):
            run = scene.run(*words, limits={"NOFILE": limit})
            ended.append(run.ended_well)
            if not run.ended_well:
                run.check_says_why()
                assert "open files" in run.err, run.err
        assert [] == scene.changed()
        if limit % 8 == 0:
            for revision in site.history().revisions:
                assert site.image.read_bytes() == site.restored(revision)

    assert not ended[0]
    assert ended[-1]


def test_too_few_descriptors_for_what_looks_at_the_store_change_nothing(
    site: Site, runner: Runner
) -> None:
    """What could not be looked at is no garbage for collection, and no damage for verify."""
    scene = Scene(site, runner)
    for seed in (1, 2):
        site.image.write_bytes(varied_image(seed))
        scene.backup()
    assert scene.run("gc").ended_well
    scene.keep()
    ended: dict[str, list[bool]] = {"gc": [], "verify": [], "slice": []}
    for limit in range(5, 40):
        for name, words in (
            ("gc", ("gc",)),
            ("verify", ("verify",)),
            ("slice", ("verify", "--slice", "1h")),
        ):
            run = scene.run(*words, limits={"NOFILE": limit})
            ended[name].append(run.ended_well)
            if not run.ended_well:
                # With 1 where not even the command could be loaded, which finds nothing either.
                assert "exited" == run.state, run
                assert not run.out or ", 0 bad: " in run.out, run
                assert run.code in ((1,) if name == "gc" else (1, 2))
                assert "open files" in run.err, run.err
                assert "Traceback" not in run.err
        scene.check_images()

    assert [] == list((site.chunks / "quarantine").iterdir())
    assert [0, 0] == [one.damaged for one in site.history().revisions]
    assert [(False, True)] * 3 == [(one[0], one[-1]) for one in ended.values()]


def test_a_limit_on_file_sizes_fails_cleanly(site: Site, runner: Runner) -> None:
    """A chunk, a map or a target that may not be written: one sentence, and no revision is lost."""
    scene = Scene(site, runner)
    site.image.write_bytes(varied_image(1))
    scene.backup()
    site.image.write_bytes(noise(3, 12 * CHUNK))

    backup = scene.run("backup", "daily", limits={"FSIZE": CHUNK})
    restore = scene.run("restore", str(site.folder / "out.raw"), limits={"FSIZE": CHUNK})

    for run in (backup, restore):
        run.check_says_why()
        assert "File too large" in run.err
    assert [] == list((site.chunks / "tmp").iterdir())
    assert [] == list(site.folder.glob("out.raw*"))
    scene.check_images()
    scene.check_next_backup()


def test_a_sparse_image_of_a_tebibyte_costs_what_its_data_costs(
    tmp_path: Path, runner: Runner, tally: Tally
) -> None:
    """Reads and stores the few extents, in bounded memory; the restored file is as sparse."""
    site = Site(tmp_path, chunk_size=4 << 20)
    pieces = {at * (TIB // 7) // 4096 * 4096: noise(at, 300_000) for at in range(7)}
    with site.image.open("wb") as file:
        file.truncate(TIB)
        for offset, content in pieces.items():
            os.pwrite(file.fileno(), content, offset)
    target = tmp_path / "out.raw"
    scene = Scene(site, runner)

    runs = [
        as_configured(scene, "backup", "daily"),
        as_configured(scene, "backup", "daily"),
        as_configured(scene, "verify"),
        as_configured(scene, "restore", str(target)),
    ]

    for run in runs:
        assert run.ended_well, run
        assert run.peak < MEMORY
    first, second = site.history().revisions
    assert 7 * 300_000 < first.stats.bytes_read <= 14 * (4 << 20)
    assert 0 == second.stats.bytes_written
    assert TIB == target.stat().st_size
    assert target.stat().st_blocks <= site.image.stat().st_blocks * 1.02
    with target.open("rb") as file:
        for offset, content in pieces.items():
            assert content == os.pread(file.fileno(), len(content), offset)
    peak = max(run.peak for run in runs) >> 20
    tally.tell(1, f"1 TiB with {len(pieces)} extents: at most {peak} MiB of memory")
