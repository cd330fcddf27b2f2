"""What came of a handshake is recorded with the revision, told once, and listed."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from backy.domain.chunk import parse_codec
from backy.domain.chunkmap import NO_DISK
from backy.domain.freeze_request import RequestOwner
from backy.domain.handshake_settings import HandshakeSettings, parse_address
from backy.domain.revision import Freeze, Origin, Revision, SnapshotName
from backy.ground.clock import SystemClock
from backy.operation.backup import Coding, backup
from backy.operation.kept import KeptSnapshots
from backy.operation.progress import NoProgress
from backy.repository import snapshots
from backy.repository.repository import Repository
from backy.source.commands import Commands
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

    def settle(self, name: str, *, is_there: bool = False) -> None:
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


class Noted(FakeSource):
    """An image that notes when snapshots of it are removed."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(b"content", frozen=True)
        self.notes = notes

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> Collection[SnapshotName]:
        """See `Source.prune`."""
        self.notes += ["prune"] if snapshots else []
        return super().prune(snapshots)


class Calling(Commands):
    """What notes when hosts are called off."""

    notes: ClassVar[list[str]] = []

    def call_off(self) -> bool:
        """See `Quiesce.call_off`."""
        self.notes.append("call off")
        return True


def test_hosts_are_called_off_before_what_a_dead_run_has_left_is_removed(site: Site) -> None:
    """Or they could make it again when nobody knows of it any more; else there is nobody to call off."""
    notes = Calling.notes = list[str]()
    dead = SnapshotName("77777777-7777-4777-8777-777777777777")
    with Repository.open(str(site.base)) as repository, repository.job("vm") as job:
        group = Group({NO_DISK: Noted(notes)}, Calling(), "vm")
        now = datetime.now(UTC)
        kept = KeptSnapshots(job, group, now, lambda _: None)
        kept.prepare("88888888-8888-4888-8888-888888888888")
        nothing = list(notes)
        snapshots.note(job.directory, {dead: "memory"}, {})
        kept = KeptSnapshots(job, group, now, lambda _: None)
        kept.prepare("99999999-9999-4999-8999-999999999999")

    assert ([], ["call off", "prune"]) == (nothing, notes)
