"""Trust in the store: which revisions are distrusted because of it, and how far verify has come.

`chunks/distrusted` is there while any revision may be distrusted for the reason `store`. A backup
that sees it reads every chunk again before it counts as a hit. So it is written before the first
record says so, and removed only when no record does:

    with distrusting(chunks): distrust(job, uuid, Distrust.STORE)
    forget_distrust(repository)               at the end of verify
    end_distrust(repository, word)            at the end of a walk that began when the marker said that

A record says so no more once everything of its revision that is not lost has been proven since. The
marker holds another word after each distrust, so a walk over the store can tell whether what it had
proven by then still counts.

Whoever distrusts holds a lock on `chunks/quarantine` together with others who do; the one who removes
the marker holds it alone while it looks, and gives up at once if it cannot.

`chunks/verified` is where the walk of `verify --slice` goes on.

Limits: all edits are `history.edit`, under `.history`.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import msgspec

from backy.domain import sealed
from backy.domain.cycle import Cycle
from backy.domain.revision import Distrust, Revision, Trust
from backy.ground import durable, locks
from backy.ground.directory import Directory
from backy.ground.errors import HistoryBusy, JobMissing, RevisionGone, StorageFailed
from backy.repository import damage, layout, remembered
from backy.repository import history as histories
from backy.repository.repository import Repository

_MAX_CYCLE = 1 << 20
_MAX_WORD = 4096
# Looking at all records before the marker is removed takes some seconds; whoever takes longer is frozen.
_LOCK_SECONDS = 30.0
_TRIES = 5


def is_distrusted(chunks: Directory) -> bool:
    """Whether chunks have to be read again before they count."""
    return chunks.has(layout.DISTRUSTED)


def is_distrusted_by(chunks: Directory, job: Directory) -> bool:
    """As `is_distrusted`, or because a job's own record says so; the marker is there afterwards.

    It was removed while the job's disk was not mounted. StorageFailed, HistoryBusy.
    """
    if is_distrusted(chunks):
        return True
    if not any(one.blames_store for one in histories.load(job).revisions):
        return False
    with distrusting(chunks):
        return True


@contextmanager
def distrusting(chunks: Directory) -> Iterator[None]:
    """Records may become distrusted for `store` in this block: the marker is there, and stays.

    HistoryBusy if somebody does not come to an end of removing it; StorageFailed.
    """
    with chunks.enter(layout.QUARANTINE) as quarantine:
        if not locks.wait_shared_for(quarantine.fd, _LOCK_SECONDS):
            raise HistoryBusy(quarantine.path)
        _renew(chunks)
        yield


def word_of(chunks: Directory) -> str | None:
    """What the marker says, which is something else after each distrust; None where nobody knows."""
    try:
        return chunks.read(layout.DISTRUSTED, _MAX_WORD).decode(errors="replace")
    except OSError:
        return None


def _renew(chunks: Directory) -> None:
    """Write the marker with a word that it never had; StorageFailed."""
    before = word_of(chunks)
    for left in reversed(range(_TRIES)):
        try:
            durable.replace(chunks, layout.DISTRUSTED, str(uuid4()).encode())
        except StorageFailed as error:
            if error.code not in (errno.EEXIST, errno.ENOENT) or not left:
                raise
            # Somebody else does the same; once he is done, his word is as new.
            if word_of(chunks) not in (None, before):
                durable.sync_directory(chunks)
                return
        else:
            return


def distrust(job: Directory, uuid: str, reason: Distrust, *, patient: bool = True) -> Revision:
    """Distrust a revision; one whose source is to blame stays so. As `history.edit`."""

    def change(revision: Revision) -> Revision:
        if revision.is_distrusted and not revision.blames_store:
            return revision
        return revision.with_trust(Trust.DISTRUSTED, reason)

    return histories.edit(job, uuid, change, patient=patient)


def distrust_store(chunks: Directory, job: Directory, besides: str = "") -> list[str]:
    """Distrust what nobody has verified of a job, since its store is damaged: UUIDs.

    StorageFailed; HistoryBusy, as it waits for nobody who is frozen.
    """
    changed = []
    with distrusting(chunks):
        for one in histories.load(job).revisions:
            if one.trust is Trust.TRUSTED and one.uuid != besides:
                try:
                    distrust(job, one.uuid, Distrust.STORE, patient=False)
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
    """Note that all that a revision has not lost proved to be good, since its record said `seen`.

    What has lost something is not verified, but the store is not to blame for the rest. What was
    distrusted because of its source stays distrusted: its chunks are what was stored, and that was
    wrong. If somebody distrusted it or found it damaged meanwhile, it stays as it is.
    """
    return _cleared(job, seen, Trust.TRUSTED if seen.damaged else Trust.VERIFIED)


def _cleared(job: Directory, seen: Revision, trust: Trust) -> Revision:
    def change(revision: Revision) -> Revision:
        if _judged(revision) != _judged(seen):
            return revision
        if revision.is_distrusted and not revision.blames_store:
            return revision
        return revision.with_trust(trust)

    return histories.edit(job, seen.uuid, change, patient=False)


def _judged(revision: Revision) -> tuple[Trust, Distrust | None, int]:
    return revision.trust, revision.distrust, revision.damaged


def forget_distrust(repository: Repository) -> bool:
    """Remove the marker if no record is distrusted for `store` any more: whether it did."""
    if not is_distrusted(repository.chunks):
        return False
    with repository.chunks.enter(layout.QUARANTINE) as quarantine:
        return locks.try_exclusive(quarantine.fd) and _forget(repository)


def end_distrust(repository: Repository, word: str) -> bool:
    """As `forget_distrust`, after the whole store was proven since the marker said that word.

    What was distrusted for `store` is not any more, unless it has a map that cannot be read. It is not
    verified either: chunks were proven at various times, and those in the trash were not. HistoryBusy,
    StorageFailed.
    """
    readable = [
        (name, one) for name, one in _distrusted(repository) if _is_readable(repository, name, one)
    ]
    with repository.chunks.enter(layout.QUARANTINE) as quarantine:
        # Alone, so that nobody distrusts between this look and the edits.
        if not locks.try_exclusive(quarantine.fd) or word_of(repository.chunks) != word:
            return False
        for name, one in readable:
            with suppress(JobMissing, RevisionGone), repository.job(name) as job:
                _cleared(job.directory, one, Trust.TRUSTED)
        return _forget(repository)


def _forget(repository: Repository) -> bool:
    """Remove the marker unless a record speaks against it; the lock is held."""
    if _any_absent(repository) or _any_unreadable(repository):
        return False
    if any(True for _ in _distrusted(repository)):
        return False
    durable.remove(repository.chunks, layout.DISTRUSTED)
    durable.sync_directory(repository.chunks)
    return True


def _distrusted(repository: Repository) -> Iterator[tuple[str, Revision]]:
    """The revisions that are distrusted because of the store, each with its job."""
    for name in repository.jobs():
        with suppress(JobMissing), repository.job(name) as job:
            for one in histories.load(job.directory).revisions:
                if one.blames_store:
                    yield name, one


def _any_absent(repository: Repository) -> bool:
    """Whether a job that collection knows is not there, perhaps since its disk is not mounted."""
    try:
        known = remembered.read_known(repository.chunks).jobs
    except ValueError:
        return True
    return bool(known.keys() - set(repository.jobs()))


def _any_unreadable(repository: Repository) -> bool:
    """Whether any record cannot be read: it may be distrusted, too."""
    for name in repository.jobs():
        with suppress(JobMissing), repository.job(name) as job:
            if histories.load(job.directory).unreadable:
                return True
    return False


def _is_readable(repository: Repository, name: str, revision: Revision) -> bool:
    """Whether it is known what a revision needs, as far as its maps are not damaged."""
    try:
        with repository.job(name) as job:
            return all(damage.is_readable(job.directory, revision, one) for one in revision.maps)
    except (JobMissing, RevisionGone):
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
