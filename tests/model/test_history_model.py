"""T5: whatever happens in whatever order, every revision equals the bytes that were backed up.

A state machine drives a real repository in a real directory, and a model of a few lines beside it:
the image's bytes, the bytes and tags of each revision, and which chunk files are damaged.
"""

import errno
import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from modelfaults import FailingSource, Killed, armed, failing, killing

from backy.domain.chunk import chunk_id
from backy.domain.revision import Origin, Revision
from backy.ground.directory import Directory
from backy.ground.errors import BackyError, ImageDamaged, SourceFailed
from backy.operation.verify import Kind
from backy.repository import chunks
from backy.repository import history as histories
from backy.source import file as file_source
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


class HistoryModel(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="model-")
        self.site = Site(Path(self._folder.name))
        self.image = b""
        self.images: dict[str, bytes] = {}
        self.tags: dict[str, set[str]] = {}
        self.good: dict[Path, bytes] = {}

    def teardown(self) -> None:
        """Every revision of this run that no damage hurts, once more."""
        for revision in self.site.history().revisions:
            if not self._bad_ranges(self.images[revision.uuid]):
                assert self.images[revision.uuid] == self.site.restored(revision)
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
        self._add(self.site.backup())

    @rule(at=st.integers(1, 6))
    def backup_of_a_failing_source(self, at: int) -> None:
        """No revision, unless the image has fewer reads than that."""
        try:
            revision = self.site.backup(source=FailingSource(str(self.site.image), at))
        except SourceFailed:
            return
        self._add(revision)

    @rule(at=steps, error=st.sampled_from(ERRORS), every=st.booleans())
    def backup_with_a_failing_step(self, at: int, error: int, every: bool) -> None:
        """No revision if it says that it failed, a good one if not."""
        try:
            with armed(failing(at, error, every=every)):
                revision = self.site.backup()
        except BackyError:
            if every:  # then the record could not be taken back, but its revision is whole
                self._adopt()
            return
        self._add(revision)

    @rule(at=steps)
    def backup_that_is_killed(self, at: int) -> None:
        """Nothing or a whole revision."""
        try:
            with armed(killing(at)):
                revision = self.site.backup()
        except Killed:
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
        del self.images[uuid], self.tags[uuid]

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
            after = found[uuid]
        self.tags[uuid] = after

    @precondition(lambda self: len(self.good) < DAMAGED_AT_ONCE)
    @rule(pick=picks, how=st.sampled_from(["flip", "cut", "remove"]))
    def damage_a_chunk(self, pick: int, how: str) -> None:
        """A chunk file rots, until a repair or a new copy."""
        files = [path for path in self.site.chunk_files() if path not in self.good]
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

    @rule()
    def repair(self) -> None:
        """The operator brings the good files back."""
        for path, content in self.good.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
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

        assert list(self.images) == [one.uuid for one in history.revisions]
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

    def _add(self, revision: Revision) -> None:
        self.images[revision.uuid] = self.image
        self.tags[revision.uuid] = set(revision.tags)

    def _adopt(self) -> None:
        """Take the revision, if there is one, that a disturbed backup has committed."""
        new = [one for one in self.site.history().revisions if one.uuid not in self.images]
        assert len(new) <= 1
        for revision in new:
            self._add(revision)

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


def _run(monkeypatch: pytest.MonkeyPatch, runs: int, length: int) -> None:
    monkeypatch.setattr(file_source, "_TICK_NS", 0)  # nobody writes the image beside us
    monkeypatch.setattr(chunks, "BATCH_SIZE", 3 * CHUNK)
    chosen = settings(
        max_examples=runs,
        stateful_step_count=length,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(HistoryModel, settings=chosen)


def test_every_revision_equals_the_bytes_that_were_backed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty runs of thirty steps of everything that may happen to a repository."""
    _run(monkeypatch, 60, 30)


@pytest.mark.torture
def test_every_revision_equals_the_bytes_that_were_backed_up_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same, a thousand runs of fifty steps."""
    _run(monkeypatch, 1000, 50)
