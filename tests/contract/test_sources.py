"""What every source promises a backup: the image's bytes, its holes, and whether it is one instant.

One suite over files, sparse files, files in memory, clones on XFS and btrfs, block devices, images in
Ceph, and the fake that other tests use in their place.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from loopdisk import Disk

from backy.domain.revision import Consistency
from backy.ground.errors import SourceFailed
from backy.ground.linux import PAGE, Buffer
from backy.source.base import Owner, Snapshot, Source
from backy.source.file import Cloning, FileSource
from cephcluster import CephCluster
from fakes import FakeSource, loop_device
from rbdsite import RbdSite

REVISION = "11111111-1111-4111-8111-111111111111"
OWNER = Owner("22222222-2222-4222-8222-222222222222", "vm01")
C = 64 << 10
SIZES = [0, 1, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, C - 1, C, C + 1, 5 * C - 1, 5 * C, 5 * C + 1]
DEVICE_SIZES = [512, PAGE, C - 512, C, C + 512, 5 * C]


class Case(NamedTuple):
    """A source, and a way to change its image."""

    source: Source
    write: Callable[[int, bytes], None]


Make = Callable[[bytes, Path, ExitStack], Case]


def write_at(path: Path | str) -> Callable[[int, bytes], None]:
    """Writes into a file or device, to the disk."""

    def write(offset: int, content: bytes) -> None:
        fd = os.open(path, os.O_WRONLY)
        os.pwrite(fd, content, offset)
        os.fsync(fd)
        os.close(fd)

    return write


def regular(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A file without holes."""
    path = folder / "image"
    path.write_bytes(image)
    return Case(FileSource(str(path)), write_at(path))


def sparse(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A file with a hole wherever a page of the image is zero."""
    path = folder / "image"
    with path.open("wb") as file:
        file.truncate(len(image))
        for at in range(0, len(image), PAGE):
            if any(image[at : at + PAGE]):
                file.seek(at)
                file.write(image[at : at + PAGE])
    return Case(FileSource(str(path)), write_at(path))


def in_memory(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A sparse file on tmpfs."""
    path = Path("/dev/shm") / f"backy-source-{os.getpid()}"
    path.mkdir()
    stack.callback(path.rmdir)
    stack.callback((path / "image").unlink)
    return sparse(image, path, stack)


def linked(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A link to a file, as /dev/vg/lv is one to a device."""
    regular(image, folder, stack)
    (folder / "link").symlink_to("image")
    return Case(FileSource(str(folder / "link")), write_at(folder / "image"))


def device(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A block device."""
    (folder / "disk").write_bytes(image)
    path = stack.enter_context(loop_device(folder / "disk"))
    return Case(FileSource(path), write_at(path))


def fake(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """The stand-in."""
    source = FakeSource(image)
    return Case(source, source.write)


def cloned(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A file with holes that is read from a clone."""
    _, write = sparse(image, folder, stack)
    return Case(FileSource(str(folder / "image"), Cloning(OWNER)), write)


def on_xfs(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A clone on XFS."""
    return cloned(image, folder, stack)


def on_btrfs(image: bytes, folder: Path, stack: ExitStack) -> Case:
    """A clone on btrfs."""
    return cloned(image, folder, stack)


def in_ceph(image: bytes, cluster: CephCluster, stack: ExitStack) -> Case:
    """An image in Ceph, of which only the pages that are not zero were written."""
    site = RbdSite(cluster, size=len(image))
    stack.callback(site.close)
    site.write_sparsely(image)
    return Case(site.source, site.write)


DEVICE = pytest.param(device, marks=pytest.mark.root)
CLONES = [pytest.param(one, marks=pytest.mark.root) for one in (on_xfs, on_btrfs)]
KINDS = {on_xfs: "xfs", on_btrfs: "btrfs"}
FILES = [regular, sparse, in_memory, linked]
LIVE = [*FILES, fake, DEVICE]
FROZEN = [*CLONES, in_ceph]
EVERY = [*LIVE, *FROZEN]


@pytest.fixture
def make(
    request: pytest.FixtureRequest, tmp_path: Path, file_systems: Callable[[str], Disk]
) -> Iterator[Callable[[bytes], Case]]:
    """Makes the source that the test is parametrised with, of an image."""
    if request.node.get_closest_marker("root"):
        request.getfixturevalue("as_root")
    with ExitStack() as stack:
        folder = tmp_path
        if request.param is in_ceph:
            cluster = request.getfixturevalue("ceph")
            yield lambda image: in_ceph(image, cluster, stack)
            return
        if request.param in KINDS:
            folder = file_systems(KINDS[request.param]).folder / tmp_path.name
            folder.mkdir()
            stack.callback(shutil.rmtree, folder)
        yield lambda image: request.param(image, folder, stack)


def image_of(size: int) -> bytes:
    """An image with data, long runs of zeros, and single bytes in zeros."""
    draw = random.Random(size)
    pieces = [draw.randbytes(2 * PAGE), bytes(7 * PAGE), b"\0" * (PAGE - 1) + b"x", bytes(5 * PAGE + 11)]
    content = b""
    while len(content) < size:
        content += draw.choice(pieces)
    return content[:size]


def read(snapshot: Snapshot, offset: int, length: int, start: int = 0) -> bytes:
    """A range of the image, after checking that nothing was written outside its pages."""
    behind = start + -(-length // PAGE) * PAGE
    buffer = Buffer(behind + PAGE)
    buffer.fill(b"\xee" * buffer.size)
    snapshot.read(buffer, offset, length, start)
    assert b"\xee" * start == bytes(buffer.view[:start])
    assert b"\xee" * PAGE == bytes(buffer.view[behind : behind + PAGE])
    return bytes(buffer.view[start : start + length])


def read_whole(snapshot: Snapshot) -> bytes:
    """The image in pieces of C."""
    offsets = range(0, snapshot.size, C)
    return b"".join(read(snapshot, at, min(C, snapshot.size - at)) for at in offsets)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        *((kind, size) for kind in (*FILES, fake, in_ceph) for size in SIZES),
        *(pytest.param(device, size, marks=pytest.mark.root) for size in DEVICE_SIZES),
        *(pytest.param(kind, size, marks=pytest.mark.root) for kind in KINDS for size in SIZES),
    ],
    indirect=["make"],
)
def test_snapshot_reads_the_image(make: Callable[[bytes], Case], size: int) -> None:
    """Size and bytes are the image's, and every byte that is not zero lies in an extent."""
    image = image_of(size)
    with make(image).source.snapshot(REVISION) as snapshot:
        extents = list(snapshot.extents())
        covered = bytearray(size)
        for extent in extents:
            covered[extent.offset : extent.offset + extent.length] = b"\1" * extent.length

        assert size == snapshot.size
        assert image == read_whole(snapshot)
        assert all(extent.length > 0 for extent in extents)
        assert sorted(extents) == extents
        assert sum(extent.length for extent in extents) == sum(covered)
        assert [] == [at for at in range(size) if image[at] and not covered[at]]
        assert Consistency.CONSISTENT is snapshot.consistency()


@pytest.mark.parametrize("make", EVERY, indirect=True)
def test_any_page_aligned_range_is_read(make: Callable[[bytes], Case]) -> None:
    """Reads may begin at any page, end anywhere, and come from many threads."""
    image = image_of(4 * C)
    draw = random.Random(1)
    ranges = [(draw.randrange(4 * C // PAGE) * PAGE, draw.randrange(1, 2 * C)) for _ in range(60)]
    ranges = [(offset, min(length, len(image) - offset)) for offset, length in ranges]
    with make(image).source.snapshot(REVISION) as snapshot, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: read(snapshot, *one), ranges))

    assert [image[offset : offset + length] for offset, length in ranges] == found


@pytest.mark.parametrize("make", EVERY, indirect=True)
def test_any_range_is_read_to_any_page_of_the_buffer(make: Callable[[bytes], Case]) -> None:
    """Changed blocks are read to their place in a chunk, and nothing else there is touched."""
    image = image_of(C + 11)
    with make(bytes(image + bytes(-len(image) % 512))).source.snapshot(REVISION) as snapshot:
        for offset, length, start in [
            (0, PAGE, 3 * PAGE),
            (2 * PAGE, 5, PAGE),
            (C, 11, 0),
            (C, 11, PAGE),
        ]:
            assert image[offset : offset + length] == read(snapshot, offset, length, start)


@pytest.mark.parametrize("make", [sparse, in_memory, fake, *CLONES], indirect=True)
def test_holes_are_in_no_extent(make: Callable[[bytes], Case]) -> None:
    """What was never written need not be read; the estimate of the data counts no hole."""
    image = b"x" * PAGE + bytes(64 * PAGE) + b"y" * PAGE
    with make(image).source.snapshot(REVISION) as snapshot:
        assert [(0, PAGE), (65 * PAGE, PAGE)] == [tuple(extent) for extent in snapshot.extents()]
        assert 2 * PAGE == snapshot.data_size


@pytest.mark.parametrize("make", [sparse, in_memory, fake, *FROZEN], indirect=True)
@pytest.mark.parametrize("size", [1, PAGE, 50 * PAGE + 5])
def test_image_of_zeros_may_have_no_extent(make: Callable[[bytes], Case], size: int) -> None:
    """A hole from beginning to end is an image too."""
    with make(bytes(size)).source.snapshot(REVISION) as snapshot:
        assert [] == list(snapshot.extents())
        assert bytes(size) == read_whole(snapshot)


@pytest.mark.parametrize("make", LIVE, indirect=True)
@pytest.mark.parametrize("when", ["before the reads", "after the reads"])
def test_image_that_is_written_during_the_snapshot_is_torn(
    make: Callable[[bytes], Case], when: str
) -> None:
    """One changed sector between begin and end is noticed, whether it was read already or not."""
    case = make(image_of(2 * C))
    with case.source.snapshot(REVISION) as snapshot:
        if when == "before the reads":
            case.write(C, b"n" * 512)
        read_whole(snapshot)
        if when == "after the reads":
            case.write(C, b"n" * 512)
        assert Consistency.TORN is snapshot.consistency()


@pytest.mark.parametrize("make", FROZEN, indirect=True)
def test_image_that_is_written_during_a_frozen_view_is_not_seen(
    make: Callable[[bytes], Case],
) -> None:
    """A clone or a snapshot is one instant, whatever happens to the image afterwards."""
    image = image_of(2 * C)
    case = make(image)
    with case.source.snapshot(REVISION) as snapshot:
        case.write(C, b"n" * 512)
        assert image == read_whole(snapshot)
        assert Consistency.CONSISTENT is snapshot.consistency()


@pytest.mark.parametrize("make", EVERY, indirect=True)
def test_image_that_was_written_just_before_is_consistent(make: Callable[[bytes], Case]) -> None:
    """What happened before the snapshot began does not count, however short before."""
    case = make(image_of(2 * C))
    case.write(0, b"n" * 512)
    with case.source.snapshot(REVISION) as snapshot:
        assert b"n" * 512 == read_whole(snapshot)[:512]
        assert Consistency.CONSISTENT is snapshot.consistency()


@pytest.mark.parametrize("make", EVERY, indirect=True)
def test_snapshots_follow_each_other(make: Callable[[bytes], Case]) -> None:
    """A source may be read again, and the next snapshot sees what was written between."""
    case = make(bytes(C))
    with case.source.snapshot(REVISION) as snapshot:
        assert bytes(C) == read_whole(snapshot)
    case.write(PAGE, b"n" * 512)
    with case.source.snapshot(REVISION) as snapshot:
        assert bytes(PAGE) + b"n" * 512 == read_whole(snapshot)[: PAGE + 512]


@pytest.mark.parametrize("make", EVERY, indirect=True)
def test_read_beyond_the_end_fails(make: Callable[[bytes], Case]) -> None:
    """A short read is never filled up with old bytes: the error names the byte at which it ended."""
    source = make(image_of(2 * C)).source
    with (
        source.snapshot(REVISION) as snapshot,
        pytest.raises(SourceFailed, match="no revision was made"),
    ):
        snapshot.read(Buffer(2 * C), C, 2 * C)


@pytest.mark.parametrize("make", EVERY, indirect=True)
def test_identity_names_type_and_size(make: Callable[[bytes], Case]) -> None:
    """Later runs can tell whether it is still the same thing that they read."""
    with make(image_of(2 * C)).source.snapshot(REVISION) as snapshot:
        assert 2 * C == snapshot.identity.size
        assert snapshot.identity.type in ("file", "fake", "rbd")
