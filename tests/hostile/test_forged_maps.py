"""T19: maps that no encoder wrote, under digests that hold, cause a finding and nothing else."""

import json
from pathlib import Path
from typing import Any

import blake3
import pytest
from filetree import tree
from forged import FORGED, map_header, page_of, put_chunk_map, put_map
from in_process import backy

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import HEADER, MAX_IMAGE, PAGE_ENTRIES
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T19")

IDENT = chunk_id(b"good" * (CHUNK // 4))
OTHER = b"\x07" * 32
PAGE = page_of((IDENT, 0))
TAIL = blake3.blake3(PAGE).digest()

HEADERS: dict[str, dict[str, Any]] = {
    "magic": {"magic": b"bkMAP\n\n\0"},
    "version 0": {"version": 0},
    "version 2": {"version": 2},
    "reserved bits": {"reserved": 1},
    "another revision's": {"revision": "22222222-2222-4222-8222-222222222222"},
    "a disk's": {"disk": b"disk"},
    "a disk that climbs": {"disk": b"../../../outside"},
    "a disk that is no text": {"disk": b"\xff" * 32},
    "a NUL inside its disk": {"disk": b"a\0b"},
    "chunks of no size": {"chunk_size": 0, "chunks": 1},
    "chunks of one byte": {"chunk_size": 1, "chunks": CHUNK},
    "chunks of an odd size": {"chunk_size": 5000, "chunks": 1},
    "chunks of 2 GiB": {"chunk_size": 1 << 31, "chunks": 1},
    "no chunks": {"chunks": 0},
    "a chunk too many": {"chunks": 2},
    "2^64-1 chunks": {"chunks": 2**64 - 1},
    "no stored page": {"stored_pages": 0},
    "a page too many": {"stored_pages": 2},
    "2^32-1 stored pages": {"stored_pages": 2**32 - 1},
    "a base that is not there": {"bases": 1},
    "2^32-1 bases": {"bases": 2**32 - 1},
    "another tail": {"tail": b"other"},
}
SIZES = [0, 1, CHUNK + 1, 2 * CHUNK, 10**9 * CHUNK, MAX_IMAGE, MAX_IMAGE + 1, 2**63, 2**64 - 1]


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with the chunk IDENT, whose log is there already."""
    site.image.write_bytes(b"good" * (CHUNK // 4))
    site.backup()
    (site.job / "backy.log").touch()
    return site


def found_only(site: Site, *, kind: str = "map") -> list[dict[str, Any]]:
    """Verify finds this of the forged revision alone, it does not restore, nothing is written."""
    before = tree(site.base, times=False)
    at, out = ("-b", str(site.job)), str(site.folder / "out.raw")
    for more in (["--quick"], []):
        done = backy(*at, "verify", "--json", "--no-quarantine", *more)
        assert 1 == done.code, done
        findings: list[dict[str, Any]] = json.loads(done.out)["findings"]
        assert {(FORGED, kind)} == {(one["revision"], one["kind"]) for one in findings}
    for words in (["-r", FORGED], ["-r", FORGED, "--keep-going"]):
        done = backy(*at, "-q", "restore", *words, out)
        assert 1 == done.code, done
    after = tree(site.base, times=False)
    assert before | {"vm/backy.log": after["vm/backy.log"]} == after
    return findings


@pytest.mark.parametrize("fields", HEADERS.values(), ids=HEADERS.keys())
def test_a_forged_header_is_found(backed_up: Site, fields: dict[str, Any]) -> None:
    """Counts that lie, names that climb, other versions: the map is damaged, and nothing is restored."""
    put_map(backed_up, map_header(**{"tail": TAIL, **fields}), PAGE + TAIL)

    found_only(backed_up)
    assert not (backed_up.folder / "out.raw").exists()


@pytest.mark.parametrize("size", SIZES)
def test_an_image_size_that_lies_is_found(backed_up: Site, size: int) -> None:
    """In the map and in the record, from nothing to 2^64-1 bytes."""
    header = map_header(image_size=size, chunks=min(-(-size // CHUNK), 2**64 - 1), tail=TAIL)
    put_map(backed_up, header, PAGE + TAIL, image_size=size)

    found_only(backed_up, kind="chunk" if size == 1 else "map")


def test_an_image_size_that_is_only_the_records_is_found(backed_up: Site) -> None:
    """Record and map must agree."""
    put_map(backed_up, map_header(tail=TAIL), PAGE + TAIL, image_size=2 * CHUNK)

    found_only(backed_up)


RESTS: dict[str, tuple[bytes, bytes, int]] = {
    "nothing": (b"", TAIL, 0),
    "no tail": (PAGE, b"", 0),
    "a page cut short": (PAGE[:-1], TAIL, 0),
    "a page too long": (PAGE + b"\0", TAIL, 0),
    "another page": (page_of((OTHER, 0)), TAIL, 0),
    "a page table for no page": (PAGE, bytes(32), 0),
    "a base of zeros": (PAGE, TAIL + bytes(32), 1),
    "an entry outside the base table": (page_of((IDENT, 2)), TAIL + OTHER, 1),
    "an entry far outside the base table": (page_of((IDENT, 2**32 - 1)), TAIL + OTHER, 1),
    "a base index in a map without bases": (page_of((IDENT, 1)), TAIL, 0),
    "a zero chunk with a base": (page_of((bytes(32), 1)), TAIL + OTHER, 1),
    "a stored page of zeros": (page_of((bytes(32), 0)), TAIL, 0),
}


@pytest.mark.parametrize(("page", "tail", "bases"), RESTS.values(), ids=RESTS.keys())
def test_a_forged_page_or_table_is_found(backed_up: Site, page: bytes, tail: bytes, bases: int) -> None:
    """Whatever pages and tables hold, it is found before it is used."""
    if len(page) == len(PAGE) and page != page_of((OTHER, 0)):
        tail = blake3.blake3(page).digest() + tail[32:] if tail[:32] == TAIL else tail
    put_map(backed_up, map_header(bases=bases, tail=tail), page + tail)

    found_only(backed_up)


def test_a_base_that_stands_twice_is_found(backed_up: Site) -> None:
    """Each base has one place in the table."""
    page = page_of((IDENT, 1), (IDENT, 2))
    tail = blake3.blake3(page).digest() + OTHER * 2
    header = map_header(image_size=2 * CHUNK, bases=2, tail=tail)
    put_map(backed_up, header, page + tail, image_size=2 * CHUNK)

    found_only(backed_up)


@pytest.mark.parametrize("cut", range(0, HEADER.size + 1, 16))
def test_a_map_that_is_only_a_piece_of_a_header_is_found(backed_up: Site, cut: int) -> None:
    """At every length of it."""
    put_map(backed_up, map_header(tail=TAIL)[:cut], b"")

    found_only(backed_up)


def test_a_billion_entries_as_a_hole_are_found_at_the_first(backed_up: Site) -> None:
    """36 GB of stored zero pages that take no disk at all cost no time either."""
    pages = 10**9 // PAGE_ENTRIES
    size = pages * PAGE_ENTRIES * CHUNK
    tail = blake3.blake3(bytes(PAGE_ENTRIES * 36)).digest() * pages
    header = map_header(image_size=size, stored_pages=pages, tail=tail)
    put_map(backed_up, header, tail, image_size=size, hole=pages * PAGE_ENTRIES * 36)

    found_only(backed_up)


def test_entries_that_name_missing_chunks_are_found_by_range(backed_up: Site) -> None:
    """A sound map over chunks that do not exist: each with its byte range."""
    put_chunk_map(backed_up, (OTHER, 0), (IDENT, 0), (bytes(32), 0), (OTHER, 0))

    (finding,) = found_only(backed_up, kind="chunk")

    assert OTHER.hex() == finding["chunk"]
    assert [{"offset": 0, "length": CHUNK}, {"offset": 3 * CHUNK, "length": CHUNK}] == finding["ranges"]


def test_an_entry_that_is_its_own_base_is_found(backed_up: Site) -> None:
    """No chunk leans on itself."""
    put_chunk_map(backed_up, (OTHER, 1), bases=(OTHER,))

    found_only(backed_up, kind="chunk")


def test_a_chunk_shorter_than_its_place_is_found(backed_up: Site) -> None:
    """The last chunk of one image as the first of another would move everything behind it."""
    backed_up.image.write_bytes(b"short")
    backed_up.backup()
    put_chunk_map(backed_up, (chunk_id(b"short"), 0), (IDENT, 0))

    (finding,) = found_only(backed_up, kind="chunk")

    assert [{"offset": 0, "length": CHUNK}] == finding["ranges"]


@pytest.mark.parametrize("length", [1, CHUNK - 1])
def test_a_chunk_longer_than_its_place_is_found(backed_up: Site, length: int) -> None:
    """A whole chunk where the image ends early would write behind the end."""
    page = page_of((IDENT, 0))
    put_map(backed_up, map_header(image_size=length, tail=TAIL), page + TAIL, image_size=length)

    found_only(backed_up, kind="chunk")


def test_the_forgery_itself_is_sound(backed_up: Site, tmp_path: Path) -> None:
    """What these tests vary is a map that this version restores."""
    put_map(backed_up, map_header(tail=TAIL), PAGE + TAIL)
    out = tmp_path / "out.raw"

    assert 0 == backy("-b", str(backed_up.job), "verify").code
    assert 0 == backy("-b", str(backed_up.job), "-q", "restore", "-r", FORGED, str(out)).code
    assert b"good" * (CHUNK // 4) == out.read_bytes()
