"""Which revisions may go: a pure plan with a reason for every revision, which `expire` carries out.

    plan = plan_expiry(history.revisions, job.schedule, now)
    [one.uuid for one in plan if one.remove]

Rules (backy 2.5's, without its destruction):

- A schedule's tag leaves a revision when at least `keep` good ones with this tag are newer, and the
  revision is older than keep times the interval. Distrusted revisions never count towards keep.
- `manual:` tags stay. A tag that was forced (`backup -f`) goes, once there is a newer good revision.
- A tag that came from a schedule and is in none now is orphaned: it stays until the operator says
  otherwise (`apply_orphaned`). So renaming, removing or emptying a schedule deletes nothing.
- A revision without tags is removed; but never the newest good one, and none that is dated in the
  future, which is reported instead. Where none is good, the newest stays: a bad backup is better
  than none.

Limits: looks at one job; trusted, verified and torn revisions are good, distrusted ones are not.
"""

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backy.domain.config import TagPolicy
from backy.domain.names import MANUAL_PREFIX
from backy.domain.revision import Origin, Revision
from backy.domain.sla import is_future, is_good
from backy.ground.units import format_interval


class Fate(enum.Enum):
    """What becomes of a revision."""

    KEEP = "keep"
    UNTAG = "untag"
    REMOVE = "remove"
    REFUSED = "refused"


class Verdict(NamedTuple):
    """A revision's fate; `lost` are the tags it loses, `reasons` say why in the order of its tags."""

    uuid: str
    taken_at: datetime
    tags: tuple[str, ...]
    fate: Fate
    lost: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def remove(self) -> bool:
        """Whether the revision goes."""
        return self.fate is Fate.REMOVE


class _Judged(NamedTuple):
    stays: bool
    reason: str


def plan_expiry(
    revisions: Sequence[Revision],
    schedule: Mapping[str, TagPolicy],
    now: datetime,
    *,
    apply_orphaned: bool = False,
) -> tuple[Verdict, ...]:
    """A verdict for each revision, oldest first as given."""
    good = [one for one in revisions if is_good(one, now)]
    last = _last(revisions, good, now)
    newer_of = _Newer(good, schedule)
    return tuple(
        _verdict(one, last, schedule, newer_of, now, apply_orphaned=apply_orphaned) for one in revisions
    )


class _Last(NamedTuple):
    """The revision that no rule takes away, and what to say of it."""

    revision: Revision
    reason: str
    good: bool

    def supersedes(self, other: Revision) -> bool:
        return self.good and _age_key(self.revision) > _age_key(other)


def _last(revisions: Sequence[Revision], good: Sequence[Revision], now: datetime) -> _Last | None:
    if good:
        return _Last(good[-1], "the newest good revision", good=True)
    past = [one for one in revisions if not is_future(one, now)]
    return _Last(past[-1], "the newest revision, and none is good", good=False) if past else None


class _Newer:
    """How many good revisions with a tag are newer than a given one."""

    def __init__(self, good: Sequence[Revision], schedule: Mapping[str, TagPolicy]) -> None:
        self._times = {tag: sorted(_age_key(one) for one in good if tag in one.tags) for tag in schedule}

    def count(self, tag: str, revision: Revision) -> int:
        key = _age_key(revision)
        return sum(one > key for one in self._times[tag])


def _age_key(revision: Revision) -> tuple[datetime, str]:
    return revision.taken_at, revision.uuid


def _verdict(
    revision: Revision,
    last: _Last | None,
    schedule: Mapping[str, TagPolicy],
    newer: _Newer,
    now: datetime,
    *,
    apply_orphaned: bool,
) -> Verdict:
    def verdict(fate: Fate, lost: Sequence[str], *reasons: str) -> Verdict:
        tags = tuple(revision.tags)
        return Verdict(revision.uuid, revision.taken_at, tags, fate, tuple(lost), reasons)

    if is_future(revision, now):
        return verdict(Fate.REFUSED, (), "dated in the future: check the clock")
    if last is not None and revision.uuid == last.revision.uuid:
        return verdict(Fate.KEEP, (), last.reason)
    orphans = _Orphans(last is not None and last.supersedes(revision), apply_orphaned)
    judged = {
        tag: _judge(tag, origin, revision, schedule, newer, now, orphans)
        for tag, origin in revision.tags.items()
    }
    lost = [tag for tag, one in judged.items() if not one.stays]
    reasons = [f"{tag}: {one.reason}" for tag, one in judged.items()]
    if len(lost) == len(judged):
        return verdict(Fate.REMOVE, lost, *(reasons or ["it has no tag"]))
    return verdict(Fate.UNTAG if lost else Fate.KEEP, lost, *reasons)


def _judge(
    tag: str,
    origin: Origin,
    revision: Revision,
    schedule: Mapping[str, TagPolicy],
    newer: _Newer,
    now: datetime,
    orphans: "_Orphans",
) -> _Judged:
    if tag.startswith(MANUAL_PREFIX):
        return _Judged(True, "set by hand")
    policy = schedule.get(tag)
    if policy is None:
        return orphans.judge(origin)
    place = newer.count(tag, revision)
    if place < policy.keep:
        return _Judged(True, f"{place + 1} of {policy.keep} to keep")
    # As a number, since keep times interval may lie before the calendar begins.
    age = (now - revision.taken_at) / timedelta(seconds=1)
    span = policy.keep * policy.interval
    shown = f"{policy.keep} x {format_interval(policy.interval)}"
    if age <= span:
        return _Judged(True, f"not older than {shown}")
    return _Judged(False, f"{place} newer ones, and older than {shown}")


class _Orphans(NamedTuple):
    """What becomes of a revision's tags that no schedule has."""

    superseded: bool  # there is a newer good revision
    apply: bool

    def judge(self, origin: Origin) -> _Judged:
        if origin is Origin.FORCED and self.superseded:
            return _Judged(False, "was forced for one run")
        if origin is Origin.FORCED:
            return _Judged(True, "was forced, and no good one is newer")
        if self.apply:
            return _Judged(False, "no longer in the schedule")
        return _Judged(True, "no longer in the schedule; --apply-orphaned-tags lets it go")
