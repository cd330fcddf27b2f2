"""Marking: every map that is there counts, and what cannot be read stops."""

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
from backy.ground import locks
from backy.ground.directory import Directory
from backy.repository import history as histories
from backy.repository import layout, marking
from backy.repository.maps import MapWriter
from backy.repository.marking import JobFiles, Orphan, inventory, mark
from backy.repository.repository import Repository
from fakes import fake_revision
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
    return marks, [*mark(job, marks, without).stops]


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


@pytest.mark.parametrize("left", ["", "map", "forgotten"])
def test_a_revision_whose_files_go_while_the_job_is_marked_was_not_there(
    site: Site, job: Directory, revision: Revision, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Unless its map is left, and so was marked: collection removes it only later."""
    load = histories.load

    def load_and_lose(directory: Directory) -> histories.History:
        found = load(directory)
        if left == "forgotten":
            histories.forget(directory, revision.uuid)
        for path in site.job.glob(f"{revision.uuid}.*"):
            if path.suffix != f".{left}":
                path.unlink()
        return found

    monkeypatch.setattr(histories, "load", load_and_lose)

    assert ({revision.uuid} if left == "map" else set()) == mark(job, Marks(0)).present


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
    assert () == mark(job, Marks(0), gone=(revision.uuid,)).stops


def test_all_that_stops_is_told(site: Site, job: Directory, revision: Revision) -> None:
    """One line each, so that it is mended in one go."""
    site.image.write_bytes(b"two" * CHUNK)
    for _ in range(2):
        (site.job / f"{site.backup().uuid}.map").unlink()
    (site.job / f"{revision.uuid}.rev").unlink()

    assert 3 == len(marks_of(job)[1])


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

    one = JobFiles(frozenset([revision.uuid]), frozenset([revision.uuid, UUID]))
    none = JobFiles(frozenset(), frozenset())
    assert {"copy": one, "mount-point": none, "vm": one} == found


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
