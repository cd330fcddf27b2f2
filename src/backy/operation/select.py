"""Choosing revisions of a history by a spec, without ever guessing.

    choose(history, "tag:daily", "vm01")        the matching revisions, in the spec's order
    choose_one(history, "latest", "vm01")       exactly one

While a record cannot be read or is gone, nobody knows which revision is the latest, so only a full
UUID is accepted then: a restore of the day before must not look like a success.

Limits: pure; the history was loaded before.
"""

from collections.abc import Sequence

from backy.domain import revspec
from backy.domain.revision import Revision
from backy.ground.errors import HistoryUnclear, RevisionAmbiguous, RevisionMissing
from backy.repository.history import History


def choose(history: History, spec: str, job: str) -> list[Revision]:
    """Revisions that match; RevisionMissing for none, HistoryUnclear, SpecError."""
    parsed = revspec.parse(spec)
    for unreadable in history.unreadable:
        if parsed.uuid == unreadable.uuid:
            raise unreadable.error
    unclear = unclear_records(history)
    if unclear and parsed.uuid is None:
        raise HistoryUnclear(spec, unclear)
    found = parsed.evaluate(history.revisions).revisions
    if not found:
        raise RevisionMissing(spec, job)
    return found


def choose_one(history: History, spec: str, job: str) -> Revision:
    """The revision that matches; RevisionAmbiguous for several."""
    found = choose(history, spec, job)
    if len(found) > 1:
        raise RevisionAmbiguous(spec, tuple(one.uuid for one in found))
    return found[0]


def choose_to_forget(history: History, spec: str, job: str) -> list[str]:
    """UUIDs that match, also the full one of an unreadable or lost record."""
    parsed = revspec.parse(spec)
    unusable = {*history.lost, *(one.uuid for one in history.unreadable)}
    if parsed.uuid in unusable:
        return [parsed.uuid]
    return [one.uuid for one in choose(history, spec, job)]


def unclear_records(history: History) -> tuple[str, ...]:
    """File names of the records that cannot be read or are gone, for messages."""
    uuids: Sequence[str] = [one.uuid for one in history.unreadable] + list(history.lost)
    return tuple(f"{uuid}.rev" for uuid in uuids)
