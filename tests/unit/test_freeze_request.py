"""Requests in Consul: what is written, what is understood, and which ones a run removes."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from backy.domain.freeze_request import DEAD_AFTER, Fate, RequestOwner, fate, parse, request

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
OURS = RequestOwner("11111111-1111-4111-8111-111111111111", "vm01")
OTHER_JOB = RequestOwner(OURS.repository, "vm02")
ELSEWHERE = RequestOwner("22222222-2222-4222-8222-222222222222", "vm01")


def test_request_is_that_of_2_5_with_an_owner_and_a_time() -> None:
    """Hosts read `vm` and `snapshot`."""
    local = NOW.astimezone(timezone(timedelta(hours=2)))

    expected = {
        "vm": "vm01",
        "snapshot": "backy-x",
        "owner": "11111111-1111-4111-8111-111111111111/vm01",
        "time": "2026-11-01T12:00:00Z",
    }
    assert expected == json.loads(request("vm01", "backy-x", OURS, local))
    assert expected == json.loads(request("vm01", "backy-x", OURS, NOW, ["rbd/vm01.root"]))


def test_several_images_are_named() -> None:
    """For hosts that can make snapshots of all of them."""
    images = ["rbd/vm01.root", "rbd/vm01.data"]

    assert images == json.loads(request("vm01", "backy-x", OURS, NOW, images))["images"]


GARBAGE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"17",
    b"\xff\xfe",
    b'{"vm": "vm01"}',
    b'{"vm": 1, "snapshot": "backy-x"}',
    b'{"vm": "vm01", "snapshot": "backy-x", "time": "yesterday"}',
    b'{"vm": "vm01", "snapshot": "backy-x", "time": "2026-11-01T12:00:00"}',
    b'{"vm": "vm01", "snapshot": "backy-x", "owner": 3}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("value", GARBAGE, ids=lambda one: repr(one[:20]))
def test_garbage_is_no_request_and_stays(value: bytes) -> None:
    """Whoever put it there may know why."""
    assert None is parse(value)
    assert Fate.LEFT is fate(parse(value), "vm01", OURS, NOW)


def written(vm: str, owner: RequestOwner, age: timedelta, snapshot: str = "backy-x") -> bytes:
    """A request that was put some time ago."""
    return request(vm, snapshot, owner, NOW - age)


FRESH, OLD = timedelta(seconds=1), DEAD_AFTER + timedelta(seconds=1)
FATES = {
    "our job's, just now": (written("vm01", OURS, FRESH), Fate.DEAD),
    "our job's, under the VM's old name": (written("vm00", OURS, FRESH), Fate.DEAD),
    "our job's, from a clock ahead": (written("vm01", OURS, -OLD), Fate.DEAD),
    "another job's of ours, just now": (written("vm01", OTHER_JOB, FRESH), Fate.LEFT),
    "another job's of ours, long ago": (written("vm02", OTHER_JOB, OLD), Fate.DEAD),
    "another repository's, just now": (written("vm01", ELSEWHERE, FRESH), Fate.LEFT),
    "another repository's, at the limit": (written("vm01", ELSEWHERE, DEAD_AFTER), Fate.LEFT),
    "another repository's, long ago": (written("vm01", ELSEWHERE, OLD), Fate.DEAD),
    "another repository's of another VM": (written("vm02", ELSEWHERE, OLD), Fate.LEFT),
    "another program's": (written("vm01", ELSEWHERE, OLD, "daily-x"), Fate.LEFT),
    "2.5's": (b'{"vm": "vm01", "snapshot": "backy-x"}', Fate.UNDATED),
    "2.5's of another VM": (b'{"vm": "vm02", "snapshot": "backy-x"}', Fate.LEFT),
    "another program's for our VM": (b'{"vm": "vm01", "snapshot": "x-backy-"}', Fate.LEFT),
    "somebody's without a time": (b'{"vm": "vm01", "snapshot": "backy-x", "owner": "me"}', Fate.LEFT),
}


@pytest.mark.parametrize("what", FATES)
def test_only_what_nobody_waits_for_goes(what: str) -> None:
    """By owner and age; with 2.5's, which have neither, it takes a second look."""
    value, expected = FATES[what]

    assert expected is fate(parse(value), "vm01", OURS, NOW)


def test_repository_whose_id_begins_like_ours_is_another() -> None:
    """The whole id counts."""
    other = RequestOwner(f"{OURS.repository}0", "vm02")

    assert Fate.LEFT is fate(parse(written("vm02", other, OLD)), "vm01", OURS, NOW)
