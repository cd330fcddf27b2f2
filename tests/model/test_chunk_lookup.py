"""F3, F7, F10, F18: what counts as a chunk that is there, and what is believed of its file."""

import os
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from backy.domain import chunk
from backy.domain.chunk import ZERO, ChunkId, Encoder, chunk_id, encode_delta, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.ground.errors import ChunkDamaged, ChunkMissing, ImageDamaged
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.chunks import ChunkReader, ChunkWriter
from backy.repository.users import registered
from testsite import CHUNK, Site

LZ4 = Encoder(parse_codec("lz4"))


def noise(seed: int, length: int = CHUNK) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(length)


@contextmanager
def a_writer(site: Site) -> Iterator[ChunkWriter]:
    """A registered writer, as a backup has one."""
    with Directory.open(str(site.chunks)) as store, registered(store, "vm", SystemClock().now()) as user:
        writer = ChunkWriter(store, user.temporary)
        yield writer
        writer.abandon()


def read(site: Site, entry: Entry) -> bytes:
    """A chunk's bytes as any reader gets them."""
    with Directory.open(str(site.chunks)) as store:
        return ChunkReader(store, CHUNK).read(entry)


def put(site: Site, entry: Entry, frame: list[chunk.Buffer]) -> Path:
    """A chunk file of any contents."""
    path = site.chunks / layout.chunk_path(entry)
    path.write_bytes(b"".join(frame))
    return path


def condemn(site: Site, path: Path) -> Path:
    """Move a chunk file into a generation of the trash, as collection does."""
    place = site.chunks / "trash" / "gen-1" / path.name
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    return place


# ..The trash (F3)............................................................................


def test_a_writer_stores_anew_what_lies_in_the_trash(site: Site) -> None:
    """A condemned chunk may be purged before the revision exists, so it is no hit."""
    site.image.write_bytes(noise(1))
    revision = site.backup()
    with Directory.open(str(site.job)) as job:
        histories.forget(job, revision.uuid)
    [path] = site.chunk_files()
    condemned = condemn(site, path)

    again = site.backup()

    assert 1 == again.stats.chunks_new
    assert [path] == site.chunk_files()
    condemned.unlink()
    assert noise(1) == site.restored(again)


def test_a_reader_finds_what_lies_in_the_trash(site: Site) -> None:
    """A revision that is being restored while its chunks are condemned still gets them."""
    site.image.write_bytes(noise(1, 5 * CHUNK))
    revision = site.backup()
    for path in site.chunk_files()[::2]:
        condemn(site, path)

    assert noise(1, 5 * CHUNK) == site.restored(revision)
    assert [] == site.verify().findings


def test_a_reader_looks_into_the_store_again_after_the_trash(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that collection links back between the two looks is not missing."""
    site.image.write_bytes(noise(1))
    revision = site.backup()
    [path] = site.chunk_files()
    condemned = condemn(site, path)
    real = Directory.enter

    def link_back(self: Directory, name: str) -> Directory:
        if name == layout.TRASH and condemned.exists():
            condemned.rename(path)
        return real(self, name)

    monkeypatch.setattr(Directory, "enter", link_back)

    assert noise(1) == site.restored(revision)
    path.unlink()
    with pytest.raises(ImageDamaged):
        site.restored(revision)


# ..Two writers (F7)..........................................................................


def test_two_writers_of_the_same_chunk_do_not_replace_each_other_s_file(site: Site) -> None:
    """Both miss it and both store it; the first name stays, and each finds its bytes."""
    entry = Entry(chunk_id(noise(1)))
    frame = encode_full(entry.ident, noise(1), LZ4)
    path = site.chunks / layout.chunk_path(entry)
    with a_writer(site) as one, a_writer(site) as other:
        assert one.claim(entry)
        assert other.claim(entry)
        one.store(entry, frame)
        other.store(entry, encode_full(entry.ident, noise(1), Encoder(parse_codec("zstd"))))
        one.finish()
        inode = path.stat().st_ino
        other.finish()

    assert inode == path.stat().st_ino
    assert 1 == path.stat().st_nlink
    assert noise(1) == read(site, entry)


def test_full_and_delta_forms_of_a_chunk_stand_side_by_side(site: Site) -> None:
    """Each writer's entry names its own file, so that no one's base can be taken from the other."""
    plain = noise(1, CHUNK // 2) + noise(2, CHUNK // 2)
    bases = [noise(1), noise(3)]
    ident = chunk_id(plain)
    entries = [Entry(ident), *(Entry(ident, chunk_id(base)) for base in bases)]
    frames = [
        encode_full(ident, plain, LZ4),
        *(encode_delta(ident, plain, chunk_id(base), base, 0, LZ4) for base in bases),
    ]
    for base in bases:
        put(site, Entry(chunk_id(base)), encode_full(chunk_id(base), base, LZ4))
    with a_writer(site) as one, a_writer(site) as other:
        for writer, numbers in ((one, (1, 2)), (other, (2, 0))):
            for number in numbers:
                assert writer.claim(entries[number])
                writer.store(entries[number], frames[number])
        other.finish()
        one.finish()

    assert [plain] * 3 == [read(site, entry) for entry in entries]
    (site.chunks / layout.chunk_path(Entry(chunk_id(bases[1])))).unlink()
    assert plain == read(site, entries[1])
    # Without its base a delta is replaced by the full chunk, and without that it is missing.
    assert plain == read(site, entries[2])
    (site.chunks / layout.chunk_path(entries[0])).unlink()
    with pytest.raises(ChunkMissing):
        read(site, entries[2])


# ..Identity (F10)............................................................................


def test_only_bytes_that_hash_to_the_id_are_returned(site: Site) -> None:
    """A sound frame with a right checksum under a wrong id is damage."""
    entry = Entry(chunk_id(noise(1)))
    put(site, entry, encode_full(entry.ident, noise(2), LZ4))

    with pytest.raises(ChunkDamaged, match="another id"):
        read(site, entry)


def test_no_delta_is_applied_to_a_base_that_is_not_the_base(site: Site) -> None:
    """A base is proven by its own id before a byte of it enters another chunk."""
    base, plain = noise(1), noise(1, CHUNK // 2) + noise(2, CHUNK // 2)
    entry = Entry(chunk_id(plain), chunk_id(base))
    put(site, entry, encode_delta(entry.ident, plain, chunk_id(base), base, 0, LZ4))
    put(site, Entry(chunk_id(base)), encode_full(chunk_id(base), noise(3), LZ4))

    with pytest.raises(ChunkDamaged) as caught:
        read(site, entry)

    assert chunk_id(base).hex() == caught.value.chunk


def test_a_chunk_file_under_another_s_name_is_damage_without_decoding(site: Site) -> None:
    """Two files swapped show in `verify --quick` too (F14)."""
    site.image.write_bytes(noise(1, 2 * CHUNK))
    site.backup()
    one, other = site.chunk_files()
    contents = one.read_bytes(), other.read_bytes()
    for path, content in zip((other, one), contents, strict=True):
        path.unlink()
        path.write_bytes(content)

    for quick in (True, False):
        assert {one.name, other.name} == {found.chunk for found in site.verify(quick=quick).findings}


# ..Bombs (F18)...............................................................................


def bomb(payload: bytes, ident: ChunkId, codec: int) -> list[chunk.Buffer]:
    """A frame with a right checksum round any payload, claiming to be a chunk of 4 KiB."""
    return chunk._frame(ident, codec, chunk.FULL, 0, CHUNK, payload, ZERO)


@pytest.mark.parametrize("content_size", [True, False])
@pytest.mark.parametrize("window_log", [17, 27])
def test_a_frame_that_expands_beyond_its_chunk_takes_no_memory(
    site: Site, content_size: bool, window_log: int
) -> None:
    """Sizes and window are looked at before anything is decompressed."""
    options = zstandard.ZstdCompressionParameters(
        window_log=window_log, write_content_size=content_size, enable_ldm=False
    )
    packer = zstandard.ZstdCompressor(compression_params=options).compressobj(
        size=64 << 20 if content_size else -1
    )
    payload = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    entry = Entry(chunk_id(b"bomb"))
    put(site, entry, bomb(payload, entry.ident, chunk.ZSTD))

    tracemalloc.start()
    try:
        with pytest.raises(ChunkDamaged):
            read(site, entry)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(payload) < CHUNK
    assert peak < 1 << 20


def test_an_lz4_frame_that_expands_beyond_its_chunk_is_refused(site: Site) -> None:
    """The decoder gets the expected size and no more."""
    import lz4.block

    entry = Entry(chunk_id(b"bomb"))
    payload = lz4.block.compress(bytes(CHUNK * 200), store_size=False)
    put(site, entry, bomb(payload, entry.ident, chunk.LZ4))

    with pytest.raises(ChunkDamaged):
        read(site, entry)
    assert os.path.getsize(site.chunks / layout.chunk_path(entry)) < 2 * CHUNK
