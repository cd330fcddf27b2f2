"""One round of the comparison: every step, with one tool after the other, on the same files.

    full       the image of day 1 into an empty repository
    next day   the image of day 2
    no change  the image of day 2 once more
    restore    the newest backup to a fresh file; compared with `cmp` afterwards, outside the time
    verify     all data of the repository read and checked
    day 3      the image of day 3: holes where data was

The steps are the outer loop, so that what happens on the machine meanwhile strikes all tools
alike; and each round begins with another tool. Before each command the image and the tool's
repository are read once (warm cache) and what is dirty is written out.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measure import Command, CommandFailedError, Sample, measure, read_into_cache, run
from tool import Revision, Tool

STEPS = ("full", "next day", "no change", "restore", "verify", "day 3")
BACKUPS = {  # the image of a step, and the number of the backup
    "full": ("day1.raw", 1),
    "next day": ("day2.raw", 2),
    "no change": ("day2.raw", 3),
    "day 3": ("day3.raw", 4),
}
RESTORED = "no change"

Say = Callable[[str], None]


@dataclass
class Round:
    """What one round measured, by (tool, step); and why a tool left it early."""

    samples: dict[tuple[str, str], Sample] = field(default_factory=dict)
    stored: dict[tuple[str, str], int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def run_round(tools: Sequence[Tool], images: Path, say: Say) -> Round:
    """Run all steps with all tools; a tool that fails leaves the round."""
    result = Round()
    for tool in tools:
        with leaving_on_failure(result, tool, "init"):
            tool.prepare()
    for step in STEPS:
        for tool in tools:
            if tool.name not in result.failures:
                with leaving_on_failure(result, tool, step):
                    run_step(result, tool, step, images)
                    say(f"{step:10} {tool.name:7} {result.samples[tool.name, step].wall:6.2f} s")
    for name, reason in result.failures.items():
        say(f"{name} failed: {reason}")
    return result


@contextmanager
def leaving_on_failure(result: Round, tool: Tool, step: str) -> Iterator[None]:
    """Let a failure end the round for this tool alone."""
    try:
        yield
    except CommandFailedError as error:
        result.failures[tool.name] = f"{step}: {error}"


def run_step(result: Round, tool: Tool, step: str, images: Path) -> None:
    """Run and measure one step with one tool."""
    key = (tool.name, step)
    if step in BACKUPS:
        revision = revision_of(step, images)
        read_into_cache(revision.image, tool.repository)
        result.samples[key] = measure(tool.backup(revision), tool.log)
        result.stored[key] = tool.stored_bytes()
    elif step == "restore":
        result.samples[key] = restore(tool, revision_of(RESTORED, images))
    else:
        read_into_cache(tool.repository)
        result.samples[key] = measure(tool.verify(), tool.log)


def revision_of(step: str, images: Path) -> Revision:
    """The revision that a step makes."""
    name, number = BACKUPS[step]
    return Revision(images / name, number)


def restore(tool: Tool, revision: Revision) -> Sample:
    """Restore, measured, then compare with the image."""
    target = tool.folder / "target"
    target.mkdir()
    read_into_cache(tool.repository)
    try:
        sample = measure(tool.restore(revision, target), tool.log)
        compare = ("cmp", str(revision.image), str(target / revision.image.name))
        run(Command(compare, target, tool.environment()), tool.log)
    finally:
        shutil.rmtree(target)
    return sample
