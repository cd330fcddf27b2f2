"""Moving a chunk aside: only when it proves to be bad, and back if it turns good."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.domain.chunk import Encoder, chunk_id, encode_delta, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import ReportMissing, ReportRefused, StorageFailed
from backy.repository import layout, quarantine
from testsite import CHUNK, Site

PLAIN = b"plain" * 800
BASE = b"base." * 800
LZ4 = Encoder(parse_codec("lz4"))
FULL = Entry(chunk_id(PLAIN))
DELTA = Entry(chunk_id(PLAIN), chunk_id(BASE))


@pytest.fixture
def chunks(site: Site) -> Iterator[Directory]:
    """The chunk store, with the chunk FULL, its base and a delta of the same content."""
    put(site, FULL, good(FULL))
    put(site, Entry(chunk_id(BASE)), joined(encode_full(chunk_id(BASE), BASE, LZ4)))
    put(site, DELTA, good(DELTA))
    with Directory.open(str(site.chunks)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_failpoint() -> Iterator[None]:
    """No hook outlives its test."""
    yield
    failpoint.install(None)


def joined(frame: list[bytes | bytearray | memoryview]) -> bytes:
    """A frame as the file that it becomes."""
    return b"".join(bytes(part) for part in frame)


def good(entry: Entry) -> bytes:
    """What the chunk's file should hold."""
    if entry.base is None:
        return joined(encode_full(entry.ident, PLAIN, LZ4))
    return joined(encode_delta(entry.ident, PLAIN, entry.base, BASE, 0, LZ4))


def put(site: Site, entry: Entry, content: bytes) -> Path:
    """Write a chunk's file, whatever it is to hold."""
    path = site.chunks / layout.chunk_path(entry)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def bad(content: bytes) -> bytes:
    """With one bit flipped in the last byte."""
    return content[:-1] + bytes([content[-1] ^ 1])


def in_quarantine(site: Site) -> list[str]:
    """Names of everything in all cases."""
    return sorted(path.name for path in site.chunks.glob("quarantine/*/*"))


@pytest.mark.parametrize("entry", [FULL, DELTA], ids=["full", "delta"])
def test_a_good_chunk_is_not_moved(site: Site, chunks: Directory, entry: Entry) -> None:
    """Whoever suspects it: it is looked at first."""
    assert quarantine.set_aside(chunks, CHUNK, entry) is None

    assert [] == list((site.chunks / "quarantine").iterdir())


@pytest.mark.parametrize("entry", [FULL, DELTA], ids=["full", "delta"])
@pytest.mark.parametrize(
    "content",
    [bad(good(FULL)), b"", b"short", good(FULL)[:-1], bad(good(DELTA))],
    ids=["a flipped bit", "nothing", "no header", "cut short", "another flipped bit"],
)
def test_a_bad_chunk_is_moved_as_it_is(
    site: Site, chunks: Directory, entry: Entry, content: bytes
) -> None:
    """Into a case of its own under its own name, every byte kept."""
    path = put(site, entry, content)

    case = quarantine.set_aside(chunks, CHUNK, entry)

    assert not path.exists()
    assert content == (site.chunks / "quarantine" / str(case) / path.name).read_bytes()
    (found,) = quarantine.cases(chunks)
    assert (case, entry, None) == found


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "another chunk's file"])
def test_what_is_no_chunk_in_a_chunks_place_is_moved_without_being_followed(
    site: Site, chunks: Directory, kind: str
) -> None:
    """It stands in the way of a good one, so it goes as a damaged one does."""
    path = site.chunks / layout.chunk_path(FULL)
    path.unlink()
    outside = site.folder / "outside"
    outside.write_bytes(good(FULL))
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(joined(encode_full(chunk_id(BASE), BASE, LZ4)))

    case = quarantine.set_aside(chunks, CHUNK, FULL)

    assert case is not None
    assert not os.path.lexists(path)
    quarantine.delete(chunks, quarantine.case(chunks, case))
    assert [] == in_quarantine(site)
    assert outside.exists()


def test_a_delta_whose_base_is_bad_is_not_judged(site: Site, chunks: Directory) -> None:
    """The base is moved, and the delta stays: it may be all that is left of this content."""
    put(site, Entry(chunk_id(BASE)), b"rotten")

    assert quarantine.set_aside(chunks, CHUNK, DELTA) is None
    assert quarantine.set_aside(chunks, CHUNK, Entry(chunk_id(BASE))) is not None
    assert quarantine.set_aside(chunks, CHUNK, DELTA) is None

    assert [chunk_id(BASE).hex()] == in_quarantine(site)


def test_a_chunk_that_is_gone_is_not_moved(site: Site, chunks: Directory) -> None:
    """Another verify or collection was faster."""
    (site.chunks / layout.chunk_path(FULL)).unlink()

    assert quarantine.set_aside(chunks, CHUNK, FULL) is None
    assert [] == list((site.chunks / "quarantine").iterdir())


def test_a_chunk_that_turned_good_before_the_move_is_linked_back(site: Site, chunks: Directory) -> None:
    """Someone replaced it between the look and the move: nothing is in quarantine afterwards (F9)."""
    path = put(site, FULL, b"rotten")

    def replaced(step: str) -> None:
        if step.startswith("move "):
            put(site, FULL, good(FULL))

    failpoint.install(replaced)

    assert quarantine.set_aside(chunks, CHUNK, FULL) is None

    assert good(FULL) == path.read_bytes()
    assert [] == list((site.chunks / "quarantine").iterdir())


def test_a_chunk_that_was_stored_anew_meanwhile_stays(site: Site, chunks: Directory) -> None:
    """Linking back never replaces what a backup has put into the place."""
    path = put(site, FULL, b"rotten")
    newer = joined(encode_full(FULL.ident, PLAIN, Encoder(parse_codec("zstd"))))

    def replaced(step: str) -> None:
        if step.startswith("move "):
            put(site, FULL, good(FULL))
        elif step.startswith("link "):
            path.write_bytes(newer)

    failpoint.install(replaced)

    assert quarantine.set_aside(chunks, CHUNK, FULL) is None

    assert newer == path.read_bytes()
    assert [] == list((site.chunks / "quarantine").iterdir())


@pytest.mark.parametrize("entry", [FULL, DELTA], ids=["full", "delta"])
def test_a_good_chunk_takes_the_place_of_a_bad_one_that_has_its_name(
    site: Site, chunks: Directory, entry: Entry
) -> None:
    """Purge linked a bad copy back from the trash while the good one was on its way: none is lost."""
    path = put(site, entry, b"rotten")

    def replaced(step: str) -> None:
        if step.startswith("move ") and not in_quarantine(site):
            put(site, entry, good(entry))
        elif step.startswith("link "):
            path.write_bytes(b"rotten, too")

    failpoint.install(replaced)

    assert quarantine.set_aside(chunks, CHUNK, entry) is None

    assert good(entry) == path.read_bytes()
    assert [] == list((site.chunks / "quarantine").iterdir())


def test_where_neither_copy_can_be_judged_both_stay(site: Site, chunks: Directory) -> None:
    """A delta in the store and one in its case, and their base is gone: a later verify goes on."""
    path = put(site, DELTA, b"rotten")

    def replaced(step: str) -> None:
        if step.startswith("move "):
            put(site, DELTA, good(DELTA))
        elif step.startswith("sync ") and in_quarantine(site):
            path.write_bytes(good(DELTA))
            (site.chunks / layout.chunk_path(Entry(chunk_id(BASE)))).unlink(missing_ok=True)

    failpoint.install(replaced)

    assert quarantine.set_aside(chunks, CHUNK, DELTA) is None

    assert path.exists()
    assert [path.name] == in_quarantine(site)


def test_a_chunk_that_another_verify_moves_first_is_no_error(site: Site, chunks: Directory) -> None:
    """Two of them find the same damage; one case is left, and no empty one."""
    path = put(site, FULL, b"rotten")
    seen: list[str] = []

    def taken(step: str) -> None:
        if step.startswith("move ") and not seen:
            seen.append(step)
            assert quarantine.set_aside(chunks, CHUNK, FULL) is not None

    failpoint.install(taken)

    assert quarantine.set_aside(chunks, CHUNK, FULL) is None

    assert not path.exists()
    assert [FULL] == [one.chunk for one in quarantine.cases(chunks)]


def test_a_failed_move_leaves_the_chunk_where_it_was(site: Site, chunks: Directory) -> None:
    """And no case without anything in it."""
    path = put(site, FULL, b"rotten")

    def full(step: str) -> None:
        if step.startswith("move "):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failpoint.install(full)
    with pytest.raises(StorageFailed, match="the disk is full"):
        quarantine.set_aside(chunks, CHUNK, FULL)

    assert path.exists()
    assert [] == list((site.chunks / "quarantine").iterdir())


def test_a_case_is_named_by_its_begin(site: Site, chunks: Directory) -> None:
    """As long as it is the only one; an empty name is none."""
    put(site, FULL, b"rotten")
    case = quarantine.set_aside(chunks, CHUNK, FULL)
    assert case is not None

    assert case == quarantine.case(chunks, case[:6]).name
    for name in ("", "nothing", "../" + case):
        with pytest.raises(ReportMissing):
            quarantine.case(chunks, name)


def test_a_case_with_somebodys_file_is_not_deleted(site: Site, chunks: Directory) -> None:
    """Only what backy put there goes."""
    put(site, FULL, b"rotten")
    case = str(quarantine.set_aside(chunks, CHUNK, FULL))
    (site.chunks / "quarantine" / case / "note").write_text("mine")

    with pytest.raises(ReportRefused, match="note is not backy's"):
        quarantine.delete(chunks, quarantine.case(chunks, case))

    assert [FULL.ident.hex(), "note"] == in_quarantine(site)


def test_a_damaged_report_counts_as_none(site: Site, chunks: Directory) -> None:
    """So that the next verify writes it again."""
    put(site, FULL, b"rotten")
    case = str(quarantine.set_aside(chunks, CHUNK, FULL))
    path = site.chunks / "quarantine" / case / "report"
    for content in (b"", b"{}", b"\xff" * 100):
        path.write_bytes(content)
        (found,) = quarantine.cases(chunks)
        assert found.report is None
        assert found.is_open
