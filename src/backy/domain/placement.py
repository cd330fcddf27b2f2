"""Placement: where the ranges of two files lie on their disk, and in which ranges these files differ.

Two ranges at the same offset of two files hold the same bytes if they are the same blocks. So what
lies elsewhere in the new file than in the old one may have changed; the rest has not.

    >>> old = pieces([(0, 4096, 8192, 0)], 0, 8192)
    >>> new = pieces([(0, 4096, 4096, SHARED), (4096, 65536, 4096, 0)], 0, 8192)
    >>> differences(old, new)
    [(4096, 8192)]

What the kernel says is relied on only as far as it is known (linux/fiemap.h): an extent with a flag
that says that the blocks are not the bytes (compressed, inline, not written yet), or with a flag that
is not known here, is never the same as anything. Preallocated space (UNWRITTEN) reads as zeros, as a
hole does. How a file is cut into extents means nothing: that changes while others share its blocks.

Limits: pure; bytes. Right only for files that do not change meanwhile, on file systems that never
overwrite a shared block.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backy.domain.extents import Extent

LAST, UNWRITTEN, MERGED, SHARED = 0x1, 0x800, 0x1000, 0x2000
_HARMLESS = LAST | MERGED | SHARED
_KNOWN = _HARMLESS | UNWRITTEN

MAX_RANGES = 1 << 18
_SMALLEST_GAP = 4096

Range = tuple[int, int]


class Pieces(NamedTuple):
    """What lies where in a part of a file.

    `placed` are (start, stop, distance) with the distance from the logical to the physical offset;
    `unclear` are ranges of which nothing is known. In what is in neither, the file reads as zeros.
    """

    placed: list[tuple[int, int, int]]
    unclear: list[Range]


def pieces(extents: Iterable[tuple[int, int, int, int]], start: int, stop: int) -> Pieces:
    """The extents (logical, physical, length, flags) of a file, as far as they lie in a range.

    ValueError if they are not ascending, or overlap, or are empty.
    """
    placed: list[tuple[int, int, int]] = []
    unclear: list[Range] = []
    behind = 0
    for logical, physical, length, flags in extents:
        if logical < behind or length <= 0:
            raise ValueError(f"an extent at {logical}, {length} bytes long, where {behind} was reached")
        behind = logical + length
        first = max(start, logical)
        last = min(stop, behind)
        if first >= last:
            continue
        if not flags & ~_HARMLESS:
            placed.append((first, last, physical - logical))
        elif flags & ~_KNOWN:
            unclear.append((first, last))
    return Pieces(placed, unclear)


def differences(old: Pieces, new: Pieces) -> list[Range]:
    """The ranges, ascending and apart from each other, in which two files may differ."""
    # Of each distance: where the one file has it and the other has not. Within a file nothing
    # overlaps, so that is between the boundaries of both, taken in order, two by two.
    boundaries: defaultdict[int, list[int]] = defaultdict(list)
    for start, stop, distance in set(old.placed) ^ set(new.placed):
        boundaries[distance] += (start, stop)
    found: list[Range] = []
    for points in boundaries.values():
        points.sort()
        pairs = zip(points[::2], points[1::2], strict=True)
        found += [(start, stop) for start, stop in pairs if start < stop]
    return joined([*found, *old.unclear, *new.unclear])


def joined(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """Ranges in any order as ascending ones with more than `gap` bytes between them."""
    found: list[Range] = []
    start, stop = -1, -1
    for first, last in sorted(ranges):
        if start >= 0 and first <= stop + gap:
            stop = max(stop, last)
            continue
        if start >= 0:
            found.append((start, stop))
        start, stop = first, last
    if start >= 0:
        found.append((start, stop))
    return found


class Ranges:
    """Collects ranges, ascending, in bounded memory: where there are too many, near ones become one."""

    def __init__(self, limit: int = MAX_RANGES) -> None:
        self._limit = limit
        self._gap = 0
        self._found: list[Range] = []

    def add(self, ranges: Sequence[Range]) -> None:
        """Add ranges that lie behind all others."""
        self._found += ranges
        while len(self._found) > self._limit:
            self._found = joined(self._found, self._gap)
            self._gap = max(self._gap * 2, _SMALLEST_GAP)

    def extents(self) -> list[Extent]:
        """All of them, those that touch as one."""
        return [Extent(start, stop - start) for start, stop in joined(self._found, 0)]
