"""What vanishes while a collection runs, after it has looked what is there, stops it all the same."""

import errno
import os
from collections.abc import Callable

import pytest

from backy.domain.revision import Revision
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import CollectionStopped
from backy.repository import marking, remembered
from backy.repository.marking import JobFiles
from backy.repository.repository import Repository
from collecting import (
    DAY,
    Meanwhile,
    back_up,
    forget,
    gc,
    in_trash,
    keep_beside_garbage,
    names,
    plan,
)
from testsite import Site


@pytest.fixture
def kept(site: Site) -> Revision:
    """A revision that is kept, beside garbage in the store and in a ripe generation; gc has seen all."""
    return keep_beside_garbage(site)


def unmount(site: Site) -> None:
    """The disk of the job goes, and leaves the directory where it was mounted."""
    site.job.rename(site.folder / "unmounted")
    site.job.mkdir()


def lose_directory(site: Site) -> None:
    """The job's directory goes as a whole."""
    site.job.rename(site.folder / "unmounted")


def lose_revision(site: Site) -> None:
    """Some files are not listed any more."""
    (site.folder / "unmounted").mkdir()
    for path in site.job.glob(f"{site.history().revisions[0].uuid}*"):
        path.rename(site.folder / "unmounted" / path.name)


def bring_back(site: Site) -> None:
    """What went is there again."""
    for path in (site.folder / "unmounted").iterdir():
        site.job.mkdir(exist_ok=True)
        path.rename(site.job / path.name)


def stored(site: Site) -> tuple[set[str], set[str]]:
    """Names of the chunks of the store proper and of the trash."""
    return names(site), in_trash(site)


@pytest.mark.parametrize("go", [unmount, lose_directory, lose_revision])
def test_what_goes_between_the_inventory_and_the_mark_stops(
    site: Site, kept: Revision, go: Callable[[Site], None]
) -> None:
    """Otherwise what it needs would look like garbage, or be purged from a ripe generation."""
    before = stored(site)
    with pytest.raises(CollectionStopped) as caught:
        gc(site, DAY, waive_grace=True, meanwhile=Meanwhile("mark", lambda: go(site)))

    assert [str(site.job)] == [one[0] for one in caught.value.stops]
    assert before == stored(site)
    with Directory.open(str(site.chunks)) as chunks:
        outcome = remembered.read_outcome(chunks)
    assert outcome is not None
    assert [": ".join(one) for one in caught.value.stops] == list(outcome.stopped)
    with pytest.raises(CollectionStopped):
        gc(site, DAY, waive_grace=True)
    bring_back(site)
    gc(site, DAY, waive_grace=True)
    assert (site.chunks_of(kept), set()) == stored(site)


def test_a_dry_run_says_so_too(site: Site, kept: Revision) -> None:
    """It would show as garbage what is only not mounted."""
    with pytest.raises(CollectionStopped, match=str(site.job)):
        plan(site, meanwhile=Meanwhile("mark", lambda: unmount(site)))


def test_what_goes_before_the_second_mark_stops_the_purge(site: Site, kept: Revision) -> None:
    """What was condemned stays in the trash, since a revision made meanwhile may need it."""
    garbage = names(site) - site.chunks_of(kept)
    with pytest.raises(CollectionStopped, match=str(site.job)):
        gc(site, DAY, waive_grace=True, meanwhile=Meanwhile("mark", lambda: unmount(site), 2))

    assert garbage == in_trash(site)


@pytest.mark.parametrize("act", [forget, lambda site, _: back_up(site, 4)])
@pytest.mark.parametrize("number", [1, 2])
def test_what_is_forgotten_or_made_meanwhile_stops_nothing(
    site: Site, kept: Revision, act: Callable[[Site, Revision], object], number: int
) -> None:
    """What is forgotten while collection runs keeps its files until the next run."""
    need = site.chunks_of(kept)
    gc(site, DAY, waive_grace=True, meanwhile=Meanwhile("mark", lambda: act(site, kept), number))

    assert need <= names(site)


def test_a_job_that_is_renamed_meanwhile_stops_nothing(
    site: Site, kept: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its files are there, under another name."""
    inventory = marking.inventory

    def rename(repository: Repository) -> dict[str, JobFiles]:
        found = inventory(repository)
        if site.job.exists():
            site.job.rename(site.base / "renamed")
        return found

    monkeypatch.setattr(marking, "inventory", rename)
    gc(site, DAY, waive_grace=True)

    assert (site.chunks_of(kept, job="renamed"), set()) == stored(site)


def test_what_the_operator_gave_up_may_go_at_any_moment(site: Site, kept: Revision) -> None:
    """By the job's name."""
    gc(site, DAY, waive_grace=True, gone=("vm",), meanwhile=Meanwhile("mark", lambda: unmount(site)))

    assert (set(), set()) == stored(site)


def test_a_list_that_had_no_room_at_first_does_not_forget_what_went_meanwhile(
    site: Site, kept: Revision
) -> None:
    """Otherwise the next run would take the empty directory for a job that never had a revision."""
    failed: list[str] = []

    def fail_once(step: str) -> None:
        if step == f"create in {site.chunks}" and not failed:
            failed.append(step)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failpoint.install(fail_once)
    with pytest.raises(CollectionStopped, match=str(site.job)):
        gc(site, meanwhile=Meanwhile("look for garbage", lambda: unmount(site)))
    failpoint.install(None)

    with Directory.open(str(site.chunks)) as chunks:
        assert {"vm": (kept.uuid,)} == remembered.read_known(chunks).jobs
    assert site.chunks_of(kept, job="../unmounted") <= names(site)
