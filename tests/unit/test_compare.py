"""Asking the kernel about two files: windows, blocks that move meanwhile, answers that are none."""

import struct
from collections.abc import Callable, Sequence

import pytest

from backy.domain.extents import Extent
from backy.ground import fiemap
from backy.ground.fiemap import Answer
from backy.source.compare import compare

B = 4096
OLD, NEW = 3, 4

Places = Sequence[int]


class Disk:
    """Stands for FIEMAP: where each block of the two files lies, at each of the questions.

    `moves` is called before each question with its number, and may change `places`.
    """

    def __init__(self, old: Places, new: Places, moves: Callable[[int], None] = lambda _: None) -> None:
        self.places = {OLD: list(old), NEW: list(new)}
        self.questions = 0
        self._moves = moves

    def where(self, fd: int, start: int, stop: int, *, batch: int) -> Answer:
        """See `fiemap.where`: an extent a block, at most `batch`."""
        self._moves(self.questions)
        self.questions += 1
        numbers = range(start // B, -(-stop // B))[:batch]
        raw = b"".join(struct.pack("<QQQ16xI12x", n * B, self.places[fd][n] * B, B, 0) for n in numbers)
        return Answer(raw, min(stop, (numbers.stop) * B))


def compared(disk: Disk, monkeypatch: pytest.MonkeyPatch, batch: int = 3) -> list[int]:
    """The numbers of the blocks that are reported."""
    monkeypatch.setattr(fiemap, "where", disk.where)
    size = len(disk.places[OLD]) * B
    found = compare(OLD, NEW, size, batch=batch)
    return [n for one in found for n in range(one.offset // B, (one.offset + one.length) // B)]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_windows_make_no_difference(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """A file with more extents than one answer takes is looked at in parts, none left out."""
    old, new = list(range(20)), list(range(20))
    for n in (0, 5, 6, 7, 19):
        new[n] = 50 + n

    assert [0, 5, 6, 7, 19] == compared(Disk(old, new), monkeypatch, batch)


def test_blocks_that_move_meanwhile_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file's block moves away, and its place goes to the new file, between two questions."""

    def moves(question: int) -> None:
        if question == 1:  # after the old file was asked, before the new one is
            disk.places[OLD][2] = 60
            disk.places[NEW][2] = 2

    disk = Disk([0, 1, 2, 3], [0, 1, 40, 3], moves)

    assert [2] == compared(disk, monkeypatch, batch=10)


def test_shared_blocks_that_move_together_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancing moves a block that both files share; it is still one block."""

    def moves(question: int) -> None:
        if question == 2:
            disk.places[OLD][1] = disk.places[NEW][1] = 70

    disk = Disk([0, 1, 2], [0, 1, 2], moves)

    assert [] == compared(disk, monkeypatch, batch=10)


def test_files_that_never_come_to_rest_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever: after some tries the window counts as changed, and the next one is seen."""

    def moves(question: int) -> None:
        disk.places[OLD][0] = 100 + question

    disk = Disk([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], moves)

    assert [0, 1, 2] == compared(disk, monkeypatch, batch=3)


def test_contradictions_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked has to read everything."""
    raw = struct.pack("<QQQ16xI12x", 0, 0, 0, 0)
    monkeypatch.setattr(fiemap, "where", lambda *_, **__: Answer(raw, B))

    with pytest.raises(OSError, match="contradicts itself"):
        compare(OLD, NEW, B)


def test_empty_files_are_the_same() -> None:
    """There is nothing to ask about."""
    assert [] == list[Extent](compare(OLD, NEW, 0))
