"""Collection as a whole: what nobody needs goes in two steps, and what anybody needs never does."""

import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from filetree import tree
from small_store import EPOCH, add_delta, add_revision

from backy.domain.chunkmap import Layout
from backy.domain.revision import Revision
from backy.ground import locks
from backy.ground.directory import Directory
from backy.repository import history as histories
from backy.repository import marking
from backy.repository.maps import open_pinned
from backy.repository.repository import Repository
from backy.repository.users import registered
from collecting import DAY, back_up, entries, forget, gc, in_trash, names
from goldenstore import unpack
from testsite import CHUNK, Site


@pytest.fixture
def forgotten(site: Site) -> Revision:
    """A revision that was forgotten, beside one that is kept."""
    back_up(site, 1)
    revision = back_up(site, 2)
    forget(site, revision)
    return revision


# ..Two steps..................................................................................


def test_chunks_go_to_the_trash_and_a_day_later_for_good(site: Site, forgotten: Revision) -> None:
    """Their map is reaped at once; what is kept stays untouched."""
    kept = site.chunks_of(site.history().revisions[0])

    first = gc(site)
    assert (1, 3, 0, 3) == (first.maps, first.condemned.files, first.purged.files, first.left)
    assert (kept, 3) == (names(site), len(in_trash(site)))
    (waiting,) = first.waiting
    assert (EPOCH, EPOCH + timedelta(days=1), ()) == waiting[1:]

    assert (0, 1) == ((early := gc(site, DAY - 0.01)).purged.files, len(early.waiting))
    done = gc(site, DAY)
    assert (3, ()) == (done.purged.files, done.waiting)
    assert (kept, set()) == (names(site), in_trash(site))
    assert [] == site.verify().findings


def test_without_grace_one_run_does_both(site: Site, forgotten: Revision) -> None:
    """Nobody is registered, so nobody can need them."""
    done = gc(site, waive_grace=True)

    assert (3, 3, 3, ()) == (done.condemned.files, done.purged.files, done.left, done.waiting)
    assert set() == in_trash(site)
    assert done.purged.bytes == done.condemned.bytes > 0


def test_a_second_run_has_nothing_to_do(site: Site, forgotten: Revision) -> None:
    """And changes nothing but what it remembers."""
    gc(site, waive_grace=True)
    before = tree(site.chunks, times=False)
    done = gc(site, 1, waive_grace=True)

    assert (0, 0, 0, 0) == (done.maps, done.condemned.files, done.purged.files, done.rescued)
    after = tree(site.chunks, times=False)
    assert before == {**after, "collection": before["collection"]}


def test_chunks_that_another_job_shares_stay(site: Site) -> None:
    """Until that job's revision is forgotten, too."""
    revision = back_up(site, 1)
    site.add_job("other", site.image)
    other = site.backup(job="other")
    forget(site, revision)

    assert 0 == gc(site, waive_grace=True).condemned.files
    with Directory.open(str(site.base / "other")) as job:
        histories.forget(job, other.uuid)
    assert 3 == gc(site, waive_grace=True).purged.files


def test_deltas_and_bases_stay_while_they_are_named(site: Site) -> None:
    """Also a base that no map names as a chunk of its own; and all go together."""
    base, plain = b"base".ljust(CHUNK, b"b"), b"changed".ljust(CHUNK, b"b")
    first = add_delta(site, EPOCH, base=base, plain=plain, rest=b"rest".ljust(CHUNK, b"."))
    delta = next(name for name in names(site) if "." in name)
    image = Layout(CHUNK, CHUNK)
    later = add_revision(site, EPOCH + timedelta(days=1), image, entries([delta]))
    everything = names(site)

    assert 0 == gc(site, waive_grace=True).condemned.files
    forget(site, first)
    assert 1 == gc(site, waive_grace=True).purged.files
    assert {delta, delta[65:]} == names(site) == site.chunks_of(later) < everything
    forget(site, later)
    assert 2 == gc(site, waive_grace=True).purged.files
    assert set() == names(site)


def test_the_golden_store_loses_nothing(tmp_path: Path) -> None:
    """A store that the first version of the format wrote, with all that the formats know."""
    site = Site(tmp_path)
    shutil.rmtree(site.base)
    unpack("store-1", site.base)
    (site.chunks / "reserve").touch()
    before = names(site)
    done = gc(site, waive_grace=True)

    assert (before, 0) == (names(site), done.condemned.files)
    assert [] == site.verify().findings


def test_a_store_without_jobs_is_emptied(site: Site, forgotten: Revision) -> None:
    """If the operator says that they are gone."""
    gc(site)
    shutil.rmtree(site.job)

    assert 6 == gc(site, DAY, waive_grace=True, gone=("vm",)).purged.files
    assert set() == names(site)
    assert (0, 0) == ((empty := gc(site)).left, empty.condemned.files)


# ..Who holds..................................................................................


def test_a_writer_of_the_census_holds_its_generation(site: Site, forgotten: Revision) -> None:
    """Whatever the hour and the options, until it ends; those that came later hold nothing."""
    with Repository.open(str(site.base)) as repository:
        with registered(repository.chunks, "vm", EPOCH) as user:
            assert [user.name] == [one.name for one in gc(site).waiting[0].writers]
            done = gc(site, 99 * DAY, waive_grace=True)
            assert (0, [("vm", os.getpid(), EPOCH)]) == (
                done.purged.files,
                [one[1:] for one in done.waiting[0].writers],
            )
        with registered(repository.chunks, "vm", EPOCH):
            assert (3, ()) == ((done := gc(site, DAY)).purged.files, done.waiting)


def test_a_forgotten_revision_that_is_restored_keeps_its_chunks(site: Site) -> None:
    """Its map is held and counts, until it is released."""
    revision = back_up(site, 1)
    with Directory.open(str(site.job)) as job, open_pinned(job, revision.uuid, revision.maps[0]):
        forget(site, revision)
        done = gc(site, waive_grace=True)
        assert (0, 0, 3) == (done.maps, done.condemned.files, done.left)

    assert (1, 3) == ((done := gc(site, waive_grace=True)).maps, done.purged.files)


def test_an_interrupted_backup_that_is_held_keeps_its_chunks(site: Site) -> None:
    """A pending record with a locked map is a backup a moment before its commit."""
    revision = back_up(site, 1)
    record = site.job / f"{revision.uuid}.rev"
    record.rename(record.with_suffix(".pending"))
    with (site.job / f"{revision.uuid}.map").open("rb") as file:
        locks.wait_shared(file.fileno())
        assert 0 == gc(site, waive_grace=True).condemned.files

    assert 3 == gc(site, waive_grace=True).purged.files
    assert [] == list(site.job.glob(f"{revision.uuid}*"))


def test_what_a_later_revision_needs_comes_back(site: Site, forgotten: Revision) -> None:
    """It found the chunks before they were condemned, and was committed afterwards."""
    with Repository.open(str(site.base)) as repository, registered(repository.chunks, "vm", EPOCH):
        chunks = entries(site.chunks_of(site.history().revisions[0]))
        forget(site, site.history().revisions[0])
        assert 6 == gc(site).condemned.files
        late = add_revision(site, EPOCH, Layout(CHUNK, 3 * CHUNK), chunks)
    assert [] == site.verify().findings  # out of the trash

    done = gc(site, DAY)
    assert (3, 3, 3) == (done.rescued, done.purged.files, done.left)
    assert (site.chunks_of(late), set()) == (names(site), in_trash(site))
    assert [] == site.verify().findings


def test_what_was_stored_anew_replaces_what_was_condemned(site: Site, forgotten: Revision) -> None:
    """A backup does not look into the trash, so the chunk is there twice."""
    gc(site)
    anew = back_up(site, 2)
    assert site.chunks_of(anew) == in_trash(site)

    done = gc(site, DAY)
    assert (0, 3, set()) == (done.rescued, done.purged.files, in_trash(site))
    assert [] == site.verify().findings


def test_a_job_that_is_made_while_collection_runs_is_marked(
    site: Site, forgotten: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the inventory, and before the marks."""
    inventory = marking.inventory

    def make_job(repository: Repository) -> Any:
        found = inventory(repository)
        if not (site.base / "new").exists():
            site.add_job("new", site.image)
            site.backup(job="new")
        return found

    monkeypatch.setattr(marking, "inventory", make_job)

    assert 0 == gc(site, waive_grace=True).condemned.files
    assert [] == site.verify(job="new").findings
