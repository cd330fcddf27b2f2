"""T22: chunks that a fast checksum cannot tell apart are stored apart and restored right."""

import random
import struct
from pathlib import Path
from types import ModuleType

import blake3
import murmur
import pytest
import twins
import xxhash
from twins import accumulate

from backy.domain.chunk import chunk_id
from testsite import Site

pytestmark = pytest.mark.proof("T22")

SIZE = 4 << 20


def forged(maker: ModuleType) -> tuple[bytes, bytes]:
    """A victim's chunk, and an attacker's with the same hash."""
    victim = random.Random(1).randbytes(SIZE)
    return victim, maker.twin(victim, (b"the attacker's own words " * SIZE)[:SIZE])


@pytest.fixture(scope="module")
def xxh3_pair() -> tuple[bytes, bytes]:
    """Two chunks with the same XXH3-128."""
    return forged(twins)


@pytest.fixture(scope="module")
def murmur_pair() -> tuple[bytes, bytes]:
    """Two chunks with the same MurmurHash3-128."""
    return forged(murmur)


@pytest.fixture(params=["xxh3_pair", "murmur_pair"])
def pair(request: pytest.FixtureRequest) -> tuple[bytes, bytes]:
    """Either pair."""
    found: tuple[bytes, bytes] = request.getfixturevalue(request.param)
    return found


def test_the_pair_is_one_to_xxh3(xxh3_pair: tuple[bytes, bytes]) -> None:
    """Same XXH3-128 and XXH3-64."""
    victim, attacker = xxh3_pair

    assert xxhash.xxh3_128_digest(victim) == xxhash.xxh3_128_digest(attacker)
    assert xxhash.xxh3_64_digest(victim) == xxhash.xxh3_64_digest(attacker)


def test_the_pair_is_one_to_murmur(murmur_pair: tuple[bytes, bytes]) -> None:
    """Same MurmurHash3-128, by the whole hash and not by the state that was steered."""
    victim, attacker = murmur_pair

    assert murmur.murmur3(victim) == murmur.murmur3(attacker)


def test_the_pair_is_two_to_blake3(pair: tuple[bytes, bytes]) -> None:
    """Four million different bytes, other chunk ids."""
    victim, attacker = pair

    assert sum(a != b for a, b in zip(victim, attacker, strict=True)) > SIZE * 0.99
    assert chunk_id(victim) != chunk_id(attacker)


def test_twins_are_stored_apart_and_restored_right(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    """The attacker's chunk is there first, and the victim's image still holds the victim's bytes."""
    victim, attacker = pair
    site = Site(tmp_path, chunk_size=SIZE)
    site.codec = "none"
    theirs = tmp_path / "theirs.raw"
    theirs.write_bytes(attacker)
    site.add_job("attacker", theirs)
    site.image.write_bytes(victim)

    planted = site.backup(job="attacker")
    revision = site.backup()

    assert [1, 1] == [planted.stats.chunks_new, revision.stats.chunks_new]
    assert 2 == len(site.chunk_files())
    assert victim == site.restored(revision)
    assert attacker == site.restored(planted, job="attacker")
    assert [] == site.verify().findings + site.verify(job="attacker").findings


def test_a_twin_in_the_place_of_its_victim_is_found(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    """Swapped payloads hold the frames' checksums of neither, since these cover the chunk's id too."""
    site = Site(tmp_path, chunk_size=SIZE)
    site.codec = "none"
    for content in pair:
        site.image.write_bytes(content)
        site.backup()
    one, other = site.chunk_files()
    one.chmod(0o600)
    one.write_bytes(one.read_bytes()[:64] + other.read_bytes()[64:])

    for quick in (False, True):
        assert [one.name] == [found.chunk for found in site.verify(quick=quick).findings]


def test_the_accumulators_are_those_of_xxh3(xxh3_pair: tuple[bytes, bytes]) -> None:
    """The twin is no accident: both pairs of prefixes lead to one state, others do not."""
    stripes = SIZE // 64
    victim, attacker = xxh3_pair

    assert accumulate(victim, stripes - 2) == accumulate(attacker, stripes - 2)
    assert accumulate(victim, stripes - 4) != accumulate(attacker, stripes - 4)


def test_murmur_gives_its_published_answers() -> None:
    """SMHasher's verification value, over 256 keys, lengths and seeds, and mmh3's own example."""
    hashes = b"".join(murmur.murmur3(bytes(range(length)), 256 - length) for length in range(256))

    assert (0x6384BA69,) == struct.unpack_from("<I", murmur.murmur3(hashes))
    assert b"aE\xf5\x01W\x86q\xe2\x87}\xba+\xe4\x87\xaf~" == murmur.murmur3(b"foo")
    assert bytes(16) == murmur.murmur3(b"")


# From BLAKE3's test_vectors.json: input bytes 0, 1, …, 250, 0, 1, … of that length.
KNOWN = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
}


@pytest.mark.parametrize(("length", "expected"), KNOWN.items())
def test_blake3_gives_its_published_answers(length: int, expected: str) -> None:
    """Whatever builds and accelerates it here, it is the function that names chunks everywhere."""
    content = bytes(number % 251 for number in range(length))

    assert expected == blake3.blake3(content).hexdigest()
    assert expected == chunk_id(content).hex()
    assert expected == chunk_id(memoryview(content)).hex()
