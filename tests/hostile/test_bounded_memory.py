"""T19: the worst that a store can hold costs a process under 512 MiB and five seconds."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import blake3
import pytest
import zstandard
from forged import FORGED, forged_frame, map_header, page_of, put_chunk, put_map

from backy.domain.chunk import LZ4, ZSTD, chunk_id
from backy.domain.chunkmap import MAX_CHUNKS, MAX_IMAGE, MAX_TAIL, PAGE_ENTRIES
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T19")

LIMIT = 512 << 20
SECONDS = 5.0
LARGE = 4 << 20


class Run(NamedTuple):
    """How a limited process ended, and the most memory that it held."""

    code: int
    err: str
    peak: int


# A process counts what the one that began it held then: so a small one does, and tells the figures.
_BEGIN = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def limited(site: Site, *words: str, seconds: float = SECONDS) -> Run:
    """Run the command line with an address space of 512 MiB; it ends soon and without a traceback."""
    began = time.monotonic()
    limit = f'ulimit -v {LIMIT >> 10}; exec "$@"'
    command = ("sh", "-c", limit, "sh", sys.executable, "-m", "backy", "-b", str(site.job), *words)
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN, *command], check=True, capture_output=True, text=True
    )
    code, peak = map(int, done.stdout.split())
    err = done.stderr
    assert time.monotonic() - began < seconds, (words, time.monotonic() - began)
    assert "Traceback" not in err
    assert "internal error" not in err
    return Run(code, err, peak << 10)


def check(site: Site, why: str) -> None:
    """Verify finds it, restore refuses with a reason, status goes on; each within the limits."""
    out = str(site.folder / "out.raw")
    look = ["verify", "--no-quarantine"]
    for words in (look, [*look, "--quick"], ["restore", "-r", FORGED, out], ["status"], ["verify"]):
        run = limited(site, *words)
        assert ("status" not in words) == run.code, (words, run)
        assert why in run.err or "restore" not in words, run
        assert run.peak < LIMIT
    assert not (site.folder / "out.raw").exists()


def put_large_chunk(site: Site, payload: bytes, codec: int) -> None:
    """A revision of one 4 MiB chunk that is stored as this payload."""
    ident = chunk_id(b"x")
    page = page_of((ident, 0))
    tail = blake3.blake3(page).digest()
    header = map_header(chunk_size=LARGE, image_size=LARGE, tail=tail)
    put_map(site, header, page + tail, image_size=LARGE)
    put_chunk(site, ident.hex(), forged_frame(ident, payload, codec=codec, plain_length=LARGE))


def test_honest_work_on_real_chunks_fits_into_the_limits(tmp_path: Path) -> None:
    """The limit leaves enough for honest work, so that passing below means something."""
    site = Site(tmp_path, chunk_size=LARGE)
    site.image.write_bytes(os.urandom(LARGE) + bytes(LARGE) + os.urandom(LARGE))
    site.backup()

    for words in (["verify"], ["restore", str(tmp_path / "out.raw")], ["backup", "daily"]):
        run = limited(site, *words)
        assert (0, "") == (run.code, run.err)


BOMBS = {
    "half a gigabyte of zeros in 16 KiB of zstd": (zstandard.compress(bytes(LIMIT)), ZSTD),
    "the same of unknown size": (
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(LIMIT)),
        ZSTD,
    ),
    "a gigabyte in 4 MiB of lz4": (b"\x1f\x00\x01\x00" + b"\xff" * (LARGE - 100) + b"\x00", LZ4),
}


@pytest.mark.parametrize(("payload", "codec"), BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_does_not_go_off(tmp_path: Path, payload: bytes, codec: int) -> None:
    """A chunk is never expanded beyond the length that its header may state."""
    site = Site(tmp_path, chunk_size=LARGE)
    put_large_chunk(site, payload, codec)

    out = str(tmp_path / "out.raw")
    for words in (["verify"], ["restore", "-r", FORGED, out]):
        run = limited(site, *words)
        assert 1 == run.code, run
        assert run.peak < LIMIT
    assert not (tmp_path / "out.raw").exists()


def test_a_chunk_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    """Its length alone says that no encoder wrote it."""
    site = Site(tmp_path, chunk_size=LARGE)
    put_large_chunk(site, b"", ZSTD)
    (path,) = site.chunk_files()
    os.truncate(path, 1 << 40)

    check(site, "its file has 1099511627776 bytes")


TABLES: dict[str, dict[str, Any]] = {
    "a page table of 128 GiB": {"image_size": MAX_IMAGE, "stored_pages": 0},
    "a base table of 4 GiB": {"image_size": CHUNK << 28, "stored_pages": 0, "bases": 1 << 27},
}


@pytest.mark.parametrize("fields", TABLES.values(), ids=TABLES.keys())
def test_tables_that_are_one_hole_are_not_read_into_memory(site: Site, fields: dict[str, Any]) -> None:
    """A map file that takes no disk may claim any size, so its tables need a bound or a window."""
    pages = -(-fields["image_size"] // CHUNK // PAGE_ENTRIES)
    hole = pages * 32 + fields.get("bases", 0) * 32
    put_map(site, map_header(**fields), b"", image_size=fields["image_size"], hole=hole)

    check(site, "the chunk map is damaged")


@pytest.mark.parametrize("size", [MAX_CHUNKS * CHUNK + 1, (1 << 62) + 5])
def test_an_image_that_is_too_large_is_refused_before_memory_is_taken(memory: Path, size: int) -> None:
    """A sparse file may claim nearly any size; nothing of it is left in the repository."""
    site = Site(memory)
    os.truncate(site.image, size)

    run = limited(site, "backup", "daily")

    assert (1, 1) == (run.code, run.err.count("\n")), run.err
    assert "an image that is backed up has at most 32.0 TiB" in run.err
    assert run.peak < 128 << 20
    assert () == site.history().revisions


def test_the_largest_image_that_is_backed_up_comes_back(memory: Path) -> None:
    """Its page table has 64 MiB, of which there is one in memory at a time."""
    site = Site(memory)
    os.truncate(site.image, MAX_CHUNKS * CHUNK)
    with site.image.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"x" * 5)

    made = limited(site, "backup", "daily", seconds=30)
    found = limited(site, "verify", seconds=30)

    assert [(0, ""), (0, "")] == [(made.code, made.err), (found.code, found.err)]
    assert max(made.peak, found.peak) < 256 << 20


def test_the_largest_page_table_takes_no_more_memory_than_its_bytes(site: Site) -> None:
    """One of 128 MiB, which is a hole and holds together, is read like any other."""
    tail = bytes(MAX_TAIL)
    image_size = MAX_TAIL // 32 * PAGE_ENTRIES * CHUNK
    header = map_header(image_size=image_size, stored_pages=0, tail=tail)
    put_map(site, header, b"", image_size=image_size, hole=MAX_TAIL)

    run = limited(site, "verify", seconds=30)

    assert (0, "") == (run.code, run.err)
    assert run.peak < 320 << 20


def test_an_image_of_64_pebibytes_that_is_not_there_is_refused(site: Site) -> None:
    """Its counts fit together, its tables into no memory."""
    put_map(site, map_header(image_size=MAX_IMAGE, stored_pages=0), b"", image_size=MAX_IMAGE)

    check(site, "its tables are too large")
