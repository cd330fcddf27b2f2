"""Asking Linux where a file's blocks lie: whole answers, answers in parts, and refusals."""

import os
from pathlib import Path

import pytest

from backy.ground import fiemap
from backy.ground.linux import PAGE

BLOCKS = 40


@pytest.fixture
def sparse(tmp_path: Path) -> int:
    """A descriptor of a file with every other block; skipped where nobody knows where they lie."""
    fd = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT)
    for number in range(0, BLOCKS, 2):
        os.pwrite(fd, b"x" * PAGE, number * PAGE)
    try:
        fiemap.where(fd, 0, PAGE)
    except OSError:
        pytest.skip("this file system has no FIEMAP")
    return fd


def asked(fd: int, batch: int) -> list[int]:
    """The blocks that are there, asked for part by part."""
    found: list[int] = []
    at = 0
    while at < BLOCKS * PAGE:
        answer = fiemap.where(fd, at, BLOCKS * PAGE, batch=batch)
        assert answer.stop > at
        for logical, _, length, _ in answer.extents():
            found += range(logical // PAGE, (logical + length) // PAGE)
        at = answer.stop
    os.close(fd)
    return found


@pytest.mark.parametrize("batch", [1, 3, 20, 21, 1000])
def test_all_blocks_are_told_however_many_an_answer_takes(sparse: int, batch: int) -> None:
    """Each once, in order, and no hole; data that nobody has written to the disk yet is waited for."""
    assert list(range(0, BLOCKS, 2)) == asked(sparse, batch)


def test_answer_ends_at_the_range_that_was_asked_for(sparse: int) -> None:
    """Nothing behind it is said to be looked at."""
    answer = fiemap.where(sparse, 0, 5 * PAGE)
    os.close(sparse)

    assert 5 * PAGE == answer.stop
    assert [0, 2, 4] == [logical // PAGE for logical, *_ in answer.extents()]


def test_file_without_blocks_is_one_hole(tmp_path: Path) -> None:
    """The answer covers all of it at once, however large it is."""
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
        try:
            answer = fiemap.where(file.fileno(), 0, 1 << 40)
        except OSError:
            pytest.skip("this file system has no FIEMAP")

    assert (b"", 1 << 40) == answer


def test_what_is_no_file_is_refused() -> None:
    """The system's errors come as they are."""
    ours, theirs = os.pipe()
    with pytest.raises(OSError, match=r"\[Errno"):
        fiemap.where(ours, 0, PAGE)
    with pytest.raises(OSError, match=r"\[Errno"):
        fiemap.clone(theirs, ours)
    os.close(ours)
    os.close(theirs)
