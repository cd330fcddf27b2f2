"""Repair: fill what revisions have lost from the live source, where it still has the content.

    done = repair(repository, job, group, codec, clock, progress)

A chunk's id proves its content, so it does not matter that the source has changed since: what hashes
to the id is the chunk. Nothing is removed: a chunk that was moved aside gets a full new one in the
store. Of revisions that are distrusted because of the store it reads everything, and puts a new chunk in
the place of one that the disk does not give. Killed at any point it has lost nothing, and can be
repeated.

Limits: of what is known to be lost or in doubt; `backy verify` finds it.
"""

from contextlib import ExitStack
from typing import NamedTuple

from backy.domain.chunk import Codec
from backy.domain.revision import Revision
from backy.ground.clock import Clock
from backy.ground.errors import RevisionGone
from backy.operation.heal import LostRange, heal
from backy.operation.progress import Progress
from backy.operation.trust import note_healed
from backy.repository import damage
from backy.repository import history as histories
from backy.repository.repository import Job, Repository, check_writable_here
from backy.repository.users import registered
from backy.source.group import Group


class Unhealed(NamedTuple):
    """A revision that is still damaged."""

    revision: str
    ranges: tuple[LostRange, ...]


class Repaired(NamedTuple):
    """What a repair did; `damaged` and `distrusted` count the revisions that it looked at."""

    damaged: int
    distrusted: int
    chunks: int
    healed: int
    left: tuple[Unhealed, ...]


def repair(
    repository: Repository,
    job: Job,
    group: Group,
    codec: Codec,
    clock: Clock,
    progress: Progress,
) -> Repaired:
    """Repair all damaged revisions of a job, the newest first.

    Raises JobBusy, SourceError, StorageFailed, EncodingFault.
    """
    check_writable_here(repository.base)
    with ExitStack() as stack:
        stack.enter_context(job.backing_up())
        user = stack.enter_context(registered(repository.chunks, job.name, clock.now()))
        repository.read_format()
        wanted = _wanted(repository, job)
        chunks = 0
        left = []
        snapshots = stack.enter_context(group.live())
        progress.begin("repair", len(wanted), "revisions")
        try:
            for revision in reversed(wanted):
                unread = revision.blames_store
                try:
                    done = heal(repository, job, revision, snapshots, user, codec, unread=unread)
                    damage.refresh(repository.chunks, job.directory, revision.uuid)
                except RevisionGone:
                    continue
                chunks += done.chunks
                if done.left:
                    left.append(Unhealed(revision.uuid, done.left))
                progress.advance(1)
        finally:
            progress.end()
        healed = note_healed(repository, clock, "repair")
        distrusted = sum(one.blames_store for one in wanted)
        return Repaired(len(wanted) - distrusted, distrusted, chunks, healed, tuple(left))


def _wanted(repository: Repository, job: Job) -> list[Revision]:
    """What is damaged by the records, or by a case that nobody has completed yet, or is in doubt."""
    found = []
    for one in histories.load(job.directory).revisions:
        try:
            lost = any(damage.lost_of(repository.chunks, job.directory, one))
            if lost or one.damaged or one.blames_store:
                found.append(one)
        except RevisionGone:
            continue
    return found
