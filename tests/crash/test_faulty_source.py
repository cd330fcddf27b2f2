"""T14: a source that cannot be read, or ends, in the middle of a backup makes no revision."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from crashsite import noise
from faultydisk import MARKER, FaultyDevice, faulty_device
from in_process import Outcome, backy

from backy.ground import failpoint
from fakes import loop_device
from tally import Tally
from testsite import CHUNK, Site

pytestmark = [pytest.mark.proof("T14"), pytest.mark.root]

COUNT = 100


def sound() -> bytes:
    """An image without the marker."""
    return noise(1, COUNT * CHUNK)


def with_bad_chunks(numbers: list[int]) -> bytes:
    """The same with the marker in some chunks."""
    image = bytearray(sound())
    for number in numbers:
        image[number * CHUNK + 512 : number * CHUNK + 512 + len(MARKER)] = MARKER
    return bytes(image)


def while_it_runs(site: Site, job: str, change: Callable[[], None]) -> Outcome:
    """A backup during which `change` happens once, when the first chunk has been read."""
    done: list[str] = []

    def hook(step: str) -> None:
        if step.startswith("write ") and "/chunks/tmp/" in step and not done:
            done.append(step)
            change()

    failpoint.install(hook)
    try:
        return backy("-b", str(site.base), "-j", job, "backup", "daily")
    finally:
        failpoint.install(None)
        assert done, "nothing was changed"


def check_failed(site: Site, job: str, done: Outcome, *reasons: str) -> None:
    """One sentence, exit code 1, no revision in any state, and nothing left in the store's tmp."""
    assert (1, 1) == (done.code, done.err.count("\n")), done
    assert done.err.startswith("backy: source "), done
    assert any(done.err.endswith(f": {why}; no revision was made.\n") for why in reasons), done
    folder = site.base / job
    assert [] == [path for path in folder.iterdir() if path.suffix in {".rev", ".pending", ".map"}]
    assert [[], []] == [list((site.chunks / name).iterdir()) for name in ("tmp", "users")]


def check_others(site: Site) -> None:
    """Another job's backup goes on as ever."""
    site.image.write_bytes(noise(9, 5 * CHUNK))
    done = backy("-b", str(site.job), "backup", "daily")
    assert (0, "") == (done.code, done.err)
    newest = site.history().revisions[-1]
    assert site.image.read_bytes() == site.restored(newest)


def check_succeeds(site: Site, job: str, image: bytes) -> None:
    """The job's next backup needs no help."""
    done = backy("-b", str(site.base / job), "backup", "daily")
    assert 0 == done.code, done
    (made,) = site.history(job=job).revisions
    assert image == site.restored(made, job=job)
    assert [] == site.verify(job=job).findings


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultyDevice]:
    """A device as large as the image."""
    with faulty_device(tmp_path, size=COUNT * CHUNK, content=sound()) as device:
        yield device


def overwrite(device: Path, image: bytes) -> None:
    """Change what is on a device."""
    fd = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(fd, image, 0)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def test_one_bad_block_in_a_hundred_makes_no_revision(
    faulty: FaultyDevice, site: Site, tally: Tally
) -> None:
    """Whichever it is, the read that met it is named; where none is bad, all bytes are there."""
    for seed in tally.seeds(range(12)):
        chance = random.Random(seed)
        bad = [number for number in range(COUNT) if chance.random() < 0.01]
        overwrite(faulty.path, with_bad_chunks(bad))
        job = f"disk{seed}"
        site.add_job(job, faulty.path)
        with faulty.when("fail-reads"):
            if bad:
                done = backy("-b", str(site.base / job), "backup", "daily")
                check_failed(site, job, done, "Input/output error")
                assert any(f" at byte {number * CHUNK} failed" in done.err for number in bad), (
                    bad,
                    done,
                )
                check_others(site)
            else:
                check_succeeds(site, job, sound())
        if bad:
            check_succeeds(site, job, with_bad_chunks(bad))


def test_a_device_that_goes_while_it_is_read_makes_no_revision(faulty: FaultyDevice, site: Site) -> None:
    """From some block on nothing can be read any more; other jobs do not mind."""
    site.add_job("disk", faulty.path)
    image = with_bad_chunks(list(range(COUNT)))
    overwrite(faulty.path, image)
    with ExitStack() as gone:
        done = while_it_runs(site, "disk", lambda: gone.enter_context(faulty.when("fail-reads")))

        check_failed(site, "disk", done, "Input/output error")
        check_others(site)
    check_succeeds(site, "disk", image)


def test_a_device_that_shrinks_while_it_is_read_makes_no_revision(as_root: None, site: Site) -> None:
    """What is cut off is no zeros, and half an image is no revision."""
    backing = site.folder / "disk.raw"
    backing.write_bytes(sound())
    with loop_device(backing) as device:
        site.add_job("disk", Path(device))

        def shrink() -> None:
            os.truncate(backing, 2 * CHUNK)
            subprocess.run(["losetup", "--set-capacity", device], check=True)

        done = while_it_runs(site, "disk", shrink)

        check_failed(site, "disk", done, "it became shorter while it was read", "Input/output error")
        check_others(site)
        check_succeeds(site, "disk", sound()[: 2 * CHUNK])


@pytest.mark.parametrize("clone", ["auto", "off"])
def test_an_image_with_a_bad_block_makes_no_revision(tmp_path: Path, site: Site, clone: str) -> None:
    """On XFS, in place or from a clone, which does not stay."""
    with faulty_device(tmp_path, size=320 << 20) as device, device.mounted("xfs") as folder:
        image = folder / "image.raw"
        image.write_bytes(with_bad_chunks([37]))
        site.add_disks("disk", {"root": image}, clone=clone)
        with image.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        with device.when("fail-reads"):
            done = backy("-b", str(site.base / "disk"), "backup", "daily")

            check_failed(site, "disk", done, "Input/output error")
            check_others(site)
        assert [image.name] == os.listdir(folder)
        backy("-b", str(site.base / "disk"), "backup", "daily")
        (made,) = site.history(job="disk").revisions
        assert image.read_bytes() == site.restored(made, job="disk", disk="root")
