"""Usage: how many bytes only one revision, or only one job, keeps in the store.

    for one in usage(repository, progress): one.job, one.uuid, one.alone

What a revision shares with any other, of whatever job, is nobody's alone: forgetting it alone gives
nothing of that back. So the figures of several revisions do not add up to what forgetting all of them
would free.

Limits: chunks are taken in passes by their id, so that memory holds a quarter of a million ids; all
maps of the repository are read in each pass. What cannot be read is left out and named.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from backy.domain.chunkmap import Entry
from backy.domain.revision import MapDigest, Revision
from backy.ground.errors import MapDamaged, RevisionGone
from backy.operation.progress import Progress
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.maps import open_pinned
from backy.repository.repository import Repository

IDS_A_PASS = 250_000
_SHARED = -1


class Usage(NamedTuple):
    """One revision: bytes on disk that only it keeps, and that only its job's revisions keep."""

    job: str
    revision: Revision
    alone: int


class JobUsage(NamedTuple):
    """One job: bytes on disk that no other job's revisions keep."""

    job: str
    revisions: int
    alone: int


class Found(NamedTuple):
    """Usage of all revisions and jobs, and the revisions whose maps cannot be read."""

    revisions: list[Usage]
    jobs: list[JobUsage]
    unreadable: list[str]


class _Kept(NamedTuple):
    job: int
    revision: Revision
    digest: MapDigest


def usage(repository: Repository, progress: Progress) -> Found:
    """Measure all revisions of all jobs."""
    names = repository.directories()
    kept, unreadable = _all_maps(repository, names)
    # A job's directory that was copied has the same UUIDs once more.
    owners = {(one.job, one.revision.uuid): number for number, one in enumerate(kept)}
    revision_bytes = dict.fromkeys(owners.values(), 0)
    job_bytes = [0] * len(names)
    chunks = sum(-(-one.digest.image_size // repository.format.chunk_size) for one in kept)
    passes = max(1, -(-chunks // IDS_A_PASS))
    progress.begin("measure", passes * len(kept), "maps")
    try:
        for number in range(passes):
            holder: dict[Entry, int] = {}
            holding_job: dict[Entry, int] = {}
            for one in kept:
                owner = owners[one.job, one.revision.uuid]
                for entry in _entries(repository, names[one.job], one, number, passes, unreadable):
                    if holder.setdefault(entry, owner) != owner:
                        holder[entry] = _SHARED
                    if holding_job.setdefault(entry, one.job) != one.job:
                        holding_job[entry] = _SHARED
                progress.advance(1)
            for entry, job in holding_job.items():
                if job == _SHARED:
                    continue
                size = _size(repository, entry)
                job_bytes[job] += size
                if holder[entry] != _SHARED:
                    revision_bytes[holder[entry]] += size
    finally:
        progress.end()
    seen: dict[tuple[int, str], Usage] = {}
    counts = [0] * len(names)
    for one in kept:
        key = one.job, one.revision.uuid
        counts[one.job] += key not in seen
        seen[key] = Usage(names[one.job], one.revision, revision_bytes[owners[key]])
    jobs = [
        JobUsage(name, counts[number], job_bytes[number])
        for number, name in enumerate(names)
        if counts[number]
    ]
    return Found(list(seen.values()), jobs, list(unreadable))


def _all_maps(repository: Repository, names: list[str]) -> tuple[list[_Kept], dict[str, None]]:
    kept = []
    unreadable: dict[str, None] = {}
    for number, name in enumerate(names):
        with repository.base.enter(name) as job:
            history = histories.load(job)
            unusable = [*(one.uuid for one in history.unreadable), *history.lost]
            unreadable.update((f"{name}/{uuid}", None) for uuid in unusable)
            for revision in history.revisions:
                for digest in revision.maps:
                    try:
                        open_pinned(job, revision.uuid, digest).close()
                    except RevisionGone:
                        continue
                    except MapDamaged:
                        unreadable[f"{name}/{revision.uuid}"] = None
                        continue
                    kept.append(_Kept(number, revision, digest))
    return kept, unreadable


def _entries(
    repository: Repository,
    name: str,
    kept: _Kept,
    number: int,
    passes: int,
    unreadable: dict[str, None],
) -> Iterator[Entry]:
    """The files that a map needs, of one part of the ids: an entry with a base needs the base too.

    Of a map with a damaged page it is less; then the revision is noted as unreadable.
    """
    low, high = number * 65536 // passes, (number + 1) * 65536 // passes
    try:
        with (
            repository.base.enter(name) as job,
            open_pinned(job, kept.revision.uuid, kept.digest) as reader,
        ):
            for base in reader.bases:
                if low <= int.from_bytes(base[:2], "big") < high:
                    yield Entry(base)
            for _, entry in reader.used():
                if low <= int.from_bytes(entry.ident[:2], "big") < high:
                    yield entry
    except RevisionGone:
        return
    except MapDamaged:
        unreadable[f"{name}/{kept.revision.uuid}"] = None


def _size(repository: Repository, entry: Entry) -> int:
    try:
        found = os.stat(layout.chunk_path(entry), dir_fd=repository.chunks.fd, follow_symlinks=False)
    except OSError:
        return 0
    return found.st_blocks * 512
