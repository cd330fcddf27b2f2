"""T15 with the chunks of real stores: 4 MiB, to files and streams, and as sparse as the source was."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testsite import Site

CHUNK = 4 << 20
BLOCK = 4096


@pytest.fixture
def large(tmp_path: Path) -> Site:
    """A site with chunks as in production."""
    return Site(tmp_path, chunk_size=CHUNK)


def holes_everywhere(image: Path, granule: int, share: float, size: int) -> None:
    """An image of which that share of granules is random data and the rest holes."""
    numbers = random.Random(granule)
    with image.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, granule):
            if numbers.random() < share:
                file.seek(at)
                file.write(numbers.randbytes(granule)[: size - at])
        os.fsync(file.fileno())


@pytest.mark.parametrize("codec", ["lz4", "zstd:1", "none"])
@pytest.mark.parametrize("more", [-1, 0, 1, 513])
def test_sizes_around_a_real_chunk_restore(large: Site, codec: str, more: int) -> None:
    """c-1, c, c+1 and c+513 bytes, with every codec, read back from the disk."""
    large.codec = codec
    numbers = random.Random(more)
    large.image.write_bytes(numbers.randbytes(1 << 20) * 3 + bytes(CHUNK // 4 + more - 1) + b"e")
    revision = large.backup()
    target = large.folder / "out.raw"

    large.restore(revision, target, read_back=True)

    assert CHUNK + more == target.stat().st_size
    assert large.image.read_bytes() == target.read_bytes()


@pytest.mark.parametrize("old_size", [0, 1, 3 * CHUNK])
def test_an_existing_file_is_replaced_whole(large: Site, old_size: int) -> None:
    """Smaller or larger, what was in it is gone, its mode stays, and nothing else lies beside it."""
    holes_everywhere(large.image, 64 << 10, 0.5, CHUNK + 100)
    large.backup()
    target = large.folder / "target" / "out.raw"
    target.parent.mkdir()
    target.write_bytes(b"\xff" * old_size)
    target.chmod(0o644)

    done = large.cli("restore", "--read-back", str(target))

    assert (0, "") == (done.returncode, done.stderr)
    assert large.image.read_bytes() == target.read_bytes()
    assert 0o644 == target.stat().st_mode & 0o7777
    assert ["out.raw"] == os.listdir(target.parent)


def to_pipe(words: list[str], _folder: Path) -> bytes:
    """Standard output as a pipe."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout


def to_file(words: list[str], folder: Path) -> bytes:
    """Standard output as a file."""
    path = folder / "redirected"
    with path.open("wb") as file:
        subprocess.run(words, check=True, stdout=file)
    return path.read_bytes()


@pytest.mark.parametrize("stdout", [to_pipe, to_file])
def test_standard_output_gets_the_image_and_nothing_else(
    large: Site, stdout: Callable[[list[str], Path], bytes]
) -> None:
    """Zeros included, in order, without a closing line among them."""
    holes_everywhere(large.image, 64 << 10, 0.3, 3 * CHUNK - 7)
    large.backup()

    words = [sys.executable, "-m", "backy", "-b", str(large.job), "restore", "-"]
    assert large.image.read_bytes() == stdout(words, large.folder)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("granule", [BLOCK, 64 << 10])
def test_a_fresh_target_is_as_sparse_as_the_source(large: Site, granule: int, share: float) -> None:
    """At most 2 % more blocks than the source, with small holes, large holes, and next to none."""
    holes_everywhere(large.image, granule, share, 3 * CHUNK + BLOCK)
    revision = large.backup()
    target = large.folder / "out.raw"

    large.restore(revision, target)

    assert target.stat().st_blocks <= large.image.stat().st_blocks * 1.02
    assert large.image.read_bytes() == target.read_bytes()


def test_written_zeros_become_holes(large: Site) -> None:
    """A source that has zeros on its disk needs no blocks for them in the target."""
    large.image.write_bytes(bytes(2 * CHUNK))
    revision = large.backup()
    target = large.folder / "out.raw"

    large.restore(revision, target)

    assert (2 * CHUNK, 0) == (target.stat().st_size, target.stat().st_blocks)


def test_a_second_day_stores_only_what_changed(large: Site) -> None:
    """Both days restore; the unchanged chunk is stored once."""
    numbers = random.Random(1)
    first = numbers.randbytes(2 * CHUNK)
    second = first[:CHUNK] + numbers.randbytes(CHUNK // 2)
    revisions = []
    for content in (first, second):
        large.image.write_bytes(content)
        revisions.append(large.backup())

    assert [2, 1] == [one.stats.chunks_new for one in revisions]
    assert [first, second] == [large.restored(one) for one in revisions]
