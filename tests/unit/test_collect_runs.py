"""Collection run by run: what a killed one left, a second one, a large one, one on a bad disk."""

import errno
import os
from datetime import timedelta
from typing import Any

import pytest
from filetree import tree
from small_store import EPOCH, StandingClock

from backy.domain.revision import Revision
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import CollectionTooMuch, CollectorBusy, StorageFailed
from backy.operation.progress import NoProgress
from backy.operation.slices import verify_slice
from backy.repository import remembered, reserve
from backy.repository.repository import Repository, collecting
from backy.repository.users import registered
from collecting import DAY, back_up, forget, gc, in_trash, names, plan
from testsite import CHUNK, Site


@pytest.fixture
def forgotten(site: Site) -> Revision:
    """A revision that was forgotten, beside one that is kept."""
    back_up(site, 1)
    revision = back_up(site, 2)
    forget(site, revision)
    return revision


# ..What a killed run left.....................................................................


def test_an_unsealed_generation_gets_a_census_of_now(site: Site, forgotten: Revision) -> None:
    """Nobody knows who lived when its chunks were condemned; who lives now may have been there."""
    gc(site)
    (seal,) = (site.chunks / "trash").glob("*/sealed")
    seal.unlink()
    with (
        Repository.open(str(site.base)) as repository,
        registered(repository.chunks, "vm", EPOCH) as user,
    ):
        (waiting,) = gc(site, DAY).waiting
        assert (EPOCH + timedelta(days=1), user.name) == (waiting.sealed_at, waiting.writers[0].name)
    assert 0 == gc(site, 2 * DAY - 0.01).purged.files
    assert 3 == gc(site, 2 * DAY).purged.files


@pytest.mark.parametrize("damage", ["rotten", "future"])
def test_a_seal_that_says_nothing_is_made_anew(site: Site, forgotten: Revision, damage: str) -> None:
    """It would hold its generation for ever, or until a day that was a mistake."""
    gc(site, 0 if damage == "rotten" else 9999 * DAY)
    if damage == "rotten":
        (seal,) = (site.chunks / "trash").glob("*/sealed")
        seal.chmod(0o600)
        seal.write_bytes(b"rotten")

    (waiting,) = gc(site, DAY).waiting
    assert EPOCH + timedelta(days=1) == waiting.sealed_at
    assert 3 == gc(site, 2 * DAY).purged.files


def test_an_unsealed_generation_on_a_full_disk_does_not_keep_others(
    site: Site, forgotten: Revision
) -> None:
    """What is ripe is purged, which gives the room that the seal needs."""
    gc(site)
    unsealed = site.chunks / "trash" / "00000000-0000-4000-8000-000000000000"
    unsealed.mkdir()
    chunk = site.chunk_files()[0]
    forget(site, site.history().revisions[0])
    chunk.rename(unsealed / chunk.name)

    purged = []

    def full_until_purged(step: str) -> None:
        if step.startswith(f"remove {site.chunks}/trash/"):
            purged.append(step)
        if not purged and step.startswith("create in"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failpoint.install(full_until_purged)

    assert 3 == gc(site, DAY).purged.files
    assert (unsealed / "sealed").exists()


# ..One at a time, half at a time..............................................................


def test_a_second_collector_is_told(site: Site, forgotten: Revision) -> None:
    """At once; a dry run goes beside it."""
    with Repository.open(str(site.base)) as repository, collecting(repository.chunks):
        with pytest.raises(CollectorBusy):
            gc(site)
        assert 3 == plan(site).unneeded.files

    assert 3 == gc(site).condemned.files


def test_more_than_half_needs_force(site: Site, forgotten: Revision) -> None:
    """Half does not. The outcome says so; nothing but reaped maps is gone."""
    assert 3 == gc(site, force=False).condemned.files
    forget(site, site.history().revisions[0])
    before = names(site)
    with pytest.raises(CollectionTooMuch, match="3 of the store's 3 chunks"):
        gc(site, force=False)

    assert before == names(site)
    with Directory.open(str(site.chunks)) as chunks:
        outcome = remembered.read_outcome(chunks)
    assert outcome is not None
    assert "use --force" in outcome.stopped[0]
    assert 3 == gc(site).condemned.files


def test_the_outcome_is_remembered(site: Site, forgotten: Revision) -> None:
    """For `check`."""
    gc(site, waive_grace=True)
    with Directory.open(str(site.chunks)) as chunks:
        found = remembered.read_outcome(chunks)

    assert remembered.Outcome(at=EPOCH, chunks=3, condemned=3, purged=3) == found


def test_a_dry_run_says_what_a_run_does_and_changes_nothing(site: Site, forgotten: Revision) -> None:
    """Not even times or lock files."""
    before = tree(site.base)
    found = plan(site)

    assert before == tree(site.base)
    assert (6, ()) == (found.total, found.waiting)
    assert found.unneeded == gc(site).condemned


def test_a_run_on_a_full_disk_gives_the_reserve_up_and_a_stopped_one_makes_it_again(
    site: Site, forgotten: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was given up for did not happen then."""
    monkeypatch.setattr("backy.repository.layout.RESERVE_SIZE", CHUNK)
    (site.chunks / "reserve").write_bytes(bytes(CHUNK))
    given_up = site.chunks / "reserve"
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 0 if given_up.exists() else CHUNK)
    record = site.job / f"{site.history().revisions[0].uuid}.rev"
    record.rename(site.folder / "aside")
    with pytest.raises(Exception, match="its record is gone"):
        gc(site)
    assert (site.chunks / "reserve").read_bytes() not in (b"", bytes(CHUNK))

    (site.folder / "aside").rename(record)
    gc(site)
    assert not (site.chunks / "reserve").exists()


def test_a_folder_that_cannot_be_listed_is_told(
    site: Site, forgotten: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is condemned on half a census."""
    listdir = os.listdir

    def fails(folder: Any) -> list[str]:
        if os.readlink(f"/proc/self/fd/{folder}").endswith("/chunks/ab"):
            raise OSError(5, "Input/output error", folder)
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", fails)
    with pytest.raises(StorageFailed, match=f"read {site.base}.*Input/output error"):
        gc(site)

    assert set() == in_trash(site)


def test_a_bad_chunk_that_verify_moves_aside_meanwhile_does_not_end_the_run(
    site: Site, forgotten: Revision
) -> None:
    """Between the listing and the rename; all else is condemned."""
    kept = site.chunks_of(site.history().revisions[0])
    bad = next(path for path in site.chunk_files() if path.name not in kept)
    bad.chmod(0o600)
    bad.write_bytes(b"rotten")

    def verify_slice_of_it(step: str) -> None:
        if step.startswith(f"move {site.chunks}"):
            failpoint.install(None)
            with Repository.open(str(site.base)) as repository:
                done = verify_slice(repository, StandingClock(EPOCH), 1000, NoProgress())
            assert [(bad.name, True)] == [(one.chunk, one.aside) for one in done.bad]

    failpoint.install(verify_slice_of_it)

    assert 2 == gc(site).condemned.files
    assert (kept, 2) == (names(site), len(in_trash(site)))
