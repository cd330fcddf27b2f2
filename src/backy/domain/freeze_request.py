"""A request to a VM's host: freeze the guest, make this snapshot, let it go on. One key in Consul each.

    >>> owner = RequestOwner("0b5c…", "vm01")
    >>> value = request("vm01", "backy-7f…", owner, datetime(2026, 11, 1, tzinfo=UTC))
    >>> value.decode()
    '{"vm":"vm01","snapshot":"backy-7f…","owner":"0b5c…/vm01","time":"2026-11-01T00:00:00Z"}'
    >>> fate(parse(value), "vm01", owner, datetime(2026, 11, 1, tzinfo=UTC))
    <Fate.DEAD: 'dead'>

`vm` and `snapshot` are backy 2.5's. Hosts pass over the other members, or use `images`: all images of
which a snapshot of that name is wanted at one instant, where there are several.

A request is a run's, and one that died may leave it. `fate` tells such from those of others that wait.

Limits: pure.
"""

import enum
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec

_OURS = "backy-"  # how snapshots of all versions begin
DEAD_AFTER = timedelta(hours=1)


class RequestOwner(NamedTuple):
    """Whose a request is: the repository's id and the job."""

    repository: str
    job: str

    def __str__(self) -> str:
        return f"{self.repository}/{self.job}"


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What lies under a key. 2.5 knew neither owner nor time."""

    vm: str
    snapshot: str
    owner: str = ""
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    images: tuple[str, ...] = ()


class Fate(enum.Enum):
    """What a run does with a request that it finds."""

    LEFT = "left"  # somebody else's, who may be waiting
    DEAD = "dead"  # nobody waits for it any more
    UNDATED = "undated"  # of 2.5 for our VM: dead once it has been seen for as long as 2.5 waits


def request(
    vm: str, snapshot: str, owner: RequestOwner, time: datetime, images: Sequence[str] = ()
) -> bytes:
    """The value of a request's key; `images` where there are several."""
    several = tuple(images) if len(images) > 1 else ()
    return msgspec.json.encode(Request(vm, snapshot, str(owner), time.astimezone(UTC), several))


def parse(value: bytes) -> Request | None:
    """The request that a value holds; None if it holds none."""
    try:
        return msgspec.json.decode(value, type=Request)
    except msgspec.DecodeError:
        return None


def fate(found: Request | None, vm: str, owner: RequestOwner, now: datetime) -> Fate:
    """What becomes of a request that was there before the owner's run made its own.

    A job has one run at a time, so what else it has asked for is dead. Our repository's other jobs, and
    others that ask for this VM, may be waiting for an hour.
    """
    if found is None or not found.snapshot.startswith(_OURS):
        return Fate.LEFT
    if found.owner == str(owner):
        return Fate.DEAD
    if found.vm != vm and not found.owner.startswith(f"{owner.repository}/"):
        return Fate.LEFT
    if found.time is None:
        return Fate.LEFT if found.owner else Fate.UNDATED
    return Fate.DEAD if now - found.time > DEAD_AFTER else Fate.LEFT
