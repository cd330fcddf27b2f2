"""Reaping and marking: which maps are there, and which chunks they need.

Every map that is there keeps what it names, with or without a record: one without may be a backup
just before its commit, or one whose revision was forgotten while it is being restored. Only a map
without a record that nobody holds goes (*reap*), and only collection removes maps.

    files = inventory(repository)            names only, of all jobs
    reap(job, spared)                        then, job by job
    mark(job, marks)

Anything that cannot be read or understood is a `Stop`: nothing may be collected until the operator
has said what it is.

Limits: one job's records and the digests of its map pages in memory at a time.
"""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from backy.domain.marks import Marks
from backy.ground import durable, locks
from backy.ground.directory import Directory
from backy.ground.errors import DamageError, FormatUnknown, RevisionGone
from backy.repository import history as histories
from backy.repository import layout, maps
from backy.repository.repository import Repository

# Pages that a job's revisions share are marked once; so many digests take about 20 MiB.
_PAGES_REMEMBERED = 200_000


class Stop(NamedTuple):
    """Why nothing may be collected: the file or job, and a sentence."""

    where: str
    why: str


class JobFiles(NamedTuple):
    """The UUIDs in a job's directory: those with a committed record, and those with any file."""

    committed: frozenset[str]
    present: frozenset[str]


def inventory(repository: Repository) -> dict[str, JobFiles]:
    """What lies in every directory that may be a job's; OSError if one cannot be listed."""
    found = {}
    for name in repository.directories():
        with repository.base.enter(name) as job:
            committed, present = set(), set()
            for file in job.names():
                record, of_map = layout.parse_record_name(file), layout.parse_map_name(file)
                if record is not None:
                    present.add(record.uuid)
                    if record.suffix == layout.RECORD:
                        committed.add(record.uuid)
                if of_map is not None:
                    present.add(of_map[0])
            # A listing may miss a name that is being replaced (btrfs).
            committed |= {one for one in present - committed if job.has(one + layout.RECORD)}
            found[name] = JobFiles(frozenset(committed), frozenset(present))
    return found


class Orphan(NamedTuple):
    """What is no revision (any more): its UUID, the suffixes of its records, the names of its maps."""

    uuid: str
    suffixes: tuple[str, ...]
    maps: tuple[str, ...]


def orphans(job: Directory, spared: Collection[str], gone: Collection[str] = ()) -> list[Orphan]:
    """Interrupted backups and forgotten revisions of a job, in use or not; writes nothing.

    And of the lost ones, whose record vanished, those that the operator has given up (`gone`).

    `spared` are UUIDs that the list of known revisions holds: were one of them forgotten a moment
    ago, its files have to stay until that list has been written anew.
    """
    maps_of: dict[str, list[str]] = {}
    suffixes: dict[str, list[str]] = {}
    for name in job.names():
        record, of_map = layout.parse_record_name(name), layout.parse_map_name(name)
        if of_map is not None:
            maps_of.setdefault(of_map[0], []).append(name)
        if record is not None:
            suffixes.setdefault(record.uuid, []).append(record.suffix)
    suffixes.update((uuid, []) for uuid in maps_of if uuid in gone and uuid not in suffixes)
    return [
        Orphan(uuid, tuple(found), tuple(maps_of.get(uuid, ())))
        for uuid, found in suffixes.items()
        if uuid not in spared and layout.RECORD not in found and not job.has(uuid + layout.RECORD)
    ]


def is_unused(job: Directory, orphan: Orphan) -> bool:
    """Whether nobody holds any of its maps now; writes nothing."""
    return all(_locked_alone(job, orphan, name, lambda: None) for name in orphan.maps)


def reap(
    job: Directory,
    spared: Collection[str],
    has_writer: Callable[[], bool],
    gone: Collection[str] = (),
) -> int:
    """Remove the maps of orphans that nobody uses: their number.

    `has_writer` tells whether a writer of this job lives.
    """
    found = orphans(job, spared, gone)
    finished = []
    reaped = 0
    for orphan in found:
        unlinked = [
            _locked_alone(job, orphan, name, partial(durable.remove, job, name)) for name in orphan.maps
        ]
        reaped += sum(unlinked)
        if all(unlinked):
            finished.append(orphan)
    if finished:
        # A map that a power cut brings back must find the note that says what it was; it may have been
        # removed by a run that was killed.
        durable.sync_directory(job)
    for orphan in finished:
        # A pending record without a map may be that of a backup which is about to name its map, or
        # has just done so.
        alone = bool(orphan.maps) or layout.PENDING not in orphan.suffixes
        if alone or (not has_writer() and not _has_map(job, orphan.uuid)):
            for suffix in orphan.suffixes:
                _remove_if_there(job, orphan.uuid + suffix)
    return reaped


def _locked_alone(job: Directory, orphan: Orphan, name: str, act: Callable[[], None]) -> bool:
    """Do it to a map while it is locked alone and still has no record; False if that cannot be."""
    try:
        fd = job.open_file(name)
    except FileNotFoundError:
        return True
    except OSError:
        # Marking says what is wrong with it.
        return False
    try:
        if not locks.try_exclusive(fd) or job.has(orphan.uuid + layout.RECORD):
            return False
        act()
        return True
    finally:
        os.close(fd)


def _has_map(job: Directory, uuid: str) -> bool:
    return any((layout.parse_map_name(name) or ("",))[0] == uuid for name in job.names())


def _remove_if_there(job: Directory, name: str) -> None:
    if job.has(name):
        durable.remove(job, name)


class Marked(NamedTuple):
    """What marking a job met: what stops it, and the UUIDs that were there, with or without a record.

    A committed record counts only where its maps were marked.
    """

    stops: tuple[Stop, ...]
    present: frozenset[str]


def mark(
    job: Directory, marks: Marks, without: Collection[str] = (), gone: Collection[str] = ()
) -> Marked:
    """Mark what every map of a job needs, except the maps named in `without`."""
    stops: list[Stop] = []
    seen: set[bytes] = set()
    history = histories.load(job)
    stops += [
        Stop(job.file_path(one.uuid + layout.RECORD), one.error.message) for one in history.unreadable
    ]
    stops += [
        Stop(job.file_path(layout.map_name(uuid)), "its record is gone, and it was not forgotten")
        for uuid in history.lost
        if uuid not in gone
    ]
    expected = {
        layout.map_name(one.uuid, digest.disk): (one.uuid, digest)
        for one in history.revisions
        for digest in one.maps
    }
    unreadable = {one.uuid for one in history.unreadable}
    found_maps, present = _listed(job)
    present |= unreadable.union(one.uuid for one in history.revisions)
    for name in sorted(found_maps.union(expected).difference(without)):
        try:
            if name in expected:
                with maps.open_pinned(job, *expected[name]) as reader:
                    _mark_map(reader, marks, seen)
            else:
                with _found(job, name) as found:
                    if found is not None:
                        _mark_map(found, marks, seen)
        except RevisionGone:
            # Forgotten since the history was read: what is left of it counts like any map.
            stops += _mark_forgotten(job, name, marks, seen)
            if not job.has(name):
                present.discard(expected[name][0])
        except (DamageError, FormatUnknown) as error:
            parsed = layout.parse_map_name(name)
            if parsed is None or parsed[0] not in unreadable:
                stops.append(Stop(job.file_path(name), error.message))

    return Marked(tuple(stops), frozenset(present))


def _listed(job: Directory) -> tuple[set[str], set[str]]:
    """Names of all maps, and the UUIDs of them and of records that are not committed."""
    names, uuids = set(), set()
    for name in job.names():
        record, of_map = layout.parse_record_name(name), layout.parse_map_name(name)
        if of_map is not None:
            names.add(name)
            uuids.add(of_map[0])
        if record is not None and record.suffix != layout.RECORD:
            uuids.add(record.uuid)
    return names, uuids


def _mark_forgotten(job: Directory, name: str, marks: Marks, seen: set[bytes]) -> list[Stop]:
    try:
        with _found(job, name) as reader:
            if reader is not None:
                _mark_map(reader, marks, seen)
    except DamageError as error:
        return [Stop(job.file_path(name), error.message)]
    return []


@contextmanager
def _found(job: Directory, name: str) -> Iterator[maps.MapReader | None]:
    """A map by its name alone; None if it is gone."""
    try:
        reader = maps.open_found(job, name)
    except FileNotFoundError:
        yield None
        return
    with reader:
        yield reader


def _mark_map(reader: maps.MapReader, marks: Marks, seen: set[bytes]) -> None:
    marks.add_page(b"".join(reader.bases))
    if len(seen) > _PAGES_REMEMBERED:
        seen.clear()
    for number, digest in reader.stored():
        if digest in seen:
            continue
        page = reader.page(number)
        if page is not None:
            marks.add_page(page.idents)
        seen.add(digest)
