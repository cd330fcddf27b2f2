"""Clones as files: which are listed and removed, and what is never touched."""

import os
from collections.abc import Callable

import pytest
from loopdisk import Disk

from backy.domain.revision import SnapshotName
from backy.source.base import Owner
from backy.source.clonefiles import Clone, clone_name, clones_in, parse_name, remove_clones
from cloning import OWNER, SIZE, ImageSite, revision

pytestmark = pytest.mark.root

FileSystems = Callable[[str], Disk]


def test_prune_removes_exactly_what_it_is_told(image_site: ImageSite) -> None:
    """Others of this job, of other jobs and of other repositories stay."""
    for number in (1, 2, 3):
        image_site.kept(number)
    others = [
        image_site.folder / clone_name(owner, revision(1))
        for owner in (OWNER._replace(job="vm02"), Owner(revision(7), OWNER.job))
    ]
    for path in others:
        path.touch()

    assert {revision(1), revision(2)} == set(image_site.prune(1, 2))
    assert sorted([image_site.clone(3), *others]) == image_site.clones()


def test_a_clone_that_was_removed_does_not_come_back(
    image_site: ImageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed as gone, so nobody would remove it again: its folder is synced without it."""
    image_site.kept(1)
    clone, synced = image_site.clone(1), []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append((os.fstat(fd).st_ino, clone.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    assert {revision(1)} == image_site.prune(1)

    assert [(image_site.place.stat().st_ino, False)] == synced


def test_what_is_gone_already_is_gone(image_site: ImageSite) -> None:
    """A clone that somebody removed, or that was never made, needs no further try."""
    names = [SnapshotName(revision(1)), SnapshotName(revision(2))]

    assert set(names) == image_site.source.prune({names[0]: str(image_site.folder), names[1]: ""})


def test_place_that_is_missing_is_tried_again(image_site: ImageSite) -> None:
    """Its file system may be mounted next time."""
    assert set() == image_site.source.prune({SnapshotName(revision(1)): "/nowhere/at/all"})


def test_snapshot_of_another_type_stays(image_site: ImageSite) -> None:
    """A job whose source was of another type before has places that are no directories."""
    image_site.kept(1)

    assert set() == image_site.source.prune({SnapshotName(revision(1)): "rbd:a/b"})
    assert set() == image_site.source.prune({SnapshotName(revision(1)): "x"})
    assert [image_site.clone(1)] == image_site.clones()


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_is_no_clone_stays(image_site: ImageSite, kind: str) -> None:
    """A clone's name on something else is not ours to remove, and no link is followed."""
    path = image_site.clone(1)
    if kind == "link":
        path.symlink_to(image_site.path)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = image_site.path.read_bytes()
    image_site.prune(1)

    assert [path] == image_site.clones()
    assert before == image_site.path.read_bytes()


@pytest.mark.parametrize("name", ["../image", "", "x", "image", revision(1).upper(), revision(1) + "\n"])
def test_revision_that_is_no_uuid_removes_nothing(image_site: ImageSite, name: str) -> None:
    """What stands in a list of ours was not always written by us."""
    before = sorted(os.listdir(image_site.folder))

    snapshot = SnapshotName(name)
    assert {snapshot} == remove_clones(OWNER, {snapshot: str(image_site.folder)})
    assert before == sorted(os.listdir(image_site.folder))


def test_clones_of_a_repository_are_listed(image_site: ImageSite) -> None:
    """By job and revision, with path and size, whatever else lies there."""
    image_site.kept(1)
    (image_site.folder / clone_name(Owner(revision(7), "vm01"), revision(1))).touch()
    (image_site.folder / f".backy-{OWNER.repository}-vm01-short").touch()
    (image_site.folder / clone_name(OWNER, revision(2))).symlink_to(image_site.path)
    (image_site.folder / clone_name(OWNER, revision(3))).mkdir()

    assert [Clone("vm01", revision(1), str(image_site.clone(1)), SIZE)] == list(
        clones_in(str(image_site.folder), OWNER.repository)
    )


@pytest.mark.parametrize("job", ["vm01", "a-b-c", "x" * 63, revision(5), "a.b_c-"])
def test_names_of_clones_say_whose_they_are(job: str) -> None:
    """Any job's name can be told from the revision behind it."""
    owner = Owner(OWNER.repository, job)

    assert (owner, revision(1)) == parse_name(clone_name(owner, revision(1)))
    assert len(clone_name(owner, revision(1))) < 255


@pytest.mark.parametrize("job", ["", ".", "..", "a/b", "chunks", "-a", "x" * 64, "a\n"])
def test_name_of_no_job_is_no_clones(job: str) -> None:
    """Nothing can be made or removed under a name that leads elsewhere."""
    with pytest.raises(ValueError, match="no clone's name"):
        clone_name(Owner(OWNER.repository, job), revision(1))
