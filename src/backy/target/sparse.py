"""Which parts of a buffer to write so that a sparse target stays sparse.

    >>> buffer = Buffer(1 << 20)
    >>> buffer.fill(b"x")
    >>> list(data_runs(buffer, 1 << 20))
    [(0, 4096)]

Blocks of 4 KiB that are all zero need no writing. But each gap splits a write, and long writes are
fast; so the shortest gaps are written after all, as long as they come to at most 1 % of the other
blocks. A source has at least these other blocks allocated, so a restored image takes at most 1 %
more than its source.

Limits: runs begin at blocks; the last one ends with the length.
"""

import re
from collections.abc import Iterator

from backy.ground.linux import Buffer, is_zero

BLOCK = 4096
_WASTE = 0.01
_ZERO_RUN = re.compile(rb"\0+")


def data_runs(buffer: Buffer, length: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the parts that are to be written, ascending; none for all zeros."""
    used = used_blocks(buffer, length)
    budget = int(used.count(1) * _WASTE)
    gaps = [match.span() for match in _ZERO_RUN.finditer(used)]
    skipped = []
    for start, stop in sorted(gaps, key=lambda gap: gap[1] - gap[0]):
        inner = start > 0 and stop < len(used)
        if inner and stop - start <= budget:
            budget -= stop - start
        else:
            skipped.append((start, stop))
    at = 0
    for start, stop in [*sorted(skipped), (len(used), len(used))]:
        if at < start:
            yield at * BLOCK, min(start * BLOCK, length) - at * BLOCK
        at = stop


def used_blocks(buffer: Buffer, length: int) -> bytes:
    """A byte for each 4 KiB block: 1 where it holds anything but zeros, else 0.

    One word of each block is looked at first, which settles most of them without a call.
    """
    blocks = -(-length // BLOCK)
    words = buffer.view[: length // 8 * 8].cast("Q")[:: BLOCK // 8].tolist()
    used = bytearray(map(bool, words)).ljust(blocks, b"\0")
    at = used.find(0)
    while at >= 0:
        start = at * BLOCK
        used[at] = not is_zero(buffer, min(BLOCK, length - start), start)
        at = used.find(0, at + 1)
    return bytes(used)
