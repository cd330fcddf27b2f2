"""What must not grow: the cost of a huge sparse image, and the time until a command says something.

The dense image is 1 GiB of data; the sparse one holds the same data in 4 MiB pieces spread evenly
over 1 TiB, so that no part of it is free of data for long. Both go through the same four steps,
backy only.
"""

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from measure import Command, CommandFailedError, Sample, data_extents, measure, read_into_cache
from tool import Backy, Revision

PIECE = 4 << 20
PIECES = 256
DENSE_SIZE = PIECES * PIECE
SPARSE_SIZE = 1 << 40
STARTS = 10
STEPS = ("full", "no change", "restore", "verify")


@dataclass(frozen=True)
class Scale:
    """The costs by step of both images; the wall times of `backy --help` and `backy status`."""

    dense: Mapping[str, Sample]
    sparse: Mapping[str, Sample]
    help: list[float]
    status: list[float]


def run_scale(program: Path, folder: Path, number: int) -> Scale:
    """Write both images and measure all commands; the images take turns in being the first."""
    images = folder / "images"
    images.mkdir(parents=True)
    dense, sparse = images / "dense.raw", images / "sparse.raw"
    write_image(dense, DENSE_SIZE)
    write_image(sparse, SPARSE_SIZE)
    costs = {}
    for image in (dense, sparse) if number % 2 == 0 else (sparse, dense):
        backy = Backy(program, folder / image.stem)
        costs[image] = run_steps(backy, image)
    starts = [start_times(backy, command) for command in (backy.help(), backy.status())]
    return Scale(costs[dense], costs[sparse], starts[0], starts[1])


def write_image(path: Path, size: int) -> None:
    """256 pieces, half random and half zero in each 4 KiB block, at equal distances."""
    source = random.Random(1)
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(PIECES):
            file.seek(number * (size // PIECES))
            noise = source.randbytes(PIECE // 2)
            for at in range(0, len(noise), 2048):
                file.write(noise[at : at + 2048].ljust(4096, b"\0"))


def run_steps(backy: Backy, image: Path) -> dict[str, Sample]:
    """Back up twice, restore and compare, verify; what each step cost."""
    backy.prepare()
    target = backy.folder / "target"
    target.mkdir()
    first, second = Revision(image, 1), Revision(image, 2)
    commands = (
        backy.backup(first),
        backy.backup(second),
        backy.restore(second, target),
        backy.verify(),
    )
    costs = {}
    for step, command in zip(STEPS, commands, strict=True):
        read_into_cache(image, backy.repository)
        costs[step] = measure(command, backy.log)
    if not same_data(image, target / image.name):
        raise CommandFailedError(commands[2], f"restored something else than {image.name}")
    shutil.rmtree(target)
    return costs


def start_times(backy: Backy, command: Command) -> list[float]:
    """Wall times of a command that should answer at once."""
    return [measure(command, backy.log).wall for _ in range(STARTS)]


def same_data(left: Path, right: Path) -> bool:
    """Compare two sparse files without reading what is a hole in both."""
    with left.open("rb") as one, right.open("rb") as other:
        if left.stat().st_size != right.stat().st_size:
            return False
        for start, end in (*data_extents(one.fileno()), *data_extents(other.fileno())):
            for offset in range(start, end, PIECE):
                length = min(PIECE, end - offset)
                one.seek(offset)
                other.seek(offset)
                if one.read(length) != other.read(length):
                    return False
    return True
