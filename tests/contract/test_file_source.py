"""The file source on its own: what it refuses, how it notices writes, and what it tells about itself."""

import errno
import mmap
import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from backy.domain.revision import Consistency, SourceIdentity, View
from backy.ground import linux
from backy.ground.errors import SourceFailed, SourceRefused
from backy.ground.linux import PAGE, Buffer
from backy.ground.manyreads import Part
from backy.ground.pagecache import UncachedFile
from backy.source import bulk
from backy.source.file import FileSource
from fakes import FakeSource, loop_device, no_descriptors

SIZE = 64 * PAGE
REVISION = "11111111-1111-4111-8111-111111111111"


def filled(path: Path) -> Path:
    """A file of noise."""
    path.write_bytes(random.Random(3).randbytes(SIZE))
    return path


def test_parts_that_cannot_be_read_for_want_of_descriptors_are_told(tmp_path: Path) -> None:
    """With the image's path and the place, as of any other read."""
    image = filled(tmp_path / "image")
    with FileSource(str(image)).snapshot(REVISION) as snapshot:
        drop_cache(image)
        parts = [Part(8 * PAGE, PAGE, 0), Part(40 * PAGE, PAGE, PAGE)]
        with no_descriptors(), pytest.raises(SourceFailed) as caught:
            bulk.read_parts(snapshot, Buffer(2 * PAGE), parts)

    assert (str(image), 8 * PAGE, "Too many open files") == (
        caught.value.path,
        caught.value.offset,
        caught.value.why,
    )


def drop_cache(path: Path) -> None:
    """Have the file out of the page cache, or it would be read from there."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def refusal(path: str) -> str:
    """Why a source is refused; the attempt ends within two seconds even if it would block."""
    found: list[str] = []

    def attempt() -> None:
        try:
            with FileSource(path).snapshot(REVISION):
                found.append("it was accepted")
        except SourceRefused as error:
            found.append(error.why)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(2)
    return found[0] if found else "it blocks"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (str, "it does not exist"),
        (Path.mkdir, "it is a directory, not an image file or block device"),
        (os.mkfifo, "it is neither a regular file nor a block device"),
        (lambda path: path.symlink_to("/dev/null"), "it is neither a regular file nor a block device"),
        (lambda path: path.symlink_to("/dev/zero"), "it is neither a regular file nor a block device"),
        (lambda path: path.symlink_to("nowhere"), "it does not exist"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """Directories, FIFOs, character devices and nothing are refused at once, each by its name."""
    make(tmp_path / "image")

    assert why == refusal(str(tmp_path / "image"))


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket cannot be opened at all."""
    monkeypatch.chdir(tmp_path)  # socket paths are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("image")

    assert "it is a socket or has no device" == refusal("image")


def test_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is told."""

    def denied(_path: str) -> UncachedFile:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(UncachedFile, "open", denied)

    assert "Permission denied" == refusal(str(filled(tmp_path / "image")))


@pytest.mark.parametrize("path", ["", "x" * 300, "a/b/c"])
def test_path_that_leads_nowhere_is_refused(path: str) -> None:
    """Empty, overlong and missing paths are one sentence each."""
    assert refusal(path) in ("it does not exist", "File name too long")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: os.truncate(path, SIZE // 2), id="shrunk"),
        pytest.param(lambda path: os.truncate(path, SIZE * 2), id="grown"),
        pytest.param(lambda path: os.utime(path, ns=(1, 1)), id="touched"),
        pytest.param(filled, id="written over with the same bytes"),
    ],
)
def test_image_that_changed_is_torn(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Size and times are compared, not bytes: what might have changed is never called good."""
    path = filled(tmp_path / "image")
    with FileSource(str(path)).snapshot(REVISION) as snapshot:
        change(path)
        assert Consistency.TORN is snapshot.consistency()


def test_image_that_is_only_read_is_consistent(tmp_path: Path) -> None:
    """Somebody who reads the image meanwhile does not make it torn."""
    path = filled(tmp_path / "image")
    with FileSource(str(path)).snapshot(REVISION) as snapshot:
        path.read_bytes()
        os.stat(path)
        assert Consistency.CONSISTENT is snapshot.consistency()


@pytest.mark.parametrize("dirty_before", [False, True])
def test_image_that_is_written_through_memory_is_torn(tmp_path: Path, dirty_before: bool) -> None:
    """A running machine may have its image mapped: also a page that was dirty before is noticed."""
    path = filled(tmp_path / "image")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as memory:
        if dirty_before:
            memory[0] = 1
        with FileSource(str(path)).snapshot(REVISION) as snapshot:
            memory[0] = 2
            assert Consistency.TORN is snapshot.consistency()


def test_image_that_changed_just_now_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second write within one tick of the clock leaves no trace, so the tick has to pass first."""
    path = filled(tmp_path / "image")
    waited: list[float] = []

    def now() -> int:
        return path.stat().st_ctime_ns + 1 + int(sum(waited) * 1e9)

    clock = SimpleNamespace(time_ns=now, sleep=waited.append)
    monkeypatch.setattr("backy.source.file.time", clock)
    with FileSource(str(path)).snapshot(REVISION) as snapshot:
        assert Consistency.CONSISTENT is snapshot.consistency()

    assert sum(waited) >= 0.01


def test_image_that_shrinks_fails_with_its_byte(tmp_path: Path) -> None:
    """Reading where the image ended meanwhile names that byte."""
    path = filled(tmp_path / "image")
    with FileSource(str(path)).snapshot(REVISION) as snapshot:
        os.truncate(path, PAGE + 100)
        with pytest.raises(SourceFailed, match="it became shorter") as caught:
            snapshot.read(Buffer(4 * PAGE), 0, 4 * PAGE)

    assert PAGE + 100 == caught.value.offset


def test_read_error_names_its_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector is told with the offset of the read."""
    with FileSource(str(filled(tmp_path / "image"))).snapshot(REVISION) as snapshot:

        def bad(*_: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(UncachedFile, "read", bad)
        with pytest.raises(SourceFailed, match="byte 8192 failed: Input/output error"):
            snapshot.read(Buffer(PAGE), 8192, PAGE)


def test_identity_is_that_of_the_file(tmp_path: Path) -> None:
    """Path, inode, size and change time say which file it was and in which state."""
    path = filled(tmp_path / "image")
    with FileSource(str(path)).snapshot(REVISION) as snapshot:
        found = path.stat()
        expected = SourceIdentity(
            type="file",
            path=str(path),
            inode=found.st_ino,
            changed_ns=found.st_ctime_ns,
            size=SIZE,
            view=View.IN_PLACE,
        )
        assert expected == snapshot.identity


def test_replaced_image_is_still_read_from_the_old_file(tmp_path: Path) -> None:
    """A file that takes the image's name during the backup is not mixed into it."""
    path = filled(tmp_path / "image")
    old = path.read_bytes()
    with FileSource(str(path)).snapshot(REVISION) as snapshot:
        (tmp_path / "other").write_bytes(bytes(SIZE))
        (tmp_path / "other").rename(path)
        buffer = Buffer(SIZE)
        snapshot.read(buffer, 0, SIZE)
        assert old == bytes(buffer.view)


def test_reading_does_not_fill_the_page_cache(tmp_path: Path) -> None:
    """A backup of a cold image leaves the host's cache to the host."""
    path = filled(tmp_path / "image")
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with FileSource(str(path)).snapshot(REVISION) as snapshot:
            snapshot.read(Buffer(SIZE), 0, SIZE)
        assert 0.0 == linux.resident_share(file.fileno(), 0, SIZE)


@pytest.mark.root
def test_device_is_one_extent_without_an_inode(tmp_path: Path, as_root: None) -> None:
    """A device knows neither holes nor times."""
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with loop_device(tmp_path / "disk") as device, FileSource(device).snapshot(REVISION) as snapshot:
        assert [(0, SIZE)] == [tuple(extent) for extent in snapshot.extents()]
        expected = SourceIdentity(type="file", path=device, size=SIZE, view=View.IN_PLACE)
        assert expected == snapshot.identity
        assert SIZE == snapshot.data_size


@pytest.mark.root
def test_device_that_discards_is_torn(tmp_path: Path, as_root: None) -> None:
    """A discard changes what is read as much as a write does."""
    filled(tmp_path / "disk")
    with loop_device(tmp_path / "disk") as device:
        fd = os.open(device, os.O_RDWR)
        with FileSource(device).snapshot(REVISION) as snapshot:
            linux.punch_hole(fd, 0, PAGE)
            assert Consistency.TORN is snapshot.consistency()
        os.close(fd)


@pytest.mark.root
def test_device_without_counters_is_torn(
    tmp_path: Path, as_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel shows no counters nobody can say that nothing was written."""
    filled(tmp_path / "disk")
    monkeypatch.setattr("backy.source.file._counters", lambda _: ())
    with loop_device(tmp_path / "disk") as device, FileSource(device).snapshot(REVISION) as snapshot:
        assert Consistency.TORN is snapshot.consistency()


@pytest.mark.root
def test_device_whose_counters_stand_still_is_torn(tmp_path: Path, as_root: None) -> None:
    """With statistics off (queue/iostats) counters prove nothing, so the image is not called good."""
    filled(tmp_path / "disk")
    with loop_device(tmp_path / "disk") as device:
        switch = Path(f"/sys/block/{Path(device).name}/queue/iostats")
        switch.write_text("0")
        try:
            with FileSource(device).snapshot(REVISION) as snapshot:
                fd = os.open(device, os.O_WRONLY)
                os.pwrite(fd, b"n" * 512, 0)
                os.fsync(fd)
                os.close(fd)
                assert Consistency.TORN is snapshot.consistency()
        finally:
            switch.write_text("1")


def test_fake_source_fails_at_its_bad_bytes() -> None:
    """The stand-in can have bad sectors, and other bytes are read beside them."""
    with FakeSource(b"x" * SIZE, bad=range(PAGE + 5, PAGE + 6)).snapshot(REVISION) as snapshot:
        snapshot.read(Buffer(PAGE), 0, PAGE)
        snapshot.read(Buffer(PAGE), 2 * PAGE, PAGE)
        with pytest.raises(SourceFailed, match="Input/output error"):
            snapshot.read(Buffer(PAGE), PAGE, PAGE)
