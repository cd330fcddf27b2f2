"""How hard a promise was tried: what a test counts, and its share of the time that there is.

    def test_a_restore_may_be_killed_at_every_step(tally):
        for at in tally.each(range(1, 90), seed=7): …

Tests with the mark `proof("T8")` are proofs of a property of the reliability matrix; those that have
the mark `torture` too run in `make torture` only. There each of them gets a share of the budget, by the
weight in its mark (`torture(weight=2)`: about the minutes that it needs for all of its points, or fewer
where more of the same points tell little); time that a test leaves goes to those that come after it.
What cannot be cut (`torture(weight=4, whole=True)`, and all that belongs to the default run) takes what
it needs first, and the others share the rest.
`each` ends at the share, and then the test counts as cut. The figures of each test are a file of their
own in the run's folder, so processes do not meet; tests/torture.py makes the table of them.

Limits: what does not go through `each`, `within` or `time_left` is not cut. Nothing is cut in the
default run, and no test of that is cut in another.
"""

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

ENVIRONMENT = "BACKY_TORTURE"
# Of a proof that belongs to the default run too.
SMALL = 0.02

T = TypeVar("T")


class Need(NamedTuple):
    """About how many minutes a test needs, and whether it can only be done in whole."""

    minutes: float
    whole: bool = False


@dataclass
class Figures:
    """What is told of a test: `tried` and `planned` points, `lost` ones, seeds, and how it ended."""

    test: str
    proof: str
    says: str
    state: str = "running"  # passed, cut, failed, skipped
    why: str = ""
    tried: int = 0
    planned: int = 0
    lost: int = 0
    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    ends: float = 0.0  # by the monotonic clock, while it runs


class Budget(NamedTuple):
    """The time of a torture run: its folder, when it ends by the monotonic clock, and its processes."""

    folder: Path
    ends: float
    workers: int

    @classmethod
    def of_environment(cls) -> "Budget | None":
        """What tests/torture.py set; None in any other run."""
        found = os.environ.get(ENVIRONMENT)
        if found is None:
            return None
        folder, ends, workers = json.loads(found)
        return cls(Path(folder), ends, workers)

    def share(self, test: str, needs: Mapping[str, Need], now: float) -> float:
        """Seconds for a test: what it needs, if it is done in whole; or its part of what that leaves."""
        begun = {one.test: one for one in read(self.folder)}
        left = max(self.ends - now, 0.0)
        taken = sum(
            max(one.ends - now, 0.0)
            for one in begun.values()
            if one.state == "running" and one.test != test
        )
        if needs[test].whole:
            return min(left, 60 * needs[test].minutes)
        waiting = [need for name, need in needs.items() if name not in begun or name == test]
        kept = 60 * sum(need.minutes for need in waiting if need.whole)
        cut = sum(need.minutes for need in waiting if not need.whole)
        return min(left, max(left * self.workers - taken - kept, 0.0) * needs[test].minutes / cut)

    def write(self, figures: Figures) -> None:
        """Put a test's figures where the table is made of."""
        name = hashlib.sha256(figures.test.encode()).hexdigest()[:32]
        temporary = self.folder / f"{name}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(figures)))
        temporary.rename(self.folder / f"{name}.json")


def read(folder: Path) -> list[Figures]:
    """The figures of all tests that have begun."""
    return [Figures(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


class Tally:
    """Counts for one test."""

    def __init__(self, figures: Figures, ends: float) -> None:
        self.figures = figures
        self.told: list[str] = []
        self._ends = ends

    def each(self, items: Iterable[T], *, seed: int | None = None) -> Iterator[T]:
        """The items, each a point, while the share lasts; with a seed in a random order.

        An item counts when its turn is over, so not if the loop is left by it.
        """
        if seed is not None:
            items = list(items)
            random.Random(seed).shuffle(items)
            self.figures.seeds.append(seed)
        if isinstance(items, list | range | tuple):
            self.figures.planned += len(items)
        for item in items:
            if self.time_left <= 0:
                self.cut()
                return
            yield item
            self.figures.tried += 1

    def seeds(self, seeds: range) -> Iterator[int]:
        """Each seed as a point."""
        for seed in self.each(seeds):
            self.figures.seeds.append(seed)
            yield seed

    def within(self, wanted: int, *, seconds: float, before: float) -> int:
        """How many of the wanted points fit into the share, where each takes so long; at least 1."""
        self.figures.planned += wanted
        fitting = min((self.time_left - before) / seconds, wanted)
        if fitting < wanted:
            self.cut()
        return max(int(fitting), 1)

    @property
    def is_cut(self) -> bool:
        """Some points were left out."""
        return self.figures.state == "cut"

    @property
    def time_left(self) -> float:
        """Seconds; infinite outside `make torture`."""
        return self._ends - time.monotonic()

    def count(self, tried: int, *, lost: int = 0, planned: int = 0, seed: int | None = None) -> None:
        """Points that were tried otherwise than by `each`."""
        self.figures.tried += tried
        self.figures.planned += planned
        self.figures.lost += lost
        if seed is not None:
            self.figures.seeds.append(seed)

    def cut(self) -> None:
        """The share has ended before the points did."""
        self.figures.state = "cut"

    def tell(self, tried: int, line: str) -> None:
        """Count points, and have a line with a figure of this run printed at its end."""
        self.count(tried)
        self.told.append(line)


def marked(item: pytest.Item) -> str:
    """The property that a test proves, as in the matrix; empty for all other tests."""
    mark = item.get_closest_marker("proof")
    return str(mark.args[0]) if mark else ""


def need(item: pytest.Item) -> Need:
    """What a test's mark says of its time."""
    mark = item.get_closest_marker("torture")
    if mark is None:
        return Need(SMALL, whole=True)
    return Need(float(mark.kwargs.get("weight", 1.0)), whole=mark.kwargs.get("whole", False))


def sentence(item: pytest.Item) -> str:
    """The first line of a test's docstring."""
    function = getattr(item, "function", None)
    return str(function.__doc__ or "").strip().partition("\n")[0] if function else ""
