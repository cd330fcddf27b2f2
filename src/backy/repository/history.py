"""The history of a job: its records, how a revision is committed, edited and forgotten.

A record is in one of three states by its suffix, and one rename moves it: `.pending` before the
commit, `.rev` after it (the only state in which the revision exists), `.forgotten` afterwards. The
map belongs to all three and is unlinked by garbage collection only.

    history = load(job)                     records, readable or not, oldest first
    commit(job, revision, [map])            the sole commit point
    edit(job, uuid, change)                 under .history, re-reading the record there
    forget(job, uuid)                       works on an unreadable record too

Limits: nothing here decides which revision may go; that is `operation`'s and the operator's.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from backy.domain import revision as records
from backy.domain.revision import Revision
from backy.ground import durable, locks
from backy.ground.directory import Directory
from backy.ground.errors import (
    OF_THE_PROCESS,
    BackyError,
    FormatUnknown,
    HistoryBusy,
    RecordDamaged,
    RevisionGone,
    StorageFailed,
)
from backy.repository import layout
from backy.repository.maps import MapWriter

_MAX_RECORD = 4 << 20


class Unreadable(NamedTuple):
    """A record that exists and cannot be used, with the error that says why."""

    uuid: str
    error: RecordDamaged | FormatUnknown


class History(NamedTuple):
    """All committed records of a job; `lost` are revisions whose map has no record in any state."""

    revisions: tuple[Revision, ...]
    unreadable: tuple[Unreadable, ...]
    lost: tuple[str, ...]


def load(job: Directory) -> History:
    """The history as it is now, oldest first; StorageFailed where it cannot be listed.

    Also where descriptors or memory are wanting: nobody knows then what a record says.
    """
    revisions: list[Revision] = []
    unreadable: list[Unreadable] = []
    recorded: set[str] = set()
    committed: set[str] = set()
    mapped: set[str] = set()
    try:
        names = job.names()
    except OSError as error:
        raise StorageFailed("list", job.path, error.errno or 0) from error
    for name in names:
        record, of_map = layout.parse_record_name(name), layout.parse_map_name(name)
        if of_map is not None:
            mapped.add(of_map[0])
        if record is None:
            continue
        recorded.add(record.uuid)
        if record.suffix == layout.RECORD:
            committed.add(record.uuid)
    # A listing may miss a name that is being replaced (btrfs), so the maps are asked too.
    committed.update(uuid for uuid in mapped - recorded if job.has(uuid + layout.RECORD))
    for uuid in committed:
        try:
            revisions.append(read(job, uuid))
        except RevisionGone:
            continue
        except (RecordDamaged, FormatUnknown) as error:
            unreadable.append(Unreadable(uuid, error))
    unreadable.sort(key=lambda one: one.uuid)
    revisions.sort(key=lambda one: (one.taken_at, one.uuid))
    lost = (uuid for uuid in sorted(mapped - recorded) if _is_lost(job, uuid))
    return History(tuple(revisions), tuple(unreadable), tuple(lost))


def commit(job: Directory, revision: Revision, maps: Sequence[MapWriter]) -> None:
    """Publish a revision whose chunks have durable names and whose maps are sealed.

    Order: the pending record, its name synced, so that a power cut leaves no map without a record;
    the maps; the directory; the record's rename, which is the commit; the directory. If that last
    sync fails, the record is taken back.
    """
    pending, final = revision.uuid + layout.PENDING, revision.uuid + layout.RECORD
    durable.publish(job, pending, records.serialise(revision))
    try:
        durable.sync_directory(job)
        for one in maps:
            one.link()
        durable.sync_directory(job)
        durable.rename(job, pending, final)
        try:
            durable.sync_directory(job)
        except BackyError:
            durable.rename(job, final, pending)
            raise
    except BackyError:
        # A pending record beside a map marks an interrupted backup; alone it means nothing.
        if not any(job.has(layout.map_name(revision.uuid, one.disk)) for one in revision.maps):
            with suppress(BackyError):
                durable.remove(job, pending)
        raise


def edit(
    job: Directory, uuid: str, change: Callable[[Revision], Revision], *, patient: bool = True
) -> Revision:
    """Replace a record by `change` of what it says now; RevisionGone if it was forgotten.

    Edits wait for each other; who is not `patient` waits for a moment only: HistoryBusy.

    An exception from `change` leaves the record as it is. What it says afterwards is durable, also where
    nothing was to be changed.
    """
    with _held(job, patient=patient):
        before = read(job, uuid)
        after = change(before)
        if after != before:
            durable.replace(job, uuid + layout.RECORD, records.serialise(after))
            return after
    # An edit that was killed may have given the record its name without making that last. Not under the
    # lock: whoever is frozen in this would keep others from editing.
    durable.sync_directory(job)
    return after


def forget(job: Directory, uuid: str, check: Callable[[Revision], None] | None = None) -> None:
    """Take a revision out of the history, durably; RevisionGone if someone else did.

    `check` may refuse, by an exception, what the record says under the lock.

    Its map stays until garbage collection finds nobody using it. Of a lost revision (a map without
    any record) it only notes that this is how it shall be.
    """
    with _held(job):
        record, forgotten = uuid + layout.RECORD, uuid + layout.FORGOTTEN
        if check is not None:
            check(read(job, uuid))
        if job.has(record):
            try:
                durable.rename(job, record, forgotten)
            except StorageFailed:
                # On a full disk there may be no room for the new name, but there is always for less.
                durable.remove(job, record)
                # Where even this fails, the map shows as one whose record is gone.
                with suppress(StorageFailed):
                    durable.publish(job, forgotten, b"")
        elif _is_lost(job, uuid):
            durable.publish(job, forgotten, b"")
        else:
            raise RevisionGone(uuid)
        durable.sync_directory(job)


@contextmanager
def _held(job: Directory, *, patient: bool = True) -> Iterator[None]:
    """Hold `.history`, so that no two edits overlap."""
    try:
        fd = locks.open_lock_file(job, layout.HISTORY_LOCK)
    except OSError as error:
        path = job.file_path(layout.HISTORY_LOCK)
        raise StorageFailed("open", path, error.errno or 0) from error
    try:
        if patient:
            locks.wait_exclusive(fd)
        elif not locks.try_exclusive_again(fd):
            raise HistoryBusy(job.file_path(layout.HISTORY_LOCK))
        yield
    finally:
        os.close(fd)


def read(job: Directory, uuid: str) -> Revision:
    """What a committed record says; RevisionGone, RecordDamaged, FormatUnknown, StorageFailed."""
    name = uuid + layout.RECORD
    path = job.file_path(name)
    try:
        revision = records.parse(job.read(name, _MAX_RECORD))
    except FileNotFoundError as error:
        raise RevisionGone(uuid) from error
    except OSError as error:
        if error.errno in OF_THE_PROCESS:
            raise StorageFailed("read", path, error.errno) from error
        raise RecordDamaged(path, os.strerror(error.errno or 0)) from error
    except records.UnknownFormat as error:
        raise FormatUnknown(path, str(error)) from error
    except ValueError as error:
        raise RecordDamaged(path, str(error)) from error
    if revision.uuid != uuid:
        raise RecordDamaged(path, f"it is the record of {revision.uuid}")
    return revision


def _is_lost(job: Directory, uuid: str) -> bool:
    """Whether a map without a record stays so on a second look: a backup or collection may be on it."""
    # In the order in which a record moves, so that it cannot slip past between two looks.
    states = (layout.PENDING, layout.RECORD, layout.FORGOTTEN)
    if any(job.has(uuid + suffix) for suffix in states):
        return False
    prefix = uuid + "."
    return any(name.startswith(prefix) and layout.parse_map_name(name) for name in job.names())
