"""What collection remembers between its runs.

    known = read_known(chunks)              the revisions that the last run saw
    last = read_outcome(chunks)             how it ended, for `check`

Limits: both files may be missing, as before the first run; a full disk may lose `chunks/known`, and
then one run cannot tell what vanished.
"""

import errno
import os
from datetime import datetime

import msgspec

from backy.domain import sealed
from backy.domain.collection import Known
from backy.ground import durable
from backy.ground.directory import Directory
from backy.ground.errors import OF_THE_DISK, StorageFailed
from backy.repository import layout

_MAX_KNOWN = 256 << 20
_MAX_OUTCOME = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a collection ended; `stopped` says why it ended early, empty if it did not.

    `refused` says of some files why they were left alone.
    """

    at: datetime
    stopped: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    chunks: int = 0
    condemned: int = 0
    purged: int = 0


def read_known(chunks: Directory) -> Known:
    """The known revisions, none before the first run; ValueError for damage and rot, StorageFailed."""
    try:
        content = chunks.read(layout.KNOWN, _MAX_KNOWN)
    except FileNotFoundError:
        return Known(jobs={})
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise ValueError(os.strerror(error.errno or 0)) from error
        raise StorageFailed("read", chunks.file_path(layout.KNOWN), error.errno or 0) from error
    try:
        return msgspec.json.decode(sealed.unseal(content), type=Known)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def write_known(chunks: Directory, known: Known, *, complete: bool = True) -> bool:
    """Remember; False on a disk so full that it had to be forgotten instead. StorageFailed.

    If `known` is not `complete`, since something vanished, the old list stays on a full disk: the run
    removes nothing then, and the next one must not take what vanished for garbage.
    """
    try:
        durable.replace(chunks, layout.KNOWN, sealed.seal(msgspec.json.encode(known)))
    except StorageFailed as error:
        if error.code not in _FULL:
            raise
        if complete:
            # A list that names revisions which this run removes would stop the next one.
            _remove(chunks, layout.KNOWN)
        return False
    return True


def read_outcome(chunks: Directory) -> Outcome | None:
    """How the last collection ended; None if nobody knows."""
    try:
        content = chunks.read(layout.COLLECTION, _MAX_OUTCOME)
        return msgspec.json.decode(sealed.unseal(content), type=Outcome)
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def write_outcome(chunks: Directory, outcome: Outcome) -> None:
    """Remember how it ended; on a full disk at least no failure that is over. StorageFailed."""
    try:
        durable.replace(chunks, layout.COLLECTION, sealed.seal(msgspec.json.encode(outcome)))
    except StorageFailed as error:
        if error.code not in _FULL:
            raise
        # A failure before this one is still true, and an old success shows by its age.
        if not outcome.stopped:
            _remove(chunks, layout.COLLECTION)


def _remove(chunks: Directory, name: str) -> None:
    if chunks.has(name):
        durable.remove(chunks, name)
        durable.sync_directory(chunks)
