"""F2, F15, F20: maps are pins, readers need no new file, and only collection removes a map.

Collection itself does not exist yet; `reap` does what it will do: unlink each map that has no
record, whose lock it gets alone, and that still has no record then.
"""

import fcntl
import os
import threading
from pathlib import Path

import pytest
from modelfaults import Killed, armed, killing, recorded

from backy.domain.revision import Revision
from backy.ground.directory import Directory
from backy.ground.errors import RevisionGone
from backy.operation.progress import NoProgress
from backy.operation.restore import restore
from backy.repository import history as histories
from backy.repository.maps import open_pinned
from backy.repository.repository import Repository
from backy.target.registry import find_target
from testsite import CHUNK, Site


def reap(site: Site) -> list[str]:
    """Unlink what collection might, and return the revisions' UUIDs."""
    gone = []
    for path in sorted(site.job.glob("*.map")):
        record = path.with_suffix(".rev")
        if record.exists():
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        finally:
            # Closing drops the lock: nothing happens between here and the unlink in a test.
            os.close(fd)
        if not record.exists():
            path.unlink()
            gone.append(path.stem)
    return gone


def forget(site: Site, uuid: str) -> None:
    """Forget a revision in this process."""
    with Directory.open(str(site.job)) as job:
        histories.forget(job, uuid)


@pytest.fixture
def revision(site: Site) -> Revision:
    """The site's only revision, of eight chunks."""
    site.image.write_bytes(os.urandom(8 * CHUNK))
    return site.backup()


def test_a_parent_forgotten_at_any_step_stays_pinned_until_the_backup_has_ended(
    site: Site, revision: Revision
) -> None:
    """Collection gets neither the parent's map nor the new one before the new record is durable."""
    with recorded() as steps:
        site.backup()
    registered = next(at for at, step in enumerate(steps, start=1) if step.startswith("make "))
    for at, step in enumerate(steps, start=1):
        reap(site)
        parent = site.history().revisions[-1].uuid
        reaped = ForgetAndReap(site, parent, at)
        with armed(reaped):
            new = site.backup()

        # Chosen and pinned after the registration, released with the backup's last steps.
        pinned = registered < at < len(steps) - 1
        assert ([] if pinned else [parent]) == reaped.gone, step
        assert ([parent] if pinned else []) == reap(site), step
        assert site.image.read_bytes() == site.restored(new)
        assert [] == site.verify().findings


class ForgetAndReap:
    """At the N-th step the revision is forgotten, and collection reaps what it can."""

    def __init__(self, site: Site, uuid: str, at: int) -> None:
        self.gone: list[str] = []
        self._site = site
        self._uuid = uuid
        self._left = at

    def __call__(self, step: str) -> None:
        # Steps of forget itself come here too, as later ones.
        self._left -= 1
        if self._left == 0:
            forget(self._site, self._uuid)
            self.gone += reap(self._site)


def test_a_forgotten_revision_can_be_restored_to_the_end_once_begun(
    site: Site, revision: Revision
) -> None:
    """The restore's pin keeps the map, and so the chunks, from collection."""
    target = site.folder / "out.raw"
    reaped: list[str] = []
    # Several threads write, and one of them is the first.
    begun = threading.Lock()

    def interfere(step: str) -> None:
        if step.startswith("write ") and begun.acquire(blocking=False):
            forget(site, revision.uuid)
            reaped.extend(reap(site))

    with armed(interfere):
        site.restore(revision, target)

    assert begun.locked()
    assert site.image.read_bytes() == target.read_bytes()
    assert [] == reaped
    assert [revision.uuid] == reap(site)


def test_a_map_that_was_reaped_before_the_lock_is_not_used(site: Site, revision: Revision) -> None:
    """Who has opened a map and then finds it unlinked or forgotten chooses again, or says so."""
    forget(site, revision.uuid)
    with Directory.open(str(site.job)) as job, pytest.raises(RevisionGone):
        open_pinned(job, revision.uuid, revision.maps[0])

    reap(site)
    with Directory.open(str(site.job)) as job, pytest.raises(RevisionGone):
        open_pinned(job, revision.uuid, revision.maps[0])
    assert site.backup().parent is None


def test_readers_make_no_file_and_take_no_step(site: Site, revision: Revision) -> None:
    """Verify changes nothing at all, and restore to a stream writes and syncs the stream only."""
    before = sorted(site.base.rglob("*"))
    with recorded() as steps, Repository.open(str(site.base)) as repository:
        site.verify()
        out = os.open(site.folder / "out", os.O_WRONLY | os.O_CREAT)
        with repository.job("vm") as job:
            target = find_target("-", out)
            restore(repository, job, revision, target, NoProgress(), keep_going=False, read_back=False)
        os.close(out)

    assert {"write -", "sync -"} == set(steps)
    assert before == sorted(site.base.rglob("*"))
    assert site.image.read_bytes() == (site.folder / "out").read_bytes()


def test_the_map_of_an_interrupted_backup_stays_until_collection(site: Site, revision: Revision) -> None:
    """Neither the next backup, nor forget of a neighbour, nor verify takes an orphan away (F20)."""
    with recorded() as steps:
        site.backup()
    link = next(at for at, step in enumerate(steps, start=1) if step.endswith(".map"))
    with armed(killing(link + 1)), pytest.raises(Killed):
        site.backup()
    orphans = [path for path in site.job.glob("*.map") if not path.with_suffix(".rev").exists()]

    site.backup()
    forget(site, revision.uuid)
    site.verify()

    assert 1 == len(orphans)
    assert [True] == [path.exists() for path in orphans]
    assert [True] == [path.with_suffix(".pending").exists() for path in orphans]
    assert () == site.history().lost
    assert {revision.uuid, orphans[0].stem} == set(reap(site))


def test_a_backup_one_step_before_its_commit_is_no_orphan(site: Site, revision: Revision) -> None:
    """From its name to its record a map is locked by its writer, whatever runs beside it."""
    reaped: dict[str, list[str]] = {}

    def look(step: str) -> None:
        reaped[step] = reap(site)

    with armed(look):
        new = site.backup()

    assert Path(site.job, f"{new.uuid}.map").exists()
    assert all(gone == [] for gone in reaped.values())
    assert any(step.startswith("rename ") for step in reaped)
