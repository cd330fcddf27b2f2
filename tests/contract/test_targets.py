"""What every target promises a restore: the image and nothing but the image, whatever was there before.

One suite over files new and old, block devices full of 0xFF, images in Ceph new and old, and streams to
files and pipes. Each is given the same images by the same calls as a restore makes; what it holds
afterwards is compared with the image.
"""

import functools
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from backy.domain.rbd_settings import RbdSettings
from backy.ground.errors import TargetFailed
from backy.ground.linux import Buffer
from backy.ground.rbd import Pool
from backy.target.base import Target
from backy.target.device import DeviceTarget
from backy.target.file import FileTarget
from backy.target.rbd import RbdTarget
from backy.target.stream import StreamTarget
from cephcluster import CephCluster
from fakes import loop_device

C = 64 << 10
SIZES = [
    0,
    1,
    511,
    512,
    513,
    4095,
    4096,
    4097,
    C - 1,
    C,
    C + 1,
    3 * C - 1,
    3 * C,
    3 * C + 1,
    5 * C + 512,
]
SPACE = 8 * C  # bytes of a device, and of the larger old file
OLD = b"\xff"
NUMBERS = itertools.count()


class Case(NamedTuple):
    """A target, and a way to learn what it holds."""

    target: Target
    contents: Callable[[], bytes]
    """All bytes, once the target is finished and closed."""
    rest: bytes
    """What stays behind the image: a device is larger than an image may be."""


def new_file(folder: Path, stack: ExitStack) -> Case:
    """A file that is not there yet."""
    return Case(FileTarget(str(folder / "image")), (folder / "image").read_bytes, b"")


def larger_file(folder: Path, stack: ExitStack) -> Case:
    """A file full of 0xFF that is larger than any image here."""
    (folder / "image").write_bytes(OLD * SPACE)
    return new_file(folder, stack)


def smaller_file(folder: Path, stack: ExitStack) -> Case:
    """A file with a few old bytes."""
    (folder / "image").write_bytes(OLD * 700)
    return new_file(folder, stack)


def linked_file(folder: Path, stack: ExitStack) -> Case:
    """A link to an old file."""
    (folder / "real").write_bytes(OLD * SPACE)
    (folder / "image").symlink_to("real")
    return new_file(folder, stack)


def device(folder: Path, stack: ExitStack, sector: int = 512) -> Case:
    """A block device full of 0xFF."""
    disk = folder / "disk"
    disk.write_bytes(OLD * SPACE)
    path = stack.enter_context(loop_device(disk, sector=sector))
    return Case(DeviceTarget(path), disk.read_bytes, OLD * SPACE)


def device_4k(folder: Path, stack: ExitStack) -> Case:
    """A block device with sectors of 4 KiB."""
    return device(folder, stack, sector=4096)


def redirected(folder: Path, stack: ExitStack) -> Case:
    """Standard output that goes to a file."""
    file = stack.enter_context((folder / "image").open("wb"))
    return Case(StreamTarget(file.fileno()), (folder / "image").read_bytes, b"")


def pipe(folder: Path, stack: ExitStack) -> Case:
    """Standard output that goes to another program."""
    reading, writing = os.pipe()
    received = bytearray()

    def receive() -> None:
        with os.fdopen(reading, "rb") as file:
            received.extend(file.read())

    reader = threading.Thread(target=receive)
    reader.start()

    def contents() -> bytes:
        os.close(writing)
        reader.join()
        return bytes(received)

    return Case(StreamTarget(writing), contents, b"")


def new_image(folder: Path, stack: ExitStack, ceph: CephCluster, old: int | None = None) -> Case:
    """An image in Ceph, overwritten if there is an `old` one, of that size and full of 0xFF."""
    name = f"image{next(NUMBERS)}"
    pool = stack.enter_context(ceph.pool(images_pool(ceph)))
    if old is not None:
        pool.create(name, old)
        with pool.image(name, read_only=False) as image:
            image.write(OLD * old, 0)
    settings = RbdSettings(pool.name, name, conf=str(ceph.conf))
    target = RbdTarget(settings, overwrite=old is not None)
    return Case(target, lambda: image_bytes(pool, name), b"")


def larger_image(folder: Path, stack: ExitStack, ceph: CephCluster) -> Case:
    """An image in Ceph that is full of 0xFF and larger than any image here."""
    return new_image(folder, stack, ceph, old=SPACE)


def smaller_image(folder: Path, stack: ExitStack, ceph: CephCluster) -> Case:
    """An image in Ceph with a few old bytes."""
    return new_image(folder, stack, ceph, old=700)


@functools.cache
def images_pool(ceph: CephCluster) -> str:
    """One pool for all images here: to make one takes longer than a test."""
    return ceph.new_pool()


def image_bytes(pool: Pool, name: str) -> bytes:
    """All bytes of an image in Ceph."""
    with pool.image(name) as image:
        buffer = Buffer(max(image.size, 1))
        image.read(buffer, 0, image.size)
        return bytes(buffer.view[: image.size])


FILES = [new_file, larger_file, smaller_file, linked_file]
DEVICES = [pytest.param(one, marks=pytest.mark.root) for one in (device, device_4k)]
IMAGES = [new_image, larger_image, smaller_image]
STREAMS = [redirected, pipe]


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """The target that the test is parametrised with."""
    if request.node.get_closest_marker("root"):
        request.getfixturevalue("as_root")
    with ExitStack() as stack:
        more = [request.getfixturevalue("ceph")] if request.param in IMAGES else []
        found: Case = request.param(tmp_path, stack, *more)
        yield found
        found.target.close()


def image_of(size: int, seed: int = 0) -> bytes:
    """An image with chunks of data, of zeros, and of both."""
    draw = random.Random(size + seed)
    chunks = []
    for number in range(-(-size // C)):
        data = draw.randbytes(C)
        mixed = bytes(8192) + data[: C // 2] + bytes(C // 2 - 8192 - 1) + b"x"
        chunks.append([data, bytes(C), mixed][number % 3])
    return b"".join(chunks)[:size]


def restore(target: Target, image: bytes, *, threads: int = 1, seed: int | None = None) -> None:
    """Write an image as a restore does: zero chunks by `zero`, others from a buffer of their own."""
    target.begin(len(image))
    offsets = list(range(0, len(image), C))
    if seed is not None and not target.in_order:
        random.Random(seed).shuffle(offsets)

    def put(offset: int) -> None:
        plain = image[offset : offset + C]
        if not any(plain):
            target.zero(offset, len(plain))
            return
        buffer = Buffer(C)
        buffer.fill(plain + OLD * (C - len(plain)))
        target.write(buffer, offset, len(plain))

    with ThreadPoolExecutor(1 if target.in_order else threads) as pool:
        list(pool.map(put, offsets))
    target.finish()


def held(case: Case, size: int) -> bytes:
    """The bytes of the image that a target holds, after checking that the rest is as it was."""
    contents = case.contents()
    assert case.rest[size:] == contents[size:]
    return contents[:size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", [*FILES, *DEVICES, *STREAMS], indirect=True)
def test_target_holds_the_image(case: Case, size: int) -> None:
    """An image of any size is there bit for bit, zeros included, and nothing behind it changed."""
    image = image_of(size)
    restore(case.target, image)
    case.target.close()

    assert image == held(case, size)


@pytest.mark.parametrize("size", [0, 1, 4097, 3 * C - 1, SIZES[-1]])
@pytest.mark.parametrize("case", IMAGES, indirect=True)
def test_image_in_ceph_holds_the_image(case: Case, size: int) -> None:
    """The same, with fewer sizes: each takes a connection."""
    test_target_holds_the_image(case, size)


@pytest.mark.parametrize("case", [*FILES, *DEVICES, *IMAGES], indirect=True)
def test_target_takes_chunks_in_any_order_from_threads(case: Case) -> None:
    """Where `in_order` is False, several threads may write at any offsets."""
    image = image_of(7 * C + 513)
    restore(case.target, image, threads=4, seed=3)
    case.target.close()

    assert image == held(case, len(image))


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("case", [*FILES, *DEVICES, *IMAGES, *STREAMS], indirect=True)
def test_target_of_one_value_holds_it(case: Case, fill: bytes) -> None:
    """An image of nothing but zeros, or nothing but ones, replaces all that was there."""
    image = fill * (4 * C + 700)
    restore(case.target, image)
    case.target.close()

    assert image == held(case, len(image))


@pytest.mark.parametrize("case", [*FILES, *DEVICES, *IMAGES], indirect=True)
def test_target_can_be_read_back(case: Case) -> None:
    """After `finish`, every range gives what was written, and less only at the image's end."""
    image = image_of(3 * C + 513)
    restore(case.target, image)
    buffer = Buffer(C)
    for offset in range(0, len(image), C):
        plain = image[offset : offset + C]
        assert len(plain) == case.target.read_back(buffer, offset, len(plain))
        assert plain == bytes(buffer.view[: len(plain)])


@pytest.mark.parametrize("case", [*FILES, *DEVICES, *IMAGES], indirect=True)
def test_what_is_called_a_hole_reads_as_zeros(case: Case) -> None:
    """No range with data in it is one, at whatever page it begins and ends."""
    image = bytes(3 * C) + b"x" + bytes(3 * C - 1) + b"y" * 513
    restore(case.target, image)
    ends = [*range(0, len(image), C), len(image)]

    for start, stop in itertools.combinations(ends, 2):
        assert not case.target.is_hole(start, stop - start) or not any(image[start:stop])
    is_sparse = isinstance(case.target, FileTarget)  # objects of images are larger than this
    assert is_sparse is case.target.is_hole(0, 3 * C)


def test_nothing_is_a_hole_behind_the_end_of_a_file(tmp_path: Path) -> None:
    """A file that somebody cut short meanwhile does not pass for zeros."""
    target = FileTarget(str(tmp_path / "image"))
    restore(target, bytes(4 * C))
    os.truncate(tmp_path / "image", 3 * C)

    assert target.is_hole(0, 3 * C)
    assert not target.is_hole(0, 4 * C)
    assert not target.is_hole(3 * C, C)
    target.close()


@pytest.mark.parametrize("case", STREAMS, indirect=True)
def test_stream_cannot_be_read_back(case: Case) -> None:
    """What has left the process is not ours to read."""
    restore(case.target, b"x")
    with pytest.raises(TargetFailed, match="cannot be read back"):
        case.target.read_back(Buffer(C), 0, 1)
    case.contents()


@pytest.mark.parametrize("case", [*FILES, *DEVICES, *IMAGES], indirect=True)
def test_target_that_was_not_begun_refuses(case: Case) -> None:
    """Calls before `begin` are errors and touch nothing; `close` is not."""
    case.target.close()
    with pytest.raises(TargetFailed, match="has not been begun"):
        case.target.finish()


@pytest.mark.parametrize("case", [*FILES, *DEVICES, *IMAGES], indirect=True)
def test_target_leaves_no_descriptor(case: Case) -> None:
    """After `close`, which may come twice, nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    restore(case.target, image_of(C + 1))
    case.target.close()
    case.target.close()

    assert before == len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("case", [*FILES, *DEVICES, *IMAGES, *STREAMS], indirect=True)
def test_target_says_whether_it_needs_order(case: Case) -> None:
    """Only streams do."""
    assert isinstance(case.target, StreamTarget) is case.target.in_order
    if isinstance(case.target, StreamTarget):
        case.contents()
