"""Committing a revision: the order of its steps, and that no failure leaves half of one to be seen."""

import errno
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry, Layout
from backy.domain.revision import Revision
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.repository import history
from backy.repository.maps import MapWriter, open_pinned
from fakes import FailAt, Steps, fake_revision

STEPS = range(1, 9)  # as `test_rename_of_the_record_is_the_commit` counts them


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Directory]:
    """A job's empty directory."""
    with Directory.open(str(tmp_path)) as directory:
        yield directory


def prepared(job: Directory, number: int) -> tuple[Revision, MapWriter]:
    """A revision and its sealed map, one step before the commit."""
    revision = fake_revision(number, "daily")
    writer = MapWriter(job, revision.uuid, "", Layout(4096, 4096))
    writer.expect(0)
    writer.set(0, Entry(chunk_id(b"chunk")))
    return msgspec.structs.replace(revision, maps=(writer.seal(),)), writer


def commit(job: Directory, number: int) -> Revision:
    """A committed revision."""
    revision, writer = prepared(job, number)
    try:
        history.commit(job, revision, [writer])
    finally:
        writer.close()
    return revision


def test_committed_revision_is_in_the_history(job: Directory) -> None:
    """The record and the map have their names, nothing else is left, and both can be read."""
    revision = commit(job, 1)

    assert history.History((revision,), (), ()) == history.load(job)
    assert [f"{revision.uuid}.map", f"{revision.uuid}.rev"] == job.names()
    with open_pinned(job, revision.uuid, revision.maps[0]) as reader:
        assert [(0, Entry(chunk_id(b"chunk")))] == list(reader.used())


def test_rename_of_the_record_is_the_commit(job: Directory) -> None:
    """Pending record, directory; map, directory; then the rename, then the directory again."""
    revision, writer = prepared(job, 1)
    steps = Steps()
    failpoint.install(steps)
    history.commit(job, revision, [writer])
    failpoint.install(None)
    writer.close()

    pending, path = job.file_path(f"{revision.uuid}.pending"), job.path
    assert [
        f"create in {path}",
        f"write in {path}",
        f"sync file in {path}",
        f"link {pending}",
        f"sync {path}",
        f"link {job.file_path(revision.uuid)}.map",
        f"sync {path}",
        f"rename {pending}",
        f"sync {path}",
    ] == steps.seen


def test_revision_is_visible_from_the_rename_on_and_not_before(job: Directory) -> None:
    """At every step up to the rename the history is empty; at the last one the revision is in it."""
    revision, writer = prepared(job, 1)
    seen: list[tuple[str, int]] = []
    failpoint.install(lambda step: seen.append((step.split()[0], len(history.load(job).revisions))))
    history.commit(job, revision, [writer])
    failpoint.install(None)
    writer.close()

    assert [0] * (len(seen) - 1) + [1] == [count for _, count in seen]
    assert ["sync", "rename", "sync"] == [verb for verb, _ in seen[-3:]]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("step", STEPS)
def test_failure_at_any_step_leaves_no_revision(job: Directory, step: int, code: int) -> None:
    """No failing step makes a revision visible or a record look lost; older ones are untouched."""
    older = commit(job, 1)
    revision, writer = prepared(job, 2)
    hook = FailAt(step, code)
    failpoint.install(hook)
    with pytest.raises(StorageFailed) as caught:
        history.commit(job, revision, [writer])
    failpoint.install(None)
    writer.close()

    assert code == caught.value.code
    assert hook.step is not None
    assert history.History((older,), (), ()) == history.load(job)


@pytest.mark.parametrize("step", STEPS)
def test_commit_after_a_failed_one_succeeds(job: Directory, step: int) -> None:
    """Whatever a failed commit left behind, the next backup needs no help."""
    revision, writer = prepared(job, 1)
    failpoint.install(FailAt(step))
    with pytest.raises(StorageFailed):
        history.commit(job, revision, [writer])
    failpoint.install(None)
    writer.close()

    later = commit(job, 2)
    assert history.History((later,), (), ()) == history.load(job)


@pytest.mark.parametrize("step", range(1, 6))
def test_failure_before_the_map_has_a_name_leaves_no_file(job: Directory, step: int) -> None:
    """A pending record means something beside its map only; alone it goes."""
    revision, writer = prepared(job, 1)
    failpoint.install(FailAt(step))
    with pytest.raises(StorageFailed):
        history.commit(job, revision, [writer])
    failpoint.install(None)
    writer.close()

    assert [] == job.names()


def test_failing_last_sync_takes_the_record_back(job: Directory) -> None:
    """If nobody can say that the commit lasts, it is taken back and the run fails."""
    revision, writer = prepared(job, 1)
    failpoint.install(FailAt(STEPS[-1]))
    with pytest.raises(StorageFailed, match="sync"):
        history.commit(job, revision, [writer])
    failpoint.install(None)
    writer.close()

    assert [f"{revision.uuid}.map", f"{revision.uuid}.pending"] == job.names()


def test_second_revision_under_the_same_uuid_is_refused(job: Directory) -> None:
    """A map is never replaced, so neither is a revision."""
    first = commit(job, 1)
    with pytest.raises(StorageFailed):
        commit(job, 1)

    assert history.History((first,), (), ()) == history.load(job)


def test_revision_of_two_disks_has_both_maps_before_its_record(job: Directory) -> None:
    """Every disk's map has its name before the commit."""
    revision = fake_revision(1)
    writers = [MapWriter(job, revision.uuid, disk, Layout(4096, 0)) for disk in ("a", "b")]
    revision = msgspec.structs.replace(revision, maps=tuple(writer.seal() for writer in writers))
    steps = Steps()
    failpoint.install(steps)
    history.commit(job, revision, writers)
    failpoint.install(None)
    for writer in writers:
        writer.close()

    expected = ["create", "write", "sync", "link", "sync", "link", "link", "sync", "rename", "sync"]
    assert expected == steps.verbs()
    assert (revision,) == history.load(job).revisions
