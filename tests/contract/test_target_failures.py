"""What a restore that fails, is killed, or meets another one leaves behind."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backy.ground import failpoint, locks
from backy.ground.errors import TargetFailed, TargetRefused
from backy.ground.linux import Buffer
from backy.target.base import Target
from backy.target.device import DeviceTarget
from backy.target.file import FileTarget
from backy.target.stream import StreamTarget
from fakes import FailAt, loop_device, no_descriptors

MIB = 1 << 20
OLD = b"\xff" * MIB


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Inode and size of what was synced, in order."""
    found: list[tuple[int, int]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        seen = os.fstat(fd)
        found.append((seen.st_ino, seen.st_size if stat.S_ISREG(seen.st_mode) else 0))

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def filled(content: bytes = b"n" * 8192) -> Buffer:
    """A buffer that holds this."""
    buffer = Buffer(len(content))
    buffer.fill(content)
    return buffer


def test_a_restored_file_is_synced_and_then_its_name(
    tmp_path: Path, synced: list[tuple[int, int]]
) -> None:
    """Before the restore says that it is done: no byte is left to a power cut, and no name."""
    target = FileTarget(str(tmp_path / "image"))
    target.begin(8192)
    target.write(filled(), 0, 8192)
    assert [] == synced
    target.finish()
    target.close()

    image = (tmp_path / "image").stat()
    assert [(image.st_ino, 8192), (tmp_path.stat().st_ino, 0)] == synced


def test_second_restore_to_one_file_is_refused(tmp_path: Path) -> None:
    """Two restores to one file at the same time do not mix; the first one goes on."""
    first, second = (FileTarget(str(tmp_path / "image")) for _ in range(2))
    first.begin(8192)
    with pytest.raises(TargetRefused, match="in use by another restore"):
        second.begin(8192)
    second.close()
    first.write(filled(), 0, 8192)
    first.finish()
    first.close()

    assert b"n" * 8192 == (tmp_path / "image").read_bytes()


def test_rest_of_a_killed_restore_is_replaced(tmp_path: Path) -> None:
    """A partial file that nobody holds any more is no obstacle, and none of its bytes come through."""
    (tmp_path / "image.partial").write_bytes(OLD)
    target = FileTarget(str(tmp_path / "image"))
    target.begin(8192)
    target.finish()
    target.close()

    assert bytes(8192) == (tmp_path / "image").read_bytes()
    assert ["image"] == os.listdir(tmp_path)


def test_restores_that_meet_at_a_leftover_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was slow to lock a dead run's partial file does not take the first one's in its place."""
    (tmp_path / "image.partial").write_bytes(OLD)
    first, second = (FileTarget(str(tmp_path / "image")) for _ in range(2))
    lock = locks.try_exclusive

    def overtaken(fd: int) -> bool:
        monkeypatch.undo()
        first.begin(8192)
        return lock(fd)

    monkeypatch.setattr(locks, "try_exclusive", overtaken)
    with pytest.raises(TargetRefused, match="in use by another restore"):
        second.begin(8192)
    second.close()
    first.write(filled(), 0, 8192)
    first.finish()
    first.close()

    assert b"n" * 8192 == (tmp_path / "image").read_bytes()
    assert ["image"] == os.listdir(tmp_path)


@pytest.mark.parametrize("leftover", [True, False])
def test_one_that_is_new_is_made_again_when_another_took_it_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftover: bool
) -> None:
    """Between its making and its lock another restore may have removed it, and have failed since."""
    if leftover:
        (tmp_path / "image.partial").write_bytes(OLD)
    first, second = (FileTarget(str(tmp_path / "image")) for _ in range(2))
    lock, calls = locks.try_exclusive, []

    def overtaken(fd: int) -> bool:
        calls.append(fd)
        if len(calls) == 1 + leftover:
            second.begin(8192)
            second.close()
        return lock(fd)

    monkeypatch.setattr(locks, "try_exclusive", overtaken)
    first.begin(8192)
    first.write(filled(), 0, 8192)
    first.finish()
    first.close()

    assert b"n" * 8192 == (tmp_path / "image").read_bytes()
    assert ["image"] == os.listdir(tmp_path)


@pytest.mark.parametrize("foreign", [b"foreign", None])
def test_partial_file_that_is_another_by_now_does_not_become_the_target(
    tmp_path: Path, foreign: bytes | None
) -> None:
    """Whoever removed or replaced it by hand finds the old image as it was, and his file left alone."""
    path, partial = tmp_path / "image", tmp_path / "image.partial"
    path.write_bytes(b"old")
    target = FileTarget(str(path))
    target.begin(8192)
    target.write(filled(), 0, 8192)
    partial.unlink()
    if foreign is not None:
        partial.write_bytes(foreign)
    with pytest.raises(TargetFailed, match=r"removed or replaced meanwhile; it is as it was before"):
        target.finish()
    target.close()

    assert b"old" == path.read_bytes()
    assert foreign == (partial.read_bytes() if partial.exists() else None)


def test_restores_at_the_same_time_leave_one_whole_image(tmp_path: Path) -> None:
    """Whichever of several come through beside leftovers, each file that appears is one of theirs."""
    path = tmp_path / "image"

    def restore(number: int) -> bool:
        target = FileTarget(str(path))
        try:
            target.begin(8192)
            target.write(filled(bytes([number]) * 8192), 0, 8192)
            target.finish()
        except TargetRefused as error:
            assert "in use by another restore" in error.message  # noqa: PT017 - others come through
            return False
        finally:
            target.close()
        return True

    for _ in range(50):
        path.unlink(missing_ok=True)
        (tmp_path / "image.partial").write_bytes(OLD)
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(restore, range(1, 5)))
        assert path.read_bytes() in [bytes([n]) * 8192 for n, one in enumerate(done, 1) if one]
        assert ["image"] == os.listdir(tmp_path)


@pytest.mark.parametrize("old", [None, b"old contents"])
def test_file_appears_only_when_it_is_finished(tmp_path: Path, old: bytes | None) -> None:
    """Until `finish` the name holds what it held before, or nothing."""
    path = tmp_path / "image"
    if old is not None:
        path.write_bytes(old)
    target = FileTarget(str(path))
    target.begin(8192)
    target.write(filled(), 0, 8192)
    assert old == (path.read_bytes() if path.exists() else None)
    target.close()

    assert old == (path.read_bytes() if path.exists() else None)
    assert ([] if old is None else ["image"]) == os.listdir(tmp_path)


def test_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    """An image that its virtual machine may read stays readable to it."""
    (tmp_path / "image").write_bytes(b"old")
    (tmp_path / "image").chmod(0o604)
    target = FileTarget(str(tmp_path / "image"))
    target.begin(1)
    target.write(filled(b"n"), 0, 1)
    target.finish()
    target.close()

    assert 0o604 == stat.S_IMODE((tmp_path / "image").stat().st_mode)


def test_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """An image holds everything a machine knows."""
    target = FileTarget(str(tmp_path / "image"))
    target.begin(1)
    target.finish()
    target.close()

    assert 0o600 == stat.S_IMODE((tmp_path / "image").stat().st_mode)


@pytest.mark.parametrize("step", range(1, 7))
def test_file_restore_that_fails_keeps_the_old_file(tmp_path: Path, step: int) -> None:
    """A full disk at any step before the rename leaves the old image and no partial file."""
    path = tmp_path / "image"
    path.write_bytes(b"old")
    hook = FailAt(step, errno.ENOSPC)
    failpoint.install(hook)
    target = FileTarget(str(path))
    try:
        target.begin(8192)
        target.write(filled(), 0, 8192)
        target.finish()
    except (TargetFailed, TargetRefused) as error:
        assert "No space left" in error.message  # noqa: PT017 - the hook may have no such step
        done = bool(hook.step and hook.step.startswith("sync directory"))
        assert done == ("it is incomplete" in error.message)  # noqa: PT017
    failpoint.install(None)
    target.close()

    expected = b"old" if hook.step and not hook.step.startswith("sync directory") else b"n" * 8192
    assert expected == path.read_bytes()
    assert ["image"] == os.listdir(tmp_path)


@pytest.mark.root
def test_device_that_fails_names_the_byte(tmp_path: Path, as_root: None) -> None:
    """A write error is told with its offset, and that the device is incomplete."""
    (tmp_path / "disk").write_bytes(OLD)
    with loop_device(tmp_path / "disk") as path:
        target = DeviceTarget(path)
        target.begin(MIB)
        failpoint.install(FailAt(1))
        with pytest.raises(TargetFailed, match="byte 4096: Input/output error; it is incomplete"):
            target.write(filled(), 4096, 8192)
        failpoint.install(FailAt(1))
        with pytest.raises(TargetFailed, match="byte 8192"):
            target.zero(8192, 4096)
        failpoint.install(FailAt(1))
        with pytest.raises(TargetFailed, match="Input/output error"):
            target.finish()
        target.close()


def test_reader_that_has_gone_is_told(tmp_path: Path) -> None:
    """A pipe whose reader ended is an error of the target, with the byte it got to."""
    reading, writing = os.pipe()
    os.close(reading)
    target = StreamTarget(writing)
    target.begin(8192)
    with pytest.raises(TargetFailed, match="byte 0: Broken pipe"):
        target.write(filled(), 0, 8192)
    os.close(writing)


def read_back(target: Target) -> object:
    """What was written."""
    return target.read_back(Buffer(8192), 4096, 4096)


def ask_for_a_hole(target: Target) -> object:
    """Whether it need not be read."""
    return target.is_hole(4096, 4096)


@pytest.mark.parametrize("look", [read_back, ask_for_a_hole])
def test_file_that_cannot_be_read_back_is_told(tmp_path: Path, look: Callable[[Target], object]) -> None:
    """With its name and the place, as of any other failure."""
    target = FileTarget(str(tmp_path / "image"))
    target.begin(8192)
    target.finish()
    with no_descriptors(), pytest.raises(TargetFailed, match="image: byte 4096: Too many open files"):
        look(target)
    target.close()


@pytest.mark.root
def test_device_that_cannot_be_read_back_is_told(tmp_path: Path, as_root: None) -> None:
    """The same of a device, of which nothing is ever known to be a hole."""
    (tmp_path / "disk").write_bytes(OLD)
    with loop_device(tmp_path / "disk") as path:
        target = DeviceTarget(path)
        target.begin(MIB)
        target.finish()
        with no_descriptors(), pytest.raises(TargetFailed, match="byte 4096: Too many open files"):
            read_back(target)
        target.close()


@pytest.mark.root
def test_device_behind_standard_output_that_loses_writes_is_told(tmp_path: Path, as_root: None) -> None:
    """Its page cache takes everything; that the disk does not shows only when it is synced."""
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "small", tmp_path / "small"], check=True)
    try:
        (tmp_path / "small/disk").touch()
        os.truncate(tmp_path / "small/disk", 8 * MIB)
        with loop_device(tmp_path / "small/disk") as path, open(path, "r+b", buffering=0) as device:
            target = StreamTarget(device.fileno())
            target.begin(4 * MIB)
            target.write(filled(OLD * 4), 0, 4 * MIB)
            with pytest.raises(TargetFailed, match="Input/output error; it is incomplete"):
                target.finish()
            target.close()
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def test_file_behind_standard_output_is_synced(tmp_path: Path) -> None:
    """A sync that fails fails the restore; a pipe has nothing to sync."""
    hook = FailAt(1)
    reading, writing = os.pipe()
    with (tmp_path / "image").open("wb") as file:
        failpoint.install(hook)
        with pytest.raises(TargetFailed, match="Input/output error; it is incomplete"):
            StreamTarget(file.fileno()).finish()
    StreamTarget(writing).finish()
    os.close(reading)
    os.close(writing)

    assert "sync -" == hook.step


def test_partial_file_is_locked_while_it_is_written(tmp_path: Path) -> None:
    """Another restore can tell a living one from a killed one."""
    target = FileTarget(str(tmp_path / "image"))
    target.begin(1)
    fd = os.open(tmp_path / "image.partial", os.O_RDONLY)
    granted = [locks.try_shared(fd)]
    target.close()
    granted.append(locks.try_shared(fd))
    os.close(fd)

    assert [False, True] == granted
