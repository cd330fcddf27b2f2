"""JOB/snapshots: places by revision and disk, as they are and as older versions wrote them."""

import json
from pathlib import Path

import pytest

from backy.domain import sealed
from backy.domain.revision import SnapshotName
from backy.ground.directory import Directory
from backy.ground.errors import SnapshotsDamaged, StorageFailed
from backy.repository import layout, snapshots
from fakes import no_descriptors

ONE, TWO = (f"{number:08x}-1111-4111-8111-111111111111" for number in (1, 2))


def written(folder: Path) -> object:
    """What the file says."""
    return json.loads(sealed.unseal((folder / layout.SNAPSHOTS).read_bytes()))


def test_list_of_one_image_is_as_before(tmp_path: Path) -> None:
    """Older versions read it, and we read theirs."""
    with Directory.open(str(tmp_path)) as job:
        snapshots.note(job, {SnapshotName(TWO): "/a"}, {SnapshotName(ONE): "/b"})

        assert {"snapshots": {ONE: "/b", TWO: "/a"}} == written(tmp_path)
        assert {SnapshotName(ONE): "/b", SnapshotName(TWO): "/a"} == snapshots.listed(job)


def test_places_are_by_disk(tmp_path: Path) -> None:
    """Each may be elsewhere; one goes without the other."""
    names = [SnapshotName(ONE, "root"), SnapshotName(ONE, "data")]
    with Directory.open(str(tmp_path)) as job:
        snapshots.note(job, {names[0]: "/a", names[1]: "rbd:b"}, {SnapshotName(TWO): "/c"})

        assert {
            "snapshots": {TWO: "/c", ONE: {"root": "/a", "data": "rbd:b"}},
        } == written(tmp_path)
        snapshots.strike(job, [names[0], SnapshotName(TWO)])
        assert {names[1]: "rbd:b"} == snapshots.listed(job)


@pytest.mark.parametrize(
    "content",
    [{ONE: {"a/b": "/"}}, {ONE: {"": "/"}}, {"x": "/"}, {ONE: 7}, {ONE: {"a": 7}}, {ONE: None}],
)
def test_list_that_cannot_be_ours_is_none(tmp_path: Path, content: object) -> None:
    """Nothing of it is believed."""
    document = json.dumps({"snapshots": content}).encode()
    (tmp_path / layout.SNAPSHOTS).write_bytes(sealed.seal(document))
    with Directory.open(str(tmp_path)) as job, pytest.raises(SnapshotsDamaged):
        snapshots.listed(job)


def test_list_that_cannot_be_read_now_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Want of descriptors says nothing about it: a new list in its place would lose what it names."""
    with Directory.open(str(tmp_path)) as job:
        snapshots.note(job, {SnapshotName(ONE): "/a"}, {})
        with no_descriptors(), pytest.raises(StorageFailed, match="too many open files"):
            snapshots.listed(job)

        assert {SnapshotName(ONE): "/a"} == snapshots.listed(job)
