"""Clones of image files on real XFS and btrfs: what is made and kept, and what has changed since."""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from loopdisk import Disk

from backy.domain.extents import Extent
from backy.domain.revision import Kept, SourceIdentity, View
from backy.ground import fiemap
from backy.ground.linux import PAGE
from backy.source.base import Base, Changes, Confidence
from backy.source.compare import compare
from backy.source.file import Cloning, FileSource
from cloning import OWNER, SIZE, ImageSite, revision, whole

pytestmark = pytest.mark.root

FileSystems = Callable[[str], Disk]

# linux/fs.h
GETFLAGS, SETFLAGS, NO_COPY_ON_WRITE = 0x80086601, 0x40086602, 0x800000


# ..What is made..............................................................................


def test_clone_is_what_is_read(image_site: ImageSite) -> None:
    """The clone lies beside the image, under the revision's name, readable only, and says so."""
    with image_site.source.snapshot(revision(1)) as snapshot:
        found = image_site.clone(1).stat()
        image = image_site.path.stat()
        assert 0o400 == stat.S_IMODE(found.st_mode)
        assert (
            SourceIdentity(
                type="file",
                path=str(image_site.path),
                inode=image.st_ino,
                changed_ns=image.st_ctime_ns,
                size=SIZE,
                view=View.CLONE,
                kept=Kept(
                    path=str(image_site.clone(1)),
                    inode=found.st_ino,
                    changed_ns=found.st_ctime_ns,
                    size=SIZE,
                ),
            )
            == snapshot.identity
        )
        assert ("", []) == (snapshot.remark, list(snapshot.warnings))
        assert image_site.path.read_bytes() == whole(snapshot)


def test_clone_goes_unless_it_is_kept(image_site: ImageSite) -> None:
    """After a backup that fails, or says nothing, the directory is as it was."""
    with image_site.source.snapshot(revision(1)):
        assert [image_site.clone(1)] == image_site.clones()
    with pytest.raises(KeyboardInterrupt), image_site.source.snapshot(revision(2)):
        raise KeyboardInterrupt

    assert [] == image_site.clones()


def test_clone_that_was_kept_stays_whatever_follows(image_site: ImageSite) -> None:
    """The record is committed by then, and relies on it."""
    with suppress(KeyboardInterrupt), image_site.source.snapshot(revision(1)) as snapshot:
        snapshot.keep()
        raise KeyboardInterrupt

    assert [image_site.clone(1)] == image_site.clones()


def test_looking_makes_no_clone(image_site: ImageSite) -> None:
    """Repair reads the image itself."""
    with image_site.source.live() as snapshot:
        assert View.IN_PLACE is snapshot.identity.view
        assert [] == image_site.clones()


def test_links_lead_to_the_directory_of_the_image(image_site: ImageSite, tmp_path: Path) -> None:
    """A link elsewhere does not matter: the clone has to lie on the image's file system."""
    (tmp_path / "link").symlink_to(image_site.path)
    source = FileSource(str(tmp_path / "link"), Cloning(OWNER))
    with source.snapshot(revision(1)) as snapshot:
        assert [image_site.clone(1)] == image_site.clones()
        assert str(tmp_path / "link") == snapshot.identity.path

    assert str(image_site.folder) == source.place


def test_clone_lies_where_the_operator_says(cloning_folder: Path) -> None:
    """The clone directory may be any directory of the same file system."""
    (cloning_folder / "clones").mkdir()
    site = ImageSite(cloning_folder, directory=cloning_folder / "clones")
    site.kept(1)

    assert [site.clone(1)] == site.clones()
    assert str(cloning_folder / "clones") == site.source.place


def test_image_without_copy_on_write_is_cloned(file_systems: FileSystems, tmp_path: Path) -> None:
    """Btrfs clones only between files that agree about `chattr +C`, which images often have."""
    folder = file_systems("btrfs").folder / tmp_path.name
    folder.mkdir()
    path = folder / "image"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    flags = int.from_bytes(fcntl.ioctl(fd, GETFLAGS, bytes(4)), "little")
    fcntl.ioctl(fd, SETFLAGS, (flags | NO_COPY_ON_WRITE).to_bytes(4, "little"))
    os.pwrite(fd, b"x" * SIZE, 0)
    source = FileSource(str(path), Cloning(OWNER))
    with source.snapshot(revision(1)) as snapshot:
        base = Base(revision(1), snapshot.identity)
        snapshot.keep()
    os.pwrite(fd, b"y" * PAGE, 0)
    os.close(fd)
    with source.snapshot(revision(2)) as snapshot:
        assert Changes(Confidence.HINT, [Extent(0, PAGE)]) == snapshot.extents_since(base)


def test_slow_clone_is_told(image_site: ImageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine could not write for so long, and there is a cure."""
    now = iter([0.0, 3.2])
    monkeypatch.setattr("backy.source.clone.time.monotonic", lambda: next(now))
    with image_site.source.snapshot(revision(1)) as snapshot:
        assert 3.2 == snapshot.seconds
        assert 1 == len(snapshot.warnings)
        assert "took 3.2 s" in snapshot.warnings[0]


# ..What has changed..........................................................................


def test_nothing_has_changed(image_site: ImageSite) -> None:
    """An image that rests costs nothing."""
    assert Changes(Confidence.HINT, []) == image_site.changes(2, image_site.kept(1))


def test_changed_blocks_are_told_exactly(image_site: ImageSite) -> None:
    """What was written, and nothing else, in the order of the image."""
    base = image_site.kept(1)
    image_site.write(9 * PAGE, b"n" * PAGE)
    image_site.write(3 * PAGE + 5, b"n" * 10)
    image_site.write(10 * PAGE, b"n" * 2 * PAGE)

    expected = [Extent(3 * PAGE, PAGE), Extent(9 * PAGE, 3 * PAGE)]
    assert Changes(Confidence.HINT, expected) == image_site.changes(2, base)


def test_block_that_is_written_twice_is_told_twice(image_site: ImageSite) -> None:
    """The second write goes to the same new place; the clone between shares it, so it moves."""
    for number in range(1, 6):
        base = image_site.kept(number)
        image_site.write(PAGE, os.urandom(PAGE))
        assert Changes(Confidence.HINT, [Extent(PAGE, PAGE)]) == image_site.changes(100 + number, base)
        assert [revision(number)] == list(image_site.prune(number))


def test_small_answers_of_the_kernel_make_no_difference(image_site: ImageSite) -> None:
    """Maps that do not fit into one answer are compared in windows."""
    image_site.kept(1)
    for block in range(0, 64, 3):
        image_site.write(block * PAGE, b"n" * PAGE)
    image_site.kept(2)
    old, new = (os.open(image_site.clone(number), os.O_RDONLY) for number in (1, 2))

    expected = [Extent(block * PAGE, PAGE) for block in range(0, 64, 3)]
    assert [expected] * 4 == [compare(old, new, SIZE, batch=batch) for batch in (1, 2, 5, 16384)]
    os.close(old)
    os.close(new)


def reason(changes: Changes) -> str:
    """Why nothing is known."""
    assert Confidence.NONE is changes.confidence
    assert [] == list(changes.extents)
    return changes.why


def alter(path: Path) -> None:
    """What somebody does who does not know what the file is for."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"altered")


def replace(path: Path) -> None:
    """Another file of the same content and size."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def relink(path: Path) -> None:
    """A link to what was the clone."""
    path.rename(path.parent / "moved")
    path.symlink_to(path.parent / "moved")


def fifo(path: Path) -> None:
    """Something on which an open would wait."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (Path.unlink, "the parent's clone is gone"),
        (alter, "the parent's clone was altered"),
        (os.utime, "the parent's clone was altered"),
        (lambda path: os.truncate(path, SIZE - PAGE), "the parent's clone was altered"),
        (replace, "the parent's clone was altered"),
        (relink, "the parent's clone cannot be opened (Too many levels of symbolic links)"),
        (fifo, "the parent's clone was altered"),
    ],
)
def test_clone_that_was_touched_between_runs_is_no_base(
    image_site: ImageSite, spoil: Callable[[Path], object], why: str
) -> None:
    """A clone that was removed, written, replaced or linked tells nothing about its revision."""
    base = image_site.kept(1)
    spoil(image_site.clone(1))

    assert why == reason(image_site.changes(2, base))


def test_clone_that_is_touched_during_the_comparison_is_no_base(
    image_site: ImageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compared then is not what the revision was read from."""
    base = image_site.kept(1)

    def meddled(*_: object) -> list[Extent]:
        alter(image_site.clone(1))
        return []

    monkeypatch.setattr("backy.source.clone.compare", meddled)

    assert "the parent's clone was altered meanwhile" == reason(image_site.changes(2, base))


def renamed_over(site: ImageSite) -> None:
    """A restore puts another file in the image's place."""
    (site.folder / "other").write_bytes(site.path.read_bytes())
    (site.folder / "other").rename(site.path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (renamed_over, "the image is another file than the parent's"),
        (
            lambda site: os.truncate(site.path, SIZE - 1),
            f"the image had {SIZE} bytes and has {SIZE - 1} now",
        ),
        (
            lambda site: os.truncate(site.path, SIZE + 1),
            f"the image had {SIZE} bytes and has {SIZE + 1} now",
        ),
    ],
)
def test_image_that_was_replaced_or_resized_is_read_whole(
    image_site: ImageSite, change: Callable[[ImageSite], None], why: str
) -> None:
    """Another inode or another size means that nothing is known."""
    base = image_site.kept(1)
    change(image_site)

    assert why == reason(image_site.changes(2, base))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"view": View.IN_PLACE}, "the parent was not read from a clone"),
        ({"view": None}, "the parent was not read from a clone"),
        ({"kept": None}, "the parent was not read from a clone"),
        ({"path": "/elsewhere"}, "the image is another file than the parent's"),
    ],
)
def test_record_that_says_something_else_is_no_base(
    image_site: ImageSite, change: dict[str, object], why: str
) -> None:
    """Records of older versions, of other sources and of images in place know no clone."""
    base = image_site.kept(1)
    base = base._replace(source=msgspec.structs.replace(base.source, **change))

    assert why == reason(image_site.changes(2, base))


def test_clone_of_another_revision_is_no_base(image_site: ImageSite) -> None:
    """A clone tells about the revision in its name only."""
    base = image_site.kept(1)

    assert "the parent's clone is not this job's" == reason(
        image_site.changes(2, base._replace(revision=revision(9)))
    )


def test_clone_on_another_file_system_is_no_base(image_site: ImageSite, tmp_path: Path) -> None:
    """Offsets of different disks say nothing about each other."""
    base = image_site.kept(1)
    kept = base.source.kept
    assert kept is not None
    copy = tmp_path / image_site.clone(1).name
    copy.write_bytes(image_site.clone(1).read_bytes())
    found = copy.stat()
    kept = msgspec.structs.replace(
        kept, path=str(copy), inode=found.st_ino, changed_ns=found.st_ctime_ns
    )
    base = base._replace(source=msgspec.structs.replace(base.source, kept=kept))

    assert "the parent's clone lies on another file system" == reason(image_site.changes(2, base))


def test_file_system_that_does_not_answer_is_no_base(
    image_site: ImageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then everything is read, and the reason is told."""
    base = image_site.kept(1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fiemap, "where", refuse)

    assert "the file system does not tell where its blocks lie (Operation not supported)" == reason(
        image_site.changes(2, base)
    )


@pytest.mark.proof("T23")
@pytest.mark.parametrize(
    "extents", [20_000, pytest.param(100_000, marks=pytest.mark.torture(weight=0.4, whole=True))]
)
def test_many_extents_are_compared(file_systems: FileSystems, tmp_path: Path, extents: int) -> None:
    """A fragmented image: each changed block is found, and no other."""
    folder = file_systems("xfs").folder / tmp_path.name
    folder.mkdir()
    site = ImageSite(folder, size=1)
    os.truncate(site.path, extents * 2 * PAGE)
    fd = os.open(site.path, os.O_WRONLY)
    for number in range(extents):
        os.pwrite(fd, b"x", number * 2 * PAGE)
    base = site.kept(1)
    changed = range(0, extents, 1000)
    for number in changed:
        os.pwrite(fd, b"y", number * 2 * PAGE)
    os.close(fd)
    found = site.changes(2, base)
    shutil.rmtree(folder)

    expected = [Extent(number * 2 * PAGE, PAGE) for number in changed]
    assert Changes(Confidence.HINT, expected) == found
