"""Collect: give the space back of chunks that no revision needs any more.

    done = collect(repository, SystemClock(), progress)
    plan = plan_collection(repository, SystemClock(), progress)      only says what it would do

It locks nobody out, and nobody locks it out but another collection (doc/design.md, "Collection"): reap
and mark; purge the generations of the trash that are ripe by then; condemn what is not marked into a
new one, and seal it. Killed at any point, it has lost nothing, and the next run goes on.

Limits: space comes back a day after a chunk was condemned, unless `waive_grace`; memory is that of the
marks. On a nearly full disk the reserve is given up first and made again last.
"""

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

from backy.domain import collection as decisions
from backy.domain.collection import GRACE
from backy.domain.marks import WORDS, Marks
from backy.ground.clock import Clock
from backy.ground.directory import Directory
from backy.ground.errors import BackyError, CollectionStopped, CollectionTooMuch, StorageFailed
from backy.operation import vanished
from backy.operation.progress import Progress
from backy.operation.trash import Waiting, look_into_trash, reading, seal_of
from backy.repository import garbage, layout, marking, remembered, reserve, users
from backy.repository.garbage import Chunks
from backy.repository.marking import JobFiles, Stop
from backy.repository.refusals import Refusals
from backy.repository.remembered import Outcome
from backy.repository.repository import Repository, check_writable_here, collecting

# One folder holds a generation, and memory its names, 0.1 KB each, beside the marks while it is purged.
A_GENERATION = 200_000
_REFUSED_TOLD = 10


class Plan(NamedTuple):
    """What a collection finds: all chunk files of the store, those that nobody needs, and strangers.

    `trash` is what lies there already and nobody needs; `refused` are sentences about files that the
    system would not let us look at.
    """

    total: int
    unneeded: Chunks
    trash: Chunks
    waiting: tuple[Waiting, ...]
    foreign: tuple[str, ...]
    refused: tuple[str, ...]


class Collected(NamedTuple):
    """What a collection did; `left` is how many chunk files stay in the store proper.

    `refused` are sentences about files that the system would not let go.
    """

    maps: int
    left: int
    condemned: Chunks
    purged: Chunks
    rescued: int
    waiting: tuple[Waiting, ...]
    foreign: tuple[str, ...]
    refused: tuple[str, ...]


def plan_collection(
    repository: Repository, clock: Clock, progress: Progress, *, gone: Collection[str] = ()
) -> Plan:
    """Mark and count, and change nothing; CollectionStopped, StorageFailed."""
    with reading(repository):
        files = marking.inventory(repository)
        stops = vanished.since_last_run(repository, files, clock.now(), gone)[0]
        marks = _new_marks()
        found, present = _mark_all(repository, files, marks, progress, gone, spare_unused=True)
        _refuse(
            stops + found + vanished.since_inventory(repository, files, present, clock.now(), gone)[0]
        )
        refusals = Refusals()
        census = _census(repository, marks, progress, refusals)
        trash = garbage.weigh_trash(repository.chunks, marks, refusals)
        waiting = tuple(look_into_trash(repository, GRACE))
        foreign = (*census.foreign, *_strangers(repository.chunks, refusals))
        return Plan(census.total, census.unmarked, trash, waiting, foreign, _sentences(refusals))


def collect(
    repository: Repository,
    clock: Clock,
    progress: Progress,
    *,
    waive_grace: bool = False,
    force: bool = False,
    gone: Collection[str] = (),
) -> Collected:
    """Collect; CollectorBusy, CollectionStopped, CollectionTooMuch, StorageFailed.

    `waive_grace` purges what was condemned without waiting for a day, `force` allows more than half of
    the store to go, and `gone` names jobs and UUIDs that were removed on purpose.
    """
    check_writable_here(repository.base)
    with collecting(repository.chunks):
        # A newer version may have set a requirement since we opened.
        repository.read_format()
        with _noting_failure(repository, clock), reading(repository):
            reserve.give_up(repository.chunks)
            run = _Run(repository, clock, progress, timedelta(0) if waive_grace else GRACE, gone)
            done = run.collect(force=force)
            reserve.restore(repository.chunks)
            outcome = Outcome(
                at=clock.now(),
                refused=done.refused[:_REFUSED_TOLD],
                chunks=done.left,
                condemned=done.condemned.files,
                purged=done.purged.files,
            )
            remembered.write_outcome(repository.chunks, outcome)
            return done


@contextmanager
def _noting_failure(repository: Repository, clock: Clock) -> Iterator[None]:
    """Whatever ends the run early: say why for `check`, and make the reserve again.

    Each as far as the disk lets us, since what is to be told is the first error. A run that somebody
    ends has no outcome.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, BackyError):
            with suppress(BackyError, OSError):
                # First, while there is the room of the reserve.
                outcome = Outcome(at=clock.now(), stopped=_reasons(error))
                remembered.write_outcome(repository.chunks, outcome)
        with suppress(BackyError, OSError):
            # What it was given up for did not happen, and backups would fill it.
            reserve.restore(repository.chunks, roomy=False)
        raise


def _reasons(error: BackyError) -> tuple[str, ...]:
    if isinstance(error, CollectionStopped):
        return tuple(": ".join(one) for one in error.stops)
    return (error.message,)


class _Run:
    """One collection, with what it adds up."""

    def __init__(
        self,
        repository: Repository,
        clock: Clock,
        progress: Progress,
        grace: timedelta,
        gone: Collection[str],
    ) -> None:
        self._repository = repository
        self._chunks = repository.chunks
        self._clock = clock
        self._progress = progress
        self._grace = grace
        self._gone = gone
        self._maps = 0
        self._purged = Chunks()
        self._rescued = 0
        self._foreign: list[str] = []
        self._refusals = Refusals()

    def collect(self, *, force: bool) -> Collected:
        users.bury(self._chunks, self._refusals)
        self._seal_unsealed()
        files = marking.inventory(self._repository)
        remembers = self._remember(files)
        # Marks that begin after the writers of a generation have ended let it be purged.
        ripe = self._ripe()
        marks = self._mark(files)
        self._purge(ripe, marks)
        if ripe:
            # There may be room now for what was none before.
            self._seal_unsealed()
        census = _census(self._repository, marks, self._progress, self._refusals)
        rescued = self._rescued  # which the census has counted
        self._foreign += (*census.foreign, *_strangers(self._chunks, self._refusals))
        if decisions.is_too_much(census.unmarked.files, census.total) and not force:
            raise CollectionTooMuch(census.unmarked.files, census.total)
        condemned = self._condemn(marks) if census.unmarked.files else Chunks()
        del marks
        ripe = self._ripe() if condemned.files else []
        if ripe:
            self._purge(ripe, self._mark(files))
        if not remembers:
            # There was no room; what was removed meanwhile must not be in the list.
            self._remember_anew(files)
        waiting = tuple(look_into_trash(self._repository, self._grace))
        left = census.total - condemned.files + self._rescued - rescued
        return Collected(
            self._maps,
            left,
            condemned,
            self._purged,
            self._rescued,
            waiting,
            tuple(self._foreign),
            _sentences(self._refusals),
        )

    def _seal_unsealed(self) -> None:
        """Seal what a killed run left, with a census of now; and anew what has no usable seal."""
        for name in garbage.generations(self._chunks):
            with garbage.open_generation(self._chunks, name) as generation:
                try:
                    self._seal_where_needed(generation)
                except StorageFailed as error:
                    # On a full disk it stays unsealed; others may be ripe and give room.
                    if error.code not in (errno.ENOSPC, errno.EDQUOT):
                        raise

    def _seal_where_needed(self, generation: garbage.Generation) -> None:
        now = self._clock.now()
        try:
            seal = generation.read_seal()
        except ValueError:
            generation.reseal(now, self._living(), self._refusals)
            return
        if seal is None:
            generation.sync()
            generation.seal(now, self._living())
        elif seal.at > now:
            # Made while the clock was wrong, it would wait for that day to come.
            generation.reseal(now, self._living(), self._refusals)

    def _living(self) -> list[str]:
        return [writer.name for writer in users.living(self._chunks)]

    def _remember(self, files: dict[str, JobFiles]) -> bool:
        """Refuse what vanished unexplained, and write down what is there; False for want of room."""
        stops, known = vanished.since_last_run(self._repository, files, self._clock.now(), self._gone)
        written = known is None or remembered.write_known(self._chunks, known, complete=not stops)
        _refuse(stops)
        return written

    def _remember_anew(self, files: dict[str, JobFiles]) -> None:
        """Write down what is there now, and what of the first inventory went and has to be explained."""
        now_there = marking.inventory(self._repository)
        present = {name: found.present for name, found in now_there.items()}
        stops, missing = vanished.since_inventory(
            self._repository, files, present, self._clock.now(), self._gone
        )
        known = decisions.still_known(vanished.committed(now_there), missing)
        remembered.write_known(self._chunks, known, complete=not stops)
        _refuse(stops)

    def _ripe(self) -> list[str]:
        living = self._living()
        now = self._clock.now()
        found = []
        for name in garbage.generations(self._chunks):
            seal = seal_of(self._repository, name)
            if seal is not None and decisions.is_ripe(seal, living, now, self._grace):
                found.append(name)
        return found

    def _mark(self, files: dict[str, JobFiles]) -> Marks:
        """Reap, then mark, job by job; CollectionStopped."""
        for name, job in _opened(self._repository, self._repository.directories()):
            spared = files[name].committed if name in files else ()
            has_writer = partial(_has_writer, self._repository, name)
            self._maps += marking.reap(job, spared, has_writer, self._gone)
        marks = _new_marks()
        stops, present = _mark_all(self._repository, files, marks, self._progress, self._gone)
        now = self._clock.now()
        _refuse(stops + vanished.since_inventory(self._repository, files, present, now, self._gone)[0])
        return marks

    def _purge(self, names: list[str], marks: Marks) -> None:
        for name in names:
            with garbage.open_generation(self._chunks, name) as generation:
                done = generation.purge(marks, self._refusals)
            self._purged = self._purged.plus(done.removed)
            self._rescued += done.rescued
            self._foreign += done.foreign

    def _condemn(self, marks: Marks) -> Chunks:
        done = Chunks()
        names = garbage.unmarked(self._chunks, marks, self._refusals)
        for first in names:
            with garbage.new_generation(self._chunks) as generation:
                for name in chain([first], islice(names, A_GENERATION - 1)):
                    done = done.plus(generation.condemn(name, self._refusals))
                generation.sync()
                # The census comes last: who registers from here on finds none of these chunks.
                generation.seal(self._clock.now(), self._living())
        return done


def _new_marks() -> Marks:
    return Marks(word=os.urandom(1)[0] % WORDS)


def _opened(repository: Repository, names: Sequence[str]) -> Iterator[tuple[str, Directory]]:
    """These jobs' directories, open one after the other; what one had that went meanwhile is missed."""
    for name in names:
        try:
            job = repository.base.enter(name)
        except FileNotFoundError:
            continue
        with job:
            yield name, job


def _mark_all(
    repository: Repository,
    files: dict[str, JobFiles],
    marks: Marks,
    progress: Progress,
    gone: Collection[str],
    *,
    spare_unused: bool = False,
) -> tuple[list[Stop], dict[str, frozenset[str]]]:
    """Mark the maps of all jobs that are there now, which may be more than in `files`.

    Says what stops it, and which UUIDs each job had. With `spare_unused` maps that would be reaped do
    not count.
    """
    stops: list[Stop] = []
    present = {}
    names = repository.directories()
    progress.begin("mark", len(names), "jobs")
    try:
        for name, job in _opened(repository, names):
            unused: set[str] = set()
            if spare_unused and name in files:
                for orphan in marking.orphans(job, files[name].committed, gone):
                    if marking.is_unused(job, orphan):
                        unused.update(orphan.maps)
            found = marking.mark(job, marks, unused, gone)
            stops += found.stops
            present[name] = found.present
            progress.advance(1)
    finally:
        progress.end()
    return stops, present


def _census(
    repository: Repository, marks: Marks, progress: Progress, refusals: Refusals
) -> garbage.Census:
    progress.begin("look for garbage", len(layout.FANOUT), "folders")
    try:
        return garbage.take_census(repository.chunks, marks, progress.advance, refusals)
    finally:
        progress.end()


def _has_writer(repository: Repository, job: str) -> bool:
    return any(writer.job in ("", job) for writer in users.living(repository.chunks))


def _strangers(chunks: Directory, refusals: Refusals) -> list[str]:
    """Files of others in the folders that collection removes from, beside those among the chunks."""
    return garbage.strangers(chunks) + users.strangers(chunks, refusals)


def _sentences(refusals: Refusals) -> tuple[str, ...]:
    return tuple(one.message for one in refusals.found.values())


def _refuse(stops: list[Stop]) -> None:
    if stops:
        raise CollectionStopped(tuple((one.where, one.why) for one in stops))
