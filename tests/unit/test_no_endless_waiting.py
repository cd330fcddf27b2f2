"""Whoever is frozen, or fails, keeps nobody waiting for ever."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.domain.revision import Distrust, Trust
from backy.ground import locks
from backy.ground.directory import Directory
from backy.ground.errors import HistoryBusy
from backy.operation import parallel, work
from backy.repository import history as histories
from backy.repository import trust
from backy.repository.chunks import ChunkReader
from backy.repository.repository import Repository
from damaging import spoil
from testsite import CHUNK, Site

LARGE = 16 * CHUNK
_LIMIT = 60


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    """The repository, open, with one revision."""
    site.image.write_bytes(os.urandom(4 * CHUNK))
    site.backup()
    with Repository.open(str(site.base)) as opened:
        yield opened


@pytest.fixture
def frozen_marker(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A verify was stopped while it removes the marker of distrust."""
    monkeypatch.setattr(trust, "_LOCK_SECONDS", 0.05)
    fd = os.open(f"{repository.chunks.path}/quarantine", os.O_RDONLY)
    assert locks.try_exclusive(fd)
    yield
    os.close(fd)


@pytest.fixture
def frozen_edit(site: Site, repository: Repository) -> Iterator[None]:
    """An edit of a record was stopped."""
    fd = os.open(site.job / ".history", os.O_RDWR)
    assert locks.try_exclusive(fd)
    yield
    os.close(fd)


def test_distrust_does_not_wait_for_a_verify_that_is_frozen(
    site: Site, repository: Repository, frozen_marker: None
) -> None:
    """It says so, and no record says what the store does not know."""
    with (
        Directory.open(str(site.job)) as job,
        pytest.raises(HistoryBusy),
        trust.distrusting(repository.chunks),
    ):
        trust.distrust(job, site.history().revisions[0].uuid, Distrust.STORE)
    assert [Trust.TRUSTED] == [one.trust for one in site.history().revisions]


def backed_up_beside(site: Site) -> list[str]:
    """What a backup tells that meets a damaged map of its parent; it ends well."""
    spoil(site.job / f"{site.history().revisions[-1].uuid}.map")
    told: list[str] = []
    made = site.backup(tell=told.append)
    assert site.image.read_bytes() == site.restored(made)
    return told


def test_a_backup_does_not_wait_for_a_verify_that_is_frozen(site: Site, frozen_marker: None) -> None:
    """What it would have noted of others is told instead."""
    assert any("quarantine is held" in text for text in backed_up_beside(site))


def test_a_backup_does_not_wait_for_an_edit_that_is_frozen(site: Site, frozen_edit: None) -> None:
    """Nor does it when it distrusts what it may not lean on."""
    assert any(".history is held" in text for text in backed_up_beside(site))


def test_marking_waits_for_no_edit_that_begins_behind_its_look(
    site: Site, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one look at the lock only, and that takes it."""

    def refuse(fd: int) -> None:
        pytest.fail("it waits")

    monkeypatch.setattr(locks, "wait_exclusive", refuse)
    with Directory.open(str(site.job)) as job:
        seen = site.history().revisions[0]
        assert Trust.VERIFIED is trust.verified(job, seen).trust
        assert histories.load(job).revisions[0].trust is Trust.VERIFIED


def test_a_backup_ends_where_no_thread_can_have_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread that fails gives the right to a reader back, so the others do not wait for it."""
    monkeypatch.setattr(parallel, "THREADS", 2 * work._READERS)
    site = Site(tmp_path, chunk_size=LARGE)
    image = bytearray(os.urandom(4 * work._READERS * LARGE))
    site.image.write_bytes(image)
    site.backup()
    for at in range(0, len(image), LARGE):
        image[at] ^= 1
    site.image.write_bytes(image)
    # All threads have begun before the first of them fails.
    together = threading.Barrier(work._READERS)
    begun = threading.Event()

    class Failing(ChunkReader):
        """There is no memory for its buffers."""

        def __init__(self, *_: object, **__: object) -> None:
            if not begun.is_set():
                together.wait(_LIMIT)
                begun.set()
            raise MemoryError

    monkeypatch.setattr("backy.operation.backup.ChunkReader", Failing)
    failures: list[MemoryError] = []

    def run() -> None:
        try:
            site.backup()
        except MemoryError as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_LIMIT)

    assert not thread.is_alive()
    assert 1 == len(failures)
    assert 1 == len(site.history().revisions)


@pytest.mark.parametrize("is_record", [True, False], ids=["record", "all else"])
def test_no_command_waits_for_somebody_to_write_into_a_fifo(site: Site, *, is_record: bool) -> None:
    """Whatever of the store or of a job is one: a record, a map, a chunk, a report, a marker."""
    for _ in range(2):
        site.image.write_bytes(os.urandom(4 * CHUNK))
        site.backup()
    spoil(site.chunk_files()[0])
    site.concluded()
    (report,) = site.chunks.glob("quarantine/*/report")
    uuid = site.history().revisions[0].uuid
    places = [
        site.job / f"{uuid}.map",
        site.job / f".{uuid}.rev.new",
        site.job / "backy.log",
        site.chunk_files()[1],
        report,
        *(site.chunks / name for name in ("distrusted", ".distrusted.new", "verified", "known")),
    ]
    for path in [site.job / f"{uuid}.rev"] if is_record else places:
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    for words in (
        ["verify"],
        ["verify", "--slice", "1m"],
        ["gc", "--now", "--force"],
        ["reports"],
        ["repair", "vm"],
        ["distrust", "--reason", "store"],
        ["distrust", "--undo"],
    ):
        # One that waits ends this by its time limit.
        assert site.cli(*words).returncode in (0, 1, 2)
