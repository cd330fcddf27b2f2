"""Uncached reading: the right bytes from any file system, and the page cache as it was before."""

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.ground import linux
from backy.ground.linux import PAGE, Buffer
from backy.ground.pagecache import UncachedFile
from fakes import loop_device
from strategies import repeatable

LENGTHS = [0, 1, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, 16 * PAGE, 16 * PAGE + 700]
CONTENT = random.Random(7).randbytes(LENGTHS[-1])


@pytest.fixture(params=["disk", "tmpfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on the disk of the tests, and one in memory."""
    if request.param == "disk":
        yield tmp_path
        return
    path = Path("/dev/shm") / f"backy-tests-{os.getpid()}"
    path.mkdir()
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def settle(path: Path, *, cached: bool) -> None:
    """Bring a file to the disk, and into the page cache or out of it."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if cached:
        os.pread(fd, len(CONTENT), 0)
    os.close(fd)


def read(file: UncachedFile, offset: int, length: int, *, fresh: bool) -> bytes:
    """What a read returns, after checking that it wrote nothing that it did not count."""
    buffer = Buffer(max(length, 1))
    done = file.read(buffer, offset, length, fresh=fresh)
    assert done <= length
    return bytes(buffer.view[:done])


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("size", LENGTHS)
def test_file_of_any_length_is_read(folder: Path, size: int, fresh: bool, cached: bool) -> None:
    """Whole, in parts and beyond its end: the bytes are the file's, wherever they lie."""
    path = folder / "file"
    path.write_bytes(CONTENT[:size])
    settle(path, cached=cached)

    with UncachedFile.open(str(path)) as file:
        for offset in (0, PAGE, 8 * PAGE, 32 * PAGE):
            for length in (0, 1, PAGE, PAGE + 1, 20 * PAGE):
                expected = CONTENT[:size][offset : offset + length]
                assert expected == read(file, offset, length, fresh=fresh)


@repeatable(40)
@given(page=st.integers(0, 17), length=st.integers(0, 17 * PAGE), fresh=st.booleans())
def test_any_range_is_read(tmp_path: Path, page: int, length: int, *, fresh: bool) -> None:
    """Any aligned offset and any length give the bytes that are there."""
    path = tmp_path / "file"
    if not path.exists():
        path.write_bytes(CONTENT)
    settle(path, cached=False)
    with UncachedFile.open(str(path)) as file:
        offset = page * PAGE
        assert CONTENT[offset : offset + length] == read(file, offset, length, fresh=fresh)


def test_reading_leaves_a_cold_file_cold(tmp_path: Path) -> None:
    """What was not in the page cache is not there after it was read."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    settle(path, cached=False)

    with UncachedFile.open(str(path)) as file:
        read(file, 0, 16 * PAGE, fresh=False)
        assert 0.0 == linux.resident_share(file.fd, 0, 16 * PAGE)


def test_reading_leaves_a_warm_file_warm(tmp_path: Path) -> None:
    """What others keep in the page cache stays there, also when the disk itself is read."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    settle(path, cached=True)

    with UncachedFile.open(str(path)) as file:
        read(file, 0, 16 * PAGE, fresh=False)
        assert 1.0 == linux.resident_share(file.fd, 0, 16 * PAGE)


@pytest.mark.parametrize("fresh", [False, True])
def test_bytes_that_were_just_written_are_read(folder: Path, fresh: bool) -> None:
    """A write that is not on the disk yet is seen all the same."""
    path = folder / "file"
    path.write_bytes(CONTENT)
    settle(path, cached=False)

    with UncachedFile.open(str(path)) as file, path.open("r+b") as writer:
        writer.seek(PAGE + 5)
        writer.write(b"new")
        writer.flush()
        assert b"new" == read(file, PAGE, 16, fresh=fresh)[5:8]


@pytest.mark.root
def test_fresh_read_sees_the_disk_and_not_the_page_cache(tmp_path: Path, as_root: None) -> None:
    """After a lost write the cache returns bytes that the disk does not have; a fresh read does not."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"cached" + bytes(1 << 20))
    with loop_device(disk) as device, UncachedFile.open(device) as file:
        os.pread(file.fd, PAGE, 0)  # now the device's own pages are cached
        with disk.open("r+b") as behind:
            behind.write(b"on disk")
        found = {fresh: read(file, 0, PAGE, fresh=fresh)[:7] for fresh in (False, True)}

    assert {False: b"cached\0", True: b"on disk"} == found


def test_short_direct_read_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A direct read that ends early, though the file does not, is completed."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    settle(path, cached=False)
    real = os.preadv
    calls: list[int] = []

    def short(fd: int, views: list[memoryview], offset: int) -> int:
        calls.append(fd)
        return real(fd, [views[0][:PAGE]], offset)

    monkeypatch.setattr(os, "preadv", short)
    with UncachedFile.open(str(path)) as file:
        assert CONTENT[: 3 * PAGE] == read(file, 0, 3 * PAGE, fresh=False)

    assert len(calls) > 1


def test_file_without_direct_reads_is_read_and_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where O_DIRECT does not exist, a buffered read does, and leaves nothing in the page cache."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    settle(path, cached=False)
    monkeypatch.setattr(UncachedFile, "_read_direct", lambda *_: None)

    with UncachedFile.open(str(path)) as file:
        for fresh in (False, True):
            assert CONTENT[PAGE : 3 * PAGE] == read(file, PAGE, 2 * PAGE, fresh=fresh)
        assert linux.resident_share(file.fd, PAGE, 2 * PAGE) < 1


def test_a_file_without_direct_reads_is_brought_to_the_disk_before_it_is_read_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that were not written yet cannot be dropped, and would be read from the page cache again."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    monkeypatch.setattr(UncachedFile, "_read_direct", lambda *_: None)

    with UncachedFile.open(str(path)) as file:
        assert linux.resident_share(file.fd, 0, 16 * PAGE) == 1
        assert CONTENT[: 16 * PAGE] == read(file, 0, 16 * PAGE, fresh=True)
        assert linux.resident_share(file.fd, 0, 16 * PAGE) < 1


def test_many_threads_read_one_file(tmp_path: Path) -> None:
    """An open file may be read by any number of threads, each into its own buffer."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    settle(path, cached=False)

    with UncachedFile.open(str(path)) as file, ThreadPoolExecutor(4) as pool:
        pages = list(range(17)) * 4
        found = list(pool.map(lambda page: read(file, page * PAGE, PAGE, fresh=page % 2 == 0), pages))

    assert [CONTENT[page * PAGE : (page + 1) * PAGE] for page in pages] == found


@pytest.mark.parametrize("kind", ["FIFO", "directory", "missing"])
def test_opening_anything_else_returns_at_once(tmp_path: Path, kind: str) -> None:
    """A FIFO that nobody writes to does not block; what is not there is an error."""
    path = tmp_path / "odd"
    if kind == "missing":
        with pytest.raises(FileNotFoundError):
            UncachedFile.open(str(path))
        return
    os.mkfifo(path) if kind == "FIFO" else path.mkdir()

    def open_and_close() -> None:
        UncachedFile.open(str(path)).close()

    opener = threading.Thread(target=open_and_close)
    opener.start()
    opener.join(2)
    blocked = opener.is_alive()
    if blocked:  # a writer lets it go on, so that this test fails instead of hanging
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        opener.join()

    assert not blocked


def test_closing_closes_both_descriptors(tmp_path: Path) -> None:
    """The second descriptor, for direct reads, goes with the first."""
    (tmp_path / "file").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    with UncachedFile.open(str(tmp_path / "file")):
        assert before < len(os.listdir("/proc/self/fd"))

    assert before == len(os.listdir("/proc/self/fd"))
