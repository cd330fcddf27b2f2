"""T5: whatever happens in whatever order, every revision equals the bytes that were backed up.

A state machine drives a real repository on a disk that loses what was not synced (see lossydisk), and
a model of a few lines beside it: the image's bytes, the bytes and tags of each revision, which chunk
files are damaged, and what a power cut may take back, since nobody was told that it was done.

    pytest -m torture tests/model/test_history_model.py        10,000 runs of fifty steps
"""

import errno
import os
import random
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lossydisk import LossyDisk
from modelfaults import FailingSource, Killed, armed, failing, killing
from small_store import EPOCH, StandingClock

from backy.domain.chunk import chunk_id
from backy.domain.config import TagPolicy
from backy.domain.retention import Fate, Verdict, plan_expiry
from backy.domain.revision import Origin, Revision
from backy.ground.directory import Directory
from backy.ground.errors import BackyError, ImageDamaged, SourceFailed
from backy.operation import parallel
from backy.operation.collect import collect
from backy.operation.expire import execute_expiry
from backy.operation.progress import NoProgress
from backy.operation.verify import Kind
from backy.repository import chunks
from backy.repository import history as histories
from backy.repository.repository import Repository
from backy.source import file as file_source
from backy.source.base import Source
from tally import Tally
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T5")

ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS)
DAMAGED_AT_ONCE = 2

offsets = st.integers(0, 14 * CHUNK)
lengths = st.sampled_from([1, 511, 512, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
sizes = st.sampled_from([0, 1, 512, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 12 * CHUNK + 77])
contents = st.integers(0, 5)
steps = st.integers(1, 60)
picks = st.integers(0, 1000)


class Unsure:
    """What nobody was told of, so that a power cut may take it back, or bring it."""

    def __init__(self) -> None:
        self.committed: set[str] = set()  # revisions
        self.backups: set[bytes] = set()  # images of backups that said that they failed, or nothing
        self.forgotten: dict[str, tuple[bytes, set[str]]] = {}  # revisions
        self.tags: dict[str, list[set[str]]] = {}


class HistoryModel(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="model-", dir="/dev/shm")
        self.site = Site(Path(self._folder.name))
        # Damage is told by chunk ids here; deltas have a model of their own (test_delta_history).
        self.site.delta = False
        self.disk = LossyDisk(self.site.base)
        self.disk.__enter__()
        self.now = EPOCH
        self.unsure = Unsure()
        self.gone: set[str] = set()
        self.image = b""
        self.images: dict[str, bytes] = {}
        self.tags: dict[str, set[str]] = {}
        self.good: dict[Path, bytes] = {}

    def teardown(self) -> None:
        """Every revision of this run that no damage hurts, once more."""
        try:
            for revision in self.site.history().revisions:
                if not self._bad_ranges(self.images[revision.uuid]):
                    assert self.images[revision.uuid] == self.site.restored(revision)
        finally:
            # Or all tests after this one would run on the lossy disk.
            self.disk.__exit__(None, None, None)
            self._folder.cleanup()

    @initialize(content=contents, size=sizes)
    def begin(self, content: int, size: int) -> None:
        """Some image to begin with."""
        self.write(content, 0, size)

    @rule(content=contents, offset=offsets, length=lengths)
    def write(self, content: int, offset: int, length: int) -> None:
        """Bytes of a few kinds, so that chunks repeat; behind the end it leaves a hole."""
        new = bytes(length) if content == 0 else random.Random(content).randbytes(length)
        self.image = self.image[:offset].ljust(offset, b"\0") + new + self.image[offset + length :]
        self._save()

    @rule(size=sizes)
    def resize(self, size: int) -> None:
        """Shorter, or longer with a hole."""
        self.image = self.image[:size].ljust(size, b"\0")
        self._save()

    @rule(offset=offsets, length=lengths)
    def punch(self, offset: int, length: int) -> None:
        """A hole inside the image."""
        stop = min(offset + length, len(self.image))
        if offset < stop:
            self.write(0, offset, stop - offset)

    @rule()
    def backup(self) -> None:
        """A backup that nothing disturbs."""
        self._add(self._backup())

    @rule(at=st.integers(1, 6))
    def backup_of_a_failing_source(self, at: int) -> None:
        """No revision, unless the image has fewer reads than that."""
        try:
            revision = self._backup(FailingSource(str(self.site.image), at))
        except SourceFailed:
            return
        self._add(revision)

    @rule(at=steps, error=st.sampled_from(ERRORS), every=st.booleans())
    def backup_with_a_failing_step(self, at: int, error: int, every: bool) -> None:
        """No revision if it says that it failed, a good one if not."""
        try:
            with armed(failing(at, error, every=every)):
                revision = self._backup()
        except BackyError:
            self.unsure.backups.add(self.image)
            if every:  # then the record could not be taken back, but its revision is whole
                self._adopt()
            return
        self._add(revision)

    @rule(at=steps)
    def backup_that_is_killed(self, at: int) -> None:
        """Nothing or a whole revision."""
        try:
            with armed(killing(at)):
                revision = self._backup()
        except Killed:
            self.unsure.backups.add(self.image)
            self._adopt()
            return
        self._add(revision)

    @precondition(lambda self: self.images)
    @rule(pick=picks, kill=st.integers(0, 4))
    def forget(self, pick: int, kill: int) -> None:
        """The revision is gone, or if the kill came first it is as it was."""
        uuid = self._pick(pick)
        try:
            with armed(killing(kill)), Directory.open(str(self.site.job)) as job:
                histories.forget(job, uuid)
        except Killed:
            if (self.site.job / f"{uuid}.rev").exists():
                return
            self.unsure.forgotten[uuid] = self.images[uuid], self.tags[uuid]
        self._drop(uuid)

    @precondition(lambda self: self.images)
    @rule(pick=picks, tag=st.sampled_from(["manual:a", "manual:b", "weekly"]), kill=st.integers(0, 9))
    def edit_tags(self, pick: int, tag: str, kill: int) -> None:
        """The tags are the new ones, or if the kill came first the old ones."""
        uuid = self._pick(pick)

        def add(revision: Revision) -> Revision:
            return revision.with_tags({**revision.tags, tag: Origin.MANUAL})

        after = self.tags[uuid] | {tag}
        try:
            with armed(killing(kill)), Directory.open(str(self.site.job)) as job:
                histories.edit(job, uuid, add)
        except Killed:
            found = {one.uuid: set(one.tags) for one in self.site.history().revisions}
            assert found[uuid] in (self.tags[uuid], after)
            self.unsure.tags.setdefault(uuid, []).extend((self.tags[uuid], after))
            after = found[uuid]
        else:
            self.unsure.tags.pop(uuid, None)
        self.tags[uuid] = after

    @rule(minutes=st.sampled_from([1, 60, 1500, 50_000, 600_000, -1500, -50_000]))
    def time_passes(self, minutes: int) -> None:
        """Or the clock is set, forth or back."""
        self.now += timedelta(minutes=minutes)

    @rule(keep=st.integers(1, 3), kill=st.sampled_from([0, 0, 1, 2, 3, 5, 8]))
    def expire(self, keep: int, kill: int) -> None:
        """What the plan removes or takes a tag from, and if a kill came then no more than that."""
        policy = {"daily": TagPolicy(86400, keep), "weekly": TagPolicy(7 * 86400, keep)}
        planner = partial(plan_expiry, schedule=policy, now=self.now)
        plan = planner(self.site.history().revisions)
        try:
            with (
                armed(killing(kill)),
                Repository.open(str(self.site.base)) as repository,
                repository.job("vm") as job,
            ):
                execute_expiry(job, plan, planner)
        except Killed:
            pass
        self._expired(plan, whole=kill == 0)

    @rule(waive=st.booleans(), kill=st.sampled_from([0, 0, 0, 1, 4, 9, 16, 25, 36, 49, 64, 81]))
    def collect_garbage(self, waive: bool, kill: int) -> None:
        """Nothing that a revision needs goes, whatever the clock says and whenever it is killed."""
        clock = StandingClock(self.now)
        with (
            suppress(Killed),
            armed(killing(kill)),
            Repository.open(str(self.site.base)) as repository,
        ):
            collect(repository, clock, NoProgress(), waive_grace=waive, force=True)

    @rule(pick=picks)
    def power_cut(self, pick: int) -> None:
        """All that was acknowledged is there; of the rest each thing is whole or not there."""
        self.repair()
        self.disk.cut(random.Random(pick))
        history = self.site.history()
        for revision in history.revisions:
            content = self.site.restored(revision)
            if revision.uuid not in self.images:
                self._came_back(revision, content)
            assert self.images[revision.uuid] == content
            tags = set(revision.tags)
            assert tags in self.unsure.tags.get(revision.uuid, [self.tags[revision.uuid]])
            self.tags[revision.uuid] = tags
        for uuid in self.images.keys() - {one.uuid for one in history.revisions}:
            assert uuid in self.unsure.committed, "an acknowledged revision is gone"
            self._drop(uuid)
        self.unsure = Unsure()

    @precondition(lambda self: len(self.good) < DAMAGED_AT_ONCE)
    @rule(pick=picks, how=st.sampled_from(["flip", "cut", "remove"]))
    def damage_a_chunk(self, pick: int, how: str) -> None:
        """A chunk file rots, until a repair or a new copy."""
        trash = {path.name for path in self.site.chunks.glob("trash/*/*")}  # a reader looks there too
        files = [
            path for path in self.site.chunk_files() if path not in self.good and path.name not in trash
        ]
        if not files:
            return
        path = files[pick % len(files)]
        content = self.good[path] = path.read_bytes()
        path.unlink()
        at = pick % len(content)
        if how == "flip":
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        elif how == "cut":
            path.write_bytes(content[:at])
        self.disk.notice(path)

    @rule()
    def repair(self) -> None:
        """The operator brings the good files back."""
        for path, content in self.good.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            self.disk.notice(path)
        self.good.clear()

    @precondition(lambda self: self.images)
    @rule(pick=picks)
    def restore(self, pick: int) -> None:
        """The model's bytes, or a refusal that names a range which is damaged."""
        uuid = self._pick(pick)
        revision = next(one for one in self.site.history().revisions if one.uuid == uuid)
        bad = self._bad_ranges(self.images[uuid])
        if not bad:
            assert self.images[uuid] == self.site.restored(revision)
            return
        with pytest.raises(ImageDamaged) as caught:
            self.site.restored(revision)
        assert (caught.value.offset, caught.value.length) in bad

    @rule(quick=st.booleans())
    def verify(self, quick: bool) -> None:
        """Exactly the revisions that lean on damaged chunks are found, with their byte ranges."""
        result = self.site.verify(quick=quick)
        found = {(one.revision, span) for one in result.findings for span in one.ranges}

        assert {Kind.CHUNK} >= {one.kind for one in result.findings}
        assert found == {
            (uuid, span) for uuid, image in self.images.items() for span in self._bad_ranges(image)
        }

    @invariant()
    def history_is_that_of_the_model(self) -> None:
        """The revisions and their tags, no less and no more, and nobody misses a record."""
        history = self.site.history()

        assert sorted(self.images) == sorted(one.uuid for one in history.revisions)
        assert self.tags == {one.uuid: set(one.tags) for one in history.revisions}
        assert ((), ()) == (history.unreadable, history.lost)

    def _save(self) -> None:
        """Bring the image to the file, with holes for its zero blocks."""
        with self.site.image.open("wb") as file:
            file.truncate(len(self.image))
            for at in range(0, len(self.image), CHUNK):
                block = self.image[at : at + CHUNK]
                if any(block):
                    os.pwrite(file.fileno(), block, at)

    def _backup(self, source: Source | None = None) -> Revision:
        self.now += timedelta(minutes=1)
        self.site.clock = StandingClock(self.now)
        return self.site.backup(source=source)

    def _drop(self, uuid: str) -> None:
        """It is not there any more."""
        del self.images[uuid], self.tags[uuid]
        self.unsure.tags.pop(uuid, None)
        self.gone.add(uuid)

    def _expired(self, plan: Sequence[Verdict], *, whole: bool) -> None:
        """Take over what was done of a plan."""
        there = {one.uuid: set(one.tags) for one in self.site.history().revisions}
        for one in plan:
            if one.fate is Fate.REMOVE:
                assert not (whole and one.uuid in there)
                if one.uuid not in there:
                    if not whole:
                        self.unsure.forgotten[one.uuid] = self.images[one.uuid], self.tags[one.uuid]
                    self._drop(one.uuid)
            elif one.lost:
                after = self.tags[one.uuid] - set(one.lost)
                assert there[one.uuid] in ([after] if whole else [after, self.tags[one.uuid]])
                self.unsure.tags.setdefault(one.uuid, []).extend((self.tags[one.uuid], after))
                if whole:
                    del self.unsure.tags[one.uuid]
                self.tags[one.uuid] = there[one.uuid]

    def _came_back(self, revision: Revision, content: bytes) -> None:
        """A revision that was not there: of a backup, or by a forget, that was cut short."""
        uuid = revision.uuid
        if uuid in self.unsure.forgotten:
            self.images[uuid], self.tags[uuid] = self.unsure.forgotten[uuid]
            self.gone.discard(uuid)
        else:
            assert uuid not in self.gone, "a forgotten revision came back"
            assert content in self.unsure.backups
            self.images[uuid], self.tags[uuid] = content, set(revision.tags)

    def _add(self, revision: Revision) -> None:
        self.images[revision.uuid] = self.image
        self.tags[revision.uuid] = set(revision.tags)

    def _adopt(self) -> None:
        """Take the revision, if there is one, that a disturbed backup has committed."""
        new = [one for one in self.site.history().revisions if one.uuid not in self.images]
        assert len(new) <= 1
        for revision in new:
            self._add(revision)
            self.unsure.committed.add(revision.uuid)

    def _pick(self, pick: int) -> str:
        return list(self.images)[pick % len(self.images)]

    def _bad_ranges(self, image: bytes) -> list[tuple[int, int]]:
        """Byte ranges of an image whose chunks are damaged now; a new copy may have healed some."""
        damaged = {
            path.name
            for path, content in self.good.items()
            if not path.exists() or path.read_bytes() != content
        }
        pieces = [(at, image[at : at + CHUNK]) for at in range(0, len(image), CHUNK)]
        return [(at, len(one)) for at, one in pieces if any(one) and chunk_id(one).hex() in damaged]


@pytest.fixture(autouse=True)
def small_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and small batches, so that each step has its number."""
    monkeypatch.setattr(file_source, "_TICK_NS", 0)  # nobody writes the image beside us
    monkeypatch.setattr(chunks, "BATCH_SIZE", 3 * CHUNK)
    monkeypatch.setattr(parallel, "THREADS", 1)


def run(runs: int, length: int, first_seed: int) -> None:
    """So many runs of so many steps."""
    chosen = settings(
        max_examples=runs,
        stateful_step_count=length,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # the seed leads to a failure again; to shrink it takes minutes
        suppress_health_check=list(HealthCheck),
    )
    machine = seed(first_seed)(type("Seeded", (HistoryModel,), {}))
    run_state_machine_as_test(machine, settings=chosen)


def test_every_revision_equals_the_bytes_that_were_backed_up(tally: Tally) -> None:
    """Sixty runs of thirty steps of everything that may happen to a repository."""
    run(60, 30, 0)
    tally.count(60, seed=0)


@pytest.mark.torture(weight=2)
@pytest.mark.parametrize("first", range(1, 401, 100))
def test_every_revision_equals_the_bytes_that_were_backed_up_for_long(tally: Tally, first: int) -> None:
    """The same, ten thousand runs of fifty steps, in fours of a hundred seeds with 25 runs each."""
    tally.count(0, planned=100 * 24)
    for one in tally.each(range(first, first + 100)):
        run(25, 50, one)
        tally.count(24, seed=one)
