"""What lies where in a repository, as names; nothing is opened here.

    BASE/                       the repository
      chunks/format             sealed JSON: format, requires, chunk size, repository id
      chunks/ab/ID              a full chunk
      chunks/ab/ID.BASEID       a delta chunk: its name holds its base
      chunks/tmp/USER/          chunk files without a durable name yet
      chunks/users/USER         one locked file a running writer
      chunks/trash/GEN/ID       condemned chunks, looked into by readers only
      chunks/trash/GEN/sealed   since when nothing enters GEN, and the writers that lived then
      chunks/gc.lock            held by the one collector
      chunks/known              sealed JSON: the revisions that the last collection saw
      chunks/collection         sealed JSON: how the last collection ended
      chunks/quarantine/CASE/   a damaged chunk, moved aside under its own name, and its report
      chunks/distrusted         there while a revision may be distrusted because of the store
      chunks/verified           sealed JSON: how far 'verify --slice' has come
      chunks/reserve            64 MiB that collection gives up on a full disk
      JOB/config                source and schedule
      JOB/UUID.rev              the record of a completed revision
      JOB/UUID.pending          the record of a revision that is not committed yet
      JOB/UUID.forgotten        the record of a revision that was forgotten
      JOB/UUID.map, JOB/UUID.DISK.map
      JOB/snapshots             sealed JSON: the snapshots that we made of the job's source
      JOB/.backup, JOB/.history lock files

    >>> chunk_path(Entry(ChunkId(bytes.fromhex("ab" * 32))))[:8]
    'ab/ababa'

A revision is in exactly one state by its record's suffix, and moves by one rename. So a map with no
record under any suffix means that a record vanished, and not that a backup was interrupted or a
revision forgotten.

Limits: pure.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

import msgspec

from backy.domain import sealed
from backy.domain.chunk import ChunkId
from backy.domain.chunkmap import MAX_CHUNK, MIN_CHUNK, NO_DISK, Entry
from backy.ground.errors import FormatUnknown, NotARepository

CHUNKS = "chunks"
FORMAT = "format"
TEMPORARY = "tmp"
USERS = "users"
TRASH = "trash"
QUARANTINE = "quarantine"
REPORT = "report"
DISTRUSTED = "distrusted"
VERIFIED = "verified"
RESERVE = "reserve"
SEALED = "sealed"
COLLECTOR_LOCK = "gc.lock"
KNOWN = "known"
COLLECTION = "collection"
RESERVE_SIZE = 64 << 20
OLD_STORE = "store"  # backy 2.5 and earlier: chunks/store holds "v2"

LOG = "backy.log"  # of a job, and of the repository beside the jobs
JOB_CONFIG = "config"
SNAPSHOTS = "snapshots"
BACKUP_LOCK = ".backup"
HISTORY_LOCK = ".history"
RECORD = ".rev"
PENDING = ".pending"
FORGOTTEN = ".forgotten"
MAP = ".map"

STORE_FORMAT = 1
FANOUT = tuple(f"{number:02x}" for number in range(256))
_FOLDERS = (TEMPORARY, USERS, TRASH, QUARANTINE)
_FILES = (FORMAT, DISTRUSTED, VERIFIED, RESERVE, COLLECTOR_LOCK, KNOWN, COLLECTION)

_UUID = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_RECORD_NAME = re.compile(_UUID + r"(\.rev|\.pending|\.forgotten)")
_CHUNK_NAME = re.compile(r"[0-9a-f]{64}(?:\.[0-9a-f]{64})?")
_MAP_NAME = re.compile(_UUID + r"(?:\.([A-Za-z0-9][A-Za-z0-9_-]{0,31}))?\.map")


class StoreFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`chunks/format`. An unknown requirement stops every program that does not know it."""

    format: int = STORE_FORMAT
    requires: tuple[str, ...] = ()
    chunk_size: int = MAX_CHUNK
    repository: str


class _AnyFormat(msgspec.Struct):
    """Just enough of any version's format file to say that it is another version's."""

    format: int


def serialise_format(found: StoreFormat) -> bytes:
    """The bytes of `chunks/format`."""
    return sealed.seal(msgspec.json.encode(found))


def parse_format(content: bytes, path: str) -> StoreFormat:
    """The store's format; FormatUnknown for another version's, NotARepository for damage."""
    try:
        document = sealed.unseal(content)
        version = msgspec.json.decode(document, type=_AnyFormat).format
        if version != STORE_FORMAT:
            raise FormatUnknown(path, f"store format {version}")
        found = msgspec.json.decode(document, type=StoreFormat)
        UUID(found.repository)
    except msgspec.ValidationError as error:
        raise FormatUnknown(path, f"a store format with other members ({error})") from error
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise NotARepository(path, f"its format file is damaged: {error}") from error
    if found.requires:
        raise FormatUnknown(path, f"the requirement {', '.join(map(repr, found.requires))}")
    size = found.chunk_size
    if not MIN_CHUNK <= size <= MAX_CHUNK or size & (size - 1):
        raise FormatUnknown(path, f"chunk size {size}")
    return found


def chunk_name(entry: Entry) -> str:
    """File name of a chunk: `ID`, or `ID.BASEID` for a delta."""
    name = entry.ident.hex()
    return name if entry.base is None else f"{name}.{entry.base.hex()}"


def chunk_path(entry: Entry) -> str:
    """Path of a chunk's file below `chunks/`."""
    name = chunk_name(entry)
    return f"{name[:2]}/{name}"


def is_part(name: str) -> bool:
    """Whether a name in `chunks` is that of a part of the store, or of one that is being replaced."""
    part = name.removeprefix(".").removesuffix(".new") if name.startswith(".") else name
    return part in _FILES or name in _FOLDERS or name in FANOUT


def is_chunk_name(name: str) -> bool:
    """Whether a file name is a chunk's."""
    return _CHUNK_NAME.fullmatch(name) is not None


def parse_chunk_name(name: str) -> Entry | None:
    """The chunk that a file name stands for; None for someone else's file."""
    if not is_chunk_name(name):
        return None
    ident, dot, base = name.partition(".")
    return Entry(ChunkId(bytes.fromhex(ident)), ChunkId(bytes.fromhex(base)) if dot else None)


def map_name(uuid: str, disk: str = NO_DISK) -> str:
    """File name of a revision's chunk map."""
    return f"{uuid}.{disk}{MAP}" if disk else f"{uuid}{MAP}"


class RecordName(NamedTuple):
    """A record's file name, taken apart."""

    uuid: str
    suffix: str


def is_job(names: Iterable[str]) -> bool:
    """Whether the directory with these names in it is a job's, though its configuration may be lost."""
    return any(
        name == JOB_CONFIG or parse_record_name(name) is not None or parse_map_name(name) is not None
        for name in names
    )


def parse_record_name(name: str) -> RecordName | None:
    """UUID and state of a record's file name; None for any other file."""
    match = _RECORD_NAME.fullmatch(name)
    return RecordName(match[1], match[2]) if match else None


def is_uuid(name: str) -> bool:
    """Whether a name is a UUID as backy writes it."""
    return re.fullmatch(_UUID, name) is not None


def parse_map_name(name: str) -> tuple[str, str] | None:
    """(UUID, disk) of a map's file name; None for any other file."""
    match = _MAP_NAME.fullmatch(name)
    return (match[1], match[2] or NO_DISK) if match else None
