"""T5 with deltas and hints: whatever happens, every revision equals the bytes that were backed up.

As test_history_model.py, with chunks of 16 blocks and sources that keep snapshots, say what has changed,
and may lie: two jobs whose images have much in common, and a model beside them. The model knows the
bytes of each revision, which files have rotted, and what a source has hidden.
"""

import os
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

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
from modelfaults import Killed, armed, killing
from rot import Rot

from backy.domain import audit
from backy.domain.revision import Distrust, Revision, SnapshotName
from backy.ground.directory import Directory
from backy.ground.errors import ImageDamaged
from backy.ground.linux import PAGE
from backy.operation import backup as backups
from backy.operation.progress import NoProgress
from backy.operation.verify import Kind, Result, Selected, verify
from backy.repository import chunks, layout, snapshots, trust
from backy.repository import history as histories
from backy.repository.repository import Repository
from collecting import gc
from fakes import FakeSource
from tally import Tally
from testsite import Site

C = 16 * PAGE
# No disk is asked for anything here, and syncs take most of the time.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
JOBS = ("vm", "other")
DAMAGED_AT_ONCE = 2
CODECS = ("lz4", "zstd:3", "none")

jobs = st.sampled_from(JOBS)
blocks = st.integers(0, 60)
seeds = st.integers(0, 4)
picks = st.integers(0, 1000)
sizes = st.sampled_from([0, 1, PAGE, C - 1, C, C + PAGE, 2 * C + 77, 3 * C, 4 * C])


class DeltaHistory(RuleBasedStateMachine):
    """See the module's docstring."""

    ids = random.Random()

    def __init__(self) -> None:
        super().__init__()
        DeltaHistory.ids = random.Random(1)
        self._folder = tempfile.TemporaryDirectory(prefix="model-", dir=MEMORY)
        self.site = Site(Path(self._folder.name), chunk_size=C)
        self.site.add_job("other", self.site.image)
        self.rot = Rot(self.site)
        self.sources = {job: FakeSource(b"", frozen=True) for job in JOBS}
        self.images: dict[str, dict[str, bytes]] = {job: {} for job in JOBS}
        self.past: dict[str, list[bytes]] = {job: [] for job in JOBS}
        # What the image was, where a source that hides something made it another one.
        self.truths: dict[str, bytes] = {}
        self.damaged = 0
        self.is_all_known = True
        self.is_lying = False

    def teardown(self) -> None:
        """Every revision once more."""
        for job in JOBS:
            for revision in self.site.history(job=job).revisions:
                self._check_restored(job, revision)
        self.rot.close()
        self._folder.cleanup()

    # ..The image................................................................................

    @initialize(seed=seeds, is_lying=st.booleans())
    def begin(self, seed: int, is_lying: bool) -> None:
        """Both jobs have the same image, and a revision of it.

        Sources lie or the store rots, so that each of the two is known by its own laws.
        """
        self.is_lying = is_lying
        content = random.Random(seed).randbytes(3 * C)
        for job in JOBS:
            self.sources[job].content = bytearray(content)
            self.backup(job, "hinted")

    @rule(job=jobs, block=blocks, count=st.sampled_from([1, 1, 1, 2, 5, 16]), seed=seeds)
    def write(self, job: str, block: int, count: int, seed: int) -> None:
        """Blocks of a few kinds, inside the image; zeros are one of them."""
        source = self.sources[job]
        start = min(block * PAGE, len(source.content))
        room = min(count * PAGE, len(source.content) - start)
        content = random.Random(seed * 7 + block % 3).randbytes(room) if seed else bytes(room)
        source.write(start, content)

    @rule(job=jobs, block=blocks)
    def write_anew(self, job: str, block: int) -> None:
        """A block that was never there."""
        source = self.sources[job]
        if (block + 1) * PAGE <= len(source.content):
            source.write(block * PAGE, random.Random(f"{source.writes} {job}").randbytes(PAGE))

    @rule(job=jobs, size=sizes)
    def resize(self, job: str, size: int) -> None:
        """Shorter, or longer with zeros."""
        source = self.sources[job]
        source.content = source.content[:size].ljust(size, b"\0")
        source.writes += 1

    @rule(job=jobs)
    def copy(self, job: str) -> None:
        """The image of the other job."""
        source = self.sources[job]
        source.content = bytearray(self.sources[JOBS[job == JOBS[0]]].content)
        source.writes += 1

    @rule(job=jobs, pick=picks)
    def bring_back(self, job: str, pick: int) -> None:
        """What an older revision had, perhaps one that is forgotten."""
        if self.past[job]:
            self.sources[job].content = bytearray(self.past[job][pick % len(self.past[job])])
            self.sources[job].writes += 1

    @precondition(lambda self: self.is_lying)
    @rule(job=jobs, block=st.integers(0, 47), days=st.integers(0, 3))
    def hide(self, job: str, block: int, days: int) -> None:
        """The source says nothing of a change in a block, nor of later ones; some days pass."""
        self.sources[job].hidden.add(block)
        self.write_anew(job, block)
        self.days(job, (block + 20) % 48, days)

    @precondition(lambda self: self.is_lying)
    @rule(job=jobs)
    def tell_all(self, job: str) -> None:
        """It does not lie any more; what it has not told stays untold."""
        self.sources[job].hidden.clear()

    # ..Backups..................................................................................

    @rule(job=jobs, how=st.sampled_from(["hinted", "hinted", "hinted", "lost", "full"]), pick=picks)
    def backup(self, job: str, how: str, pick: int = 0) -> None:
        """With hints, after the snapshot was lost, or without deltas; codecs take turns."""
        source = self.sources[job]
        if how == "lost":
            source.kept.clear()
        self.site.delta = how != "full"
        self.site.codec = CODECS[pick % len(CODECS)]
        known = self.is_all_known and not self.rot.is_unseen()
        before = list(self.site.history(job=job).revisions)

        revision = self.site.backup(source=source, job=job)

        self._adopt(job, revision)
        self._check_audit(job, before, revision)
        assert [revision.uuid] == list(source.kept)
        with Directory.open(str(self.site.base / job)) as directory:
            assert {SnapshotName(revision.uuid): "memory"} == snapshots.listed(directory)
        if known:
            self._check_healed(job, revision)
            if self.damaged:
                self.verify(quick=pick % 2 == 0, look_only=True)

    @rule(job=jobs, block=blocks, days=st.integers(1, 3))
    def days(self, job: str, block: int, days: int) -> None:
        """On each a few new blocks, and a backup: most of what happens to an image."""
        for day in range(days):
            self.write_anew(job, block)
            self.write_anew(job, (block + 1 + day) % 48)
            self.backup(job, "hinted")

    @rule(job=jobs, block=blocks)
    def a_day_that_is_undone(self, job: str, block: int) -> None:
        """A new block and a backup, and the image is as before."""
        before = bytes(self.sources[job].content)
        self.days(job, block, 1)
        self.sources[job].content[:] = before
        self.sources[job].writes += 1

    @rule(job=jobs, at=st.integers(1, 40))
    def backup_that_is_killed(self, job: str, at: int) -> None:
        """Nothing or a whole revision."""
        source = self.sources[job]
        self.site.delta = True
        try:
            with armed(killing(at)):
                self._adopt(job, self.site.backup(source=source, job=job))
        except Killed:
            for revision in self.site.history(job=job).revisions:
                if revision.uuid not in self.images[job]:
                    self._adopt(job, revision)

    # ..The operator.............................................................................

    @precondition(lambda self: any(self.images.values()))
    @rule(job=jobs, pick=picks)
    def forget(self, job: str, pick: int) -> None:
        """A revision is gone."""
        if self.images[job]:
            uuid = list(self.images[job])[pick % len(self.images[job])]
            with Directory.open(str(self.site.base / job)) as directory:
                histories.forget(directory, uuid)
            del self.images[job][uuid]

    @rule()
    def collect(self) -> None:
        """Without any grace."""
        gc(self.site, waive_grace=True)

    @rule(quick=st.booleans(), look_only=st.sampled_from([True, False, False]))
    def verify(self, quick: bool, look_only: bool) -> None:
        """Exactly what is rotten or lost is found, with its byte ranges; then it is moved aside."""
        expected = {
            (job, one.uuid, span)
            for job in JOBS
            for one in self.site.history(job=job).revisions
            for span in self.rot.rotten_ranges(job, one)
        }

        result = self._verified(quick=quick, look_only=look_only)

        found = {(one.job, one.revision, span) for one in result.findings for span in one.ranges}
        assert {Kind.CHUNK} >= {one.kind for one in result.findings}
        assert expected == found
        if look_only:
            return
        self.is_all_known = True
        for job in JOBS:
            for one in self.site.history(job=job).revisions:
                bad = self.rot.bad_ranges(job, one)
                assert sum(length for _, length in bad) == one.damaged
                assert not (one.is_good and bad)
        if not quick and not self._verified(quick=False, look_only=False).findings:
            assert not (self.site.chunks / layout.DISTRUSTED).exists()

    def _verified(self, *, quick: bool, look_only: bool) -> Result:
        if not look_only:
            return self.site.concluded(*JOBS, quick=quick)
        with ExitStack() as stack:
            repository = stack.enter_context(Repository.open(str(self.site.base)))
            selection = []
            for name in JOBS:
                job = stack.enter_context(repository.job(name))
                history = histories.load(job.directory)
                selection.append(Selected(job.name, history, history.revisions))
            return verify(repository, selection, NoProgress(), quick=quick)

    @precondition(lambda self: self.damaged < DAMAGED_AT_ONCE and not self.is_lying)
    @rule(pick=picks, gone=st.booleans(), base=st.booleans(), seen=st.booleans())
    def damage(self, pick: int, gone: bool, base: bool, seen: bool) -> None:
        """A chunk file or a base rots or disappears; perhaps verify sees it at once."""
        files = [path for path in self.site.chunk_files() if not self.rot.is_rotten(path)]
        bases = {path.name[65:] for path in files}
        if base:
            files = [path for path in files if path.name in bases]
        if files:
            self._spoil(files[pick % len(files)], pick, gone=gone)
            if seen:
                self.verify(quick=False, look_only=False)

    @precondition(lambda self: self.damaged < DAMAGED_AT_ONCE and not self.is_lying)
    @rule(job=jobs, pick=picks, gone=st.booleans(), forgets=st.booleans())
    def lose_a_base(self, job: str, pick: int, gone: bool, forgets: bool) -> None:
        """Of a delta of this job; verify sees it, a backup heals, and an older image comes back."""
        history = self.site.history(job=job)
        names = {
            entry.base.hex()
            for one in history.revisions
            for _, entry in self.rot.entries(job, one)
            if entry.base is not None
        }
        files = [path for path in self.site.chunk_files() if path.name in names]
        if not files:
            return
        self._spoil(files[pick % len(files)], pick, gone=gone)
        self.verify(quick=False, look_only=False)
        self.backup(job, "hinted", pick)
        if forgets:
            self.forget(job, -1)
            self.forget(job, pick)
        self.bring_back(job, pick)
        self.backup(job, "hinted", pick)

    @precondition(lambda self: any(self.images.values()))
    @rule(job=jobs, pick=picks, reason=st.sampled_from(list(Distrust)))
    def distrust(self, job: str, pick: int, reason: Distrust) -> None:
        """One revision is not believed any more."""
        if not self.images[job]:
            return
        uuid = list(self.images[job])[pick % len(self.images[job])]
        with ExitStack() as stack:
            store = stack.enter_context(Directory.open(str(self.site.chunks)))
            directory = stack.enter_context(Directory.open(str(self.site.base / job)))
            if reason is Distrust.STORE:
                stack.enter_context(trust.distrusting(store))
            trust.distrust(directory, uuid, reason)

    @precondition(lambda self: any(self.images.values()))
    @rule(job=jobs, pick=picks)
    def restore(self, job: str, pick: int) -> None:
        """Any revision."""
        revisions = self.site.history(job=job).revisions
        if revisions:
            self._check_restored(job, revisions[pick % len(revisions)])

    def _spoil(self, path: Path, pick: int, *, gone: bool) -> None:
        self.damaged += 1
        self.is_all_known = False
        if gone:
            path.unlink()
        else:
            self.rot.flip(path, pick)

    # ..What has to be true......................................................................

    @invariant()
    def history_is_that_of_the_model(self) -> None:
        """The revisions, no less and no more, and nobody misses a record."""
        for job in JOBS:
            history = self.site.history(job=job)
            assert list(self.images[job]) == [one.uuid for one in history.revisions]
            assert ((), ()) == (history.unreadable, history.lost)

    def _check_restored(self, job: str, revision: Revision) -> None:
        """The model's bytes, or a refusal that names a range which is damaged."""
        bad = self.rot.bad_ranges(job, revision)
        if not bad:
            assert self.images[job][revision.uuid] == self.site.restored(revision, job=job)
            return
        with pytest.raises(ImageDamaged) as caught:
            self.site.restored(revision, job=job)
        assert (caught.value.offset, caught.value.length) in bad

    def _adopt(self, job: str, revision: Revision) -> None:
        """Take a new revision; its bytes are the image's but for what was hidden."""
        source = self.sources[job]
        truth = bytes(source.content)
        image = truth
        if self.is_lying:
            image = self.site.restored(revision, job=job)
            assert len(truth) == len(image)
            for at in range(0, len(truth), PAGE):
                block = slice(at, at + PAGE)
                assert truth[block] == image[block] or self._may_be_stale(job, revision, truth, block)
        self.images[job][revision.uuid] = image
        self.past[job].append(image)
        self.truths[revision.uuid] = truth
        self._check_restored(job, revision)

    def _may_be_stale(self, job: str, revision: Revision, truth: bytes, block: slice) -> bool:
        """Hidden, or not changed since the parent's snapshot, and the parent's is stale."""
        reading = revision.reading
        if reading is None or reading.since is None:
            return False
        told = block.start // PAGE not in self.sources[job].hidden
        if told and truth[block] != self.truths[reading.since][block]:
            return False
        return self.site.restored(revision, job=job)[block] == self.images[job][reading.since][block]

    def _check_audit(self, job: str, before: list[Revision], revision: Revision) -> None:
        """Where an audit found a lie, all that relied on the same hints is distrusted."""
        assert revision.reading is not None
        if not revision.reading.audit_failed:
            return
        assert self.is_lying
        assert self.truths[revision.uuid] == self.images[job][revision.uuid]
        good = [one for one in before if one.is_good]
        assert good[-1].reading is not None
        last_full = good[-1].reading.last_full
        for one in self.site.history(job=job).revisions:
            if one.reading is not None and one.reading.since and one.reading.last_full == last_full:
                assert (Distrust.SOURCE, False) == (one.distrust, one.is_good)

    def _check_healed(self, job: str, revision: Revision) -> None:
        """All damage was known: the new revision is whole, and so is what else had its chunks."""
        assert set() == self.rot.bad_ranges(job, revision)
        stored = {entry.ident for _, entry in self.rot.entries(job, revision)}
        if revision.reading is not None and revision.reading.since:
            # What is inherited is not read, so nobody can store it in another form.
            stored = set()
        for one in self.site.history(job=job).revisions:
            bad = self.rot.bad_ranges(job, one)
            for span, entry in self.rot.entries(job, one):
                assert span not in bad or entry.ident not in stored
            assert sum(length for _, length in bad) == one.damaged


def _run(monkeypatch: pytest.MonkeyPatch, runs: int, length: int, first_seed: int | None = None) -> None:
    """So many runs of so many steps; always the same without a seed, and shrunk if they fail."""
    monkeypatch.setattr(chunks, "BATCH_SIZE", 3 * C)
    # Few strata, so that most lies are found within a run; and the same ones each time.
    monkeypatch.setattr(audit, "STRATA", 3)
    monkeypatch.setattr(audit, "AT_RANDOM", 0)
    monkeypatch.setattr(backups, "uuid4", lambda: UUID(int=DeltaHistory.ids.getrandbits(128), version=4))
    chosen = settings(
        max_examples=runs,
        stateful_step_count=length,
        deadline=None,
        derandomize=first_seed is None,
        suppress_health_check=list(HealthCheck),
    )
    machine: type[RuleBasedStateMachine] = DeltaHistory
    if first_seed is not None:
        chosen = settings(chosen, database=None, phases=(Phase.generate,))
        machine = seed(first_seed)(type("Seeded", (DeltaHistory,), {}))
    run_state_machine_as_test(machine, settings=chosen)


def test_every_revision_equals_the_bytes_that_were_backed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some runs of all that may happen to a repository with deltas and hints."""
    _run(monkeypatch, 30, 30)


@pytest.mark.proof("T5")
@pytest.mark.torture(weight=3)
def test_every_revision_equals_the_bytes_that_were_backed_up_for_long(
    monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """The same, a thousand runs of fifty steps, a hundred seeds of ten runs each."""
    tally.count(0, planned=100 * 9)
    for one in tally.each(range(1, 101)):
        _run(monkeypatch, 10, 50, one)
        tally.count(9, seed=one)
