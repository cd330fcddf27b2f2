"""Reaping: of what is no revision any more, or not yet, only what nobody uses goes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import NO_DISK, Entry, Layout
from backy.domain.marks import Marks
from backy.domain.revision import Revision
from backy.ground import failpoint, locks
from backy.ground.directory import Directory
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.maps import MapWriter, open_pinned
from backy.repository.marking import mark, reap
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


def files(job: Directory) -> set[str]:
    """Suffixes of the records and maps that are there."""
    return {
        name.partition(".")[2]
        for name in job.names()
        if layout.parse_record_name(name) or layout.parse_map_name(name)
    }


def new_map(job: Directory, disk: str = NO_DISK) -> MapWriter:
    """A backup's own map as it is just before the commit: named, and locked until it is closed."""
    writer = MapWriter(job, UUID, disk, Layout(CHUNK, CHUNK))
    writer.expect(0)
    writer.set(0, Entry(chunk_id(b"data")))
    writer.seal()
    writer.link()
    return writer


def stops_at(job: Directory) -> list[str]:
    """The files that stop a collection."""
    return [stop.where for stop in mark(job, Marks(0)).stops]


def nobody() -> bool:
    """No writer of the job lives."""
    return False


def somebody() -> bool:
    """A writer of the job lives."""
    return True


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
    held = new_map(job, "held")
    new_map(job, "free").close()

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
    writer = new_map(job)

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
        new_map(job).close()
        return False

    assert 0 == reap(job, (), name_map_and_die)
    assert {"pending", "map"} == files(job)
    assert [] == stops_at(job)


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
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("elsewhere")

    assert 0 == reap(job, (), nobody)
    assert {"forgotten", "map"} == files(job)
    assert [str(path)] == stops_at(job)


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
