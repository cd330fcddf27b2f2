"""The quarantine: damaged chunks, moved aside so that the next backup stores them anew.

A *case* is a folder `chunks/quarantine/CASE` with one chunk file under its own name and, when it is
known whom it hurts, a `report`. Nothing is deleted here but by the operator (`delete`).

    case = set_aside(chunks, chunk_size, entry)       None where it is not proven to be bad
    for case in cases(chunks): confirm(chunks, chunk_size, case) …; write_report(chunks, report)

A chunk is moved only when its file proves to be bad, and it is hashed again where it lies then, past
the page cache: one that somebody replaced meanwhile is linked back. What cannot be read at all (EIO,
too many open files, a time-out) is no proof and is never moved. Where its name is taken by then, the
copy that proves to be good stays. A case without a report was cut short by a kill; whoever verifies
next completes it.

Limits: the store proper only; what lies in the trash is collection's.
"""

import errno
import os
import stat
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

import msgspec

from backy.domain import chunk, sealed
from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import Entry
from backy.ground import durable, linux
from backy.ground.directory import Directory
from backy.ground.errors import (
    BackyError,
    ChunkDamaged,
    ChunkMissing,
    ChunkUnreadable,
    DamageError,
    ReportMissing,
    ReportRefused,
    StorageFailed,
)
from backy.ground.pagecache import UncachedFile
from backy.repository import layout
from backy.repository.chunks import ChunkReader

_MAX_REPORT = 256 << 20
_NOT_A_FILE = (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)


class Hurt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A revision that needs the chunk, with the (offset, length) in bytes where it stands."""

    job: str
    revision: str
    disk: str
    ranges: tuple[tuple[int, int], ...]


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of a case; `chunk` is the name of the file that was moved aside."""

    case: str
    chunk: str
    found_at: datetime
    found_by: str
    why: str
    revisions: tuple[Hurt, ...] = ()
    healed_at: datetime | None = None
    healed_by: str | None = None


class Case(NamedTuple):
    """A folder of the quarantine; `chunk` is None where no chunk file is in it (any more)."""

    name: str
    chunk: Entry | None
    report: Report | None

    @property
    def is_open(self) -> bool:
        """Whether nothing has taken its chunk's place yet, as far as has been noted."""
        return self.report is None or self.report.healed_at is None


def set_aside(chunks: Directory, chunk_size: int, entry: Entry) -> str | None:
    """Move the very file that an entry names out of the store if it is bad: the case's name.

    None if it is good, gone, cannot be read, or turned good meanwhile. StorageFailed.
    """
    name = layout.chunk_name(entry)
    with chunks.enter(name[:2]) as stored, chunks.enter(layout.QUARANTINE) as quarantine:
        while _fault_in(chunks, chunk_size, stored, entry) is not None:
            case = str(uuid4())
            durable.make_directory(quarantine, case)
            # What is moved into it must not go with its name.
            durable.sync_directory(quarantine)
            try:
                if not _move(stored, quarantine, case, name):
                    continue
            except StorageFailed:
                with suppress(BackyError):
                    durable.remove_directory(quarantine, case)
                raise
            return case if confirm(chunks, chunk_size, Case(case, entry, None)) is not None else None
    return None


def _move(stored: Directory, quarantine: Directory, case: str, name: str) -> bool:
    """False if the chunk or the case has gone: another verify moved or removed it."""
    try:
        with quarantine.enter(case) as folder:
            durable.move(stored, name, folder, name)
            # The new name first, so that the chunk is never without one.
            durable.sync_directory(folder)
            durable.sync_directory(stored)
    except FileNotFoundError:
        return False
    except StorageFailed as error:
        if error.code != errno.ENOENT:
            raise
        _remove_empty(quarantine, case)
        return False
    return True


def confirm(chunks: Directory, chunk_size: int, case: Case) -> DamageError | None:
    """Hash a case's chunk where it lies now: why it is bad, or None after it was linked back.

    Also None if it is not there. What is not proven to be bad goes back. StorageFailed.
    """
    if case.chunk is None:
        with chunks.enter(layout.QUARANTINE) as quarantine:
            _remove_empty(quarantine, case.name)
        return None
    name = layout.chunk_name(case.chunk)
    try:
        with (
            chunks.enter(layout.QUARANTINE) as quarantine,
            quarantine.enter(case.name) as folder,
            chunks.enter(name[:2]) as stored,
        ):
            fault = _fault_in(chunks, chunk_size, folder, case.chunk)
            if fault is None and _link_back(chunks, chunk_size, folder, stored, case.chunk):
                _remove_empty(quarantine, case.name)
            return fault
    except FileNotFoundError:
        return None


def _link_back(
    chunks: Directory, chunk_size: int, folder: Directory, stored: Directory, entry: Entry
) -> bool:
    """Whether the chunk is out of the case; nothing is lost where neither copy can be judged."""
    name = layout.chunk_name(entry)
    try:
        if durable.link(folder, name, stored, name) or _is_proven(chunks, chunk_size, stored, entry):
            durable.sync_directory(stored)
            durable.remove(folder, name)
        elif _is_proven(chunks, chunk_size, folder, entry):
            # A purge linked a bad copy back from the trash, or the new one rotted, too.
            durable.move(folder, name, stored, name)
            durable.sync_directory(stored)
        else:
            return False
    except StorageFailed as error:
        if error.code != errno.ENOENT:
            raise
    return True


def _remove_empty(quarantine: Directory, case: str) -> None:
    try:
        durable.remove_directory(quarantine, case)
    except StorageFailed as error:
        if error.code not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


def _fault_in(chunks: Directory, chunk_size: int, folder: Directory, entry: Entry) -> DamageError | None:
    """What is wrong with the very file of that name in a folder, past the page cache.

    None if it is good, not there, cannot be read, or cannot be judged for want of its base.
    """
    try:
        _prove(chunks, chunk_size, folder, entry)
    except ChunkDamaged as error:
        return error
    except (FileNotFoundError, ChunkUnreadable, _BaseUnusableError):
        return None
    return None


def _is_proven(chunks: Directory, chunk_size: int, folder: Directory, entry: Entry) -> bool:
    """Whether the very file of that name in a folder is there, and is good."""
    try:
        _prove(chunks, chunk_size, folder, entry)
    except (ChunkDamaged, FileNotFoundError, ChunkUnreadable, _BaseUnusableError):
        return False
    return True


def _prove(chunks: Directory, chunk_size: int, folder: Directory, entry: Entry) -> None:
    """ChunkDamaged if a chunk's file is bad; FileNotFoundError, ChunkUnreadable, _BaseUnusableError."""
    name = layout.chunk_name(entry)
    frame = _frame(folder, name)
    try:
        header = chunk.check_frame(entry.ident, frame, chunk_size)
        if header.base != (entry.base or chunk.ZERO):
            raise ChunkDamaged(name, "its header and its name differ")
        bases = None if entry.base is None else _Bases(ChunkReader(chunks, chunk_size, fresh=True))
        chunk.decode(entry.ident, frame, bases, chunk_size)
    except ChunkDamaged as error:
        raise ChunkDamaged(name, error.why) from error


class _BaseUnusableError(Exception):
    """A delta cannot be judged, since its base is missing or bad, which is another case."""


class _Bases:
    """Gives the proven bytes of bases, and tells what is wrong with them from what is with a delta."""

    def __init__(self, reader: ChunkReader) -> None:
        self._reader = reader

    def __call__(self, ident: ChunkId) -> bytes:
        try:
            return self._reader.read(Entry(ident))
        except (ChunkDamaged, ChunkMissing, ChunkUnreadable) as error:
            raise _BaseUnusableError from error


def _frame(folder: Directory, name: str) -> memoryview:
    """A chunk file's bytes; FileNotFoundError, ChunkDamaged for what is no chunk, ChunkUnreadable."""
    try:
        with UncachedFile(folder.open_file(name)) as file:
            size = os.fstat(file.fd).st_size
            if size > chunk.MAX_FRAME:
                raise ChunkDamaged(name, f"its file has {size} bytes")
            whole = -(-max(size, 1) // linux.PAGE) * linux.PAGE
            buffer = linux.Buffer(whole)
            return buffer.view[: file.read(buffer, 0, size, fresh=True)]
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise ChunkDamaged(name, "it is not a regular file") from error
        raise ChunkUnreadable(name, error.errno or errno.EIO) from error


# ..Cases and reports.........................................................................


def cases(chunks: Directory) -> list[Case]:
    """All cases; what else lies in the quarantine is somebody else's. OSError."""
    found = []
    with chunks.enter(layout.QUARANTINE) as quarantine:
        for name, is_directory in sorted(quarantine.scan()):
            if is_directory and layout.is_uuid(name):
                with suppress(FileNotFoundError), quarantine.enter(name) as folder:
                    found.append(_look(name, folder))
    return found


def case(chunks: Directory, name: str) -> Case:
    """One case, by its name or the only one that begins so; ReportMissing."""
    found = [one for one in cases(chunks) if one.name.startswith(name)] if name else []
    if len(found) != 1:
        raise ReportMissing(name, len(found))
    return found[0]


def _look(name: str, folder: Directory) -> Case:
    entries = [entry for file in folder.names() if (entry := layout.parse_chunk_name(file)) is not None]
    report = None
    # One that cannot be read is made again, like one that was never written.
    with suppress(OSError, ValueError, msgspec.DecodeError):
        content = sealed.unseal(folder.read(layout.REPORT, _MAX_REPORT))
        report = msgspec.json.decode(content, type=Report)
    return Case(name, entries[0] if entries else None, report)


def write_report(chunks: Directory, report: Report) -> None:
    """Write or replace a case's report; nothing happens if the case has gone. StorageFailed."""
    with chunks.enter(layout.QUARANTINE) as quarantine:
        try:
            with quarantine.enter(report.case) as folder:
                content = sealed.seal(msgspec.json.encode(report))
                durable.replace(folder, layout.REPORT, content)
        except FileNotFoundError:
            return
        except StorageFailed as error:
            # Two that verify may complete the same case, and one of them may have linked it back.
            if error.code not in (errno.ENOENT, errno.EEXIST):
                raise


def delete(chunks: Directory, found: Case) -> None:
    """Remove a case for good, the chunk's file first. ReportRefused, StorageFailed."""
    with chunks.enter(layout.QUARANTINE) as quarantine:
        with quarantine.enter(found.name) as folder:
            wanted = {layout.REPORT, f".{layout.REPORT}.new"}
            if found.chunk is not None:
                wanted.add(layout.chunk_name(found.chunk))
            names = folder.names()
            strangers = sorted(set(names) - wanted)
            if strangers:
                raise ReportRefused(found.name, f"{folder.file_path(strangers[0])} is not backy's")
            for name in sorted(names, key=lambda one: not layout.is_chunk_name(one)):
                if stat.S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode):
                    durable.remove_directory(folder, name)
                else:
                    durable.remove(folder, name)
        durable.remove_directory(quarantine, found.name)
        durable.sync_directory(quarantine)


def holds_open(chunks: Directory, entry: Entry) -> bool:
    """Whether a chunk's file was moved aside and nothing is known to have taken its place. OSError."""
    name = layout.chunk_name(entry)
    with chunks.enter(layout.QUARANTINE) as quarantine:
        for case_name in quarantine.names():
            if layout.is_uuid(case_name):
                with (
                    suppress(FileNotFoundError, NotADirectoryError),
                    quarantine.enter(case_name) as folder,
                ):
                    if folder.has(name) and _look(case_name, folder).is_open:
                        return True
    return False


def content_is_stored(chunks: Directory, entry: Entry) -> bool:
    """Whether a chunk's content has a file in the store proper again: its own name, or the full one."""
    return chunks.has(layout.chunk_path(entry)) or chunks.has(layout.chunk_path(Entry(entry.ident)))
