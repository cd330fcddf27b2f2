"""The benchmark: backy and its peers in turn on three days of a VM image; see README.md.

usage: python bench/run.py [options]        (as root when the images have to be built)
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import goals
import machine
import report
from measure import CommandFailedError, allocated_bytes
from peers import TOOLS
from scale import Scale, run_scale
from series import Round, run_round
from tool import Tool

HERE = Path(__file__).resolve().parent
DAYS = ("day1.raw", "day2.raw", "day3.raw")
STARTED = time.monotonic()


def main() -> int:
    """Build, measure, report."""
    options = parse_options()
    programs = find_programs(options)
    if not programs:
        sys.exit("none of the tools is installed")
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    images = images_in(options.images.resolve() if options.images else work / "images", options)
    versions = versions_of(programs, fresh(work / "versions"), options.only)
    for name, version in versions.items():
        say(f"{name}: {version}")
    rounds = run_rounds(programs, images, work, options.rounds)
    scales = run_scales(programs, work, 0 if options.skip_sparse else options.rounds)
    results = report.Results(
        machine=machine.facts(work),
        tools=versions,
        images={day: allocated_bytes(images / day) for day in DAYS},
        rounds=rounds,
        scales=scales,
        verdicts=goals.verdicts(rounds, scales),
    )
    report.write(results, options.results)
    print(report.render(results))
    return 0


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Compare backy with borg, restic and benji on VM images."
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="repeat all with fresh repositories (3 times)")
    add("--size", type=int, default=4096, help="MiB of the images to build (4096)")
    add("--images", type=Path, help="folder with day1.raw, day2.raw, day3.raw (WORK/images)")
    add("--work", type=Path, default=HERE / "work", help="folder for all files (bench/work)")
    add("--results", type=Path, default=HERE / "RESULTS.md", help="report (bench/RESULTS.md)")
    add("--only", default="", help="compare only these tools, a list with commas")
    add("--skip-sparse", action="store_true", help="no 1 TiB image, no start times")
    for tool in TOOLS:
        add(f"--{tool.name}", type=Path, metavar="PATH", help=f"the {tool.name} to run")
    return parser.parse_args()


def find_programs(options: argparse.Namespace) -> dict[type[Tool], Path]:
    """The installed tools: as given, else in WORK/peers (peers.sh), beside this Python, on PATH."""
    wanted = options.only.split(",") if options.only else [tool.name for tool in TOOLS]
    path = [str(options.work / "peers" / "bin"), str(Path(sys.executable).parent)]
    found: dict[type[Tool], Path] = {}
    for tool in TOOLS:
        given: Path | None = getattr(options, tool.name)
        name = str(given) if given else tool.name
        program = None if given else shutil.which(name, path=":".join(path))
        program = program or shutil.which(name)
        if tool.name in wanted and program:
            found[tool] = Path(program).absolute()
        elif given:
            sys.exit(f"--{tool.name}: {given} is no program")
    return found


def images_in(folder: Path, options: argparse.Namespace) -> Path:
    """The folder with the images, built where they are missing."""
    if not all((folder / day).is_file() for day in DAYS):
        if options.images:
            sys.exit(f"{folder} does not hold {', '.join(DAYS)}")
        say(f"building the images in {folder}, which takes some minutes")
        command = [str(HERE / "make-vm-images"), str(folder), str(options.size)]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit("the images could not be built")
    return folder


def versions_of(programs: dict[type[Tool], Path], folder: Path, only: str) -> dict[str, str]:
    """The version of each tool, or why there is none."""
    missing = f"not installed, or left out by --only {only}" if only else "not installed"
    versions = {tool.name: missing for tool in TOOLS}
    for tool, program in programs.items():
        versions[tool.name] = tool(program, folder / tool.name).version()
    shutil.rmtree(folder)
    return versions


def run_rounds(programs: dict[type[Tool], Path], images: Path, work: Path, count: int) -> list[Round]:
    """Run the rounds, each with fresh repositories and beginning with another tool."""
    rounds = []
    for number in range(count):
        say(f"round {number + 1} of {count}")
        folder = fresh(work / "round")
        tools = [tool(program, folder / tool.name) for tool, program in programs.items()]
        first = number % len(tools)
        rounds.append(run_round(tools[first:] + tools[:first], images, say))
        for tool in tools:
            if tool.name in rounds[-1].failures:
                shutil.copy(tool.log, work / f"failed-{tool.name}.log")
        shutil.rmtree(folder)
    return rounds


def run_scales(programs: dict[type[Tool], Path], work: Path, count: int) -> Sequence[Scale]:
    """Run the huge sparse image as often; not at all without backy."""
    backy = {tool.name: program for tool, program in programs.items()}.get("backy")
    scales: list[Scale] = []
    if backy is None:
        return scales
    for number in range(count):
        say(f"1 TiB sparse image, {number + 1} of {count}")
        folder = fresh(work / "scale")
        try:
            scales.append(run_scale(backy, folder, number))
        except CommandFailedError as error:
            say(f"failed: {error}")
        shutil.rmtree(folder)
    return scales


def fresh(folder: Path) -> Path:
    """A new folder, in place of what an interrupted run may have left there."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def say(text: str) -> None:
    """Tell what happens, on stderr, with the time since the start."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
