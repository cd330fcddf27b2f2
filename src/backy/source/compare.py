"""What has changed between two clones of an image: where their blocks lie, asked of the kernel.

    compare(old_fd, new_fd, size)      -> [Extent(offset=4096, length=4096)]

The maps are taken now, of both files, while both are open: a block that either has cannot be used for
anything else meanwhile. A list that was kept of a file that is gone proves nothing, since its blocks
may have come to the other file with other bytes.

The file system may move blocks at any time (btrfs balance, xfs_fsr). So the old file's map is taken
before and after the new one's, and compared: what it says twice also held in between.

Limits: neither file may change. In windows of some ten thousand extents, so memory does not grow with
the image.
"""

import errno
from collections.abc import Sequence

from backy.domain.extents import Extent
from backy.domain.placement import Pieces, Range, Ranges, differences, pieces
from backy.ground import fiemap
from backy.ground.fiemap import BATCH, Answer

_TRIES = 5


def compare(old: int, new: int, size: int, *, batch: int = BATCH) -> Sequence[Extent]:
    """The ranges of two open files of `size` bytes that may differ; OSError where nobody can tell."""
    found = Ranges()
    at = 0
    while at < size:
        changed, at = _window(old, new, at, size, batch)
        found.add(changed)
    return found.extents()


def _window(old: int, new: int, start: int, size: int, batch: int) -> tuple[list[Range], int]:
    """What differs from `start` on, and up to where that was looked at."""
    before = fiemap.where(old, start, size, batch=batch)
    for _ in range(_TRIES):
        theirs = fiemap.where(new, start, before.stop, batch=batch)
        after = fiemap.where(old, start, size, batch=batch)  # as before, so that it compares
        stop = min(theirs.stop, after.stop, before.stop)
        pieces_before = _pieces(before, start, stop)
        if before.raw == after.raw or pieces_before == _pieces(after, start, stop):
            same = theirs.raw == before.raw
            return differences(
                pieces_before, pieces_before if same else _pieces(theirs, start, stop)
            ), stop
        before = after
    # They do not come to rest: whoever reads all of it is right in any case.
    return [(start, before.stop)], before.stop


def _pieces(answer: Answer, start: int, stop: int) -> Pieces:
    try:
        return pieces(answer.extents(), start, stop)
    except ValueError as error:
        raise OSError(errno.EIO, f"the file system contradicts itself: {error}") from error
