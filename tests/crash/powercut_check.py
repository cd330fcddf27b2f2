"""Whether a repository holds what the model says, after a power cut.

    Checker(runner, model, tmp_path).check(folder, position, Random(7))

First everything that was acknowledged: `status` lists it without a warning, each revision that is
listed restores bit for bit, and each chunk file is whole, needed or not. Then whether work goes on
without help: a backup, a collection without any grace, a verification of all, and the new image.

Limits: LossError tells the first thing that is wrong. Only the backup is a process of its own; what
comes after it runs in this one, since a process costs more than all that it would do here.
"""

import hashlib
import json
from pathlib import Path
from random import Random

from crashsite import Runner, noise
from in_process import backy
from powercut_model import Model
from powercut_workload import BATCH, CHUNK, JOBS, REPOSITORY
from small_store import images_of

from backy.ground.directory import Directory
from backy.ground.errors import BackyError, ChunkMissing
from backy.ground.linux import PAGE
from backy.repository import layout
from backy.repository.chunks import ChunkReader


class LossError(AssertionError):
    """A power cut cost something that was acknowledged, or left something half there."""


class Checker:
    """Checks one image after another against the same model."""

    def __init__(self, runner: Runner, model: Model, folder: Path) -> None:
        self._runner = runner
        self._model = model
        self._images = {job: folder / f"{job}.raw" for job in JOBS}
        self._last = {job: path.read_bytes() for job, path in self._images.items()}

    def check(self, folder: Path, position: int, random: Random) -> None:
        """All of it; `position` is the length of the log at the cut."""
        base = folder / REPOSITORY
        listed = {job: self._listed(base, job, position) for job in JOBS}
        try:
            _check_final_names(base)
            for job, uuids in listed.items():
                wanted = {uuid: self._model.kept[uuid].sha256 for uuid in uuids}
                if wanted != self._restored(base, job):
                    raise LossError(f"{job}: a revision restores to something else")
            self._go_on(base, listed, random)
        except BackyError as error:
            raise LossError(error.message) from error

    def _listed(self, base: Path, job: str, position: int) -> list[str]:
        """Revisions that a job shows: all that must be there, and none that must not."""
        run = backy("-b", str(base / job), "status", "--json")
        if run.code or run.err:
            raise LossError(f"status of {job}: {run.code}, {run.err}")
        found = {one["uuid"]: frozenset(one["tags"]) for one in json.loads(run.out)}
        for one in self._model.of(job, position):
            if one.uuid not in found:
                raise LossError(f"{job}: revision {one.uuid} is gone, acknowledged at {one.made}")
        for uuid, tags in found.items():
            if not self._model.may_be_there(uuid, job, position):
                raise LossError(f"{job}: revision {uuid} is there and should not be")
            if tags not in self._model.kept[uuid].tags_at(position):
                raise LossError(f"{job}: revision {uuid} has the tags {sorted(tags)}")
        return list(found)

    def _restored(self, base: Path, job: str) -> dict[str, str]:
        """SHA-256 of the image of each revision in the history."""
        return {uuid: hashlib.sha256(image).hexdigest() for uuid, image in images_of(base, job).items()}

    def _go_on(self, base: Path, listed: dict[str, list[str]], random: Random) -> None:
        """No lock stands in the way of backup and collection, and neither costs anything."""
        job = random.choice(JOBS)
        image = bytearray(self._last[job])
        image[-2 * CHUNK :] = noise(random.randrange(1 << 30), CHUNK)
        # Deltas, on bases of before the cut.
        for at in range(0, len(image) - CHUNK, CHUNK):
            image[at : at + PAGE] = random.randbytes(PAGE)
        self._images[job].write_bytes(image)
        run = self._runner.run("-b", str(base / job), "backup", "daily", batch_size=BATCH, threads=1)
        if not run.ended_well:
            raise LossError(f"backup of {job}: {run.code}, {run.err}{run.out}")
        for words in (("gc", "--now", "--force"), ("verify",)):
            done = backy("-b", str(base), *words)
            if done.code:
                raise LossError(f"{' '.join(words)}: {done.code}, {done.err}{done.out}")
        now = self._restored(base, job)
        new = now.keys() - set(listed[job])
        if len(now) != len(listed[job]) + 1 or len(new) != 1:
            raise LossError(f"{job}: {listed[job]} and a new revision became {list(now)}")
        if now[new.pop()] != hashlib.sha256(image).hexdigest():
            raise LossError(f"{job}: the new revision restores to something else")


def _check_final_names(base: Path) -> None:
    """Every chunk file that a reader may find is whole, whether a revision needs it or not."""
    with Directory.open(str(base / layout.CHUNKS)) as chunks:
        reader = ChunkReader(chunks, CHUNK)
        for prefix in layout.FANOUT:
            with chunks.enter(prefix) as folder:
                names = folder.names()
            for name in names:
                entry = layout.parse_chunk_name(name)
                if entry is None:
                    raise LossError(f"chunks/{prefix}/{name} is no chunk's name")
                try:
                    reader.prove(entry)
                except ChunkMissing as error:
                    # Collection may leave a delta that nobody needs without its base; whether somebody
                    # needs it, the restores tell.
                    if entry.base is None or error.chunk != entry.base.hex():
                        raise
