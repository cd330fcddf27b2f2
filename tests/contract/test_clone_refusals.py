"""Where no clone can be made: the image is read in place, and the operator told once or each time."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from loopdisk import Disk

from backy.domain.revision import Consistency, SnapshotName, View
from backy.ground import failpoint, fiemap
from backy.source.base import Base, Changes, Confidence
from backy.source.file import Cloning, FileSource
from cloning import OWNER, SIZE, ImageSite, revision, whole
from fakes import Steps, loop_device

pytestmark = pytest.mark.root

FileSystems = Callable[[str], Disk]


def failed(site: ImageSite, why: str) -> str:
    """What is told each time."""
    return f"the image {site.path} is read in place, since no clone can be made in {site.folder} ({why})"


def reason(changes: Changes) -> str:
    """Why nothing is known."""
    assert Confidence.NONE is changes.confidence
    assert [] == list(changes.extents)
    return changes.why


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_file_system_without_clones_is_told_once(
    file_systems: FileSystems, tmp_path: Path, kind: str
) -> None:
    """The image is read in place, as before; it is a remark, no warning, and nothing is left."""
    parent = Path("/dev/shm") if kind == "tmpfs" else file_systems(kind).folder
    folder = parent / f"backy-{os.getpid()}"
    folder.mkdir()
    site = ImageSite(folder)
    with site.source.snapshot(revision(1)) as snapshot:
        snapshot.keep()
        assert View.IN_PLACE is snapshot.identity.view
        assert None is snapshot.identity.kept
        assert (
            f"the image {site.path} is read in place, since its file system ({kind}) makes no clones"
            == snapshot.remark
        )
        assert [] == list(snapshot.warnings)
        assert "the image is read in place" == reason(
            snapshot.extents_since(Base(revision(1), snapshot.identity))
        )

    assert "" == site.source.place
    assert [] == site.clones()
    shutil.rmtree(folder)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV])
def test_refusal_to_clone_at_all_is_told_once(
    image_site: ImageSite, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """XFS may have been made without reflink."""

    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fiemap, "clone", refuse)
    with image_site.source.snapshot(revision(1)) as snapshot:
        assert "makes no clones" in snapshot.remark
        assert [] == list(snapshot.warnings)
        assert image_site.path.read_bytes() == whole(snapshot)
        assert [] == image_site.clones()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ETXTBSY, errno.ENOMEM])
def test_clone_that_fails_is_told_each_time(
    image_site: ImageSite, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The backup goes on in place; the previous clone stays, and no half one is left."""
    image_site.kept(1)

    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fiemap, "clone", refuse)
    for number in (2, 3):
        with image_site.source.snapshot(revision(number)) as snapshot:
            assert "" == snapshot.remark
            assert [failed(image_site, os.strerror(code))] == list(snapshot.warnings)
            assert View.IN_PLACE is snapshot.identity.view

    assert [image_site.clone(1)] == image_site.clones()


def test_clone_is_synced_and_then_its_name_before_anything_relies_on_it(
    image_site: ImageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the clone is by then: no byte of it, no mode and no name is left to a power cut."""
    synced: list[tuple[int, int]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        found = os.fstat(fd)
        real(fd)
        synced.append((found.st_ino, found.st_ctime_ns if stat.S_ISREG(found.st_mode) else 0))

    monkeypatch.setattr(os, "fsync", fsync)
    with image_site.source.snapshot(revision(1)):
        clone = image_site.clone(1).stat()
        assert [(clone.st_ino, clone.st_ctime_ns), (image_site.place.stat().st_ino, 0)] == synced


def test_clone_that_cannot_be_made_to_last_is_none(image_site: ImageSite) -> None:
    """A clone that a power cut could take is not relied on."""
    failpoint.install(Steps(fail_at="sync "))
    with image_site.source.snapshot(revision(1)) as snapshot:
        assert [failed(image_site, "Input/output error")] == list(snapshot.warnings)
        assert [] == image_site.clones()


@pytest.mark.parametrize("kind", ["other file system", "missing", "file"])
def test_clone_directory_that_does_not_fit_is_told_each_time(
    cloning_folder: Path, tmp_path: Path, kind: str
) -> None:
    """The operator asked for clones, so it is a warning; the image is read in place."""
    directory = tmp_path / "clones"
    if kind == "other file system":
        directory.mkdir()
        why = f"no clone can be made in {directory}, which must be on its file system"
    elif kind == "missing":
        why = f"no clone can be made in {directory} (No such file or directory)"
    else:
        directory.touch()
        why = f"no clone can be made in {directory} (Not a directory)"
    site = ImageSite(cloning_folder, directory=directory)
    with site.source.snapshot(revision(1)) as snapshot:
        assert "" == snapshot.remark
        assert [f"the image {site.path} is read in place, since {why}"] == list(snapshot.warnings)
        assert site.path.read_bytes() == whole(snapshot)

    assert [] == [one for one in (cloning_folder, tmp_path) if list(one.glob("**/.backy-*"))]


def test_clone_directory_for_an_image_without_clones_is_told_each_time(
    file_systems: FileSystems, tmp_path: Path
) -> None:
    """Who names a directory expects clones."""
    folder = file_systems("ext4").folder / tmp_path.name
    folder.mkdir()
    site = ImageSite(folder, directory=folder)
    with site.source.snapshot(revision(1)) as snapshot:
        assert [
            f"the image {site.path} is read in place, since its file system (ext4) makes no clones"
        ] == list(snapshot.warnings)


def test_read_only_file_system_is_told_each_time(file_systems: FileSystems, tmp_path: Path) -> None:
    """Nothing can be made there, and the image is read all the same."""
    disk = file_systems("xfs")
    folder = disk.folder / tmp_path.name
    folder.mkdir()
    site = ImageSite(folder)
    base = site.kept(1)
    disk.remount("ro")
    try:
        with site.source.snapshot(revision(2)) as snapshot:
            assert [failed(site, "Read-only file system")] == list(snapshot.warnings)
            assert site.path.read_bytes() == whole(snapshot)
        assert [] == list(site.prune(1))
    finally:
        disk.remount("rw")

    assert Changes(Confidence.HINT, []) == site.changes(3, base)


def test_full_file_system_is_told_each_time(file_systems: FileSystems, tmp_path: Path) -> None:
    """Without room for a name there is no clone, and the previous one stays."""
    disk = file_systems("xfs")
    folder = disk.folder / tmp_path.name
    folder.mkdir()
    site = ImageSite(folder)
    site.kept(1)
    with disk.filled(0), site.source.snapshot(revision(2)) as snapshot:
        assert site.path.read_bytes() == whole(snapshot)
        in_place = snapshot.identity.view is View.IN_PLACE
        assert in_place == bool(snapshot.warnings)

    assert [site.clone(1)] == site.clones()


def test_clones_can_be_switched_off(image_site: ImageSite) -> None:
    """Then nothing is remarked, and clones from before can still be removed."""
    image_site.kept(1)
    source = FileSource(str(image_site.path), Cloning(OWNER, wanted=False))
    with source.snapshot(revision(2)) as snapshot:
        assert View.IN_PLACE is snapshot.identity.view
        assert ("", []) == (snapshot.remark, list(snapshot.warnings))

    assert "" == source.place
    name = SnapshotName(revision(1))
    assert {name} == set(source.prune({name: str(image_site.folder)}))
    assert [] == image_site.clones()


def test_device_is_read_in_place(tmp_path: Path) -> None:
    """A block device has its own ways; nothing is remarked."""
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with loop_device(tmp_path / "disk") as device:
        source = FileSource(device, Cloning(OWNER))
        with source.snapshot(revision(1)) as snapshot:
            assert View.IN_PLACE is snapshot.identity.view
            assert ("", []) == (snapshot.remark, list(snapshot.warnings))
            assert Consistency.CONSISTENT is snapshot.consistency()
        assert "" == source.place
