"""Locks: kept by the kernel, between open files, and gone with their holder."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.ground import locks
from backy.ground.directory import Directory


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Directory]:
    """An open empty directory."""
    with Directory.open(str(tmp_path)) as directory:
        yield directory


@pytest.fixture
def pair(folder: Directory) -> Iterator[tuple[int, int]]:
    """Two independent descriptors of one lock file."""
    both = locks.open_lock_file(folder, "lock"), locks.open_lock_file(folder, "lock")
    yield both
    for fd in both:
        os.close(fd)


@pytest.mark.parametrize(
    ("held", "wanted", "granted"),
    [
        (locks.try_exclusive, locks.try_exclusive, False),
        (locks.try_exclusive, locks.try_shared, False),
        (locks.try_shared, locks.try_exclusive, False),
        (locks.try_shared, locks.try_shared, True),
        (locks.wait_exclusive, locks.try_shared, False),
        (locks.wait_shared, locks.try_exclusive, False),
        (locks.wait_shared, locks.try_shared, True),
    ],
)
def test_only_sharers_hold_a_lock_together(
    pair: tuple[int, int], held: Callable[[int], object], wanted: Callable[[int], bool], granted: bool
) -> None:
    """An exclusive lock shuts out everybody, a shared one only those who want it alone."""
    held(pair[0])

    assert granted is wanted(pair[1])


def test_waiting_for_a_lock_may_have_an_end(pair: tuple[int, int]) -> None:
    """Whoever asks for it in vain gets it once it is free."""
    assert locks.try_exclusive(pair[0])
    assert not locks.wait_shared_for(pair[1], 0.0)
    assert locks.is_held(pair[1])
    fcntl.flock(pair[0], fcntl.LOCK_UN)

    assert locks.wait_shared_for(pair[1], 0.0)
    assert not locks.try_exclusive(pair[0])


def test_lock_ends_with_its_descriptor(folder: Directory, pair: tuple[int, int]) -> None:
    """Closing the file is all it takes to release a lock."""
    holder = locks.open_lock_file(folder, "lock")
    assert locks.try_exclusive(holder)
    assert not locks.try_exclusive(pair[0])
    os.close(holder)

    assert locks.try_exclusive(pair[0])


def test_lock_of_a_killed_process_is_free_at_once(folder: Directory, pair: tuple[int, int]) -> None:
    """No holder that was killed needs an unlock by hand, and one that is stopped still holds."""
    program = (
        "import sys; from backy.ground import locks; from backy.ground.directory import Directory\n"
        "fd = locks.open_lock_file(Directory.open(sys.argv[1]), 'lock')\n"
        "print(locks.try_exclusive(fd), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, folder.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert "True\n" == holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        assert not locks.try_shared(pair[0])
        holder.kill()
        holder.wait()

    assert locks.try_exclusive(pair[0])


def test_unlinked_file_is_no_longer_named(folder: Directory, pair: tuple[int, int]) -> None:
    """Who waited for a lock on a file that was removed meanwhile can tell."""
    assert locks.still_named(pair[0])
    os.unlink(folder.file_path("lock"))

    assert not locks.still_named(pair[0])


def test_lock_file_is_made_once_and_holds_nothing(folder: Directory, pair: tuple[int, int]) -> None:
    """Both descriptors are of the same empty file, which is its owner's alone."""
    found = os.stat(folder.file_path("lock"))

    assert [found.st_ino] * 2 == [os.fstat(fd).st_ino for fd in pair]
    assert (0, 0o600) == (found.st_size, found.st_mode & 0o777)


def test_link_in_place_of_a_lock_file_is_refused(folder: Directory, tmp_path: Path) -> None:
    """A lock on the file behind a link would be another lock; nor is that file made."""
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        locks.open_lock_file(folder, "lock")

    assert not (tmp_path / "elsewhere").exists()


def test_fifo_in_place_of_a_lock_file_does_not_block(folder: Directory, tmp_path: Path) -> None:
    """Whatever lies there, opening it returns at once."""
    os.mkfifo(tmp_path / "lock")

    os.close(locks.open_lock_file(folder, "lock"))
