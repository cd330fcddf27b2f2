"""Record once, cut often: how many power cuts were tried, and what they cost.

    swept = sweep(tmp_path, "btrfs", seed=1, images=40)
    assert (40, ()) == swept

Cuts are drawn from all requests after the repository was there: up to half of them at the very request
after which something was acknowledged, the others anywhere else; of all, a quarter loses a part of what
was not flushed.

Limits: a seed repeats what is written and which cuts are drawn, but two writers interleave anew each
time. So the recording of a loss is kept: the disk's first state, its log, and the model.
"""

import pickle
from bisect import bisect_right
from pathlib import Path
from random import Random
from typing import NamedTuple

from powercut_check import Checker, LossError
from powercut_model import Model
from powercut_recorder import recording
from powercut_replay import Cut, Replay
from powercut_workload import ChangedRunner, record

_DROPPING = 0.25


class Loss(NamedTuple):
    """What one power cut cost."""

    kind: str
    seed: int
    cut: Cut
    why: str


class Swept(NamedTuple):
    """How many images were mounted and checked, and what was lost in them."""

    images: int
    losses: tuple[Loss, ...]


def sweep(
    folder: Path, kind: str, *, seed: int, images: int, rounds: int = 6, mutant: str | None = None
) -> Swept:
    """Let two writers work on a file system, and mount that many images of it after power cuts.

    With a mutant it ends at the first loss.
    """
    with recording(folder, kind) as disk:
        model = record(disk, folder, seed=seed, rounds=rounds, mutant=mutant)
        end = disk.position()
    random = Random(seed)
    tried = 0
    losses: list[Loss] = []
    replay = Replay(disk.start, disk.log, kind, folder / f"{kind}.replayed")
    try:
        with ChangedRunner() as runner:
            checker = Checker(runner, model, folder)
            for cut in choose_cuts(replay, model, end, images, random):
                try:
                    with replay.after(cut) as mounted:
                        checker.check(mounted, replay.position(cut.requests), random)
                except (LossError, OSError) as error:
                    losses.append(Loss(kind, seed, cut, str(error)))
                    if mutant is not None:
                        break
                tried += 1
    finally:
        replay.close()
    if losses and mutant is None:
        (folder / f"{kind}.model").write_bytes(pickle.dumps(model))
    else:
        disk.remove()
    return Swept(tried, tuple(losses))


def choose_cuts(replay: Replay, model: Model, end: int, images: int, random: Random) -> list[Cut]:
    """In ascending order, between the acknowledged empty repository and the recording's end."""
    ends = [entry.end for entry in replay.entries]
    everywhere = set(range(bisect_right(ends, model.ready), bisect_right(ends, end) + 1))
    acknowledged = sorted({bisect_right(ends, done) for done in model.acknowledgements()})
    chosen = random.sample(acknowledged, min(images // 2, len(acknowledged)))
    others = sorted(everywhere.difference(chosen))
    chosen += random.sample(others, min(images - len(chosen), len(others)))
    return [
        Cut(requests, random.randrange(1 << 30) if random.random() < _DROPPING else None)
        for requests in sorted(chosen)
    ]
