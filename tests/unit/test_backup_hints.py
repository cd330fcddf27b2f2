"""Backups from a source that tells what has changed: what is read, what is inherited, what is proven."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small_store import StandingClock

from backy.domain import audit
from backy.domain.revision import Distrust, Revision, SnapshotName
from backy.ground.directory import Directory
from backy.ground.linux import PAGE
from backy.repository import snapshots
from fakes import FakeSource
from testsite import Site, run_backy

C = 64 << 10
CHUNKS = 40
NOISE = random.Random(12)


@pytest.fixture
def hinted(tmp_path: Path) -> Site:
    """A site with chunks of 16 blocks."""
    return Site(tmp_path, chunk_size=C)


@pytest.fixture
def source() -> FakeSource:
    """40 chunks of noise and ten of zeros, with snapshots."""
    return FakeSource(NOISE.randbytes(CHUNKS * C) + bytes(10 * C), frozen=True)


@pytest.fixture
def quiet_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No audit, for the tests that count what is read."""
    monkeypatch.setattr(audit.Audit, "picks", lambda *_: False)


def noise(source: FakeSource, *blocks: int) -> None:
    """Write into blocks."""
    for block in blocks:
        source.write(block * PAGE, NOISE.randbytes(PAGE))


def since(revision: Revision) -> str | None:
    """The revision whose changes were read."""
    assert revision.reading is not None
    return revision.reading.since


def why(revision: Revision) -> str:
    """Why everything was read."""
    assert revision.reading is not None
    return revision.reading.why


def test_only_changed_blocks_are_read(hinted: Site, source: FakeSource, quiet_audit: None) -> None:
    """Single blocks are stitched into their chunks; nothing else is read or stored."""
    first = hinted.backup(source=source)
    noise(source, 5, 6, 100, 16 * CHUNKS + 3)
    source.bytes_read = 0

    second = hinted.backup(source=source)

    assert 4 * PAGE == source.bytes_read == second.stats.bytes_read == second.stats.bytes_changed
    assert first.uuid == since(second)
    assert CHUNKS - 2 == second.stats.chunks_inherited
    assert (3, 2) == (second.stats.chunks_new, second.stats.chunks_delta)
    assert bytes(source.content) == hinted.restored(second)
    assert [] == list(hinted.verify().findings)


def test_without_changes_nothing_is_read_or_stored(
    hinted: Site, source: FakeSource, quiet_audit: None
) -> None:
    """The new map is the parent's."""
    first = hinted.backup(source=source)
    source.bytes_read = 0

    second = hinted.backup(source=source)

    assert (0, 0) == (source.bytes_read, second.stats.bytes_written)
    assert hinted.chunks_of(first) == hinted.chunks_of(second)
    assert bytes(source.content) == hinted.restored(second)


def test_a_chunk_that_has_changed_nearly_whole_is_read_whole(
    hinted: Site, source: FakeSource, quiet_audit: None
) -> None:
    """14 of 16 blocks: the other two are read, too, and nothing of the store."""
    hinted.backup(source=source)
    noise(source, *range(32, 46))
    source.bytes_read = 0

    revision = hinted.backup(source=source)

    assert C == source.bytes_read
    assert 0 == revision.stats.chunks_delta
    assert bytes(source.content) == hinted.restored(revision)


def test_chunks_become_zero_and_come_back(hinted: Site, source: FakeSource, quiet_audit: None) -> None:
    """A zero chunk has no base: it is stored in full; one that was zeroed is not stored at all."""
    hinted.backup(source=source)
    source.write(3 * C, bytes(C))
    noise(source, 16 * (CHUNKS + 2) + 1)
    second = hinted.backup(source=source)
    image = bytes(source.content)
    noise(source, 3 * 16 + 2)

    third = hinted.backup(source=source)

    assert (10, 0) == (second.stats.chunks_zero, second.stats.chunks_delta)
    assert (9, 0) == (third.stats.chunks_zero, third.stats.chunks_delta)
    assert image == hinted.restored(second)
    assert bytes(source.content) == hinted.restored(third)


def test_the_snapshot_of_the_newest_revision_is_kept(hinted: Site, source: FakeSource) -> None:
    """What is ours stands in the job's list; older snapshots go after the commit."""
    for _ in range(3):
        revision = hinted.backup(source=source)

        assert [revision.uuid] == list(source.kept)
        with Directory.open(str(hinted.job)) as job:
            assert {SnapshotName(revision.uuid): "memory"} == snapshots.listed(job)


@pytest.mark.parametrize("off", [timedelta(days=365), timedelta(days=-365)])
def test_a_run_with_a_wrong_clock_does_not_stop_later_ones_from_reading_changes_only(
    hinted: Site, source: FakeSource, quiet_audit: None, off: timedelta
) -> None:
    """What a backup is compared with is what was made last, whatever date that or an older one bears."""
    now = datetime(2026, 11, 28, tzinfo=UTC)
    last = ""
    for day in range(6):
        hinted.clock = StandingClock(now + timedelta(days=day) + (off if day == 2 else timedelta(0)))
        noise(source, day)

        revision = hinted.backup(source=source)

        assert last == (since(revision) or "")
        last = revision.uuid
        assert [last] == list(source.kept)
        assert bytes(source.content) == hinted.restored(revision)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("spoil", [b"", b"{}", None])
def test_a_damaged_list_of_snapshots_is_told_once(
    hinted: Site, source: FakeSource, frozen: bool, spoil: bytes | None
) -> None:
    """By its name, and written anew by the same run, also where that makes no snapshots."""
    source.frozen = frozen
    path = hinted.job / "snapshots"
    first = hinted.backup(source=source)
    path.write_bytes(path.read_bytes()[:-1] + b"x" if path.exists() and spoil is None else spoil or b"x")
    told: list[list[str]] = [[], []]
    made = [hinted.backup(source=source, tell=one.append) for one in told]

    assert [1, 0] == [sum("the list of snapshots is damaged" in line for line in one) for one in told]
    assert not any("record" in line for one in told for line in one)
    with Directory.open(str(hinted.job)) as job:
        assert ({SnapshotName(made[1].uuid)} if frozen else set()) == set(snapshots.listed(job))
    if frozen:
        assert [first.uuid, made[0].uuid] == [since(one) for one in made]


def test_a_list_of_snapshots_that_cannot_be_written_stops_no_backup_that_makes_none(
    hinted: Site, source: FakeSource
) -> None:
    """A directory in its place is told each time."""
    source.frozen = False
    (hinted.job / "snapshots").mkdir()
    told: list[str] = []
    hinted.backup(source=source, tell=told.append)

    assert 1 == sum("the list of snapshots is damaged" in line for line in told)


def test_of_two_snapshots_that_a_stopped_run_left_the_one_made_last_counts(
    hinted: Site, source: FakeSource, quiet_audit: None
) -> None:
    """The list says so, where the dates say otherwise."""
    hinted.clock = StandingClock(datetime(2027, 11, 28, tzinfo=UTC))
    ahead = hinted.backup(source=source)
    before, content = {SnapshotName(ahead.uuid): "memory"}, source.kept[ahead.uuid]
    hinted.clock = StandingClock(datetime(2026, 11, 28, tzinfo=UTC))
    second = hinted.backup(source=source)
    source.kept[ahead.uuid] = content
    with Directory.open(str(hinted.job)) as job:
        snapshots.note(job, {SnapshotName(second.uuid): "memory"}, before)

    third = hinted.backup(source=source)

    assert second.uuid == since(third)
    assert [third.uuid] == list(source.kept)


def test_without_snapshots_the_parent_is_not_one_of_the_future(hinted: Site) -> None:
    """Its chunks are a year away from those of the image, in time or in content."""
    hinted.image.write_bytes(NOISE.randbytes(2 * C))
    hinted.clock = StandingClock(datetime(2027, 11, 28, tzinfo=UTC))
    ahead = hinted.backup()
    hinted.clock = StandingClock(datetime(2026, 11, 28, tzinfo=UTC))
    second, third = hinted.backup(), hinted.backup()

    assert [ahead.uuid, second.uuid] == [second.parent, third.parent]


def test_a_snapshot_that_a_dead_run_left_is_removed(hinted: Site, source: FakeSource) -> None:
    """It stands in the list and belongs to no revision; that of the parent stays."""
    first = hinted.backup(source=source)
    dead = "99999999-9999-4999-8999-999999999999"
    source.kept[dead] = b""
    source.kept["somebody else's"] = b""
    with Directory.open(str(hinted.job)) as job:
        snapshots.note(job, {SnapshotName(dead): "memory"}, {SnapshotName(first.uuid): "memory"})

    second = hinted.backup(source=source)

    assert first.uuid == since(second)
    assert {"somebody else's", second.uuid} == set(source.kept)


def resized(site: Site, source: FakeSource) -> str:
    """The image grows."""
    source.content += bytes(PAGE)
    return "the size of the image has changed"


def lost(site: Site, source: FakeSource) -> str:
    """The snapshot was removed."""
    source.kept.clear()
    return "the fake has kept nothing of that revision"


def distrusted(site: Site, source: FakeSource) -> str:
    """The only revision is not believed."""
    assert 0 == site.cli("distrust", "--reason", "source").returncode
    return "there is no good revision to compare with"


def in_a_bad_store(site: Site, source: FakeSource) -> str:
    """Another job's revision is distrusted because of the store."""
    other = site.folder / "other.raw"
    other.write_bytes(b"x" * PAGE)
    site.add_job("other", other)
    site.backup(job="other")
    with_other = ("-b", str(site.base), "-j", "other", "distrust", "--reason", "store")
    assert 0 == run_backy(*with_other).returncode
    return "the store is distrusted"


@pytest.mark.parametrize("happens", [resized, lost, distrusted, in_a_bad_store])
def test_in_doubt_everything_is_read(
    hinted: Site, source: FakeSource, happens: Callable[[Site, FakeSource], str]
) -> None:
    """And the record says why."""
    hinted.backup(source=source)
    noise(source, 7)
    expected = happens(hinted, source)

    second = hinted.backup(source=source)

    assert (None, expected) == (since(second), why(second))
    assert second.reading is not None
    assert second.uuid == second.reading.last_full
    assert bytes(source.content) == hinted.restored(second)


def test_the_first_backup_says_that_there_was_nothing_to_compare_with(
    hinted: Site, source: FakeSource
) -> None:
    """It reads everything, and is its own last full read."""
    first = hinted.backup(source=source)

    assert "there is no good revision to compare with" == why(first)
    assert first.reading is not None
    assert (first.uuid, 0) == (first.reading.last_full, first.reading.runs)


def test_runs_since_the_last_full_read_are_counted(hinted: Site, source: FakeSource) -> None:
    """So each stratum has its turn, and an operator sees what a revision relies on."""
    first = hinted.backup(source=source)
    found = [hinted.backup(source=source).reading for _ in range(3)]

    assert [(first.uuid, 1), (first.uuid, 2), (first.uuid, 3)] == [
        (one.last_full, one.runs) for one in found if one is not None
    ]


def test_a_hidden_change_is_found_within_thirty_runs(
    hinted: Site, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no luck at all: every hinted revision is distrusted, and the same run reads everything."""
    monkeypatch.setattr(audit, "AT_RANDOM", 0)
    first = hinted.backup(source=source)
    source.hidden.add(77)
    noise(source, 77)
    for _ in range(audit.STRATA):
        revision = hinted.backup(source=source)
        assert revision.reading is not None
        if revision.reading.audit_failed:
            break
        assert bytes(source.content) != hinted.restored(revision)

    assert revision.reading is not None
    assert revision.reading.audit_failed
    assert bytes(source.content) == hinted.restored(revision)
    *hints, last = hinted.history().revisions[1:]
    assert {(Distrust.SOURCE, False)} == {(one.distrust, one.is_good) for one in hints} or not hints
    assert last.is_good
    assert hinted.history().revisions[0].is_good
    assert hinted.history().revisions[0].uuid == first.uuid
    assert f"bytes at {77 // 16 * C} unchanged that have changed" in why(last)


def test_a_hidden_change_beside_a_known_one_is_found_too(
    hinted: Site, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stitched chunks are audited as inherited ones are."""
    monkeypatch.setattr(audit.Audit, "picks", lambda *_: True)
    hinted.backup(source=source)
    source.hidden.add(77)
    noise(source, 76, 77)

    revision = hinted.backup(source=source)

    assert revision.reading is not None
    assert revision.reading.audit_failed
    assert bytes(source.content) == hinted.restored(revision)


def test_data_hidden_in_a_chunk_of_zeros_is_found(
    hinted: Site, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit asks the image, not the parent's map, which chunks there are."""
    monkeypatch.setattr(audit.Audit, "picks", lambda *_: True)
    hinted.backup(source=source)
    source.hidden.add(16 * CHUNKS)
    noise(source, 16 * CHUNKS)

    revision = hinted.backup(source=source)

    assert revision.reading is not None
    assert revision.reading.audit_failed
    assert bytes(source.content) == hinted.restored(revision)


def test_the_audit_counts_what_it_reads(
    hinted: Site, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are among those read, and stand by themselves."""
    monkeypatch.setattr(audit, "AT_RANDOM", 0)
    hinted.backup(source=source)
    total = 0
    for _ in range(audit.STRATA):
        stats = hinted.backup(source=source).stats
        assert stats.bytes_read == stats.bytes_audited
        total += stats.bytes_audited

    assert CHUNKS * C == total


def test_rot_in_the_parent_is_stitched_into_nothing(
    hinted: Site, source: FakeSource, quiet_audit: None
) -> None:
    """The whole chunk is read from the source, and the rest of the run goes on with its hints."""
    hinted.backup(source=source)
    for path in hinted.chunk_files():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.unlink()
        path.write_bytes(content)
    noise(source, *range(0, 16 * CHUNKS, 16))

    revision = hinted.backup(source=source)

    assert 0 == revision.stats.chunks_delta
    assert CHUNKS * C + revision.stats.bytes_changed == revision.stats.bytes_read
    assert bytes(source.content) == hinted.restored(revision)
    assert not hinted.history().revisions[0].is_good


def test_a_damaged_page_of_the_parents_map_means_reading_everything(
    hinted: Site, source: FakeSource, quiet_audit: None
) -> None:
    """What the map says cannot be inherited; the parent is distrusted afterwards."""
    first = hinted.backup(source=source)
    path = hinted.job / f"{first.uuid}.map"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)

    second = hinted.backup(source=source)

    assert "the map of the parent is damaged" == why(second)
    assert bytes(source.content) == hinted.restored(second)
    assert not hinted.history().revisions[0].is_good
