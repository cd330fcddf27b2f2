"""Damage is computed: what is in neither store nor trash, with deltas and bases; and who needs it."""

import os
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import NO_DISK, Entry, Layout
from backy.domain.cycle import START, Cycle, advanced, finished
from backy.domain.health import State, judge_store
from backy.domain.revision import MapDigest, Revision, Trust, parse, serialise
from backy.ground import locks
from backy.ground.errors import HistoryBusy
from backy.repository import damage, layout, quarantine
from backy.repository.maps import MapWriter
from backy.repository.repository import Job, Repository
from fakes import fake_revision
from testsite import CHUNK, Site

UUID = "00000000-0000-4000-8000-00000000000d"
A, B, C = (chunk_id(bytes([number])) for number in (1, 2, 3))
IMAGE = (Entry(A), Entry(B, A), Entry(C), Entry(C), Entry(B, A))


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    """The repository, open."""
    with Repository.open(str(site.base)) as opened:
        yield opened


@pytest.fixture
def job(repository: Repository) -> Iterator[Job]:
    """The job, open."""
    with repository.job("vm") as opened:
        yield opened


@pytest.fixture
def revision(site: Site, job: Job) -> Revision:
    """A revision with full chunks and deltas, one of them twice; nothing of it is in the store."""
    writer = MapWriter(job.directory, UUID, NO_DISK, Layout(CHUNK, 5 * CHUNK - 1))
    for index, entry in enumerate(IMAGE):
        writer.expect(index)
        writer.set(index, entry)
    digest = writer.seal()
    writer.link()
    writer.close()
    return record(site, digest)


def record(site: Site, digest: MapDigest) -> Revision:
    """The record of the map, written as a backup does."""
    made = msgspec.structs.replace(fake_revision(1, "daily"), uuid=UUID, maps=(digest,))
    (site.job / f"{UUID}.rev").write_bytes(serialise(made))
    return made


def put(site: Site, *entries: Entry, folder: str = "") -> None:
    """Files of that name; what they hold does not matter for being there."""
    for entry in entries:
        path = site.chunks / (folder + layout.chunk_name(entry) if folder else layout.chunk_path(entry))
        path.parent.mkdir(exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("there", "lost"),
    [
        ([], [0, 1, 2, 3, 4]),
        ([Entry(A), Entry(B, A), Entry(C)], []),
        ([Entry(A), Entry(B, A)], [2, 3]),
        ([Entry(B, A), Entry(C)], [0, 1, 4]),  # the base takes its deltas along
        ([Entry(B), Entry(C)], [0]),  # what is full again leans on nothing
        ([Entry(A), Entry(C), Entry(B, C)], [1, 4]),  # a delta on another base is another file
    ],
)
def test_what_is_lost_follows_from_what_is_there(
    site: Site, repository: Repository, job: Job, revision: Revision, there: list[Entry], lost: list[int]
) -> None:
    """A delta needs its base; a full chunk stands for its deltas; the last chunk is shorter."""
    put(site, *there)

    found = list(damage.lost_of(repository.chunks, job.directory, revision))

    assert [(index * CHUNK, IMAGE[index]) for index in lost] == [
        (one.offset, one.entry) for one in found
    ]
    marked = damage.refresh(repository.chunks, job.directory, UUID)
    assert sum(one.length for one in found) == marked.damaged
    assert (4 in lost) == (marked.damaged % CHUNK != 0)
    assert (not lost) == marked.is_good


def test_what_lies_in_the_trash_is_not_lost(
    site: Site, repository: Repository, job: Job, revision: Revision
) -> None:
    """Readers find it there, and collection links back what a map names."""
    put(site, Entry(A), Entry(C))
    put(site, Entry(B, A), folder="trash/11111111-1111-4111-8111-111111111111/")
    (site.chunks / "trash" / "stray").touch()

    assert [] == list(damage.lost_of(repository.chunks, job.directory, revision))


def test_what_was_moved_aside_is_lost_although_the_trash_has_a_copy(
    site: Site, repository: Repository, job: Job, revision: Revision
) -> None:
    """Purge may have passed over that copy while the bad one had the name; once healed, it counts."""
    put(site, Entry(A), Entry(B, A))
    put(site, Entry(C), folder="trash/11111111-1111-4111-8111-111111111111/")
    case = "22222222-2222-4222-8222-222222222222"
    put(site, Entry(C), folder=f"quarantine/{case}/")
    (site.chunks / "quarantine" / "stray").touch()

    lost = list(damage.lost_of(repository.chunks, job.directory, revision))

    assert [(2 * CHUNK, Entry(C)), (3 * CHUNK, Entry(C))] == [(one.offset, one.entry) for one in lost]
    healed = fake_revision(1, "daily").taken_at
    report = quarantine.Report(
        case=case,
        chunk=layout.chunk_name(Entry(C)),
        found_at=healed,
        found_by="verify",
        why="rot",
        healed_at=healed,
        healed_by="backup",
    )
    quarantine.write_report(repository.chunks, report)
    assert [] == list(damage.lost_of(repository.chunks, job.directory, revision))


@pytest.mark.parametrize(
    ("suspect", "ranges"),
    [
        (Entry(C), [(2 * CHUNK, 2 * CHUNK)]),
        (Entry(B, A), [(CHUNK, CHUNK), (4 * CHUNK, CHUNK - 1)]),
        (Entry(A), [(0, 2 * CHUNK), (4 * CHUNK, CHUNK - 1)]),
        (Entry(B), [(CHUNK, CHUNK), (4 * CHUNK, CHUNK - 1)]),  # it may stand for the delta
        (Entry(C, A), []),
    ],
)
@pytest.mark.usefixtures("revision")
def test_who_needs_a_chunk_is_found_with_its_ranges(
    repository: Repository, suspect: Entry, ranges: list[tuple[int, int]]
) -> None:
    """Neighbours are one range, and a base is needed where its deltas are."""
    found = list(damage.needing(repository, {suspect}))

    assert ([("vm", UUID, tuple(ranges))] if ranges else []) == [
        (one.hurt.job, one.hurt.revision, one.hurt.ranges) for one in found
    ]


def test_whose_record_is_right_waits_for_no_edit(
    site: Site, repository: Repository, job: Job, revision: Revision
) -> None:
    """Looking for the chunks of a large image takes a while; the lock is held for it only to write."""
    put(site, Entry(A), Entry(B, A), Entry(C))
    fd = os.open(site.job / ".history", os.O_RDWR | os.O_CREAT)
    try:
        locks.wait_exclusive(fd)
        assert revision == damage.refresh(repository.chunks, job.directory, UUID)
        (site.chunks / layout.chunk_path(Entry(C))).unlink()
        with pytest.raises(HistoryBusy):
            damage.refresh(repository.chunks, job.directory, UUID)
    finally:
        os.close(fd)


def test_a_damaged_map_is_damage_of_the_whole_image(
    site: Site, repository: Repository, job: Job, revision: Revision
) -> None:
    """Nobody knows which chunks it needed."""
    (site.job / f"{UUID}.map").write_bytes(b"rotten")

    assert revision.image_size == damage.refresh(repository.chunks, job.directory, UUID).damaged
    assert [] == list(damage.needing(repository, {Entry(A)}))


def test_a_record_without_damage_is_written_as_before_there_was_such_a_member() -> None:
    """So older records, and their checksums, mean the same."""
    whole, hurt = fake_revision(1, "daily"), fake_revision(1, "daily").with_damage(7)

    assert b"damaged" not in serialise(whole)
    assert b'"damaged": 7' in serialise(hurt)
    assert (whole, hurt) == (parse(serialise(whole)), parse(serialise(hurt)))
    assert (True, False) == (whole.is_good, hurt.is_good)


def test_a_record_that_claims_less_than_no_damage_is_damaged() -> None:
    """It would be taken for good."""
    with pytest.raises(ValueError, match="less than no damage"):
        parse(serialise(fake_revision(1, "daily").with_damage(-1)))


@pytest.mark.parametrize("trust", list(Trust))
def test_only_what_is_neither_distrusted_nor_damaged_is_good(trust: Trust) -> None:
    """Verified or not, torn or not."""
    revision = fake_revision(1, "daily", trust=trust)

    assert (trust is not Trust.DISTRUSTED) == revision.is_good
    assert not revision.with_damage(1).is_good


NOW = START + timedelta(days=100)


@pytest.mark.parametrize(
    ("reports", "cycle", "told"),
    [
        (0, None, []),
        (1, None, ["1 damaged chunk is in quarantine and not healed: see 'backy reports'"]),
        (0, Cycle(started_at=NOW - timedelta(days=59)), []),
        (
            0,
            Cycle(started_at=NOW - timedelta(days=60)),
            ["the whole store was not verified for 60 d 0 h"],
        ),
        (0, finished(Cycle(started_at=START), NOW - timedelta(days=59)), []),
        (
            2,
            advanced(finished(Cycle(started_at=START), NOW - timedelta(days=61)), "ab", chunks=1),
            ["2 damaged chunks are in", "the whole store was not verified for 61 d 0 h"],
        ),
        (
            0,
            Cycle(started_at=NOW, unsettled="open vm: permission denied."),
            ["'backy verify --slice' does not get on, since it could not mark what it found: open vm: "],
        ),
        (
            0,
            Cycle(started_at=NOW, unlisted={"ab": "list ab: Input/output error."}),
            ["'backy verify --slice' could not list folders of chunks, namely ab"],
        ),
        (
            0,
            Cycle(started_at=NOW, uncompared=("a", "b", "c", "d")),
            ["'backy verify --slice' could not compare records with the store, of a, b, c (and 1 more)"],
        ),
    ],
)
def test_check_is_told_of_damage_and_of_a_walk_that_is_late(
    reports: int, cycle: Cycle | None, told: list[str]
) -> None:
    """A warning each; a store that was never verified by slices is none."""
    found = judge_store(reports, cycle, NOW)

    assert {State.WARNING} >= {one.state for one in found}
    assert len(told) == len(found)
    assert all(one.text.startswith(text) for one, text in zip(found, told, strict=True))
