"""Deltas as a backup writes them: when, on which base, and what comes back."""

import random
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry
from backy.domain.revision import Revision
from backy.ground.linux import PAGE
from backy.operation import parallel
from backy.repository import layout, maps
from testsite import Site

C = 64 << 10
NOISE = random.Random(11)


@pytest.fixture
def large(tmp_path: Path) -> Site:
    """A site with chunks of 16 blocks, and an image of four of them that do not compress."""
    site = Site(tmp_path, chunk_size=C)
    site.image.write_bytes(NOISE.randbytes(4 * C))
    return site


def change(site: Site, *blocks: int) -> None:
    """Write noise into blocks of the image."""
    with site.image.open("r+b") as file:
        for block in blocks:
            file.seek(block * PAGE)
            file.write(NOISE.randbytes(PAGE))


def chunk_of(site: Site, index: int) -> str:
    """The id of a chunk of the image."""
    return chunk_id(site.image.read_bytes()[index * C : (index + 1) * C]).hex()


def deltas(site: Site) -> list[str]:
    """Names of the delta chunks in the store."""
    return [path.name for path in site.chunk_files() if "." in path.name]


def check(site: Site, *revisions: tuple[Revision, bytes]) -> None:
    """Revisions restore to these bytes, and verify finds nothing."""
    for revision, image in revisions:
        assert image == site.restored(revision)
    assert [] == list(site.verify().findings)


def test_a_changed_block_is_stored_as_a_delta_on_the_parents_chunk(large: Site) -> None:
    """Its name holds its base, it takes little more than the block, and both days restore."""
    before, base = large.image.read_bytes(), chunk_of(large, 1)
    first = large.backup()
    change(large, 17)

    second = large.backup()

    assert [f"{chunk_of(large, 1)}.{base}"] == deltas(large)
    assert PAGE < second.stats.bytes_written < PAGE + 200
    assert (1, 1, 3) == (
        second.stats.chunks_new,
        second.stats.chunks_delta,
        second.stats.chunks_hit,
    )
    assert (C, C) == (second.stats.bytes_changed, second.stats.bytes_new)
    check(large, (first, before), (second, large.image.read_bytes()))


def test_the_next_delta_stands_on_the_same_full_base(large: Site) -> None:
    """Depth one: three days on, each delta has all that changed since the base."""
    base = chunk_of(large, 0)
    large.backup()
    for day in range(3):
        change(large, day)
        revision = large.backup()

        assert f"{chunk_of(large, 0)}.{base}" in deltas(large)
        assert (day + 1) * PAGE < revision.stats.bytes_written < (day + 1) * PAGE + 200
    assert 3 == len(deltas(large))
    check(large, (revision, large.image.read_bytes()))


def test_deltas_on_one_base_take_no_more_than_the_base(large: Site) -> None:
    """When they would, the chunk is stored in full, and is the base from then on."""
    large.backup()
    bases = []
    for day in range(12):
        change(large, day)
        large.backup()
        name = next(
            one for one in (p.name for p in large.chunk_files()) if one[:64] == chunk_of(large, 0)
        )
        bases.append(name[65:])
    # 1 + 2 + 3 + 4 + 5 blocks are 15 of 16, six more are too many.
    assert [True] * 5 + [False] + [True] * 5 + [False] == [base != "" for base in bases]
    assert len({*bases[:5]}) == 1
    assert {chunk_of(large, 0)} != {*bases[6:11]}
    check(large, (large.history().revisions[-1], large.image.read_bytes()))


def test_a_chunk_of_which_most_has_changed_is_stored_in_full(large: Site) -> None:
    """A delta of three quarters is worth it, one more block is not."""
    large.backup()
    change(large, *range(12), *range(16, 29))

    revision = large.backup()

    assert [chunk_of(large, 0)] == [name[:64] for name in deltas(large)]
    assert 2 == revision.stats.chunks_new
    check(large, (revision, large.image.read_bytes()))


def test_without_deltas_everything_new_is_stored_in_full(large: Site) -> None:
    """`delta: off`; what was stored before is read all the same."""
    large.backup()
    change(large, 3)
    second = large.backup()
    change(large, 4)
    large.delta = False

    third = large.backup()

    assert 1 == len(deltas(large))
    assert (1, 0) == (third.stats.chunks_new, third.stats.chunks_delta)
    check(large, (third, large.image.read_bytes()))
    assert large.chunks_of(second) != large.chunks_of(third)


def test_in_a_distrusted_store_everything_new_is_stored_in_full(large: Site) -> None:
    """Nothing new leans on what may be bad."""
    large.backup()
    assert 0 == large.cli("distrust", "--reason", "store").returncode
    change(large, 3)

    large.backup()

    assert [] == deltas(large)


def test_content_that_comes_back_is_found_in_full(large: Site) -> None:
    """A chunk that has its base's content again is the base."""
    before = large.image.read_bytes()
    first = large.backup()
    change(large, 3)
    large.backup()
    large.image.write_bytes(before)

    third = large.backup()

    assert 0 == third.stats.bytes_written
    assert large.chunks_of(first) == large.chunks_of(third)


def test_two_jobs_with_the_same_change_share_the_delta(large: Site, tmp_path: Path) -> None:
    """The base is the same full chunk, so the second one finds the delta by its name."""
    other = tmp_path / "other.raw"
    other.write_bytes(large.image.read_bytes())
    large.add_job("other", other)
    large.backup()
    large.backup(job="other")
    change(large, 3)
    other.write_bytes(large.image.read_bytes())
    large.backup()

    revision = large.backup(job="other")

    assert 0 == revision.stats.bytes_written
    assert other.read_bytes() == large.restored(revision, job="other")


def test_a_resized_image_leans_on_chunks_of_another_length(large: Site) -> None:
    """The last chunk grows and shrinks; its base is cut or continued with zeros."""
    image = large.image.read_bytes()
    for size in (3 * C + 5, 3 * C + 2 * PAGE, 4 * C, 3 * C + PAGE + 1):
        with large.image.open("r+b") as file:
            file.truncate(size)
            file.seek(0)
            file.write(image[:size])
        revision = large.backup()
        check(large, (revision, image[:size]))


def test_rot_gets_into_no_new_chunk_and_is_moved_aside(large: Site) -> None:
    """The whole chunk is read from the source, stored in full, and the bad base is reported."""
    large.backup()
    base = Entry(chunk_id(large.image.read_bytes()[:C]))
    path = large.chunks / layout.chunk_path(base)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.unlink()
    path.write_bytes(content)
    change(large, 3)

    done = large.cli("backup", "daily")

    assert 0 == done.returncode
    assert [] == deltas(large)
    assert "moved aside (1)" in done.stderr
    assert "are distrusted" in done.stderr
    first, second = large.history().revisions
    assert not first.is_good
    assert large.image.read_bytes() == large.restored(second)


def test_a_delta_whose_base_is_gone_is_read_from_the_source(large: Site) -> None:
    """Missing is as bad as damaged: the chunk is stored in full, and the parent says what it lost."""
    large.backup()
    base = Entry(chunk_id(large.image.read_bytes()[:C]))
    change(large, 3)
    large.backup()
    (large.chunks / layout.chunk_path(base)).unlink()
    change(large, 4)

    third = large.backup()

    assert 1 == len(deltas(large))
    assert large.image.read_bytes() == large.restored(third)
    assert [C, C, 0] == [one.damaged for one in large.history().revisions]


def test_a_map_takes_only_so_many_bases(large: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table is in memory; beyond it chunks are stored in full."""
    large.backup()
    monkeypatch.setattr(maps, "MAX_BASES", 1)
    monkeypatch.setattr(parallel, "THREADS", 1)
    change(large, 3, 19)

    first = large.backup()

    assert (2, 1) == (first.stats.chunks_new, first.stats.chunks_delta)
    check(large, (first, large.image.read_bytes()))
    assert 1 == sum(len(name) > 64 for name in large.chunks_of(first))
