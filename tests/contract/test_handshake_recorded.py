"""What came of a handshake is recorded with the revision, told once, and listed."""

from collections.abc import Callable

import pytest

from backy.domain.chunk import parse_codec
from backy.domain.chunkmap import NO_DISK
from backy.domain.freeze_request import RequestOwner
from backy.domain.handshake_settings import HandshakeSettings, parse_address
from backy.domain.revision import Freeze, Origin, Revision
from backy.ground.clock import SystemClock
from backy.operation.backup import Coding, backup
from backy.operation.progress import NoProgress
from backy.repository.repository import Repository
from backy.source.group import Group
from backy.source.handshake import Handshake, Means, connect
from consulsite import ConsulSite
from fakes import FakeSource
from testsite import Site, parsed


class Disk:
    """A disk whose host makes every snapshot at once, or none at all."""

    image = "rbd/vm01.root"

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers

    def has_snapshot(self, name: str) -> bool:
        """See `Awaited.has_snapshot`."""
        return self.answers

    def settle(self, name: str) -> None:
        """See `Awaited.settle`."""


def backed_up(site: Site, consul: ConsulSite, tell: Callable[[str], None], *, answers: bool) -> Revision:
    """A backup of an image whose guest a host is asked to freeze; nobody waits for long."""
    address = parse_address(consul.url)
    settings = HandshakeSettings("vm01", consul.token, address, consul.prefix)._replace(timeout=0)
    handshake = Handshake(
        settings,
        RequestOwner("11111111-1111-4111-8111-111111111111", "vm"),
        {NO_DISK: Disk(answers=answers)},
        Means(SystemClock(), lambda _: None, connect),
    )
    with Repository.open(str(site.base)) as repository, repository.job("vm") as job:
        group = Group({NO_DISK: FakeSource(b"content", frozen=True)}, handshake, "vm")
        coding = Coding(parse_codec("lz4"))
        tags = {"daily": Origin.SCHEDULE}
        return backup(repository, job, group, tags, coding, SystemClock(), NoProgress(), tell)


@pytest.mark.parametrize("freeze", Freeze)
def test_outcome_is_recorded_and_listed(site: Site, consul: ConsulSite, freeze: Freeze) -> None:
    """In the record, among the remarks, and in JSON, as an operator and a script see it."""
    told: list[str] = []
    revision = backed_up(site, consul, told.append, answers=freeze is Freeze.GUEST_FROZEN)

    (line,) = [one for one in site.cli("status").stdout.splitlines() if revision.uuid in one]
    assert freeze is revision.freeze
    assert line.endswith(freeze.value)
    assert f"  {freeze.value}" == site.cli("status", "--stats").stdout.splitlines()[-1]
    assert [freeze.value] == [one["freeze"] for one in parsed(site.cli("log", "--json"))]
    warned = [one for one in told if "the guest of vm01 was not frozen" in one]
    assert len(warned) == (freeze is Freeze.CRASH_CONSISTENT)


def test_backup_without_a_handshake_says_nothing_of_it(site: Site) -> None:
    """Nobody knows what its guest did."""
    site.backup()

    (found,) = parsed(site.cli("status", "--json"))
    assert "freeze" not in {name for name, value in found.items() if value is not None}
    assert not [one for one in Freeze if one.value in site.cli("status").stdout]
