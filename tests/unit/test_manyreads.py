"""Many reads at once: the same bytes as one by one, and what could not be read is told."""

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.ground import linux, manyreads
from backy.ground.linux import PAGE
from backy.ground.manyreads import DEPTH, Part
from strategies import repeatable

PAGES = 3 * DEPTH
CONTENT = random.Random(5).randbytes(PAGES * PAGE - 100)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file on the disk, open past the page cache where that is possible."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def some_parts(count: int) -> list[Part]:
    """Single pages, in disorder, none of them at the file's end."""
    draw = random.Random(count)
    return [Part(page * PAGE, PAGE, page * PAGE) for page in draw.sample(range(PAGES - 1), count)]


def check(fd: int, parts: list[Part]) -> list[Part]:
    """Read, compare each byte of the buffer, and return what was left."""
    buffer = linux.Buffer(PAGES * PAGE)
    left = manyreads.read(fd, buffer, parts)
    expected = bytearray(buffer.size)
    for offset, length, start in parts:
        if Part(offset, length, start) not in left:
            expected[start : start + length] = CONTENT[offset : offset + length]
    assert bytes(expected) == bytes(buffer.view)
    return left


@pytest.mark.parametrize("count", [1, 2, DEPTH - 1, DEPTH, DEPTH + 1, PAGES - 1])
def test_any_number_of_parts_is_read(file: int, count: int) -> None:
    """Each goes to its place, and nothing is left, also if there are more than a queue holds."""
    assert [] == check(file, some_parts(count))


@repeatable(60)
@given(numbers=st.lists(st.integers(0, 40), unique=True), lengths=st.lists(st.integers(1, 3)))
def test_parts_are_what_single_reads_give(
    tmp_path: Path, numbers: list[int], lengths: list[int]
) -> None:
    """Whatever the ranges: the law is os.pread."""
    path = tmp_path / "law"
    if not path.exists():
        path.write_bytes(CONTENT[: 200 * PAGE])
    parts = [
        Part(number * 4 * PAGE, length * PAGE, number * 4 * PAGE)
        for number, length in zip(numbers, lengths, strict=False)
    ]
    fd = os.open(path, os.O_RDONLY)
    expected, buffer = bytearray(200 * PAGE), linux.Buffer(200 * PAGE)
    for offset, length, start in parts:
        expected[start : start + length] = os.pread(fd, length, offset)

    assert [] == manyreads.read(fd, buffer, parts)
    os.close(fd)
    assert bytes(expected) == bytes(buffer.view)


def test_what_lies_behind_the_end_is_left(file: int) -> None:
    """A part that the file ends in, and one behind it, are returned; the others are read."""
    buffer = linux.Buffer(PAGES * PAGE)
    last = Part((PAGES - 1) * PAGE, PAGE, 0)
    behind = Part(PAGES * PAGE, PAGE, PAGE)
    good = Part(0, PAGE, 2 * PAGE)

    assert [last, behind] == manyreads.read(file, buffer, [last, good, behind])
    assert CONTENT[:PAGE] == bytes(buffer.view[2 * PAGE : 3 * PAGE])


def test_what_cannot_be_read_is_left(tmp_path: Path) -> None:
    """A descriptor that is not open for reading is not an exception here."""
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    parts = [Part(0, PAGE, 0), Part(PAGE, PAGE, PAGE)]

    assert parts == manyreads.read(fd, linux.Buffer(2 * PAGE), parts)
    os.close(fd)


@pytest.mark.parametrize("part", [Part(0, PAGE, PAGE), Part(0, 2 * PAGE, 0), Part(0, PAGE, -PAGE)])
def test_parts_outside_the_buffer_are_refused(file: int, part: Part) -> None:
    """Memory beside the buffer is somebody else's."""
    with pytest.raises(ValueError, match="do not fit"):
        manyreads.read(file, linux.Buffer(PAGE), [Part(0, PAGE, 0), part])


def test_all_is_left_where_there_is_no_queue(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of another kind, or a kernel that has no more of them, is no error."""
    monkeypatch.setattr(manyreads, "_idle", [])
    monkeypatch.setattr(manyreads, "_CALLS", {})
    parts = some_parts(3)

    assert parts == manyreads.read(file, linux.Buffer(PAGES * PAGE), parts)


def test_a_kernel_that_takes_a_few_at_a_time_gets_all(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """io_submit may take fewer than it was given, and io_getevents may be interrupted."""
    real = manyreads._call
    calls = manyreads._CALLS["x86_64" if os.uname().machine == "x86_64" else "aarch64"]
    seen: list[int] = []

    def grudging(number: int, *arguments: object) -> int:
        seen.append(number)
        if number == calls.submit:
            queue, count, rest = arguments
            assert isinstance(count, int)
            return real(number, queue, min(count, 7), rest)
        if number == calls.getevents and seen.count(number) % 2:
            raise InterruptedError
        return real(number, *arguments)

    monkeypatch.setattr(manyreads, "_call", grudging)

    assert [] == check(file, some_parts(50))
    assert (8, 2) == (seen.count(calls.submit), seen.count(calls.getevents))


def test_a_refusal_after_some_leaves_the_rest(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel has taken is waited for, so that the buffer is ours again."""
    real = manyreads._call
    calls = manyreads._CALLS["x86_64" if os.uname().machine == "x86_64" else "aarch64"]
    submitted: list[int] = []

    def refusing(number: int, *arguments: object) -> int:
        if number == calls.submit:
            if submitted:
                raise BlockingIOError
            submitted.append(1)
            queue, _, rest = arguments
            return real(number, queue, 5, rest)
        return real(number, *arguments)

    monkeypatch.setattr(manyreads, "_call", refusing)
    parts = some_parts(20)

    assert parts[5:] == check(file, parts)


def test_a_queue_is_closed_when_its_use_is_broken_off(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interrupt the kernel may still write to the buffer, until the queue has ended."""
    real = manyreads._call
    calls = manyreads._CALLS["x86_64" if os.uname().machine == "x86_64" else "aarch64"]
    seen: list[int] = []

    def interrupted(number: int, *arguments: object) -> int:
        seen.append(number)
        if number == calls.getevents:
            raise KeyboardInterrupt
        return real(number, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(manyreads, "_call", interrupted)
        patch.setattr(manyreads, "_idle", [])
        with pytest.raises(KeyboardInterrupt):
            manyreads.read(file, linux.Buffer(PAGES * PAGE), some_parts(3))
        assert [] == manyreads._idle

    assert [calls.setup, calls.submit, calls.getevents, calls.destroy] == seen
    assert [] == check(file, some_parts(3))


def test_many_threads_read_with_as_many_queues(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads do not share a queue at the same time, and queues are used again."""
    monkeypatch.setattr(manyreads, "_idle", [])
    with ThreadPoolExecutor(4) as pool:
        left = list(pool.map(lambda count: check(file, some_parts(count)), [20] * 40))

    assert [[]] * 40 == left
    assert 1 <= len(manyreads._idle) <= 4
