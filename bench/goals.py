"""The goals, as ratios within one run, and whether they were met.

A ratio is taken in each round, between commands that ran one after the other; the median over the
rounds counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from measure import Sample
from scale import Scale
from series import Round

DAYS = ("full", "next day")
PEERS = ("borg", "restic", "benji")
PEAK_LIMIT_MIB = 200
START_LIMIT = 0.2
STORED_LIMIT = 0.2
SPARSE_LIMIT = 1.2

RATIO_GOALS = (
    ("full", ("borg",), 0.4),
    ("next day", ("borg",), 0.35),
    ("no change", ("borg",), 0.2),
    ("restore", PEERS, 0.5),
    ("verify", ("restic",), 0.3),
)


@dataclass(frozen=True)
class Spread:
    """The values of several rounds: what they have in the middle and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """The spread of some values; None when there are none."""
        known = list(values)
        return cls(median(known), min(known), max(known)) if known else None

    def text(self, digits: int = 2) -> str:
        """The median, and the range where there is one: `1.90 (1.85 to 2.01)`."""
        middle, low, high = (f"{value:.{digits}f}" for value in (self.median, self.low, self.high))
        return middle if low == high else f"{middle} ({low} to {high})"


@dataclass(frozen=True)
class Verdict:
    """A goal, what was measured for it (None: nothing), and its limit, in the same unit."""

    goal: str
    measured: Spread | None
    limit: float
    strict: bool = False

    @property
    def mark(self) -> str:
        """Pass, miss, or not measured, by the median."""
        if self.measured is None:
            return "not measured"
        value = self.measured.median
        return "pass" if value < self.limit or (value == self.limit and not self.strict) else "MISS"


def ratios(rounds: Sequence[Round], step: str, peers: Sequence[str]) -> Spread | None:
    """The wall time of backy / that of the fastest of these peers, in the rounds that have both."""
    values = []
    for result in rounds:
        own = result.samples.get(("backy", step))
        others = [result.samples[key].wall for name in peers if (key := (name, step)) in result.samples]
        if own and others:
            values.append(own.wall / min(others))
    return Spread.of(values)


def verdicts(rounds: Sequence[Round], scales: Sequence[Scale]) -> list[Verdict]:
    """Judge every goal."""
    return [
        *ratio_verdicts(rounds),
        stored_verdict(rounds),
        peak_verdict(rounds, scales),
        *scale_verdicts(scales),
    ]


def ratio_verdicts(rounds: Sequence[Round]) -> Iterator[Verdict]:
    """The goals that compare with peers."""
    for step, peers, limit in RATIO_GOALS:
        whom = peers[0] if len(peers) == 1 else "the fastest peer"
        yield Verdict(f"{step}: wall time / that of {whom}", ratios(rounds, step, peers), limit)


def stored_verdict(rounds: Sequence[Round]) -> Verdict:
    """What the second day adds to the repository."""
    values = []
    for result in rounds:
        sizes = [result.stored.get((name, step)) for name in ("backy", "borg") for step in DAYS]
        if all(size is not None for size in sizes):
            ours, ours_then, theirs, theirs_then = (size or 0 for size in sizes)
            values.append((ours_then - ours) / (theirs_then - theirs))
    return Verdict("next day: stored / that of borg", Spread.of(values), STORED_LIMIT)


def peak_verdict(rounds: Sequence[Round], scales: Sequence[Scale]) -> Verdict:
    """Here the worst case counts, not the median."""
    samples = [
        sample for result in rounds for (name, _), sample in result.samples.items() if name == "backy"
    ]
    for scale in scales:
        samples += [*scale.dense.values(), *scale.sparse.values()]
    worst = Spread.of([max_peak(samples) / (1 << 20)] if samples else [])
    return Verdict("largest peak memory of any step, MiB", worst, PEAK_LIMIT_MIB, strict=True)


def scale_verdicts(scales: Sequence[Scale]) -> Iterator[Verdict]:
    """The goals for a huge sparse image, and for the time until a command says something."""
    for name, value in (("wall time", sum_wall), ("peak memory", max_peak)):
        spread = Spread.of(value(one.sparse.values()) / value(one.dense.values()) for one in scales)
        yield Verdict(f"1 GiB of data in 1 TiB: {name} / that of 1 GiB", spread, SPARSE_LIMIT)
    for command, starts in (
        ("backy --help", [wall for scale in scales for wall in scale.help]),
        ("backy status", [wall for scale in scales for wall in scale.status]),
    ):
        yield Verdict(f"`{command}`, seconds", Spread.of(starts), START_LIMIT, strict=True)


def sum_wall(samples: Iterable[Sample]) -> float:
    """The wall time of all samples together."""
    return sum(sample.wall for sample in samples)


def max_peak(samples: Iterable[Sample]) -> float:
    """The largest peak memory of the samples."""
    return max(sample.peak for sample in samples)
