"""Trust in the store: which revisions are distrusted because of it, and how far verify has come.

`chunks/distrusted` is there while any revision may be distrusted for the reason `store`. A backup
that sees it reads every chunk again before it counts as a hit. So it is written before the first
record says so, and removed only when no record does:

    with distrusting(chunks): distrust(job, uuid, Distrust.STORE)
    forget_distrust(repository)               at the end of verify

Whoever distrusts holds a lock on `chunks/quarantine` together with others who do; the one who removes
the marker holds it alone while it looks, and gives up at once if it cannot.

`chunks/verified` is where the walk of `verify --slice` goes on.

Limits: all edits are `history.edit`, under `.history`.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from backy.domain import sealed
from backy.domain.cycle import Cycle
from backy.domain.revision import Distrust, Revision, Trust
from backy.ground import durable, locks
from backy.ground.directory import Directory
from backy.ground.errors import JobMissing, RevisionGone, StorageFailed
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.damage import mark
from backy.repository.repository import Repository

_MAX_CYCLE = 1 << 20


def is_distrusted(chunks: Directory) -> bool:
    """Whether chunks have to be read again before they count."""
    return chunks.has(layout.DISTRUSTED)


@contextmanager
def distrusting(chunks: Directory) -> Iterator[None]:
    """Records may become distrusted for `store` in this block: the marker is there, and stays."""
    with chunks.enter(layout.QUARANTINE) as quarantine:
        locks.wait_shared(quarantine.fd)
        if not chunks.has(layout.DISTRUSTED):
            try:
                durable.publish(chunks, layout.DISTRUSTED, b"")
            except StorageFailed:
                # Someone else may have been faster.
                if not chunks.has(layout.DISTRUSTED):
                    raise
        # Also where it was there: perhaps it has no durable name yet.
        durable.sync_directory(chunks)
        yield


def distrust(job: Directory, uuid: str, reason: Distrust) -> Revision:
    """Distrust a revision; one whose source is to blame stays so. RevisionGone and the like."""

    def change(revision: Revision) -> Revision:
        if revision.is_distrusted and revision.distrust is not Distrust.STORE:
            return revision
        return revision.with_trust(Trust.DISTRUSTED, reason)

    return histories.edit(job, uuid, change)


def distrust_store(chunks: Directory, job: Directory, besides: str = "") -> list[str]:
    """Distrust what nobody has verified of a job, since its store is damaged: UUIDs. StorageFailed."""
    changed = []
    with distrusting(chunks):
        for one in histories.load(job).revisions:
            if one.trust is Trust.TRUSTED and one.uuid != besides:
                try:
                    distrust(job, one.uuid, Distrust.STORE)
                except RevisionGone:
                    continue
                changed.append(one.uuid)
    return changed


def trust(job: Directory, uuid: str) -> Revision:
    """Believe a distrusted revision again, because the operator says so."""

    def change(revision: Revision) -> Revision:
        return revision.with_trust(Trust.TRUSTED) if revision.is_distrusted else revision

    return histories.edit(job, uuid, change)


def verified(job: Directory, seen: Revision) -> Revision:
    """Note that everything of a revision proved to be there and good, since its record said `seen`.

    What was distrusted because of its source stays distrusted: its chunks are what was stored, and
    that was wrong. If somebody distrusted it or found it damaged meanwhile, it stays as it is.
    """

    def change(revision: Revision) -> Revision:
        if _judged(revision) != _judged(seen):
            return revision
        if revision.is_distrusted and revision.distrust is not Distrust.STORE:
            return revision
        return revision.with_trust(Trust.VERIFIED)

    return mark(job, seen.uuid, change)


def _judged(revision: Revision) -> tuple[Trust, Distrust | None, int]:
    return revision.trust, revision.distrust, revision.damaged


def forget_distrust(repository: Repository) -> bool:
    """Remove the marker if no record is distrusted for `store` any more: whether it did."""
    if not is_distrusted(repository.chunks):
        return False
    with repository.chunks.enter(layout.QUARANTINE) as quarantine:
        if not locks.try_exclusive(quarantine.fd) or _any_distrusted(repository):
            return False
        durable.remove(repository.chunks, layout.DISTRUSTED)
        durable.sync_directory(repository.chunks)
        return True


def _any_distrusted(repository: Repository) -> bool:
    """Whether any record says so, or cannot be read and may."""
    for name in repository.jobs():
        try:
            with repository.job(name) as job:
                history = histories.load(job.directory)
        except JobMissing:
            continue
        if history.unreadable:
            return True
        if any(one.is_distrusted and one.distrust is Distrust.STORE for one in history.revisions):
            return True
    return False


# ..How far the walk over the store has come...................................................


def read_cycle(chunks: Directory) -> Cycle | None:
    """Where `verify --slice` goes on; None before its first run, or if nobody knows."""
    try:
        return msgspec.json.decode(sealed.unseal(chunks.read(layout.VERIFIED, _MAX_CYCLE)), type=Cycle)
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def write_cycle(chunks: Directory, cycle: Cycle) -> None:
    """Remember it; StorageFailed. Of two slices at the same time the slower one's place counts."""
    try:
        durable.replace(chunks, layout.VERIFIED, sealed.seal(msgspec.json.encode(cycle)))
    except StorageFailed as error:
        if error.code not in (errno.EEXIST, errno.ENOENT):
            raise


def sync_folder(chunks: Directory, prefix: str) -> None:
    """Make the names in one folder of the store last."""
    with chunks.enter(prefix) as folder:
        durable.sync_directory(folder)
