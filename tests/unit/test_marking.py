"""Reaping and marking: every map that is there counts, and only what nobody uses goes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_store import EPOCH, SmallStore, add_revision

from backy.domain.chunk import ChunkId, chunk_id
from backy.domain.chunkmap import NO_DISK, Entry, Layout
from backy.domain.marks import Marks
from backy.domain.revision import Revision, serialise
from backy.ground import failpoint, locks
from backy.ground.directory import Directory
from backy.repository import history as histories
from backy.repository import layout, marking
from backy.repository.maps import MapWriter, open_pinned
from backy.repository.marking import Orphan, inventory, mark, reap
from backy.repository.repository import Repository
from fakes import Steps, fake_revision
from testsite import CHUNK, Site

UUID = fake_revision(7).uuid


@pytest.fixture
def revision(site: Site) -> Revision:
    """A revision of two chunks."""
    site.image.write_bytes(b"one" * CHUNK)
    return site.backup()


@pytest.fixture
def job(site: Site) -> Iterator[Directory]:
    """The job's directory."""
    with Directory.open(str(site.job)) as job:
        yield job


def marks_of(job: Directory, *, without: tuple[str, ...] = ()) -> tuple[Marks, list[marking.Stop]]:
    """The marks of a job, and what stops."""
    marks = Marks(0)
    return marks, mark(job, marks, without)


def files(job: Directory) -> set[str]:
    """Suffixes of the records and maps that are there."""
    return {
        name.partition(".")[2]
        for name in job.names()
        if layout.parse_record_name(name) or layout.parse_map_name(name)
    }


def new_map(job: Directory, *entries: Entry, uuid: str = UUID, disk: str = NO_DISK) -> MapWriter:
    """A sealed map without a name."""
    writer = MapWriter(job, uuid, disk, Layout(CHUNK, CHUNK * len(entries)))
    for index, entry in enumerate(entries):
        writer.expect(index)
        writer.set(index, entry)
    writer.seal()
    return writer


def ident(text: str) -> ChunkId:
    """The id of some chunk."""
    return chunk_id(text.encode())


def nobody() -> bool:
    """No writer of the job lives."""
    return False


def somebody() -> bool:
    """A writer of the job lives."""
    return True


# ..Marking....................................................................................


def test_all_chunks_of_all_revisions_are_marked(tmp_path: Path) -> None:
    """Full ones, deltas, and the bases that no map names as a chunk of its own."""
    store = SmallStore(tmp_path)
    with Directory.open(str(store.site.job)) as job:
        marks, stops = marks_of(job)

    names = {path.name for path in store.chunk_files()}
    assert [] == stops
    assert any("." in name for name in names)
    assert [] == [name for name in names if name not in marks]


@pytest.mark.parametrize("record", [layout.PENDING, layout.FORGOTTEN])
def test_a_map_of_what_is_no_revision_is_marked(site: Site, job: Directory, record: str) -> None:
    """Of a backup before its commit, and of a revision that is being restored."""
    (site.job / (UUID + record)).touch()
    writer = new_map(job, Entry(ident("full")), Entry(ident("delta"), ident("base")))
    writer.link()

    marks, stops = marks_of(job)

    assert [] == stops
    assert all(ident(one).hex() in marks for one in ("full", "delta", "base"))
    writer.close()


def test_a_map_of_a_disk_that_no_record_names_is_marked(job: Directory, revision: Revision) -> None:
    """A later version may know more than one disk."""
    writer = new_map(job, Entry(ident("data")), uuid=revision.uuid, disk="data")
    writer.link()
    writer.close()
    marks, stops = marks_of(job)

    assert [] == stops
    assert ident("data").hex() in marks


def test_a_map_that_is_forgotten_while_the_job_is_marked_counts(
    site: Site, job: Directory, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record was read, and is gone when the map is opened."""
    load = histories.load

    def load_and_forget(directory: Directory) -> histories.History:
        found = load(directory)
        histories.forget(directory, revision.uuid)
        return found

    names = site.chunk_files()
    monkeypatch.setattr(histories, "load", load_and_forget)
    marks, stops = marks_of(job)

    assert [] == stops
    assert all(path.name in marks for path in names)


def test_a_map_that_is_committed_while_the_job_is_marked_counts(
    job: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record was not there when the history was read."""
    load = histories.load

    def load_and_commit(directory: Directory) -> histories.History:
        found = load(directory)
        (Path(directory.path) / f"{UUID}.rev").write_bytes(serialise(fake_revision(7)))
        new_map(directory, Entry(ident("new"))).link()
        return found

    monkeypatch.setattr(histories, "load", load_and_commit)
    marks, stops = marks_of(job)

    assert [] == stops
    assert ident("new").hex() in marks


def test_maps_that_would_be_reaped_may_be_left_out(job: Directory, revision: Revision) -> None:
    """As for a dry run."""
    marks, stops = marks_of(job, without=(f"{revision.uuid}.map",))

    assert [] == stops
    assert "ab" * 32 not in marks


def test_pages_of_many_maps_are_marked_however_few_are_remembered(
    site: Site, job: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of pages only saves time."""
    monkeypatch.setattr(marking, "_PAGES_REMEMBERED", 1)
    names = []
    for number in range(5):
        names.append(ident(f"chunk {number}"))
        image = Layout(CHUNK, 2 * CHUNK)
        add_revision(
            site, EPOCH.replace(day=number + 1), image, [Entry(names[-1]), Entry(ident("same"))]
        )
    marks, stops = marks_of(job)

    assert [] == stops
    assert all(one.hex() in marks for one in (*names, ident("same")))


# ..What stops.................................................................................


def test_what_cannot_be_read_stops_by_its_path(site: Site, job: Directory, revision: Revision) -> None:
    """The record first; its map then counts as it is found."""
    record = site.job / f"{revision.uuid}.rev"
    record.unlink()
    record.write_bytes(b"rotten")
    marks, stops = marks_of(job)

    assert [str(record)] == [one.where for one in stops]
    assert all(path.name in marks for path in site.chunk_files())


@pytest.mark.parametrize("kind", ["missing", "cut", "rotten", "folder", "pipe", "link"])
@pytest.mark.parametrize("record", [layout.RECORD, layout.FORGOTTEN])
def test_a_map_that_cannot_be_read_stops(
    site: Site, job: Directory, revision: Revision, kind: str, record: str
) -> None:
    """Whether its revision is there or forgotten and in use; a missing one is fine then."""
    path = site.job / f"{revision.uuid}.map"
    if record == layout.FORGOTTEN:
        histories.forget(job, revision.uuid)
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "cut":
            path.write_bytes(content[:-1])
        case "rotten":
            path.write_bytes(content[:200] + b"\xff" + content[201:])
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            (site.folder / "map").write_bytes(content)
            path.symlink_to(site.folder / "map")
    _, stops = marks_of(job)

    none = kind == "missing" and record == layout.FORGOTTEN
    assert ([] if none else [str(path)]) == [one.where for one in stops]


def test_a_lost_record_stops_by_its_map(site: Site, job: Directory, revision: Revision) -> None:
    """Unless the operator has given it up."""
    (site.job / f"{revision.uuid}.rev").unlink()

    assert [f"{job.path}/{revision.uuid}.map"] == [one.where for one in marks_of(job)[1]]
    assert [] == mark(job, Marks(0), gone=(revision.uuid,))


def test_all_that_stops_is_told(site: Site, job: Directory, revision: Revision) -> None:
    """One line each, so that it is mended in one go."""
    site.image.write_bytes(b"two" * CHUNK)
    for _ in range(2):
        (site.job / f"{site.backup().uuid}.map").unlink()
    (site.job / f"{revision.uuid}.rev").unlink()

    assert 3 == len(marks_of(job)[1])


# ..Reaping....................................................................................


def test_revisions_are_never_reaped(job: Directory, revision: Revision) -> None:
    """Whatever else is there."""
    assert 0 == reap(job, (), nobody)
    assert {"rev", "map"} == files(job)


def test_a_forgotten_revision_is_reaped(job: Directory, revision: Revision) -> None:
    """Map first, then the note that says what it was, with a sync in between."""
    histories.forget(job, revision.uuid)
    steps = Steps()
    failpoint.install(steps)

    assert 1 == reap(job, (), nobody)
    at = f"{job.path}/{revision.uuid}"
    assert [f"remove {at}.map", f"sync {job.path}", f"remove {at}.forgotten"] == steps.seen
    assert set() == files(job)


def test_a_map_that_a_killed_run_reaped_is_synced_before_its_note_goes(
    job: Directory, revision: Revision
) -> None:
    """Nobody knows whether that run came so far; a power cut must not leave the map without a note."""
    histories.forget(job, revision.uuid)
    (Path(job.path) / f"{revision.uuid}.map").unlink()
    steps = Steps()
    failpoint.install(steps)

    assert 0 == reap(job, (), somebody)
    assert ["sync", "remove"] == steps.verbs()
    assert set() == files(job)


def test_a_forgotten_revision_stays_while_somebody_holds_its_map(
    job: Directory, revision: Revision
) -> None:
    """A restore, or a backup whose parent it is; afterwards it goes."""
    with open_pinned(job, revision.uuid, revision.maps[0]):
        histories.forget(job, revision.uuid)
        assert 0 == reap(job, (), nobody)
        assert {"forgotten", "map"} == files(job)

    assert 1 == reap(job, (), nobody)
    assert set() == files(job)


def test_all_disks_go_or_the_note_stays(site: Site, job: Directory) -> None:
    """It says what the other map was."""
    (site.job / f"{UUID}.forgotten").touch()
    held, free = (new_map(job, Entry(ident(disk)), disk=disk) for disk in ("held", "free"))
    held.link()
    free.link()
    free.close()

    assert 1 == reap(job, (), nobody)
    assert {"forgotten", "held.map"} == files(job)
    held.close()
    assert 1 == reap(job, (), nobody)
    assert set() == files(job)


def test_spared_revisions_stay(job: Directory, revision: Revision) -> None:
    """They stand in the list of known ones until it is written anew."""
    histories.forget(job, revision.uuid)

    assert 0 == reap(job, {revision.uuid}, nobody)
    assert {"forgotten", "map"} == files(job)


def test_an_interrupted_backup_is_reaped(site: Site, job: Directory) -> None:
    """Its map's lock went with it."""
    (site.job / f"{UUID}.pending").touch()
    writer = new_map(job, Entry(ident("data")))
    writer.link()

    assert 0 == reap(job, (), nobody)
    writer.close()
    assert {"pending", "map"} == files(job)
    assert 1 == reap(job, (), somebody)
    assert set() == files(job)


def test_a_pending_record_without_a_map_stays_while_a_writer_lives(site: Site, job: Directory) -> None:
    """It is about to name its map, which must not be without any record."""
    (site.job / f"{UUID}.pending").touch()

    assert 0 == reap(job, (), somebody)
    assert {"pending"} == files(job)
    assert 0 == reap(job, (), nobody)
    assert set() == files(job)


def test_a_pending_record_whose_map_came_meanwhile_stays(site: Site, job: Directory) -> None:
    """Its writer named it and was killed between our two looks."""
    (site.job / f"{UUID}.pending").touch()

    def name_map_and_die() -> bool:
        writer = new_map(job, Entry(ident("data")))
        writer.link()
        writer.close()
        return False

    assert 0 == reap(job, (), name_map_and_die)
    assert {"pending", "map"} == files(job)
    assert [] == marks_of(job)[1]


def test_a_lost_map_is_not_reaped_until_it_is_given_up(
    site: Site, job: Directory, revision: Revision
) -> None:
    """Nobody has said that it may go."""
    (site.job / f"{revision.uuid}.rev").unlink()

    assert 0 == reap(job, (), nobody)
    assert {"map"} == files(job)
    assert 1 == reap(job, (), nobody, (revision.uuid,))
    assert set() == files(job)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_is_not_reaped(site: Site, job: Directory, kind: str) -> None:
    """It stays with its note, and marking says what it is."""
    (site.job / f"{UUID}.forgotten").touch()
    path = site.job / f"{UUID}.map"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("x")}[kind]()

    assert 0 == reap(job, (), nobody)
    assert {"forgotten", "map"} == files(job)
    assert [str(path)] == [one.where for one in marks_of(job)[1]]


def test_a_revision_that_comes_back_is_not_reaped(
    job: Directory, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator takes `forget` back while the map is being locked."""
    histories.forget(job, revision.uuid)
    try_exclusive = locks.try_exclusive

    def bring_back(fd: int) -> bool:
        Path(job.path, f"{revision.uuid}.forgotten").rename(Path(job.path, f"{revision.uuid}.rev"))
        return try_exclusive(fd)

    monkeypatch.setattr(locks, "try_exclusive", bring_back)

    assert 0 == reap(job, (), nobody)
    assert {"rev", "map"} == files(job)


# ..Inventory..................................................................................


def test_inventory_has_every_directory_that_may_be_a_job(site: Site, revision: Revision) -> None:
    """With the UUIDs of revisions, and of anything else; also where no job is."""
    (site.job / f"{UUID}.pending").touch()
    (site.base / "mount-point").mkdir()
    (site.base / ".hidden").mkdir()
    (site.base / "note").touch()
    shutil.copytree(site.job, site.base / "copy")
    with Repository.open(str(site.base)) as repository:
        found = inventory(repository)

    both = {revision.uuid, UUID}
    assert {"copy", "mount-point", "vm"} == set(found)
    assert [({revision.uuid}, both)] * 2 == [found[name] for name in ("copy", "vm")]
    assert (set(), set()) == found["mount-point"]


def test_orphans_are_listed_without_a_change(site: Site, job: Directory, revision: Revision) -> None:
    """In use or not."""
    histories.forget(job, revision.uuid)
    (site.job / f"{UUID}.pending").touch()
    expected = [
        Orphan(UUID, (".pending",), ()),
        Orphan(revision.uuid, (".forgotten",), (f"{revision.uuid}.map",)),
    ]

    assert sorted(expected) == sorted(marking.orphans(job, ()))
    assert expected[:1] == marking.orphans(job, {revision.uuid})
    with (site.job / f"{revision.uuid}.map").open("rb") as held:
        locks.wait_shared(held.fileno())
        assert not marking.is_unused(job, expected[1])
    assert marking.is_unused(job, expected[1])
