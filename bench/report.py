"""The report: Markdown, written so that a hand-written part at its end survives the next run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import scale
import series
from goals import PEERS, Spread, Verdict, ratios
from measure import Sample
from scale import Scale
from series import STEPS, Round

NOTES_MARKER = "<!-- notes: kept by bench/run.py -->"
NO_NOTES = "\n## Notes\n\nNone yet. What stands below the marker line is kept by the next run.\n"
MIB = 1 << 20

MEASURES: dict[str, Callable[[Sample], float]] = {
    "Wall time, seconds": lambda sample: sample.wall,
    "CPU time, seconds (user and system)": lambda sample: sample.cpu,
    "Peak memory, MiB (largest process)": lambda sample: sample.peak / MIB,
    "Left to write out, seconds of a `sync` after the command": lambda sample: sample.settle,
    "Used by others meanwhile, CPU cores (the kernel's own threads included)": lambda sample: (
        sample.others
    ),
}


@dataclass(frozen=True)
class Results:
    """All that one run of the benchmark found. `tools`: name to version, or why there is none."""

    machine: Mapping[str, str]
    tools: Mapping[str, str]
    images: Mapping[str, int]
    rounds: Sequence[Round]
    scales: Sequence[Scale]
    verdicts: Sequence[Verdict]


def write(results: Results, path: Path) -> None:
    """Write the report, with the notes that the old one has."""
    notes = NO_NOTES
    if path.exists() and NOTES_MARKER in (old := path.read_text()):
        notes = old.partition(NOTES_MARKER)[2]
    path.write_text(render(results) + NOTES_MARKER + notes)


def render(results: Results) -> str:
    """The report without its notes."""
    parts = [
        "# Benchmark results\n\nWritten by `bench/run.py`; how and why: [README.md](README.md).\n",
        f"## Machine and tools\n\n{machine_part(results)}",
        f"## Goals\n\n{goals_part(results.verdicts)}",
        f"## Figures\n\n{figures_part(results.rounds)}",
        f"## Ratios\n\n{ratios_part(results.rounds)}",
    ]
    if results.scales:
        parts.append(f"## A huge sparse image\n\n{scale_part(results.scales)}")
    return "\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(values: Iterable[float], digits: int = 2) -> str:
    """The spread of some values as a cell of a table."""
    spread = Spread.of(values)
    return spread.text(digits) if spread else "-"


def machine_part(results: Results) -> str:
    """Machine, versions, images, and which tool failed."""
    images = ", ".join(f"{name} {size / MIB:.0f} MiB" for name, size in results.images.items())
    rows = [*results.machine.items(), ("images, allocated", images), *results.tools.items()]
    failures = [(name, reason) for found in results.rounds for name, reason in found.failures.items()]
    text = table(("what", "value"), rows)
    return text + "".join(f"\n{name} left a round early. {reason}\n" for name, reason in failures)


def goals_part(verdicts: Sequence[Verdict]) -> str:
    """Every goal with what was measured."""
    rows = []
    for verdict in verdicts:
        sign = "<" if verdict.strict else "<="
        measured = verdict.measured.text() if verdict.measured else "-"
        rows.append((verdict.goal, f"{sign} {verdict.limit:g}", measured, verdict.mark))
    return table(("goal", "limit", "measured", ""), rows)


def figures_part(rounds: Sequence[Round]) -> str:
    """A table for each thing that was measured: a row a tool, a column a step."""
    text = f"Rounds: {len(rounds)}. Median (lowest to highest).\n\n"
    for title, value in MEASURES.items():
        digits = 0 if "MiB" in title else 2
        rows = [
            (name, *(cell(map(value, samples_of(rounds, name, step)), digits) for step in STEPS))
            for name in tools_of(rounds)
        ]
        text += f"### {title}\n\n{table(('', *STEPS), rows)}\n"
    rows = [
        (name, *(cell(stored_of(rounds, name, step), 0) for step in series.BACKUPS))
        for name in tools_of(rounds)
    ]
    return text + f"### Stored after the step, MiB allocated\n\n{table(('', *series.BACKUPS), rows)}"


def tools_of(rounds: Sequence[Round]) -> list[str]:
    """The tools that measured something."""
    seen = {name for found in rounds for name, _ in found.samples}
    return [name for name in ("backy", *PEERS) if name in seen]


def samples_of(rounds: Sequence[Round], name: str, step: str) -> list[Sample]:
    """What a step cost a tool, by round."""
    return [found.samples[name, step] for found in rounds if (name, step) in found.samples]


def stored_of(rounds: Sequence[Round], name: str, step: str) -> list[float]:
    """MiB stored by a tool after a step, by round."""
    return [found.stored[name, step] / MIB for found in rounds if (name, step) in found.stored]


def ratios_part(rounds: Sequence[Round]) -> str:
    """The wall time of backy compared with each peer's, step by step."""
    rows = []
    for name in tools_of(rounds):
        if name != "backy":
            found = [ratios(rounds, step, (name,)) for step in STEPS]
            rows.append((name, *(spread.text() if spread else "-" for spread in found)))
    return "Wall time of backy, divided by that of\n\n" + table(("", *STEPS), rows)


def scale_part(scales: Sequence[Scale]) -> str:
    """The costs of the dense and of the sparse image."""
    rows = []
    for title, value in (
        ("wall, s", MEASURES["Wall time, seconds"]),
        ("peak, MiB", lambda sample: sample.peak / MIB),
    ):
        for name, costs in (
            ("1 GiB", [one.dense for one in scales]),
            ("1 TiB", [one.sparse for one in scales]),
        ):
            cells = (cell(value(cost[step]) for cost in costs) for step in scale.STEPS)
            rows.append((f"{name}, {title}", *cells))
    return "The same 1 GiB of data, dense and spread over 1 TiB.\n\n" + table(("", *scale.STEPS), rows)
