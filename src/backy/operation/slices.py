"""Slices: prove the whole store bit by bit, some minutes at a time.

    done = verify_slice(repository, clock, 1800, progress)

The store proper is walked in the order of ids, from where the last slice ended, and every chunk file
is decoded and hashed past the page cache, a delta together with its base. So it needs no map, and
proves what no revision of today needs, too. What proves to be bad is moved aside at once, with a
report. Whom that hurts, or what could not be read, is said before the cursor is kept behind it; where
that fails, the next slice meets it again. At the end of the store the records of all revisions are
compared with what is there, since a file that is missing is never walked over; then the cycle is whole,
unless that could not be done for some job (`domain.cycle`). If the store was distrusted before the cycle
began and not again since, and everything in it could be read, that distrust ends.

Limits: ends between two portions, so a few seconds late. Within a portion deltas of one base are
proven one after the other; a base is decoded again for each portion.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import msgspec

from backy.domain import cycle as cycles
from backy.domain.chunkmap import Entry
from backy.domain.cycle import Cycle
from backy.ground.clock import Clock
from backy.ground.errors import ChunkMissing, DamageError, HistoryBusy, StorageFailed
from backy.ground.tries import Tries
from backy.operation import parallel
from backy.operation.comparison import compare
from backy.operation.progress import Progress
from backy.operation.trust import (
    files_of,
    missing_of,
    note_healed,
    refresh_hurt,
    sentence,
    settle,
)
from backy.operation.verify import blames_base, refuse_own_fault, said_of
from backy.repository import damage, layout, quarantine, trust
from backy.repository.chunks import ChunkReader
from backy.repository.quarantine import Hurt
from backy.repository.repository import Repository

PORTION = 64
_SAVE_EVERY = 5.0
# Of what a save took: all maps are read where something bad came up, so that takes a tenth of the time.
_SAVE_PAUSE = 9
_FAILURES = (StorageFailed, HistoryBusy, OSError)


class BadChunk(NamedTuple):
    """A chunk file that did not prove to be good, and whether it was moved aside."""

    chunk: str
    why: str
    aside: bool


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
        self._bad: list[BadChunk] = []
        self._suspects: dict[Entry, None] = {}
        self._unproven: set[Entry] = set()
        self._damaged = 0
        # Why not everybody was told of what is bad, as far as that was tried.
        self._unsettled: str | None = None
        self._is_settled = True
        self._failed: str | None = None

    def run(self, progress: Progress) -> Slice:
        started = self._clock.monotonic()
        save_at = started + _SAVE_EVERY
        chunks = shown = 0
        whole = True
        for portion in _portions(self._repository, self._from):
            bad = self._prove(portion)
            chunks += len(portion)
            self._take(bad)
            unproven = [entry for entry, error in bad.items() if self._may_be_good(entry, error)]
            self._unproven.update(unproven)
            self._cycle = cycles.advanced(
                self._cycle,
                layout.chunk_name(portion[-1]),
                chunks=len(portion),
                bad=len(bad),
                unproven=len(unproven),
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
        self._settle()
        if whole:
            whole = self._finish()
        self._end()
        return Slice(tuple(self._bad), chunks, share, self._kept, whole, self._damaged, self._failed)

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

    def _take(self, bad: dict[Entry, DamageError]) -> None:
        """Move aside what is bad."""
        self._is_settled = self._is_settled and not bad
        size = self._repository.format.chunk_size
        for entry, error in bad.items():
            moved: list[str] = []
            for file in files_of(entry):
                with self._trying():
                    case = quarantine.set_aside(self._chunks, size, file)
                    moved += [case] if case is not None else []
                self._suspects[file] = None
            self._bad.append(BadChunk(layout.chunk_name(entry), said_of(entry, error), bool(moved)))

    def _may_be_good(self, entry: Entry, error: DamageError) -> bool:
        """Whether a file that was not proven is still there: it cannot be read, or was read wrong once.

        A delta on a bad base is lost with that, or a full chunk has taken its place.
        """
        return not blames_base(entry, error) and self._chunks.has(layout.chunk_path(entry))

    def _settle(self) -> None:
        """Say whom it hurts, all that this slice found and what a killed run left."""
        tries = Tries(*_FAILURES)
        with tries.one():
            missing = missing_of(self._repository, self._suspects)
            self._damaged = settle(self._repository, self._clock, "verify", missing).damaged
        hurt: list[Hurt] = []
        with tries.one():
            # Those of the jobs that can be asked, also where another one cannot.
            hurt.extend(one.hurt for one in damage.needing(self._repository, self._unproven))
        with tries.one():
            refresh_hurt(self._repository, hurt, failed=True)
        self._is_settled = tries.first is None
        self._unsettled = None if tries.first is None else sentence(self._repository, tries.first)

    def _finish(self) -> bool:
        """At the end of the store: what healed, what lacks a chunk without a case; is the cycle whole?

        Each is tried although another failed.
        """
        with self._trying():
            note_healed(self._repository, self._clock, "verify")
        found = compare(self._repository)
        self._damaged = max(self._damaged, found.damaged)
        for why in found.failed.values():
            self._failed = self._failed or why
        is_whole = self._is_settled and not found.failed
        with self._trying():
            self._end_distrust(is_whole=is_whole)
        if is_whole:
            self._cycle = cycles.finished(self._cycle, self._clock.now())
        else:
            self._cycle = cycles.unfinished(self._cycle, found.failed)
        return is_whole

    def _end_distrust(self, *, is_whole: bool) -> None:
        """Believe the store again if this cycle has proven everything since it was distrusted."""
        if is_whole and self._cycle.distrust is not None and not self._cycle.unproven:
            trust.end_distrust(self._repository, self._cycle.distrust)
        else:
            trust.forget_distrust(self._repository)

    def _save(self) -> None:
        """Keep how far it has come, once everybody is told of what lies before that."""
        if not self._is_settled:
            self._settle()
        if self._is_settled:
            self._kept = self._cycle
            self._write()

    def _end(self) -> None:
        """Keep that a slice has ended, and how far it has come or why it could not."""
        if self._is_settled:
            self._kept = self._cycle
        self._kept = msgspec.structs.replace(
            self._kept, sliced_at=self._clock.now(), unsettled=self._unsettled
        )
        self._failed = self._failed or self._unsettled
        self._write()

    def _write(self) -> None:
        with self._trying():
            trust.write_cycle(self._chunks, self._kept)

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Do it where the disk lets us; otherwise remember why not."""
        try:
            yield
        except _FAILURES as error:
            self._failed = self._failed or sentence(self._repository, error)


def _portions(repository: Repository, cursor: str) -> Iterator[list[Entry]]:
    """The chunk files behind the cursor, in the order of their names, some at a time."""
    entries = _behind(repository, cursor)
    while portion := list(islice(entries, PORTION)):
        yield portion


def _behind(repository: Repository, cursor: str) -> Iterator[Entry]:
    for prefix in layout.FANOUT:
        if prefix < cursor[:2]:
            continue
        with repository.chunks.enter(prefix) as folder:
            names = folder.names()
        for name in names:
            entry = layout.parse_chunk_name(name)
            if entry is not None and name > cursor and name[:2] == prefix:
                yield entry
