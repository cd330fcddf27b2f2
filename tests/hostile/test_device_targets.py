"""T15, T17: restores onto loop devices full of 0xFF are exact; devices in use are left alone."""

import os
from pathlib import Path

import pytest
from loops import loop_device, mounted, run
from small_store import restore_to

from backy.ground.errors import TargetRefused
from backy.target.device import DeviceTarget
from testsite import CHUNK, Site

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("as_root")]

AROUND_CHUNKS = [k * CHUNK + more for k in (1, 3) for more in (-1, 0, 1)]
SIZES = sorted([0, 1, 511, 512, 513, *AROUND_CHUNKS, 3 * CHUNK + 512])
DEVICE = 64 * CHUNK


def image_of(size: int) -> bytes:
    """Data, a chunk of zeros, data up to the end; in a short image what fits."""
    return (b"data" * CHUNK)[:CHUNK].ljust(2 * CHUNK, b"\0").ljust(size, b"e")[:size]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_device_full_of_ones_holds_the_image_and_nothing_else_changes(site: Site, sector: int) -> None:
    """At every boundary size: the image from byte 0, with its zeros, and 0xFF behind it as before."""
    for size in SIZES:
        site.image.write_bytes(image_of(size))
        os.truncate(site.image, size)
        site.backup()
        backing = site.folder / f"disk-{size}.raw"
        with loop_device(backing, size=DEVICE, sector=sector) as device:
            restore_to(site, "latest", DeviceTarget(str(device)), read_back=True)
            found = device.read_bytes()

        assert image_of(size) == found[:size], size
        assert b"\xff" * (DEVICE - size) == found[size:], size
        assert found == backing.read_bytes()


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_device_with_real_chunks_holds_the_image(tmp_path: Path, sector: int) -> None:
    """4 MiB chunks with holes of all grains and an odd end, through the command line."""
    site = Site(tmp_path, chunk_size=4 << 20)
    with site.image.open("wb") as image:
        for at in range(0, 4 << 20, 8192):
            image.seek(at)
            image.write(os.urandom(4096))
        image.seek(13 << 20)
        image.write(b"the odd end" * 53)
    site.backup()
    size = site.image.stat().st_size

    with loop_device(tmp_path / "disk.raw", size=16 << 20, sector=sector) as device:
        done = site.cli("restore", "--read-back", str(device))

        assert (0, "") == (done.returncode, done.stderr)
        assert device.read_bytes() == site.image.read_bytes() + b"\xff" * ((16 << 20) - size)


@pytest.mark.parametrize("capacity", [DEVICE, DEVICE + 512, DEVICE - 512])
def test_a_device_that_is_just_large_enough_is_taken(site: Site, capacity: int) -> None:
    """An image as large as the device restores, one byte more does not."""
    site.image.write_bytes(b"x" * capacity)
    site.backup()

    with loop_device(site.folder / "disk.raw", size=capacity) as device:
        restore_to(site, "latest", DeviceTarget(str(device)), read_back=True)
        assert site.image.read_bytes() == device.read_bytes()

        site.image.write_bytes(b"y" * (capacity + 1))
        site.backup()
        with pytest.raises(TargetRefused, match=f"has {capacity} bytes, the image {capacity + 1}"):
            restore_to(site, "latest", DeviceTarget(str(device)))
        assert b"x" * capacity == device.read_bytes()


@pytest.mark.parametrize("size", [1, CHUNK])
def test_a_device_that_is_too_small_is_not_touched(site: Site, size: int) -> None:
    """However little is missing."""
    with loop_device(site.folder / "disk.raw", size=DEVICE) as device:
        site.image.write_bytes(b"x" * (DEVICE + size))
        site.backup()
        done = site.cli("restore", str(device))

        assert (1, 1) == (done.returncode, done.stderr.count("\n"))
        assert "use a larger device; it was not touched." in done.stderr
        assert b"\xff" * DEVICE == device.read_bytes()


def test_a_mounted_device_is_not_touched(site: Site) -> None:
    """Its file system would be torn away from under its users."""
    site.image.write_bytes(b"x" * CHUNK)
    site.backup()
    with loop_device(site.folder / "disk.raw", size=4 << 20) as device:
        # Or the kernel goes on writing to it once it is mounted.
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(device))
        with mounted(device, site.folder / "mounted") as folder:
            (folder / "file").write_text("here")
            os.sync()
            before = device.read_bytes()
            done = site.cli("restore", str(device))

            assert (1, 1) == (done.returncode, done.stderr.count("\n"))
            assert "it is mounted or in use: unmount or detach it first" in done.stderr
            assert before == device.read_bytes()


def test_a_device_that_someone_holds_alone_is_not_touched(site: Site) -> None:
    """As swap, RAID members and other restores do."""
    site.image.write_bytes(b"x" * CHUNK)
    site.backup()
    with loop_device(site.folder / "disk.raw", size=DEVICE) as device:
        holder = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            with pytest.raises(TargetRefused, match="in use"):
                restore_to(site, "latest", DeviceTarget(str(device)))
        finally:
            os.close(holder)
        assert b"\xff" * DEVICE == device.read_bytes()


@pytest.mark.parametrize(("capacity", "sector"), [(DEVICE, 4096), (DEVICE + 512, 512)])
def test_a_block_device_is_backed_up_like_a_file(site: Site, capacity: int, sector: int) -> None:
    """A device as the source: every byte, whatever its sectors, and also an odd number of them."""
    with loop_device(site.folder / "disk.raw", size=capacity, fill=b"z", sector=sector) as device:
        site.add_job("disk", device)
        revision = site.backup(job="disk")
        target = site.folder / "out.raw"
        site.restore(revision, target, job="disk")

        assert b"z" * capacity == target.read_bytes()
        assert [] == site.verify(job="disk").findings
