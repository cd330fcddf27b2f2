"""The log of a disk's writes, as QEMU's blklogwrites and the kernel's dm-log-writes write it.

    for entry in read_log(path): entry.kind, entry.offset, entry.length, entry.end

The log begins with a sector for its head; each entry is a sector that describes it, and then, for a
write, what was written. Entries follow each other in the order in which the disk carried them out.

Limits: sectors of 512 bytes. Marks and writes that pass the disk's cache (FUA) are refused: a loop
device asks for a flush instead, so a replay need not know of them. The count in the head is brought up
to date at flushes only, so entries are read to the log's end instead; one that is not complete there
has not happened.
"""

import enum
import os
import struct
from pathlib import Path
from typing import NamedTuple

SECTOR = 512

_MAGIC = 0x6A736677736872
_HEAD = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_FLUSH, _DISCARD = 1, 4


class Kind(enum.Enum):
    """What was asked of the disk."""

    WRITE = "write"
    FLUSH = "flush"
    DISCARD = "discard"


class Entry(NamedTuple):
    """One request; what it wrote is the last `length` bytes of the log before `end`."""

    kind: Kind
    offset: int
    length: int
    end: int


def read_log(path: Path) -> list[Entry]:
    """All complete entries, in order; ValueError if it is not such a log."""
    entries: list[Entry] = []
    with path.open("rb") as log:
        size = os.fstat(log.fileno()).st_size
        if size == 0:
            return entries
        magic, version, _, sector = _HEAD.unpack(log.read(_HEAD.size))
        if (magic, version, sector) != (_MAGIC, 1, SECTOR):
            raise ValueError(f"{path} is no log of writes: {magic:x}, {version}, {sector}")
        at = SECTOR
        while at + SECTOR <= size:
            log.seek(at)
            entry = _parse(log.read(_ENTRY.size), at)
            if entry.end > size:
                break
            entries.append(entry)
            at = entry.end
    return entries


def _parse(head: bytes, at: int) -> Entry:
    first, count, flags, _ = _ENTRY.unpack(head)
    if flags & ~(_FLUSH | _DISCARD):
        raise ValueError(f"entry at {at} has flags {flags:#x}")
    length = count * SECTOR
    after = at + SECTOR
    if flags & _FLUSH:
        if length:
            raise ValueError(f"flush at {at} writes {length} bytes")
        return Entry(Kind.FLUSH, 0, 0, after)
    if flags & _DISCARD:
        return Entry(Kind.DISCARD, first * SECTOR, length, after)
    return Entry(Kind.WRITE, first * SECTOR, length, after + length)
