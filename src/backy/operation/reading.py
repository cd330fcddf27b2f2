"""What of an image a backup reads: which chunks, in whole or in parts, and which are audited.

    for page in plan_whole(snapshot.extents(), image): …
    for page in plan_changed(changes, used, pages, image, audit): …

Planned page by page of the map, as it is asked for: nothing here holds more than a page, whatever the
image's size. What is in no task of a page is zero (`plan_whole`) or the parent's (`plan_changed`).

    >>> image = Layout(4096, 20480)
    >>> list(plan_chunks([Extent(0, 1), Extent(5000, 10)], image))
    [0, 1]

Limits: pure; extents are ascending and do not overlap.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backy.domain.audit import Audit
from backy.domain.chunkmap import PAGE_ENTRIES, Layout, Page
from backy.domain.delta import BLOCK
from backy.domain.extents import Extent, by_chunk, in_blocks

# From here on the whole chunk is read: 1.2 times what has changed, and nothing is stitched.
_NEARLY_WHOLE = 5 / 6


class Task(NamedTuple):
    """A chunk, by its index: `parts` are read and the rest is the parent's; None: all is read."""

    chunk: int
    parts: tuple[Extent, ...] | None = None
    audit: bool = False


class PagePlan(NamedTuple):
    """The tasks of one page of the map; `inherited` is the page it begins as, where it is not zeros."""

    number: int
    tasks: tuple[Task, ...]
    inherited: Page | None = None

    @property
    def slots(self) -> tuple[int, ...]:
        """Where its tasks are in the page."""
        return tuple(task.chunk % PAGE_ENTRIES for task in self.tasks)


def plan_chunks(extents: Iterable[Extent], image: Layout) -> Iterator[int]:
    """Indices of the chunks that hold any byte of an extent, ascending, once each.

    >>> list(plan_chunks([Extent(0, 1), Extent(5000, 10), Extent(12288, 1)], Layout(4096, 20480)))
    [0, 1, 3]
    """
    following = 0
    for extent in extents:
        first = max(following, extent.offset // image.chunk_size)
        stop = -(-(extent.offset + extent.length) // image.chunk_size)
        yield from range(first, stop)
        following = max(following, stop)


def plan_whole(extents: Iterable[Extent], image: Layout) -> Iterator[PagePlan]:
    """Read every chunk that holds data."""
    for index in plan_chunks(extents, image):
        yield PagePlan(index // PAGE_ENTRIES, (Task(index),))


def plan_changed(
    changed: Iterable[Extent],
    used: Iterable[Extent],
    pages: Iterable[Page | None],
    image: Layout,
    audit: Audit,
) -> Iterator[PagePlan]:
    """Read what has changed, and audit some of the rest; every page of the map comes once, in order.

    `used` are the extents of the image that may hold data, `pages` those of the parent's map.
    """
    parts = _Ahead(by_chunk(in_blocks(changed, BLOCK, image.image_size), image.chunk_size))
    data = _Ahead((index, []) for index in plan_chunks(used, image))
    ordinal = 0
    for number, page in enumerate(pages):
        stop = (number + 1) * PAGE_ENTRIES
        tasks = {index: _task(index, found, image) for index, found in parts.below(stop)}
        in_use = {index for index, _ in data.below(stop)}
        if page is not None:
            in_use.update(number * PAGE_ENTRIES + slot for slot, _, _ in page.used())
        for index in sorted(in_use):
            task = tasks.get(index, Task(index, ()))
            if task.parts is not None and audit.picks(number, index % PAGE_ENTRIES, ordinal):
                tasks[index] = task._replace(audit=True)
            ordinal += 1
        yield PagePlan(number, tuple(tasks[index] for index in sorted(tasks)), page)


def _task(index: int, parts: list[Extent], image: Layout) -> Task:
    if sum(part.length for part in parts) >= _NEARLY_WHOLE * image.length_of(index):
        return Task(index)
    return Task(index, tuple(parts))


class _Ahead:
    """Takes what comes by index from an iterator, as far as is asked for."""

    def __init__(self, items: Iterable[tuple[int, list[Extent]]]) -> None:
        self._items = iter(items)
        self._next = next(self._items, None)

    def below(self, stop: int) -> Iterator[tuple[int, list[Extent]]]:
        """All items with an index below `stop` that were not taken before."""
        while self._next is not None and self._next[0] < stop:
            yield self._next
            self._next = next(self._items, None)
