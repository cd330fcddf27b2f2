"""T6, R16: a failed sync condemns what it was for; it is never tried again and nothing gets a name."""

import errno
import os
from collections.abc import Callable, Iterator

import pytest
from crashsite import points, varied_image

from backy.ground import failpoint, linux
from backy.ground.errors import BackyError, StorageFailed
from backy.operation import parallel
from backy.repository import chunks
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T6")


class FailingSyncs:
    """Every fsync and syncfs of the repository, each a step too; the N-th one fails."""

    def __init__(self, patch: pytest.MonkeyPatch, image: int) -> None:
        self._image = image
        self.at = 0
        self.inodes: list[int] = []
        self.steps: list[str] = []
        self.failed_after: int | None = None
        patch.setattr(os, "fsync", self._wrapped(os.fsync))
        patch.setattr(linux, "syncfs", self._wrapped(linux.syncfs))
        failpoint.install(self.steps.append)

    def arm(self, at: int) -> None:
        """Let the N-th sync from here fail; 0 for none."""
        self.at = at
        self.inodes = []
        self.steps.clear()
        self.failed_after = None

    @property
    def later_steps(self) -> list[str]:
        """What was done after the failure, without the steps of tidying up."""
        assert self.failed_after is not None
        return [step for step in self.steps[self.failed_after :] if not step.startswith("remove ")]

    def _wrapped(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            inode = os.fstat(fd).st_ino
            if inode != self._image:
                self.inodes.append(inode)
                if len(self.inodes) == self.at:
                    self.failed_after = len(self.steps)
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        return sync


@pytest.fixture
def syncs(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingSyncs]:
    """Syncs under control; one thread and small batches, so that each has its number."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    monkeypatch.setattr(chunks, "BATCH_SIZE", 3 * CHUNK)
    site.image.write_bytes(varied_image(1))
    with monkeypatch.context() as patch:
        yield FailingSyncs(patch, site.image.stat().st_ino)
        failpoint.install(None)


def test_no_failed_sync_is_retried_and_nothing_is_named_after_it(
    site: Site, syncs: FailingSyncs
) -> None:
    """Whichever sync of a backup fails: no later one on that file, no link, no revision."""
    for at in points():
        syncs.arm(at)
        try:
            site.backup()
        except BackyError:
            failed = syncs.inodes[at - 1]
            assert failed not in syncs.inodes[at:]
            assert [] == [step for step in syncs.later_steps if step.startswith("link ")]
            assert () == site.history().revisions
            assert () == site.history().lost
            continue
        break

    syncs.arm(0)
    assert at > 5
    assert 1 == len(site.history().revisions)
    assert site.image.read_bytes() == site.restored(site.history().revisions[0])


def test_a_batch_whose_sync_failed_leaves_no_file(site: Site, syncs: FailingSyncs) -> None:
    """The first syncfs fails, so no chunk has a name, none is left in tmp, and nobody is registered."""
    syncs.arm(1)

    with pytest.raises(StorageFailed) as caught:
        site.backup()

    assert ("sync", errno.EIO) == (caught.value.action, caught.value.code)
    assert [] == site.chunk_files()
    assert [] == list((site.chunks / "tmp").iterdir())
    assert [] == list((site.chunks / "users").iterdir())


def test_a_failed_sync_of_the_names_fails_the_run(site: Site, syncs: FailingSyncs) -> None:
    """Hits on other writers' chunks count only when the last syncfs says that all names last."""
    kept = site.backup()
    syncs.arm(1)

    with pytest.raises(StorageFailed):
        site.backup()

    assert [] == [step for step in syncs.steps if "/chunks/tmp/" in step and "write" in step]
    assert [kept] == list(site.history().revisions)


def test_a_record_whose_directory_sync_failed_is_taken_back(site: Site, syncs: FailingSyncs) -> None:
    """The last fsync fails after the rename: the revision is not there, and the next backup is fine."""
    first = site.backup()
    syncs.arm(0)
    second = site.backup()
    syncs.arm(len(syncs.inodes))

    with pytest.raises(StorageFailed):
        site.backup()

    assert [first.uuid, second.uuid] == [one.uuid for one in site.history().revisions]
    assert [True] == [step.endswith(".rev") for step in syncs.later_steps]
    syncs.arm(0)
    assert site.image.read_bytes() == site.restored(site.backup())
    assert [] == site.verify().findings
