"""T6, F6: a write that the disk lost is found, although the page cache still holds the good bytes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashsite import noise
from loopdisk import Disk, mounted

from backy.domain.revision import Trust
from backy.ground import failpoint
from backy.ground.errors import ReadBackDiffers
from backy.operation.verify import Kind
from testsite import CHUNK, Site

pytestmark = [pytest.mark.proof("T6"), pytest.mark.root]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system whose disk can be changed under its page cache."""
    with mounted(tmp_path, "ext4", 64 << 20) as one:
        yield one


def cached(path: Path) -> bytes:
    """A file's bytes, which lie in the page cache afterwards."""
    return path.read_bytes()


def test_verify_finds_a_chunk_that_only_the_page_cache_has(disk: Disk) -> None:
    """Verify reads the disk: the cached copy, which any other reader gets, proves nothing."""
    site = Site(disk.folder)
    site.image.write_bytes(noise(1, 8 * CHUNK))
    revision = site.backup()
    for path in site.chunk_files():
        cached(path)
    victim = site.chunk_files()[3]
    good = cached(victim)

    disk.overwrite(victim, 100, b"rotten")

    assert good == cached(victim)
    assert site.image.read_bytes() == site.restored(revision)
    for quick in (False, True):
        result = site.verify(quick=quick)
        assert [(Kind.CHUNK, victim.name)] == [(one.kind, one.chunk) for one in result.findings]
        assert good == cached(victim)


@pytest.mark.parametrize("at", [100, 200, -5], ids=["header", "page", "table"])
def test_verify_finds_a_map_that_only_the_page_cache_has(disk: Disk, at: int) -> None:
    """And its revision is marked as lost, although whoever reads through the cache can restore it."""
    site = Site(disk.folder)
    site.image.write_bytes(noise(1, 8 * CHUNK))
    revision = site.backup()
    victim = site.job / f"{revision.uuid}.map"
    good = cached(victim)

    disk.overwrite(victim, at % len(good), b"rotte")

    assert good == cached(victim)
    assert site.image.read_bytes() == site.restored(revision)
    for quick in (True, False):
        assert [Kind.MAP] == [one.kind for one in site.concluded(quick=quick).findings]
        assert good == cached(victim)
        (now,) = site.history().revisions
        assert (Trust.TRUSTED, revision.image_size) == (now.trust, now.damaged)


def test_read_back_finds_a_target_that_only_the_page_cache_has(disk: Disk, tmp_path: Path) -> None:
    """`restore --read-back` compares what the disk holds, and says which bytes differ."""
    site = Site(tmp_path)
    site.image.write_bytes(noise(1, 8 * CHUNK))
    revision = site.backup()
    target = disk.folder / "target.raw"
    seen = []

    def lose(step: str) -> None:
        if step.startswith("sync directory of"):
            seen.append(cached(target))
            disk.overwrite(target, 5 * CHUNK + 7, b"rotten")

    failpoint.install(lose)
    with pytest.raises(ReadBackDiffers) as caught:
        site.restore(revision, target, read_back=True)

    assert [site.image.read_bytes()] == seen
    assert site.image.read_bytes() == cached(target)
    assert (5 * CHUNK, CHUNK) == (caught.value.offset, caught.value.length)
