"""Extents: byte ranges of an image.

    >>> list(cut([Extent(0, 10), Extent(20, 10)], 5, 25))
    [Extent(offset=5, length=5), Extent(offset=20, length=5)]

Limits: pure; all lists are ascending and do not overlap.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Extent(NamedTuple):
    """A range of bytes that may hold data; what lies in no extent reads as zeros."""

    offset: int
    length: int


def cut(extents: Iterable[Extent], start: int, stop: int) -> Iterator[Extent]:
    """The parts of extents that lie in `start` to `stop`."""
    for extent in extents:
        first = max(extent.offset, start)
        last = min(extent.offset + extent.length, stop)
        if first < last:
            yield Extent(first, last - first)


def in_blocks(extents: Iterable[Extent], block: int, size: int) -> Iterator[Extent]:
    """Extents widened to whole blocks, as far as an image of `size` bytes goes; joined where they touch.

    >>> list(in_blocks([Extent(5, 1), Extent(9, 30)], 4, 31))
    [Extent(offset=4, length=27)]
    """
    start = stop = 0
    for extent in extents:
        first = extent.offset // block * block
        last = min(-(-(extent.offset + extent.length) // block) * block, size)
        if first > stop:
            if stop > start:
                yield Extent(start, stop - start)
            start = first
        stop = max(stop, last)
    if stop > start:
        yield Extent(start, stop - start)


def by_chunk(extents: Iterable[Extent], chunk_size: int) -> Iterator[tuple[int, list[Extent]]]:
    """(chunk index, its parts of the extents), ascending; chunks without any are left out."""
    index = -1
    found: list[Extent] = []
    for extent in extents:
        at, stop = extent.offset, extent.offset + extent.length
        while at < stop:
            number = at // chunk_size
            if number != index:
                if found:
                    yield index, found
                index, found = number, []
            end = min(stop, (number + 1) * chunk_size)
            found.append(Extent(at, end - at))
            at = end
    if found:
        yield index, found
