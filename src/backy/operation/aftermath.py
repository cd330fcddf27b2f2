"""What a backup does about damage once its record can be seen.

Verify moves a chunk aside and then lists maps; a backup publishes its record and then looks what is
aside. So one of the two sees the other. What is missing without a case is told by the parent's record.

    aftermath(repository, job, revision, clock, tell).look(snapshots, user, codec, findings, bad)

Limits: the new revision is whole by then, unless RevisionDamaged says otherwise, at the very end; what
cannot be written down is completed by whoever verifies next.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from backy.domain.chunk import Codec
from backy.domain.revision import Revision
from backy.ground.clock import Clock
from backy.ground.errors import (
    EncodingFault,
    FormatUnknown,
    HistoryBusy,
    RecordDamaged,
    RevisionDamaged,
    RevisionGone,
    StorageFailed,
)
from backy.ground.tries import Tries
from backy.operation.heal import heal
from backy.operation.hits import Findings
from backy.operation.parent import refresh
from backy.operation.trust import has_unreported, lacks_a_chunk, note_healed, settle
from backy.repository import damage, trust
from backy.repository import history as histories
from backy.repository.repository import Job, Repository
from backy.repository.users import User
from backy.source.base import Snapshot

# Any of these keeps one thing from being done, and no other.
_CANNOT = (StorageFailed, HistoryBusy, RecordDamaged, FormatUnknown, EncodingFault, OSError)


class Aftermath:
    """The look after the commit of one revision."""

    def __init__(
        self,
        repository: Repository,
        job: Job,
        revision: Revision,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._job = job
        self._revision = revision
        self._clock = clock
        self._tell = tell

    def look(
        self,
        snapshots: Mapping[str, Snapshot],
        user: User,
        codec: Codec,
        findings: Findings,
        bad: Sequence[str],
        parents: Collection[str],
        *,
        has_healed: bool,
    ) -> None:
        """Heal what this revision leans on, or mark it: RevisionDamaged. Then note what has healed.

        `parents` are the revisions that it took entries from; `bad` are revisions of the job whose map
        or chunks proved to be damaged; `has_healed`: the run has stored what some revision, perhaps of
        another job, was known to lack.
        """
        # What cannot be healed here hurts others, too, and they have to be told of before this ends.
        own = Tries(RevisionDamaged, *_CANNOT)
        with own.one():
            if (
                findings.cases
                or trust.is_distrusted(self._repository.chunks)
                or lacks_a_chunk(self._repository)
                or self._has_lost_a_parent(parents)
            ):
                self._heal(snapshots, user, codec)
        if findings.cases:
            self._tell(f"damaged chunks were moved aside ({len(findings.cases)})")
        others = Tries(*_CANNOT)
        with others.one():
            if has_unreported(self._repository) or findings.missing:
                # Ours, and what a verify that was killed has left.
                settle(self._repository, self._clock, "backup", findings.missing)
        with others.one():
            if bad or findings.cases:
                refresh(self._repository, self._job, bad, failed=True)
                self._distrust()
        with others.one():
            if has_healed:
                damage.refresh_all(self._repository, lambda one: one.damaged > 0)
            healed = note_healed(self._repository, self._clock, "backup")
            if healed:
                self._tell(f"damaged chunks have healed, their content is in the store again ({healed})")
        with others.one():
            self._refresh_own_job()
        if others.first is not None:
            # Whoever verifies next completes this.
            self._tell(str(others.first))
        own.end()

    def _has_lost_a_parent(self, parents: Collection[str]) -> bool:
        """Whether one of them was found damaged since it was chosen, or is gone, so nobody knows."""
        found = {one.uuid: one.damaged for one in histories.load(self._job.directory).revisions}
        return any(found.get(uuid, 1) for uuid in parents)

    def _heal(self, snapshots: Mapping[str, Snapshot], user: User, codec: Codec) -> None:
        directory, uuid = self._job.directory, self._revision.uuid
        try:
            if heal(self._repository, self._job, self._revision, snapshots, user, codec).left:
                damaged = damage.refresh(self._repository.chunks, directory, uuid).damaged
                if damaged:
                    raise RevisionDamaged(uuid, damaged)
        except RevisionGone:
            return
        except StorageFailed:
            damage.refresh(self._repository.chunks, directory, uuid)
            raise

    def _distrust(self) -> None:
        found = trust.distrust_store(
            self._repository.chunks, self._job.directory, besides=self._revision.uuid
        )
        if found:
            self._tell(f"revisions ({len(found)}) are distrusted until 'backy verify' has proven them")

    def _refresh_own_job(self) -> None:
        """What healed without a case."""
        found = histories.load(self._job.directory).revisions
        wanted = [one.uuid for one in found if one.damaged]
        refresh(self._repository, self._job, wanted, failed=False)
