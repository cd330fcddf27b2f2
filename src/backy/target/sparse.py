"""Which parts of a buffer to write so that a sparse target stays sparse.

    >>> buffer = Buffer(1 << 20)
    >>> buffer.fill(b"x")
    >>> list(data_runs(buffer, 1 << 20))
    [(0, 4096)]

Runs of zeros are skipped. How short a run is worth skipping is decided for each buffer: long writes
are fast, but zeros inside them take blocks that the source may not have had. So the coarsest
granule is taken that writes at most 1 % more than the non-zero 4 KiB blocks: since a source has all
these blocks allocated, a restored image takes at most 1 % more than it.

Limits: granules are aligned; the last run ends with the length.
"""

from collections.abc import Iterator

from backy.ground.linux import Buffer, is_zero

BLOCK = 4096
_GRANULES = (64, 16, 4, 1)  # blocks
_WASTE = 0.01


def data_runs(buffer: Buffer, length: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the parts that are to be written, ascending; none for all zeros."""
    used = used_blocks(buffer, length)
    needed = sum(used)
    if not needed:
        return
    for granule in _GRANULES:
        groups = [any(used[at : at + granule]) for at in range(0, len(used), granule)]
        if sum(groups) * granule <= needed * (1 + _WASTE) or granule == 1:
            break
    start = None
    for number, group in enumerate([*groups, False]):
        if group and start is None:
            start = number
        elif not group and start is not None:
            begin = start * granule * BLOCK
            yield begin, min(number * granule * BLOCK, length) - begin
            start = None


def used_blocks(buffer: Buffer, length: int) -> list[bool]:
    """For each 4 KiB block whether it holds anything but zeros.

    Looks at one word of each block first, which settles most blocks without a call.
    """
    blocks = -(-length // BLOCK)
    words = buffer.view[: length // 8 * 8].cast("Q")[:: BLOCK // 8].tolist()
    used = [bool(word) for word in words] + [False] * (blocks - len(words))
    for number, known in enumerate(used):
        if not known:
            start = number * BLOCK
            used[number] = not is_zero(buffer, min(BLOCK, length - start), start)
    return used
