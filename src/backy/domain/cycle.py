"""The walk of `verify --slice` over the store: where it goes on, and how long it takes in all.

    >>> cycle = resume(None, START)
    >>> cycle = advanced(cycle, "7f" + "f" * 62, chunks=500)
    >>> cycle.cursor[:4], round(share("", cycle.cursor), 3)
    ('7fff', 0.5)
    >>> slices_per_cycle(share("", cycle.cursor))
    2

The store is walked in the order of ids, which are hashes: so they are spread evenly, and the place of
an id in all of them is the share of the store that lies before it. Chunks that are stored behind the
cursor wait for the next cycle.

Limits: pure; `operation.slices` walks.
"""

import math
from collections.abc import Collection
from datetime import UTC, datetime

import msgspec

START = datetime(2026, 1, 1, tzinfo=UTC)  # of the examples

_DIGITS = 12


class Cycle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far the walk has come; everything up to the chunk file `cursor` is proven in this cycle."""

    started_at: datetime
    cursor: str = ""
    chunks: int = 0
    bad: int = 0
    # Of the bad ones, those that are still there and may be good: they could not be read.
    unproven: int = 0
    # What the marker of distrust said when the cycle began.
    distrust: str | None = None
    # The end of the last slice, whatever it covered.
    sliced_at: datetime | None = None
    # Why that slice could not keep how far it came: not everybody could be told of what it found.
    unsettled: str | None = None
    # The folders of the store that could not be listed when a walk came to them last, with the reason.
    unlisted: dict[str, str] = {}
    # The jobs whose records could not be compared with the store when a walk came to its end last.
    uncompared: tuple[str, ...] = ()
    # Of the last whole cycle.
    finished_at: datetime | None = None
    finished_chunks: int = 0


def resume(cycle: Cycle | None, now: datetime, distrust: str | None = None) -> Cycle:
    """What a slice goes on with: the cycle that is under way, or a new one."""
    if cycle is None:
        return Cycle(started_at=now, distrust=distrust)
    if not cycle.cursor:
        return msgspec.structs.replace(
            cycle, started_at=now, chunks=0, bad=0, unproven=0, distrust=distrust
        )
    return cycle


def advanced(cycle: Cycle, cursor: str, *, chunks: int, bad: int = 0, unproven: int = 0) -> Cycle:
    """The cycle after more chunks, the last of which is `cursor`."""
    return msgspec.structs.replace(
        cycle,
        cursor=cursor,
        chunks=cycle.chunks + chunks,
        bad=cycle.bad + bad,
        unproven=cycle.unproven + unproven,
    )


def listed(cycle: Cycle, folder: str) -> Cycle:
    """The cycle after it has seen what is in a folder."""
    if folder not in cycle.unlisted:
        return cycle
    others = {name: why for name, why in cycle.unlisted.items() if name != folder}
    return msgspec.structs.replace(cycle, unlisted=others)


def passed_over(cycle: Cycle, folder: str, why: str) -> Cycle:
    """The cycle after it has passed over a folder that cannot be listed."""
    return msgspec.structs.replace(cycle, unlisted={**cycle.unlisted, folder: why})


def finished(cycle: Cycle, now: datetime) -> Cycle:
    """The cycle at the end of the store; the next slice begins a new one."""
    return Cycle(started_at=cycle.started_at, finished_at=now, finished_chunks=cycle.chunks, cursor="")


def unfinished(cycle: Cycle, uncompared: Collection[str]) -> Cycle:
    """The cycle at the end of the store, which is not whole, since something could not be read.

    Where that is the records of some jobs, which are to be compared with the store, the next slice tries
    them again. Where it failed before, too, or was a folder, the walk begins anew: what cannot be read
    must keep no chunk from being proven.
    """
    again = uncompared and not cycle.uncompared and not cycle.unlisted
    cursor = cycle.cursor if again else ""
    return msgspec.structs.replace(cycle, cursor=cursor, uncompared=tuple(uncompared))


def share(before: str, after: str) -> float:
    """How much of the store, of 1, lies between two names; empty, they are its begin and its end."""
    return max((_place(after) if after else 1.0) - _place(before), 0.0)


def slices_per_cycle(done: float) -> int | None:
    """How many slices like one that did this share make a whole cycle; None if it did nothing."""
    return math.ceil(round(1 / done, 6)) if done > 0 else None


def _place(name: str) -> float:
    digits = name[:_DIGITS]
    return int(digits, 16) / 16 ** len(digits) if digits else 0.0
