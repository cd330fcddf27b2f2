"""Trust: what becomes of records and reports when damage is found, and when it has healed.

    done = conclude(repository, selection, result, clock, quick=False)      after verify
    settle(repository, clock, "verify", missing)                            cases without a report
    note_healed(repository, clock, "backup")                                cases with a new chunk

The order is the point (doc/design.md, "What a record may say"): a chunk is moved aside, then all maps
are listed, then records are marked, then the report is written. A kill anywhere leaves a case without
a report, and whoever verifies next completes it.

Limits: what a record says of damage is a cache of what `repository.damage` computes.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from backy.domain.chunkmap import Entry
from backy.domain.revision import Distrust, Revision, Trust
from backy.ground.clock import Clock
from backy.ground.errors import (
    BackyError,
    FormatUnknown,
    HistoryBusy,
    JobMissing,
    RecordDamaged,
    RevisionGone,
    StorageFailed,
)
from backy.ground.tries import Tries
from backy.operation.verify import Kind, Result, Selected
from backy.repository import damage, layout, quarantine, trust
from backy.repository.damage import Needing
from backy.repository.quarantine import Case, Hurt, Report
from backy.repository.repository import Repository

# What keeps one thing from being moved or marked, and no other.
FAILURES = (StorageFailed, HistoryBusy, OSError)
# Forgotten or unreadable meanwhile: there is nothing to be marked.
_NOT_THERE = (RevisionGone, RecordDamaged, FormatUnknown)


class Concluded(NamedTuple):
    """What verify has changed in numbers; `failed` says why it could not change more."""

    aside: int = 0
    damaged: int = 0
    healed: int = 0
    verified: int = 0
    failed: str | None = None


def conclude(
    repository: Repository, selection: Sequence[Selected], result: Result, clock: Clock, *, quick: bool
) -> Concluded:
    """Move aside what verify found bad, say whom it hurts, and mark what proved to be good.

    On a disk on which nothing can be written, the findings are all there is.
    """
    done = Concluded()
    # Each is done also where another fails: so a job that cannot be read leaves no other one verified of
    # which something is bad.
    tries = Tries(*FAILURES)
    suspects = _suspects(result)
    with tries.one():
        for entry in suspects:
            quarantine.set_aside(repository.chunks, repository.format.chunk_size, entry)
    is_aside = tries.first is None
    with tries.one():
        settled = settle(repository, clock, "verify", missing_of(repository, suspects))
        done = done._replace(aside=settled.aside, damaged=settled.damaged)
    with tries.one():
        done = done._replace(healed=note_healed(repository, clock, "verify"))
    with tries.one():
        done = done._replace(verified=_mark(repository, selection, result, is_aside, quick=quick))
    with tries.one():
        distrust_denied(repository, result.denied)
    with tries.one():
        trust.forget_distrust(repository)
    return done._replace(failed=None if tries.first is None else sentence(repository, tries.first))


def sentence(repository: Repository, failure: Exception) -> str:
    """Why something could not be done."""
    if isinstance(failure, BackyError):
        return failure.message
    code = failure.errno if isinstance(failure, OSError) else None
    return f"{repository.base.path}: {os.strerror(code or 0)}."


def distrust_denied(repository: Repository, owners: Collection[tuple[str, str]]) -> None:
    """Distrust revisions, as (job, UUID), that need a chunk which the disk does not give.

    It cannot be proven to be bad, nor be moved aside. But from now on backups read what they hit, and
    whoever has its content puts it in its place. A job in which that fails keeps no other from it.
    StorageFailed, HistoryBusy.
    """
    if not owners:
        return
    tries = Tries(StorageFailed, HistoryBusy)
    with trust.distrusting(repository.chunks):
        for name, uuid in sorted(owners):
            with tries.one(), suppress(JobMissing, *_NOT_THERE), repository.job(name) as job:
                trust.distrust(job.directory, uuid, Distrust.STORE, patient=False)
    tries.end()


def files_of(entry: Entry) -> tuple[Entry, ...]:
    """All files that reading an entry may use, the base first."""
    if entry.base is None:
        return (entry,)
    return (Entry(entry.base), entry, Entry(entry.ident))


def _suspects(result: Result) -> list[Entry]:
    named = {one.chunk for one in result.findings if one.kind is Kind.CHUNK and one.chunk is not None}
    entries = [layout.parse_chunk_name(name) for name in sorted(named)]
    return list(
        dict.fromkeys(file for entry in entries if entry is not None for file in files_of(entry))
    )


def missing_of(repository: Repository, suspects: Iterable[Entry]) -> list[Entry]:
    """Those that are not in the store proper."""
    return [one for one in suspects if not repository.chunks.has(layout.chunk_path(one))]


def _mark(
    repository: Repository,
    selection: Sequence[Selected],
    result: Result,
    is_aside: bool,
    *,
    quick: bool,
) -> int:
    """Bring what the selected records say up to date: how many revisions are newly verified.

    `is_aside`: what is bad is not in the store any more. A job in which it fails keeps no other from it.
    """
    bad = {(one.job, one.revision) for one in result.findings}
    count = 0
    tries = Tries(StorageFailed, HistoryBusy)
    for name, _, revisions in selection:
        with tries.one(), suppress(JobMissing), repository.job(name) as job:
            for seen in revisions:
                owner = (name, seen.uuid)
                with suppress(*_NOT_THERE):
                    now = seen
                    if owner in bad or seen.damaged:
                        now = damage.refresh(
                            repository.chunks, job.directory, seen.uuid, failed=owner in bad
                        )
                    is_proven = owner in result.proven
                    # Of a damaged one, all that is not lost.
                    is_rest_proven = now.damaged and is_aside and owner not in result.unread
                    if quick or not (is_proven or is_rest_proven) or _trust(now) != _trust(seen):
                        continue
                    after = trust.verified(job.directory, now)
                    count += after.trust is Trust.VERIFIED is not seen.trust
    tries.end()
    return count


def _trust(revision: Revision) -> tuple[object, object]:
    return revision.trust, revision.distrust


class Settled(NamedTuple):
    """How many chunks are in quarantine now that were not reported, and how many revisions it hurts."""

    aside: int
    damaged: int


def settle(
    repository: Repository,
    clock: Clock,
    found_by: str,
    missing: Collection[Entry] = (),
) -> Settled:
    """Complete the cases that have no report, and mark whom they hurt.

    `missing` are chunks that are gone without a case. Raises StorageFailed.
    """
    bad: dict[Case, str] = {}
    for case in quarantine.cases(repository.chunks):
        if case.report is None:
            fault = quarantine.confirm(repository.chunks, repository.format.chunk_size, case)
            if fault is not None:
                bad[case] = fault.message
    hurt: dict[Entry, list[Hurt]] = {}
    moved = {case.chunk for case in bad if case.chunk is not None}
    asking = Tries(StorageFailed)
    asked: set[tuple[str, str]] = set()
    damaged = 0
    # Of what is missing without a case, a backup that commits meanwhile learns only by its parent, which
    # is marked by the first look.
    for suspects in (moved | set(missing), missing):
        found: list[Needing] = []
        with asking.one():
            found += damage.needing(repository, suspects, asked)
        for one in found:
            hurt.setdefault(one.chunk, []).append(one.hurt)
        damaged += refresh_hurt(repository, [one.hurt for one in found])
    # No report while a job cannot be read that the case may hurt, too.
    asking.end()
    for case, why in bad.items():
        assert case.chunk is not None
        report = Report(
            case=case.name,
            chunk=layout.chunk_name(case.chunk),
            found_at=clock.now(),
            found_by=found_by,
            why=why,
            revisions=tuple(hurt.get(case.chunk, ())),
        )
        quarantine.write_report(repository.chunks, report)
    return Settled(len(bad), damaged)


def refresh_hurt(repository: Repository, hurt: Iterable[Hurt], *, failed: bool = False) -> int:
    """Mark the revisions: how many of them are damaged; `failed` as of `damage.refresh`.

    A job in which that fails keeps no other from it. StorageFailed, HistoryBusy.
    """
    uuids: dict[str, dict[str, None]] = {}
    for one in hurt:
        uuids.setdefault(one.job, {})[one.revision] = None
    count = 0
    tries = Tries(StorageFailed, HistoryBusy)
    for name, listed in uuids.items():
        with tries.one(), suppress(JobMissing), repository.job(name) as job:
            for uuid in listed:
                with suppress(*_NOT_THERE):
                    now = damage.refresh(repository.chunks, job.directory, uuid, failed=failed)
                    count += now.damaged > 0
    tries.end()
    return count


def note_healed(repository: Repository, clock: Clock, healed_by: str) -> int:
    """Note which cases' chunks are in the store again, and whom that helps: how many cases.

    Records are brought up to date before the report says so. StorageFailed.
    """
    healed = [report for report in open_reports(repository) if _is_healed(repository, report)]
    if not healed:
        return 0
    for prefix in sorted({report.chunk[:2] for report in healed}):
        # The new chunk may be that of a writer that has not made its name last yet.
        trust.sync_folder(repository.chunks, prefix)
    damage.refresh_all(repository, lambda revision: revision.damaged > 0)
    for report in healed:
        noted = msgspec.structs.replace(report, healed_at=clock.now(), healed_by=healed_by)
        quarantine.write_report(repository.chunks, noted)
    return len(healed)


def open_reports(repository: Repository) -> list[Report]:
    """Reports of chunks that are not known to have healed."""
    found = (case.report for case in quarantine.cases(repository.chunks))
    return [report for report in found if report is not None and report.healed_at is None]


def has_unreported(repository: Repository) -> bool:
    """Whether a chunk is aside and nobody has said whom it hurts: he is at it, or was killed."""
    return any(case.report is None for case in quarantine.cases(repository.chunks))


def lacks_a_chunk(repository: Repository) -> bool:
    """Whether some case's chunk is nowhere in the store proper, so that a map may lean on nothing."""
    return any(
        case.chunk is not None and not quarantine.content_is_stored(repository.chunks, case.chunk)
        for case in quarantine.cases(repository.chunks)
        if case.is_open
    )


def _is_healed(repository: Repository, report: Report) -> bool:
    entry = layout.parse_chunk_name(report.chunk)
    return entry is not None and quarantine.content_is_stored(repository.chunks, entry)


def still_needed(repository: Repository, case: Case) -> int:
    """How many revisions lack a case's chunk now, and would not get it back if the case were deleted."""
    name = case.report.chunk if case.report is not None else None
    entry = case.chunk if name is None else layout.parse_chunk_name(name)
    if entry is None or quarantine.content_is_stored(repository.chunks, entry):
        return 0
    return refresh_hurt(repository, [one.hurt for one in damage.needing(repository, {entry})])
