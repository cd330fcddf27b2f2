"""T27, R15: a codec or memory that errs is caught before anything of it gets a name."""

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from crashsite import noise

from backy.domain import delta
from backy.domain.chunk import ChunkId, chunk_id
from backy.ground import linux, lz4blocks
from backy.ground.errors import EncodingFault
from backy.operation import work
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T27")

CALLS = 100


def packable(number: int) -> bytes:
    """A chunk of its own that compresses to about half."""
    return noise(number, CHUNK // 2) + number.to_bytes(8, "big") * (CHUNK // 16)


class Faulty:
    """A codec function that flips one bit in the result of its N-th call."""

    def __init__(self, real: Callable[..., lz4blocks.Bytes], at: int) -> None:
        self._real = real
        self._at = at
        self._calls = 0
        self._random = random.Random(at)

    def __call__(self, content: Any, *options: Any) -> bytes:
        result = bytearray(self._real(content, *options))
        self._calls += 1
        if self._calls == self._at:
            result[self._random.randrange(len(result))] ^= 1 << self._random.randrange(8)
        return bytes(result)


@pytest.fixture
def faultless(site: Site) -> Site:
    """A site with a revision, and an image of a hundred other chunks; no base is decoded before them."""
    site.delta = False
    site.image.write_bytes(b"".join(packable(1000 + number) for number in range(5)))
    site.backup()
    site.image.write_bytes(b"".join(packable(number) for number in range(CALLS)))
    return site


@pytest.mark.parametrize("function", ["compress", "decompress"])
@pytest.mark.parametrize("at", [1, 2, 37, 63, 99, CALLS])
def test_one_flipped_bit_in_a_hundred_chunks_is_caught(
    faultless: Site, monkeypatch: pytest.MonkeyPatch, function: str, at: int
) -> None:
    """The job says which chunk, no revision appears, and whatever has a name is whole."""
    site = faultless
    before = site.history()
    ids = {chunk_id(packable(number)).hex() for number in range(CALLS)}
    with monkeypatch.context() as patch:
        patch.setattr(lz4blocks, function, Faulty(getattr(lz4blocks, function), at))
        with pytest.raises(EncodingFault) as caught:
            site.backup()

    assert caught.value.chunk in ids
    assert caught.value.chunk not in {path.name for path in site.chunk_files()}
    assert "lz4" == caught.value.codec
    assert caught.value.chunk in caught.value.message
    assert before == site.history()
    assert [] == list((site.chunks / "tmp").iterdir())
    assert site.image.read_bytes() == site.restored(site.backup())
    assert [] == site.verify().findings


@pytest.mark.parametrize(
    ("module", "function"), [(lz4blocks, "compress"), (delta, "encode"), (lz4blocks, "decompress")]
)
@pytest.mark.parametrize("at", [1, 2, 7])
def test_one_flipped_bit_in_a_delta_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, at: int
) -> None:
    """The same for chunks that are stored as their changed blocks."""
    site = Site(tmp_path, chunk_size=16 * CHUNK)
    site.image.write_bytes(noise(1, 160 * CHUNK))
    site.backup()
    before = site.history()
    with site.image.open("r+b") as file:
        for number in range(10):
            file.seek(number * 16 * CHUNK)
            file.write(b"changed" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(module, function, Faulty(getattr(module, function), at))
        with pytest.raises(EncodingFault):
            site.backup()

    assert before == site.history()
    revision = site.backup()
    assert 10 == revision.stats.chunks_new
    assert site.image.read_bytes() == site.restored(revision)
    assert [] == site.verify().findings


def test_a_block_that_was_not_noticed_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delta without one of the blocks that have changed does not give the chunk."""
    site = Site(tmp_path, chunk_size=16 * CHUNK)
    site.image.write_bytes(noise(1, 16 * CHUNK))
    site.backup()
    with site.image.open("r+b") as file:
        file.write(b"changed" * 2000)
    real = linux.differing
    with monkeypatch.context() as patch:
        patch.setattr(linux, "differing", lambda *arguments: real(*arguments)[1:])
        with pytest.raises(EncodingFault):
            site.backup()

    assert 1 == site.backup().stats.chunks_delta


def test_a_fault_in_a_later_batch_leaves_only_whole_chunks(
    faultless: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What earlier batches named stays for collection, and the next backup may build on it."""
    site = faultless
    monkeypatch.setattr("backy.repository.chunks.BATCH_SIZE", 3 * CHUNK)
    with monkeypatch.context() as patch:
        patch.setattr(lz4blocks, "compress", Faulty(lz4blocks.compress, 60))
        with pytest.raises(EncodingFault):
            site.backup()
    named = len(site.chunk_files())

    revision = site.backup()

    assert named > 5 + 30
    assert revision.stats.chunks_new < CALLS
    assert site.image.read_bytes() == site.restored(revision)
    assert [] == site.verify().findings


@pytest.mark.parametrize("codec", ["lz4", "zstd:1", "none"])
def test_a_bit_that_flips_after_the_chunk_was_hashed_is_found(
    faultless: Site, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    """What is encoded then expands to what is in memory, and is not what its name says."""
    site = faultless
    site.codec = codec
    before = {path.name for path in site.chunk_files()}
    calls = iter(range(CALLS))

    def flipping(plain: memoryview) -> ChunkId:
        ident = chunk_id(plain)
        if next(calls) == 36:
            plain[100] ^= 1
        return ident

    with monkeypatch.context() as patch:
        patch.setattr(work, "chunk_id", flipping)
        with pytest.raises(EncodingFault):
            site.backup()

    assert before == {path.name for path in site.chunk_files()}
    assert site.image.read_bytes() == site.restored(site.backup())
    assert [] == site.verify().findings
