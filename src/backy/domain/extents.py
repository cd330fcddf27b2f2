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
