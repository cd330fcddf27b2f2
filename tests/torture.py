"""Torture: the long sweeps within a number of minutes, and a table of what they tried.

    python tests/torture.py 60                  make torture MINUTES=60
    python tests/torture.py 10 -k power_cut     some of them; then the table goes to stdout only

The table goes to doc/torture-results.md. A test that the end of its share of the time cut short says
so in it, as does one that could not run or did not end.

Limits: the share of a test that cannot be cut is not held to, so the run may take some minutes longer
than it was given; what runs still at a tenth more is ended.
"""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from machine import facts
from tally import ENVIRONMENT, Budget, Figures, read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "doc" / "torture-results.md"
WORKERS = 2

TITLES = {
    "T1": "kill -9 at every step of every verb",
    "T2": "kill -9 at random times, of commands and of a scheduler with its children",
    "T3": "power cuts, replayed from the log of a disk's writes",
    "T4": "a sync left out or misplaced is noticed (points are losses that were looked for and found)",
    "T5": "state machines and power cuts on a disk that loses what was not synced; states of models",
    "T6": "system calls that fail or do less than they were told, at every step",
    "T7": "full disks",
    "T8": "every byte of a store damaged",
    "T9": "quarantine and healing, killed and interleaved",
    "T10": "each operation frozen at its steps while another runs",
    "T11": "four processes doing everything at once",
    "T13": "retention against an oracle",
    "T14": "sources that cannot be read, or end, in the middle of a backup",
    "T16": "sources that lie about what has changed",
    "T18": "fuzzed configuration",
    "T19": "forged records, maps, chunks and formats",
    "T20": "names and paths that try to get out",
    "T22": "chunks that a fast checksum takes for each other",
    "T23": "limits: descriptors, file sizes, memory, an image of a tebibyte",
    "T25": "a simulated fleet",
    "T27": "a codec or memory that errs",
}

_EXPLAINED = """\
A point is one kill, power cut, failed call, damaged byte, interleaving, case or state of a model;
after each, everything that had been acknowledged was looked at.
The budget is shared by weight.
A test is *cut* where its share ended before its points did: it has tried that many of them, and what
it says of losses holds for these.
A longer run tries more.""".splitlines()


def main(minutes: float, arguments: list[str]) -> int:
    """Run pytest in the time, and write the table; returns pytest's exit code."""
    begun, since = time.monotonic(), datetime.now(UTC)
    kept = tempfile.mkdtemp(prefix="torture-kept-")  # what failed tests leave, to be looked at
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        budget = Budget(Path(name), begun + 60 * minutes, WORKERS)
        command = [sys.executable, "-m", "pytest", "-m", "torture or proof", "-n", str(WORKERS)]
        command += ["--maxschedchunk=1", "-p", "no:cacheprovider", f"--basetemp={kept}"]
        command += ["-o", "tmp_path_retention_policy=failed", *arguments]
        environment = {**os.environ, ENVIRONMENT: json.dumps([name, budget.ends, WORKERS])}
        with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
            try:
                code = process.wait(60 * minutes * 1.1)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
        table = render(read(budget.folder), minutes, since, (time.monotonic() - begun) / 60)
    if arguments:
        sys.stdout.write(table)
    else:
        RESULTS.write_text(table)
    return code


def render(all_figures: list[Figures], minutes: float, since: datetime, took: float) -> str:
    """The page: where and when, a row for each property, a row for each test."""
    when = f"from {since:%Y-%m-%d %H:%M} UTC, in {took:.0f} minutes"
    by_proof: dict[str, list[Figures]] = {}
    by_test: dict[tuple[str, str], list[Figures]] = {}
    for one in all_figures:
        by_proof.setdefault(one.proof, []).append(one)
        by_test.setdefault((one.proof, one.test.partition("[")[0]), []).append(one)
    lost = sum(one.lost for one in all_figures)
    lines = [
        "# What the torture run tried, and lost",
        "",
        f"`make torture MINUTES={minutes:g}` wrote this page, {when}.",
        "",
        f"**Lost: {lost}**, in {len(all_figures):,} tests.",
        "",
        *_EXPLAINED,
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in _where()),
        "",
        "| | what | points | lost | seeds | minutes | result |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {proof} | {TITLES[proof]} | {_row(by_proof[proof])} |"
            for proof in sorted(by_proof, key=_number)
        ),
        "",
        "## Each test",
        "",
        "| | test | points | lost | seeds | minutes | result |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for proof, test in sorted(by_test, key=lambda key: (_number(key[0]), key[1])):
        found = by_test[proof, test]
        file, _, function = test.partition("::")
        name = f"{function.removeprefix('test_').replace('_', ' ')} (`{file.removeprefix('tests/')}`)"
        lines.append(f"| {proof} | {name} | {_row(found)} |")
    return "\n".join(lines) + "\n"


def _row(found: list[Figures]) -> str:
    """Points, lost, seeds, minutes and result of some tests together."""
    tried = sum(one.tried for one in found)
    missing = sum(max(one.planned - one.tried, 0) for one in found if one.state != "passed")
    points = f"{tried:,} of {tried + missing:,}" if missing else f"{tried:,}"
    seeds = ranges({seed for one in found for seed in one.seeds})
    minutes = sum(one.seconds for one in found) / 60
    return f"{points} | {sum(one.lost for one in found)} | {seeds} | {minutes:.1f} | {result(found)}"


def result(found: Iterable[Figures]) -> str:
    """How some tests ended: those that did not simply pass, by number and reason."""
    states: dict[str, int] = {}
    for one in found:
        state = {"running": "did not end", "failed": f"**failed**: {_cell(one.why)}"}.get(
            one.state, f"{one.state}: {_cell(one.why)}" if one.state == "skipped" else one.state
        )
        states[state] = states.get(state, 0) + 1
    if len(states) == 1:
        return next(iter(states))
    return "; ".join(f"{number} {state}" for state, number in sorted(states.items()))


def ranges(seeds: set[int]) -> str:
    """`1 to 4, 7`; a dash for none."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and parts[-1][1] == seed - 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return (
        ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in parts) or "-"
    )


def _cell(text: str) -> str:
    return re.sub(r"[|\n]", " ", text)[:160]


def _number(proof: str) -> int:
    return int(proof.removeprefix("T"))


def _where() -> list[tuple[str, str]]:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    found = facts(Path(tempfile.gettempdir()))
    found.pop("date")
    return [("commit", done.stdout.strip() or "unknown"), *found.items(), ("host", platform.machine())]


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
