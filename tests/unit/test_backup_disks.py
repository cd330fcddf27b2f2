"""Backups of several disks: one revision of all of them, each with its own past."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.domain import audit
from backy.domain.chunk import parse_codec
from backy.domain.revision import Consistency, Disk, Distrust, Freeze, Revision, SnapshotName
from backy.ground import linux
from backy.ground.directory import Directory
from backy.ground.errors import OptionRefused, SourceFailed
from backy.ground.linux import PAGE
from backy.operation.progress import NoProgress
from backy.operation.repair import repair
from backy.repository import snapshots
from backy.repository.layout import chunk_path
from backy.repository.maps import open_pinned
from backy.repository.repository import Repository
from backy.source.base import Source
from backy.source.group import Group
from fakes import FakeSource
from testsite import Site, run_backy

C = 16 * PAGE
CODEC = parse_codec("lz4")
ROOT, DATA = "root", "data"


class Frozen:
    """A guest that holds still; itself the bracket."""

    freeze: Freeze | None = Freeze.GUEST_FROZEN

    def call_off(self) -> bool:
        """See `Quiesce.call_off`."""
        return True

    @contextmanager
    def around(self, job: str, revision: str, disks: Mapping[str, Source]) -> Iterator["Frozen"]:
        """See `Quiesce.around`."""
        yield self

    def end(self) -> str:
        """See `Bracket.end`."""
        return ""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with chunks of 16 blocks."""
    return Site(tmp_path, chunk_size=C)


@pytest.fixture(autouse=True)
def quiet_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No audit, since what is read is counted."""
    monkeypatch.setattr(audit.Audit, "picks", lambda *_: False)


@pytest.fixture
def disks() -> dict[str, FakeSource]:
    """Two disks of different sizes, with snapshots in one storage."""
    shelf: dict[str, dict[str, bytes]] = {}
    return {
        name: FakeSource(random.Random(name).randbytes(size * C), frozen=True, place=name, shelf=shelf)
        for name, size in ((ROOT, 4), (DATA, 6))
    }


def of(revision: Revision, name: str) -> Disk:
    """What a revision says of one of its disks."""
    found = revision.disk(name)
    assert found is not None
    return found


def since(revision: Revision) -> dict[str, str | None]:
    """Since which revision the changes of each disk were read."""
    readings = {name: one.reading for name, one in (revision.disks or {}).items()}
    return {name: one.since for name, one in readings.items() if one is not None}


def why(revision: Revision, name: str) -> str:
    """Why a disk was read in whole."""
    reading = of(revision, name).reading
    assert reading is not None
    return reading.why


def check(site: Site, revision: Revision, disks: dict[str, FakeSource]) -> None:
    """Every disk restores bit for bit."""
    for name, source in disks.items():
        assert bytes(source.content) == site.restored(revision, disk=name)


def listed(site: Site) -> set[SnapshotName]:
    """The snapshots that are said to be there."""
    with Directory.open(str(site.job)) as job:
        return set(snapshots.listed(job))


def test_one_revision_has_all_disks(site: Site, disks: dict[str, FakeSource]) -> None:
    """A map for each; what is said of the whole is the sum."""
    revision = site.backup(group=Group(disks))

    assert [(ROOT, 4 * C), (DATA, 6 * C)] == [(one.disk, one.image_size) for one in revision.maps]
    assert [ROOT, DATA] == list(revision.disks or {})
    assert (None, None, None) == (revision.source, revision.reading, revision.freeze)
    assert 10 * C == revision.image_size == revision.stats.bytes_read
    assert [4 * C, 6 * C] == [of(revision, name).stats.bytes_read for name in disks]
    assert (10, 10) == (revision.stats.chunks, revision.stats.chunks_new)
    assert {"snapshot", "compare", "read", "commit"} == set(revision.stats.seconds)
    assert [revision] == list(site.history().revisions)
    assert [] == site.verify().findings
    check(site, revision, disks)


def test_each_disk_is_compared_with_its_own_snapshot(site: Site, disks: dict[str, FakeSource]) -> None:
    """Only what has changed of it is read, and the older snapshots of both go."""
    first = site.backup(group=Group(disks))
    disks[DATA].write(3 * PAGE, bytes([7]) * PAGE)

    second = site.backup(group=Group(disks))

    assert dict.fromkeys(disks, first.uuid) == since(second)
    assert first.uuid == second.parent
    assert (0, PAGE) == tuple(of(second, name).stats.bytes_read for name in disks)
    assert {SnapshotName(second.uuid, name) for name in disks} == listed(site)
    assert [[second.uuid]] * 2 == [list(one.kept) for one in disks.values()]
    check(site, second, disks)


def test_equal_chunks_of_two_disks_are_stored_once(site: Site, disks: dict[str, FakeSource]) -> None:
    """Also while neither of them has a name yet."""
    disks[DATA].content = disks[ROOT].content

    revision = site.backup(group=Group(disks))

    assert (4, 4) == (revision.stats.chunks_new, len(site.chunk_files()))
    assert [4, 0] == [of(revision, name).stats.chunks_new for name in disks]
    assert of(revision, DATA).stats.bytes_written == 0
    check(site, revision, disks)


def test_disk_that_is_added_is_read_in_whole(site: Site, disks: dict[str, FakeSource]) -> None:
    """The other one is not."""
    first = site.backup(group=Group({ROOT: disks[ROOT]}))

    second = site.backup(group=Group(disks))

    assert {ROOT: first.uuid, DATA: None} == since(second)
    assert "there is no good revision to compare with" == why(second, DATA)
    check(site, second, disks)


def test_disk_that_is_removed_leaves_no_snapshot(site: Site, disks: dict[str, FakeSource]) -> None:
    """The sources that are left remove it; older revisions keep the disk."""
    first = site.backup(group=Group(disks))
    data = bytes(disks[DATA].content)

    second = site.backup(group=Group({ROOT: disks[ROOT]}))

    assert {ROOT: first.uuid} == since(second)
    assert {SnapshotName(second.uuid, ROOT)} == listed(site)
    assert data == site.restored(first, disk=DATA)


def test_disk_that_comes_back_begins_from_its_last_map(site: Site, disks: dict[str, FakeSource]) -> None:
    """It is read in whole, and what it had is found."""
    site.backup(group=Group(disks))
    site.backup(group=Group({ROOT: disks[ROOT]}))

    third = site.backup(group=Group(disks))

    assert "the fake has kept nothing of that revision" == why(third, DATA)
    assert (6, 0) == (of(third, DATA).stats.chunks_hit, third.stats.chunks_new)
    check(site, third, disks)


def test_disk_with_a_new_name_is_a_new_disk(site: Site, disks: dict[str, FakeSource]) -> None:
    """Nothing is stored again, since its chunks are there."""
    first = site.backup(group=Group(disks))
    renamed = {ROOT: disks[ROOT], "srv": disks[DATA]}

    second = site.backup(group=Group(renamed))

    assert {ROOT: first.uuid, "srv": None} == since(second)
    assert 0 == second.stats.chunks_new
    assert {SnapshotName(second.uuid, name) for name in renamed} == listed(site)
    check(site, second, renamed)


def test_image_may_become_a_disk(site: Site, disks: dict[str, FakeSource]) -> None:
    """A job that had one image goes on with several disks, and back."""
    first = site.backup(source=disks[ROOT])
    second = site.backup(group=Group(disks))
    third = site.backup(source=disks[ROOT])

    assert bytes(disks[ROOT].content) == site.restored(first) == site.restored(third)
    assert {SnapshotName(third.uuid)} == listed(site)
    check(site, second, disks)


def test_disk_of_another_size_is_read_in_whole(site: Site, disks: dict[str, FakeSource]) -> None:
    """The other one is not."""
    first = site.backup(group=Group(disks))
    disks[DATA].content += bytes([5]) * C

    second = site.backup(group=Group(disks))

    assert {ROOT: first.uuid, DATA: None} == since(second)
    assert "the size of the image has changed" == why(second, DATA)
    check(site, second, disks)


@pytest.mark.parametrize("bad", [ROOT, DATA])
def test_failure_on_any_disk_fails_all(site: Site, disks: dict[str, FakeSource], bad: str) -> None:
    """No revision, no snapshot is kept, and the next run takes up where the last good one ended."""
    first = site.backup(group=Group(disks))
    for source in disks.values():
        source.write(0, bytes([9]) * PAGE)
    disks[bad].bad = range(1)
    with pytest.raises(SourceFailed):
        site.backup(group=Group(disks))

    assert [first] == list(site.history().revisions)
    assert [[first.uuid]] * 2 == [list(one.kept) for one in disks.values()]
    disks[bad].bad = range(0)
    second = site.backup(group=Group(disks))
    assert dict.fromkeys(disks, first.uuid) == since(second)
    assert {SnapshotName(second.uuid, name) for name in disks} == listed(site)
    check(site, second, disks)


def test_one_torn_disk_makes_the_revision_torn(site: Site, disks: dict[str, FakeSource]) -> None:
    """And the record says which one."""
    disks[DATA].frozen = False
    read = FakeSource.count

    def written_meanwhile(source: FakeSource, length: int) -> None:
        read(source, length)
        disks[DATA].writes += source is disks[DATA]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeSource, "count", written_meanwhile)
        revision = site.backup(group=Group(disks))

    assert Consistency.TORN is revision.consistency
    assert [Consistency.CONSISTENT, Consistency.TORN] == [
        of(revision, name).consistency for name in disks
    ]
    # What can be compared the next time is kept all the same.
    assert {SnapshotName(revision.uuid, ROOT)} == listed(site)


def test_lie_about_one_disk_distrusts_what_relied_on_it(
    site: Site, disks: dict[str, FakeSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revisions that read all of that disk stay good; everything is read again, the other disk too."""
    first = site.backup(group=Group(disks))
    disks[DATA].hidden = {20}
    disks[DATA].write(20 * PAGE, bytes([3]) * PAGE)
    second = site.backup(group=Group(disks))
    monkeypatch.setattr(audit.Audit, "picks", lambda *_: True)
    told: list[str] = []

    third = site.backup(group=Group(disks), tell=told.append)

    assert {first.uuid: None, second.uuid: Distrust.SOURCE, third.uuid: None} == {
        one.uuid: one.distrust for one in site.history().revisions
    }
    assert {ROOT: None, DATA: None} == since(third)
    failed = {name: one.audit_failed for name in disks if (one := of(third, name).reading)}
    assert {ROOT: False, DATA: True} == failed
    assert any("the source of disk 'data' called bytes" in text for text in told)
    check(site, third, disks)


def test_lie_about_one_disk_leaves_hints_of_another_alone(
    site: Site, disks: dict[str, FakeSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision without the disk that was lied about relied on nothing that is wrong."""
    site.backup(group=Group({ROOT: disks[ROOT]}))
    second = site.backup(group=Group({ROOT: disks[ROOT]}))
    site.backup(group=Group(disks))
    disks[DATA].hidden = {20}
    disks[DATA].write(20 * PAGE, bytes([3]) * PAGE)
    monkeypatch.setattr(audit.Audit, "picks", lambda *_: True)
    site.backup(group=Group(disks))

    assert since(second)[ROOT]
    assert [None] * 4 == [one.distrust for one in site.history().revisions]


def test_disk_has_to_be_named(site: Site, disks: dict[str, FakeSource]) -> None:
    """Nobody restores the wrong one; the sentence has the names."""
    several = site.backup(group=Group(disks))
    single = site.backup(source=disks[ROOT])
    one = site.backup(group=Group({ROOT: disks[ROOT]}))
    target = site.folder / "target"

    for revision, name, sentence in (
        (several, None, "has the disks root, data: say which"),
        (several, "srv", "has the disks root, data, and no 'srv'"),
        (single, ROOT, "has one image and no disks"),
        (one, DATA, "has the disk root, and no 'data'"),
    ):
        with pytest.raises(OptionRefused, match=sentence):
            site.restore(revision, target, disk=name)
    assert not target.exists()
    assert bytes(disks[ROOT].content) == site.restored(one)


def test_damage_is_told_by_disk_and_healed_from_it(site: Site, disks: dict[str, FakeSource]) -> None:
    """Verify, reports and repair say which disk; the lost chunk is read from there."""
    revision = site.backup(group=Group(disks))
    with Directory.open(str(site.job)) as job, open_pinned(job, revision.uuid, revision.maps[1]) as map_:
        (site.chunks / chunk_path(dict(map_.used())[2])).unlink()

    [finding] = site.concluded().findings
    assert (DATA, ((2 * C, C),)) == (finding.disk, finding.ranges)
    shown = run_backy("-b", str(site.base), "verify")
    assert f"data:{2 * C}+{C}" in shown.stdout
    assert [C] == [one.damaged for one in site.history().revisions]

    with Repository.open(str(site.base)) as repository, repository.job("vm") as opened:
        left = repair(
            repository, opened, Group({ROOT: disks[ROOT]}), CODEC, site.clock, NoProgress()
        ).left
        assert [(DATA, 2 * C, C)] == [tuple(one) for one in left[0].ranges]
        done = repair(repository, opened, Group(disks), CODEC, site.clock, NoProgress())
    assert (1, ()) == (done.chunks, done.left)
    check(site, revision, disks)


def test_next_backup_heals_every_disk(site: Site, disks: dict[str, FakeSource]) -> None:
    """What a revision lacks of any disk is stored anew."""
    revision = site.backup(group=Group(disks))
    for path in site.chunk_files():
        path.unlink()

    assert 2 == len({one.disk for one in site.concluded().findings})

    second = site.backup(group=Group(disks))

    assert [] == site.verify().findings
    for one in (revision, second):
        check(site, one, disks)


def test_collection_knows_the_maps_of_all_disks(site: Site, disks: dict[str, FakeSource]) -> None:
    """What any disk needs stays, and all of it goes with the revision."""
    first = site.backup(group=Group(disks))
    for source in disks.values():
        source.content[:] = random.Random(len(source.content)).randbytes(len(source.content))
    second = site.backup(group=Group(disks))
    collect = ("-b", str(site.base), "gc", "--now", "--force")
    assert 0 == run_backy(*collect).returncode
    assert [] == site.verify().findings

    assert 0 == site.cli("forget", "-r", first.uuid).returncode
    assert 0 == run_backy(*collect).returncode

    assert {f"{second.uuid}.{name}.map" for name in disks} == {
        one.name for one in site.job.glob("*.map")
    }
    assert 10 == len(site.chunk_files())
    assert [] == site.verify().findings
    check(site, second, disks)


def test_usage_counts_all_disks(site: Site, disks: dict[str, FakeSource]) -> None:
    """What a revision takes, in the blocks of a file system, and what it shares, on whatever disk."""
    site.backup(group=Group(disks))
    disks[DATA].write(0, random.Random(5).randbytes(C))
    second = site.backup(group=Group(disks))

    [first_row, second_row] = json.loads(site.cli("du", "--json").stdout)["revisions"]
    assert 0 <= second_row["bytes_alone"] - second.stats.bytes_written < linux.PAGE
    assert 0 < first_row["bytes_alone"] < 2 * C


def test_freeze_is_recorded(site: Site, disks: dict[str, FakeSource]) -> None:
    """What the bracket says of the guest."""
    group = Group(disks, Frozen())

    revision = site.backup(group=group)

    assert Freeze.GUEST_FROZEN is revision.freeze
    assert [revision] == list(site.history().revisions)
