"""Deltas and their bases when something is damaged or gone: what verify says, and what heals."""

import json
import random
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.revision import Trust
from backy.ground.linux import PAGE
from collecting import forget
from testsite import Site

C = 64 << 10
NOISE = random.Random(13)
OLD = NOISE.randbytes(C)


def changed(content: bytes, *blocks: int) -> bytes:
    """With noise in some of its 16 blocks."""
    found = bytearray(content)
    for block in blocks:
        found[block * PAGE : (block + 1) * PAGE] = NOISE.randbytes(PAGE)
    return bytes(found)


@pytest.fixture
def large(tmp_path: Path) -> Site:
    """A site with chunks of 16 blocks, and a revision of OLD."""
    site = Site(tmp_path, chunk_size=C)
    back_up(site, OLD)
    return site


def back_up(site: Site, image: bytes, *, job: str = "vm") -> str:
    """A revision of that image of one chunk: the name of the file in which it has it."""
    site.image.write_bytes(image)
    names = site.chunks_of(site.backup(job=job), job=job)
    return next(name for name in names if name[:64] == chunk_id(image).hex())


def chunk_file(site: Site, name: str) -> Path:
    """A file of the store."""
    return site.chunks / name[:2] / name


def spoil(site: Site, name: str) -> None:
    """Flip the last bit of a chunk's file."""
    path = chunk_file(site, name)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def damage(site: Site, *, job: str = "vm") -> list[int]:
    """Damaged bytes of the revisions, oldest first."""
    return [one.damaged for one in site.history(job=job).revisions]


@pytest.mark.parametrize("words", [(), ("--quick",)], ids=["verify", "quick"])
def test_a_delta_whose_base_is_damaged_is_reported_as_such(large: Site, words: tuple[str, ...]) -> None:
    """The finding names the delta and says that its base is to blame; that one is moved aside."""
    delta = back_up(large, changed(OLD, 3))
    base = chunk_id(OLD).hex()
    spoil(large, base)
    first, second = (one.uuid for one in large.history().revisions)

    found = json.loads(large.cli("verify", "--no-quarantine", "--json", *words).stdout)["findings"]

    why = {one["revision"]: (one["chunk"], one["why"]) for one in found}
    bad = f"chunk {base} is damaged: its checksum does not match."
    assert (base, bad) == why[first]
    assert (delta, f"its delta stands on a bad base: {bad}") == why[second]
    told = large.cli("verify", *words)
    assert (1, 1) == (told.returncode, told.stdout.count("its delta stands on a bad base"))
    assert [base] == [one["chunk"] for one in json.loads(large.cli("reports", "--json").stdout)]
    assert [C, C] == damage(large)
    gone = json.loads(large.cli("verify", "--json", *words).stdout)["findings"]
    assert [f"its delta stands on a bad base: chunk {base} is missing."] == [
        one["why"] for one in gone if one["revision"] == second
    ]


def test_a_slice_says_so_too(large: Site) -> None:
    """It walks over files: the base, and the delta that cannot be read without it."""
    delta = back_up(large, changed(OLD, 3))
    base = chunk_id(OLD).hex()
    spoil(large, base)

    found = json.loads(large.cli("verify", "--slice", "1h", "--json").stdout)["bad"]

    why = {one["chunk"]: one["why"] for one in found}
    assert why[delta].startswith(f"its delta stands on a bad base: chunk {base} is ")


@pytest.mark.parametrize("gone", [False, True], ids=["base rotten", "base gone"])
def test_a_delta_without_its_base_has_healed_when_its_content_is_stored_in_full(
    large: Site, *, gone: bool
) -> None:
    """Verify agrees with the record: what restores is no finding, and is believed again."""
    image = changed(OLD, 3)
    back_up(large, image)
    base = chunk_id(OLD).hex()
    if gone:
        chunk_file(large, base).unlink()
    else:
        spoil(large, base)
    large.concluded()
    assert [C, C] == damage(large)

    assert chunk_id(image).hex() == back_up(large, image)

    lost, healed, newest = large.history().revisions
    assert image == large.restored(healed) == large.restored(newest)
    assert [C, 0, 0] == damage(large)
    for quick in (False, True):
        assert [lost.uuid] == [one.revision for one in large.concluded(quick=quick).findings]
    assert Trust.VERIFIED is large.history().revisions[1].trust
    assert [] == json.loads(large.cli("verify", "--slice", "1h", "--json").stdout)["bad"]


def test_distrust_of_the_store_ends_though_a_base_is_gone_for_good(large: Site) -> None:
    """Once the revisions that need its own content are forgotten, everything is proven again."""
    image = changed(OLD, 3)
    back_up(large, image)
    first = large.history().revisions[0]
    spoil(large, chunk_id(OLD).hex())
    large.concluded()
    back_up(large, image)
    assert 0 == large.cli("distrust", "--reason", "store").returncode
    forget(large, first)

    assert [] == large.concluded().findings

    assert not (large.chunks / "distrusted").exists()
    assert [True, True] == [one.is_good for one in large.history().revisions]


def test_a_delta_without_its_base_is_no_hit(large: Site) -> None:
    """Its name is there, and nothing says that the base is not: the chunk is stored anew."""
    one, other = changed(OLD, 1), changed(OLD, 2)
    back_up(large, one)
    back_up(large, other)
    chunk_file(large, chunk_id(OLD).hex()).unlink()
    large.concluded()
    # Now the last revision stands on a full chunk; what proved it is forgotten, as is who lacks `one`.
    back_up(large, other)
    for number in (-1, 1):
        forget(large, large.history().revisions[number])
    assert [C, 0] == damage(large)

    name = back_up(large, one)

    assert f"{chunk_id(one).hex()}.{chunk_id(OLD).hex()}" != name
    assert one == large.restored(large.history().revisions[-1])
    assert [C, 0, 0] == damage(large)


def test_content_that_a_revision_lacks_is_stored_in_full(large: Site) -> None:
    """Though a delta on another base would do: only a full chunk helps the one with the bad base."""
    base = changed(OLD, *range(13))
    both = OLD[:PAGE] + base[PAGE:]
    assert chunk_id(base).hex() == back_up(large, base)
    assert f"{chunk_id(both).hex()}.{chunk_id(base).hex()}" == back_up(large, both)
    spoil(large, chunk_id(base).hex())
    large.concluded()
    assert [0, C, C] == damage(large)

    # The parent is the first one, of which it is three quarters.
    assert chunk_id(both).hex() == back_up(large, both)

    assert [0, C, 0, 0] == damage(large)


def test_content_that_another_job_lacks_is_stored_in_full(large: Site) -> None:
    """The case says whom it hurts, so the one who still has the content heals it for all."""
    large.add_job("other", large.image)
    content = changed(OLD, *range(10))
    base = back_up(large, changed(content, 15), job="other")
    assert f"{chunk_id(content).hex()}.{base}" == back_up(large, content, job="other")
    spoil(large, base)
    large.concluded("vm", "other")
    assert [C, C] == damage(large, job="other")

    assert chunk_id(content).hex() == back_up(large, content)

    assert [C, 0] == damage(large, job="other")
