"""Garbage and its collection, in a repository with one job and under a clock that stands still.

    forget(site, back_up(site, 1)); gc(site); gc(site, DAY)

Limits: in this process; hours count from small_store.EPOCH.
"""

import random
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from small_store import EPOCH, StandingClock

from backy.domain.chunkmap import Entry
from backy.domain.revision import Revision
from backy.ground.directory import Directory
from backy.operation.collect import Collected, Plan, collect, plan_collection
from backy.operation.progress import NoProgress, Progress
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.repository import Repository
from testsite import CHUNK, Site

DAY = 24.0


class Meanwhile(NoProgress):
    """What others do when the phase `what` of a collection begins for the `number`-th time."""

    def __init__(self, what: str, act: Callable[[], object], number: int = 1) -> None:
        self._what = what
        self._act = act
        self._left = number

    def begin(self, what: str, total: int, unit: str = "") -> None:
        """See `Progress.begin`."""
        if what == self._what:
            self._left -= 1
            if self._left == 0:
                self._act()


def gc(site: Site, hour: float = 0, *, meanwhile: Progress | None = None, **options: Any) -> Collected:
    """Collect, so many hours after the epoch; never stopped by the size of these small stores."""
    clock = StandingClock(EPOCH + timedelta(hours=hour))
    options = {"force": True, **options}
    with Repository.open(str(site.base)) as repository:
        return collect(repository, clock, meanwhile or NoProgress(), **options)


def plan(site: Site, *, meanwhile: Progress | None = None) -> Plan:
    """What a collection would find."""
    with Repository.open(str(site.base)) as repository:
        return plan_collection(repository, StandingClock(EPOCH), meanwhile or NoProgress())


def back_up(site: Site, seed: int, chunks: int = 3) -> Revision:
    """A revision of chunks that are its own."""
    site.image.write_bytes(random.Random(seed).randbytes(chunks * CHUNK))
    return site.backup()


def forget(site: Site, revision: Revision) -> None:
    """Take it out of the history."""
    with Directory.open(str(site.job)) as job:
        histories.forget(job, revision.uuid)


def keep_beside_garbage(site: Site) -> Revision:
    """A revision that is kept, beside garbage in the store and in a generation; gc has seen all."""
    revision = back_up(site, 1)
    forget(site, back_up(site, 2))
    gc(site)
    forget(site, back_up(site, 3))
    return revision


def names(site: Site) -> set[str]:
    """Names of the chunks of the store proper."""
    return {path.name for path in site.chunk_files()}


def in_trash(site: Site) -> set[str]:
    """Names of condemned chunks."""
    return {path.name for path in (site.chunks / "trash").glob("*/*")} - {"sealed"}


def entries(names: Iterable[str]) -> list[Entry]:
    """The chunks that have these names."""
    found = (layout.parse_chunk_name(name) for name in sorted(names))
    return [entry for entry in found if entry is not None]
