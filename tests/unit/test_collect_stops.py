"""What stops a collection: then it says which file, and removes nothing; and how it goes on."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filetree import tree
from forged import (
    FORGED,
    document_of,
    map_header,
    page_of,
    put_chunk_map,
    put_map,
    put_record,
    record_of,
)

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import digest
from backy.domain.revision import Revision
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import CollectionStopped, StorageFailed
from backy.repository import remembered
from collecting import DAY, back_up, forget, gc, in_trash, names, plan
from fakes import Steps
from testsite import CHUNK, Site

# What a stopped run may write: what it remembers.
BESIDES = ("chunks/known", "chunks/collection")
BASE = chunk_id(b"base")


@pytest.fixture
def garbage(site: Site) -> Revision:
    """A revision that is kept, garbage in the store and in the trash, and a run that has seen it all."""
    revision = back_up(site, 1)
    forget(site, back_up(site, 2))
    gc(site)
    for path in site.chunk_files()[:1]:
        (path.parent / (path.name[:2] + "0" * 62)).write_bytes(b"garbage")
    return revision


def files(site: Site) -> dict[str, tuple[object, ...]]:
    """The whole repository, but for what collection remembers, and for times."""
    found = tree(site.base, times=False)
    return {path: what for path, what in found.items() if path not in BESIDES}


def stopped(site: Site, *where: Path, hour: float = 2 * DAY, **options: Any) -> CollectionStopped:
    """A collection that is stopped by these files, and changes nothing; a dry run says the same."""
    before = files(site)
    with pytest.raises(CollectionStopped) as caught:
        gc(site, hour, waive_grace=True, **options)
    assert before == files(site)
    assert {str(path) for path in where} == {one[0] for one in caught.value.stops}
    with Directory.open(str(site.chunks)) as chunks:
        outcome = remembered.read_outcome(chunks)
    assert outcome is not None
    assert [": ".join(one) for one in caught.value.stops] == list(outcome.stopped)
    return caught.value


def goes_on(site: Site, *kept: Revision, hour: float = 2 * DAY, **options: Any) -> None:
    """A collection that leaves exactly what these revisions need."""
    gc(site, hour, waive_grace=True, **options)
    assert set().union(*map(site.chunks_of, kept)) == names(site)
    assert set() == in_trash(site)


# ..What cannot be read or understood..........................................................


def unreadable_record(site: Site, revision: Revision) -> Path:
    """A record that is damaged."""
    path = site.job / f"{revision.uuid}.rev"
    path.unlink()
    path.write_bytes(b"rotten")
    return path


def unknown_record(site: Site, _: Revision) -> Path:
    """A record of a later version."""
    return put_record(site, document_of(record_of(format=2)))


def unknown_member(site: Site, _: Revision) -> Path:
    """A record with something that only a later version knows."""
    return put_record(site, document_of(record_of(needs="more")))


def record_of_another(site: Site, revision: Revision) -> Path:
    """A record under another's name."""
    path = site.job / f"{FORGED}.rev"
    shutil.copy(site.job / f"{revision.uuid}.rev", path)
    return path


def folder_for_a_record(site: Site, _: Revision) -> Path:
    """A directory where a record is to be."""
    path = site.job / f"{FORGED}.rev"
    path.mkdir()
    return path


def missing_map(site: Site, revision: Revision) -> Path:
    """A record whose map has gone."""
    path = site.job / f"{revision.uuid}.map"
    path.unlink()
    return path


def lost_record(site: Site, revision: Revision) -> Path:
    """A map whose record has gone."""
    (site.job / f"{revision.uuid}.rev").unlink()
    return site.job / f"{revision.uuid}.map"


def flipped_map(site: Site, revision: Revision) -> Path:
    """A map with a wrong bit in the middle of its ids."""
    path = site.job / f"{revision.uuid}.map"
    content = bytearray(path.read_bytes())
    content[200] ^= 4
    path.chmod(0o600)
    path.write_bytes(content)
    return path


def map_of_another_version(site: Site, _: Revision) -> Path:
    """A map that this version does not know."""
    page = page_of((BASE, 0))
    tail = digest(page)
    put_map(site, map_header(version=2, tail=tail), page + tail)
    return site.job / f"{FORGED}.map"


def base_named_twice(site: Site, _: Revision) -> Path:
    """A map that has the same base twice."""
    put_chunk_map(site, (chunk_id(b"a"), 1), (chunk_id(b"b"), 2), bases=(BASE, BASE))
    return site.job / f"{FORGED}.map"


def base_out_of_range(site: Site, _: Revision) -> Path:
    """A map with an entry that leans on no base."""
    put_chunk_map(site, (chunk_id(b"a"), 2), bases=(BASE,))
    return site.job / f"{FORGED}.map"


def wrong_count_of_pages(site: Site, _: Revision) -> Path:
    """A map that says it has fewer pages than it has."""
    page = page_of((BASE, 0))
    tail = digest(page)
    put_map(site, map_header(stored_pages=0, tail=tail), page + tail)
    return site.job / f"{FORGED}.map"


def wrong_count_of_chunks(site: Site, _: Revision) -> Path:
    """A map that says it has more chunks than its image."""
    page = page_of((BASE, 0))
    tail = digest(page)
    put_map(site, map_header(chunks=2, tail=tail), page + tail)
    return site.job / f"{FORGED}.map"


def pipe_for_a_map(site: Site, revision: Revision) -> Path:
    """A pipe, which must not hold anybody up."""
    path = site.job / f"{revision.uuid}.map"
    path.unlink()
    os.mkfifo(path)
    return path


def link_for_a_map(site: Site, revision: Revision) -> Path:
    """A link, which is not followed."""
    path = site.job / f"{revision.uuid}.map"
    path.rename(site.folder / "map")
    path.symlink_to(site.folder / "map")
    return path


def folder_for_a_forgotten_map(site: Site, _: Revision) -> Path:
    """A directory where the map of a forgotten revision was."""
    (site.job / f"{FORGED}.forgotten").touch()
    path = site.job / f"{FORGED}.map"
    path.mkdir()
    return path


def damaged_list(site: Site, _: Revision) -> Path:
    """A list of known revisions that does not prove itself."""
    path = site.chunks / "known"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"vm"', b'"vn"'))
    return path


@pytest.mark.parametrize(
    "spoil",
    [
        unreadable_record,
        unknown_record,
        unknown_member,
        record_of_another,
        folder_for_a_record,
        missing_map,
        lost_record,
        flipped_map,
        map_of_another_version,
        base_named_twice,
        base_out_of_range,
        wrong_count_of_pages,
        wrong_count_of_chunks,
        pipe_for_a_map,
        link_for_a_map,
        folder_for_a_forgotten_map,
        damaged_list,
    ],
)
def test_what_is_not_understood_stops(
    site: Site, garbage: Revision, spoil: Callable[[Site, Revision], Path]
) -> None:
    """By its path, at every run, and for a dry run too."""
    where = spoil(site, garbage)

    for _ in range(2):
        assert 1 == stopped(site, where).message.count(str(where))
    with pytest.raises(CollectionStopped, match=str(where)):
        plan(site)


@pytest.mark.parametrize("spoil", [unreadable_record, missing_map, flipped_map, lost_record])
def test_forgetting_what_cannot_be_read_lets_it_go_on(
    site: Site, garbage: Revision, spoil: Callable[[Site, Revision], Path]
) -> None:
    """`forget UUID` works on it; its chunks are garbage then."""
    kept = back_up(site, 3)
    where = spoil(site, garbage)
    stopped(site, where)

    assert 0 == site.cli("forget", "-r", garbage.uuid).returncode
    goes_on(site, kept)


def test_a_list_that_is_no_file_is_told_by_its_path(site: Site, garbage: Revision) -> None:
    """A directory in its place is not taken for a first run."""
    path = site.chunks / "known"
    path.unlink()
    path.mkdir()
    before = files(site)
    with pytest.raises(StorageFailed, match=f"read {path}: "):
        gc(site, DAY)

    assert before == files(site)


def test_a_list_that_the_operator_removes_is_written_anew(site: Site, garbage: Revision) -> None:
    """As the message says."""
    stopped(site, damaged_list(site, garbage))
    (site.chunks / "known").unlink()

    goes_on(site, garbage)
    with Directory.open(str(site.chunks)) as chunks:
        assert {"vm": (garbage.uuid,)} == remembered.read_known(chunks).jobs


# ..What vanished..............................................................................


def test_a_job_whose_directory_is_gone_stops(site: Site, garbage: Revision) -> None:
    """A disk that is not mounted; when it is back, collection goes on."""
    site.job.rename(site.folder / "unmounted")
    message = stopped(site, site.job).message
    assert "the job's directory is gone" in message
    stopped(site, site.job, hour=2 * DAY + 6.9 * DAY)

    (site.folder / "unmounted").rename(site.job)
    goes_on(site, garbage, hour=99 * DAY)


def test_a_job_whose_directory_is_gone_for_a_week_was_removed(site: Site, garbage: Revision) -> None:
    """The week begins when it is first missed."""
    shutil.rmtree(site.job)
    stopped(site, site.job, hour=20 * DAY)
    stopped(site, site.job, hour=26.9 * DAY)

    goes_on(site, hour=27 * DAY)


def test_an_empty_directory_is_never_accepted_by_age(site: Site, garbage: Revision) -> None:
    """It is what an unmounted disk leaves."""
    shutil.rmtree(site.job)
    site.job.mkdir()
    for hour in (DAY, 8 * DAY, 99 * DAY):
        stopped(site, site.job, hour=hour)

    goes_on(site, hour=99 * DAY, gone=("vm",))
    goes_on(site, hour=100 * DAY)


def test_a_job_that_the_operator_gives_up_is_collected(site: Site, garbage: Revision) -> None:
    """By its name, once; the names of others help nothing."""
    shutil.rmtree(site.job)
    stopped(site, site.job, gone=("other",))

    goes_on(site, gone=("vm",))
    goes_on(site)


def test_a_job_may_be_renamed(site: Site, garbage: Revision) -> None:
    """All its files are there."""
    site.job.rename(site.base / "renamed")
    site.job = site.base / "renamed"
    gc(site, 2 * DAY, waive_grace=True)

    assert site.chunks_of(garbage, job="renamed") == names(site)
    with Directory.open(str(site.chunks)) as chunks:
        assert {"renamed": (garbage.uuid,)} == remembered.read_known(chunks).jobs


def test_a_revision_removed_by_hand_stops_until_it_is_given_up(site: Site, garbage: Revision) -> None:
    """By its UUID; age does not explain it, since the directory is there."""
    kept = back_up(site, 3)
    gc(site)
    for path in site.job.glob(f"{garbage.uuid}*"):
        path.unlink()
    assert garbage.uuid in stopped(site, site.job).message
    stopped(site, site.job, hour=99 * DAY, gone=(kept.uuid,))

    goes_on(site, kept, hour=99 * DAY, gone=(garbage.uuid,))
    goes_on(site, kept, hour=99 * DAY)


def test_a_stopped_run_on_a_full_disk_forgets_nothing(site: Site, garbage: Revision) -> None:
    """Otherwise the next one would take the unmounted job for garbage."""
    site.job.rename(site.folder / "unmounted")
    failpoint.install(Steps(fail_at=f"create in {site.chunks}", code=errno.ENOSPC))
    with pytest.raises(CollectionStopped, match="directory is gone"):
        gc(site, DAY)
    failpoint.install(None)

    stopped(site, site.job)
    (site.folder / "unmounted").rename(site.job)
    goes_on(site, garbage)


def test_a_stopped_run_forgets_nothing_that_it_knew(site: Site, garbage: Revision) -> None:
    """New revisions are added, and what vanished stays, however many runs there are."""
    shutil.rmtree(site.job)
    site.add_job("other", site.image)
    other = site.backup(job="other")
    stopped(site, site.job)
    shutil.rmtree(site.base / "other")

    stopped(site, site.job, site.base / "other")
    with Directory.open(str(site.chunks)) as chunks:
        assert {"vm": (garbage.uuid,), "other": (other.uuid,)} == remembered.read_known(chunks).jobs


# ..Strangers..................................................................................


def test_files_of_others_stay_and_are_told(site: Site, garbage: Revision) -> None:
    """Wherever collection removes from; everything else is collected."""
    generation = next((site.chunks / "trash").iterdir())
    user = "00000000-0000-4000-8000-00000000dead"
    folders = [site.chunks / name for name in ("ab", "trash", "tmp", "users", f"tmp/{user}")]
    folders[-1].mkdir()
    others = [folder / "note" for folder in (*folders[:-1], generation)]
    for path in (*others, folders[-1] / "note", site.base / "note", site.job / "note"):
        path.write_text("mine")
    (site.chunks / "ab" / ("ab" * 32)).mkdir()
    others += [site.chunks / "ab" / ("ab" * 32), folders[-1]]

    for _ in range(2):
        assert {str(path) for path in others} == set(plan(site).foreign) | {str(generation / "note")}
        found = gc(site, 2 * DAY, waive_grace=True)
        assert {str(path) for path in others} == set(found.foreign)
        assert site.chunks_of(garbage) == names(site) - {"note", "ab" * 32}
        assert {"note"} == in_trash(site)
        assert "mine" == (folders[-1] / "note").read_text() == (site.base / "note").read_text()


def test_a_store_of_strangers_only_is_left_alone(site: Site) -> None:
    """There is nothing to collect, and nothing is too much."""
    shutil.rmtree(site.job)
    for folder in ("00", "ab", "trash"):
        (site.chunks / folder / "note").write_text("mine" * CHUNK)
    before = files(site)
    done = gc(site, force=False)

    assert (before, 0, 0) == (files(site), done.left, done.condemned.files)
    assert 3 == len(done.foreign)
