"""The order in which collection looks: each look comes before, or after, what could still change it.

A writer comes or ends at one chosen moment of a collection, and no revision may lose a chunk by it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from modelfaults import Killed, armed
from small_store import EPOCH, add_revision

from backy.domain.chunkmap import Layout
from backy.domain.revision import Revision
from backy.ground import failpoint
from backy.repository import marking
from backy.repository.repository import Repository
from backy.repository.users import User, registered
from collecting import DAY, back_up, entries, forget, gc, in_trash
from testsite import CHUNK, Site


@pytest.fixture(autouse=True)
def no_hook_is_left() -> Iterator[None]:
    """Whatever becomes of a test."""
    yield
    failpoint.install(None)


def at_first(kind: str, act: Callable[[], object]) -> None:
    """Do something right before the first step of a kind."""

    def hook(step: str) -> None:
        if step.startswith(kind):
            failpoint.install(None)
            act()

    failpoint.install(hook)


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    """The site's repository, as a process beside the collection has it."""
    with Repository.open(str(site.base)) as opened:
        yield opened


def test_a_backup_that_comes_and_goes_while_chunks_are_condemned_loses_none(site: Site) -> None:
    """It hits garbage, commits and ends before the seal: no census has it, only marks made anew."""
    forget(site, back_up(site, 2))
    back_up(site, 1)
    made: list[Revision] = []

    at_first("move ", lambda: made.append(back_up(site, 2)))
    gc(site, waive_grace=True)

    assert [] == site.verify().findings
    assert [site.image.read_bytes()] == [site.restored(one) for one in made]


def test_a_writer_that_comes_while_chunks_are_condemned_is_in_the_census(
    site: Site, repository: Repository
) -> None:
    """It may have found those chunks that are condemned after it came."""
    forget(site, back_up(site, 2))
    back_up(site, 1)
    came: list[User] = []

    with ExitStack() as stack:
        writer = registered(repository.chunks, "vm", EPOCH)
        at_first("move ", lambda: came.append(stack.enter_context(writer)))
        done = gc(site, waive_grace=True)

    assert (3, 0) == (done.condemned.files, done.purged.files)
    assert [[one.name for one in came]] == [[one.name for one in held.writers] for held in done.waiting]


def test_a_writer_that_ends_after_its_job_was_marked_still_holds_its_generation(
    site: Site, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it committed last is in no mark of this run, so what is ripe is decided before the marks."""
    back_up(site, 1)
    gone = back_up(site, 2)
    needed = entries(site.chunks_of(gone))
    forget(site, gone)
    mark = marking.mark
    late: list[Revision] = []

    with ExitStack() as writer:
        writer.enter_context(registered(repository.chunks, "vm", EPOCH))
        gc(site)
        assert 3 == len(in_trash(site))

        def mark_and_commit(*args: Any, **options: Any) -> Any:
            found = mark(*args, **options)
            if not late:
                late.append(add_revision(site, EPOCH, Layout(CHUNK, 3 * CHUNK), needed))
                writer.close()
            return found

        monkeypatch.setattr(marking, "mark", mark_and_commit)
        gc(site, DAY)

    assert late
    assert [] == site.verify().findings


def test_a_run_that_is_killed_after_it_reaped_does_not_stop_the_next(site: Site) -> None:
    """What it removed is off the list of known revisions by then."""
    back_up(site, 1)
    gone = back_up(site, 2)
    gc(site)
    forget(site, gone)

    with armed(dead_without(site.job, gone.uuid)), pytest.raises(Killed):
        gc(site, waive_grace=True)

    assert 3 == gc(site, waive_grace=True).purged.files
    assert [] == site.verify().findings


def dead_without(job: Path, uuid: str) -> Callable[[str], None]:
    """Killed at the first step before which the last file of a revision is gone."""

    def hook(step: str) -> None:
        if not list(job.glob(f"{uuid}*")):
            raise Killed

    return hook
