"""Rot on a file system with checksums of its own: reads fail, and the content still comes back.

btrfs denies a block that has rotted (EIO), so nobody can prove that the chunk is bad or move it aside.
Whoever has the same content at hand puts it in its place.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashsite import noise
from loopdisk import Disk, mounted

from backy.domain.revision import Distrust, Trust
from damaging import chunk_file
from testsite import Site

pytestmark = [pytest.mark.proof("T8"), pytest.mark.root]

CHUNK = 64 << 10
FIRST, SECOND = noise(1, CHUNK), noise(2, CHUNK)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A btrfs."""
    with mounted(tmp_path, "btrfs", 160 << 20) as disk:
        yield disk


@pytest.fixture
def site(disk: Disk) -> Site:
    """A repository on it with one revision of two chunks, of which the first has rotted."""
    site = Site(disk.folder, chunk_size=CHUNK)
    site.codec = "none"
    site.image.write_bytes(FIRST + SECOND)
    site.backup()
    disk.overwrite(chunk_file(site, FIRST), 8192, b"rot")
    return site


def test_what_verify_cannot_read_heals_with_the_next_backup(site: Site) -> None:
    """Verify distrusts what needs it; the backup reads its hits, replaces it, and is good itself."""
    found = site.concluded().findings
    assert ["cannot be read: Input/output error" in one.why for one in found] == [True]
    assert [Distrust.STORE] == [one.distrust for one in site.history().revisions]

    made = site.backup()

    assert Trust.TRUSTED is made.trust
    assert [] == site.concluded().findings
    assert [Trust.VERIFIED] * 2 == [one.trust for one in site.history().revisions]
    assert [FIRST + SECOND] * 2 == [site.restored(one) for one in site.history().revisions]
    assert not (site.chunks / "distrusted").exists()
    assert [] == list((site.chunks / "quarantine").iterdir())


def test_repair_replaces_what_the_disk_does_not_give(site: Site) -> None:
    """It reads what is distrusted, and fills it from the image."""
    site.concluded()

    done = site.cli("repair")

    said = "0 damaged revisions, 1 distrusted revision, 1 chunk stored anew, 0 revisions still damaged\n"
    assert (0, said) == (done.returncode, done.stdout)
    assert [] == site.concluded().findings
    assert [Trust.VERIFIED] == [one.trust for one in site.history().revisions]


def test_repair_says_what_no_image_has_any_more(site: Site) -> None:
    """Where the content has changed since, the range is still lost, and the exit code is 1."""
    site.concluded()
    site.image.write_bytes(SECOND + SECOND)

    done = site.cli("repair")

    assert 1 == done.returncode
    assert f"0+{CHUNK}" in done.stdout
    assert [Distrust.STORE] == [one.distrust for one in site.history().revisions]


def test_a_revision_that_does_not_need_the_rotten_chunk_is_good(site: Site) -> None:
    """The store stays distrusted for the old revision, and the new one leans on nothing of it."""
    site.concluded()
    site.image.write_bytes(SECOND + SECOND)

    made = site.backup()

    assert Trust.TRUSTED is made.trust
    assert {made.uuid} == {one.uuid for one in site.history().revisions if one.is_good}
    assert SECOND + SECOND == site.restored(made)
    assert 1 == len(site.concluded().findings)
    assert (site.chunks / "distrusted").exists()


def test_a_delta_whose_base_has_rotted_heals_in_full(site: Site) -> None:
    """The base cannot be had any more, and the delta's content gets a file of its own."""
    changed = b"\x01" + FIRST[1:]
    site.image.write_bytes(changed + SECOND)
    leaning = site.backup()
    site.concluded()

    made = site.backup()

    assert changed + SECOND == site.restored(made)
    assert changed + SECOND == site.restored(leaning)
    first = site.history().revisions[0].uuid
    assert {first} == {one.revision for one in site.concluded().findings}
