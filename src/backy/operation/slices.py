"""Slices: prove the whole store bit by bit, some minutes at a time.

    done = verify_slice(repository, clock, 1800, progress)

The store proper is walked in the order of ids, from where the last slice ended, and every chunk file
is decoded and hashed past the page cache, a delta together with its base. So it needs no map, and
proves what no revision of today needs, too. What proves to be bad is moved aside at once, with a
report. Whom that hurts, or what could not be read, is said before the cursor is kept behind it; where
that fails, the next slice meets it again. At the end of the store the records of all revisions are
compared with what is there, since a file that is missing is never walked over; then the cycle is whole,
unless some job could not be compared, or some folder not listed, which is passed over (`domain.cycle`).
If the store was distrusted before a whole cycle began and not again since, and everything in it could
be read, that distrust ends.

Limits: ends between two portions, so a few seconds late. Within a portion deltas of one base are
proven one after the other; a base is decoded again for each portion.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import msgspec

from backy.domain import cycle as cycles
from backy.domain.chunkmap import Entry
from backy.domain.cycle import Cycle
from backy.ground.clock import Clock
from backy.ground.errors import OF_THE_PROCESS, ChunkMissing, DamageError, StorageFailed
from backy.operation import parallel
from backy.operation.comparison import compare
from backy.operation.progress import Progress
from backy.operation.slice_findings import BadChunk, SliceFindings
from backy.operation.trust import FAILURES, note_healed, sentence
from backy.operation.verify import refuse_own_fault
from backy.repository import layout, trust
from backy.repository.chunks import ChunkReader
from backy.repository.repository import Repository

PORTION = 64
_SAVE_EVERY = 5.0
# Of what a save took: all maps are read where something bad came up, so that takes a tenth of the time.
_SAVE_PAUSE = 9


class Slice(NamedTuple):
    """What a slice did: `share` of the store (of 1), and the cycle that it belongs to."""

    bad: tuple[BadChunk, ...]
    chunks: int
    share: float
    cycle: Cycle
    whole: bool
    damaged: int
    failed: str | None = None

    @property
    def slices_per_cycle(self) -> int | None:
        """How many slices like this one it takes to prove the whole store."""
        return cycles.slices_per_cycle(self.share)


def verify_slice(repository: Repository, clock: Clock, seconds: float, progress: Progress) -> Slice:
    """Go on with the walk for some seconds, or to the end of the store; OSError, StorageFailed.

    Where nothing can be written it only looks, and the next slice begins at the same place.
    """
    walk = _Walk(repository, clock, seconds)
    progress.begin("verify", round(seconds), "seconds")
    try:
        return walk.run(progress)
    finally:
        progress.end()


class _Walk:
    """One slice, with what it adds up."""

    def __init__(self, repository: Repository, clock: Clock, seconds: float) -> None:
        self._repository = repository
        self._chunks = repository.chunks
        self._clock = clock
        self._seconds = seconds
        self._cycle = cycles.resume(
            trust.read_cycle(repository.chunks), clock.now(), trust.word_of(repository.chunks)
        )
        self._from = self._cycle.cursor
        self._kept = self._cycle
        self._found = SliceFindings(repository, clock)
        self._failed: str | None = None

    def run(self, progress: Progress) -> Slice:
        started = self._clock.monotonic()
        save_at = started + _SAVE_EVERY
        chunks = shown = 0
        whole = True
        entries = self._behind(self._from)
        while portion := list(islice(entries, PORTION)):
            bad = self._prove(portion)
            chunks += len(portion)
            self._cycle = cycles.advanced(
                self._cycle,
                layout.chunk_name(portion[-1]),
                chunks=len(portion),
                bad=len(bad),
                unproven=self._found.take(bad),
            )
            now = self._clock.monotonic()
            progress.advance(round(now - started) - shown)
            shown = round(now - started)
            if now >= save_at:
                self._save()
                after = self._clock.monotonic()
                save_at = after + max(_SAVE_EVERY, _SAVE_PAUSE * (after - now))
            if now - started >= self._seconds and len(portion) == PORTION:
                whole = False
                break
        share = cycles.share(self._from, "" if whole else self._cycle.cursor)
        self._found.settle()
        if whole:
            whole = self._finish()
        self._end()
        found, damaged = tuple(self._found.bad), self._found.damaged
        return Slice(found, chunks, share, self._kept, whole, damaged, self._failed)

    def _prove(self, portion: list[Entry]) -> dict[Entry, DamageError]:
        bad: dict[Entry, DamageError] = {}

        def prover() -> Callable[[Entry], None]:
            reader = ChunkReader(self._chunks, self._repository.format.chunk_size, fresh=True)

            def prove(entry: Entry) -> None:
                try:
                    reader.prove(entry)
                except ChunkMissing as error:
                    # Collection or another verify took it; a delta whose base is gone is a finding.
                    if error.chunk != layout.chunk_name(entry):
                        bad[entry] = error
                except DamageError as error:
                    refuse_own_fault(error)
                    bad[entry] = error

            return prove

        parallel.run(sorted(portion, key=lambda one: (one.base or one.ident, one.ident)), prover)
        return bad

    def _finish(self) -> bool:
        """At the end of the store: what healed, what is missing, whether the cycle is whole."""
        with self._trying():
            note_healed(self._repository, self._clock, "verify")
        damaged, uncompared = compare(self._repository)
        self._found.damaged = max(self._found.damaged, damaged)
        for why in (*uncompared.values(), *self._cycle.unlisted.values()):
            self._failed = self._failed or why
        is_whole = self._found.is_settled and not uncompared and not self._cycle.unlisted
        with self._trying():
            self._end_distrust(is_whole=is_whole)
        if is_whole:
            self._cycle = cycles.finished(self._cycle, self._clock.now())
        else:
            self._cycle = cycles.unfinished(self._cycle, uncompared)
        return is_whole

    def _end_distrust(self, *, is_whole: bool) -> None:
        """Believe the store again if this cycle has proven everything since it was distrusted."""
        if is_whole and self._cycle.distrust is not None and not self._cycle.unproven:
            trust.end_distrust(self._repository, self._cycle.distrust)
        else:
            trust.forget_distrust(self._repository)

    def _save(self) -> None:
        """Keep how far it has come, once everybody is told of what lies before that."""
        if not self._found.is_settled:
            self._found.settle()
        if self._found.is_settled:
            self._kept = self._cycle
            self._write()

    def _end(self) -> None:
        """Keep that a slice has ended, and how far it has come or why it could not."""
        if self._found.is_settled:
            self._kept = self._cycle
        self._kept = msgspec.structs.replace(
            self._kept, sliced_at=self._clock.now(), unsettled=self._found.unsettled
        )
        self._failed = self._failed or self._found.failed or self._found.unsettled
        self._write()

    def _write(self) -> None:
        with self._trying():
            trust.write_cycle(self._chunks, self._kept)

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Do it where the disk lets us; otherwise remember why not."""
        try:
            yield
        except FAILURES as error:
            self._failed = self._failed or sentence(self._repository, error)

    def _behind(self, cursor: str) -> Iterator[Entry]:
        """The chunk files behind the cursor, in the order of their names; StorageFailed.

        A folder that cannot be listed is noted and passed over, so that it keeps none from being proven.
        """
        for prefix in layout.FANOUT:
            if prefix < cursor[:2]:
                continue
            try:
                with self._chunks.enter(prefix) as folder:
                    names = folder.names()
            except OSError as error:
                failure = StorageFailed("list", self._chunks.file_path(prefix), error.errno or errno.EIO)
                if error.errno in OF_THE_PROCESS:
                    raise failure from error
                self._cycle = cycles.passed_over(self._cycle, prefix, failure.message)
                self._failed = self._failed or failure.message
                continue
            self._cycle = cycles.listed(self._cycle, prefix)
            for name in names:
                entry = layout.parse_chunk_name(name)
                if entry is not None and name > cursor and name[:2] == prefix:
                    yield entry
