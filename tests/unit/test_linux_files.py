"""Linux calls on files: holes, the page cache, what a file system is, and its errors."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.ground import linux
from backy.ground.linux import PAGE
from fakes import loop_device

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A written and synced file of 1 MiB of 0xAA."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"\xaa" * MIB)
    os.fsync(fd)
    yield fd
    os.close(fd)


def drop(fd: int) -> None:
    """Take a synced file out of the page cache."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def test_freshly_read_file_is_resident(file: int) -> None:
    """A file that was just read lies in the page cache, as a whole and in each part."""
    os.pread(file, MIB, 0)

    assert 1.0 == linux.resident_share(file, 0, MIB)
    assert 1.0 == linux.resident_share(file, 4 * PAGE, 1)


def test_dropped_file_is_not_resident(file: int) -> None:
    """A file that was dropped from the page cache has no share in it, and looking brings none back."""
    drop(file)

    assert [0.0, 0.0] == [linux.resident_share(file, 0, MIB) for _ in range(2)]


def test_half_resident_file_is_told_as_half(file: int) -> None:
    """The share is counted in pages of the range that was asked for."""
    drop(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
    os.pread(file, MIB // 2, 0)

    assert 0.5 == pytest.approx(linux.resident_share(file, 0, MIB), abs=0.05)
    assert 1.0 == linux.resident_share(file, 0, MIB // 2)
    assert 0.0 == linux.resident_share(file, MIB - PAGE, PAGE)


def test_empty_range_has_no_share(file: int) -> None:
    """Nothing is not in the cache."""
    assert 0.0 == linux.resident_share(file, 0, 0)


def test_what_cannot_be_mapped_has_no_share(tmp_path: Path) -> None:
    """A directory or a closed descriptor is an answer too, not an error."""
    fd = os.open(tmp_path, os.O_RDONLY)
    assert 0.0 == linux.resident_share(fd, 0, PAGE)
    os.close(fd)
    assert 0.0 == linux.resident_share(-1, 0, PAGE)


def test_punched_hole_reads_as_zeros_and_takes_no_space(file: int) -> None:
    """The range is zero afterwards, the size and the rest are as before, and its blocks are free."""
    before = os.fstat(file).st_blocks
    linux.punch_hole(file, 16 * PAGE, 32 * PAGE)

    content = os.pread(file, MIB, 0)
    assert b"\xaa" * 16 * PAGE + bytes(32 * PAGE) + b"\xaa" * (MIB - 48 * PAGE) == content
    assert os.fstat(file).st_blocks <= before - 31 * PAGE // 512


def test_punching_where_nothing_can_be_punched_is_an_error(tmp_path: Path) -> None:
    """A read-only descriptor or a FIFO tells its errno."""
    (tmp_path / "x").write_bytes(b"x")
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    with pytest.raises(OSError, match=r".") as caught:
        linux.punch_hole(fd, 0, PAGE)
    os.close(fd)

    assert errno.EBADF == caught.value.errno


@pytest.mark.parametrize("call", [linux.syncfs, linux.file_system])
def test_closed_descriptor_is_an_error(call: Callable[[int], object]) -> None:
    """Every call that fails raises OSError with the errno."""
    with pytest.raises(OSError, match=r".") as caught:
        call(-1)

    assert errno.EBADF == caught.value.errno


def test_writeback_of_a_closed_descriptor_is_an_error() -> None:
    """Even the call that promises nothing tells a mistake."""
    with pytest.raises(OSError, match=r".") as caught:
        linux.start_writeback(-1, PAGE)

    assert errno.EBADF == caught.value.errno


def test_writeback_and_syncfs_leave_the_bytes(file: int) -> None:
    """Syncing a file changes nothing in it."""
    os.pwrite(file, b"new", 0)
    linux.start_writeback(file, 3)
    linux.syncfs(file)

    assert b"new\xaa" == os.pread(file, 4, 0)


@pytest.mark.parametrize(("path", "names"), [("/proc", ("0x9fa0",)), ("/dev/shm", ("tmpfs",))])
def test_file_system_is_named(path: str, names: tuple[str, ...]) -> None:
    """A known file system has its name, another one its magic number."""
    fd = os.open(path, os.O_RDONLY)
    found = linux.file_system(fd)
    os.close(fd)

    assert found in names
    assert (found in linux.TRUSTED_FILE_SYSTEMS) is (path == "/dev/shm")


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("5.7.19", False),
        ("4.20.0-generic", False),
        ("5.8.0", True),
        ("5.10", True),
        ("6.1.0-13-amd64", True),
        ("6.18.44-fc-v669", True),
        ("10.0-rc1", True),
        ("5.8-rc1", True),
    ],
)
def test_kernels_from_5_8_tell_write_errors(
    monkeypatch: pytest.MonkeyPatch, release: str, told: bool
) -> None:
    """The kernel's version decides, however its vendor spells it."""
    monkeypatch.setattr(os, "uname", lambda: type("Name", (), {"release": release}))

    assert told is linux.errors_are_told()


@pytest.mark.root
@pytest.mark.parametrize("sector", [512, 4096])
def test_device_tells_its_size_and_sector(tmp_path: Path, sector: int, as_root: None) -> None:
    """A block device is as large as its file, in sectors of its own."""
    (tmp_path / "disk").write_bytes(bytes(MIB))
    with loop_device(tmp_path / "disk", sector=sector) as device:
        fd = os.open(device, os.O_RDONLY)
        found = linux.device_size(fd), linux.sector_size(fd)
        os.close(fd)

    assert (MIB, sector) == found


@pytest.mark.root
def test_zeros_written_to_a_device_are_zeros(tmp_path: Path, as_root: None) -> None:
    """The range reads as zeros and the rest stays."""
    (tmp_path / "disk").write_bytes(b"\xff" * MIB)
    with loop_device(tmp_path / "disk") as device:
        fd = os.open(device, os.O_RDWR)
        linux.write_zeros(fd, PAGE, 2 * PAGE)
        os.fsync(fd)
        content = os.pread(fd, MIB, 0)
        os.close(fd)

    assert b"\xff" * PAGE + bytes(2 * PAGE) + b"\xff" * (MIB - 3 * PAGE) == content
