"""T17: with chunks missing or bad, a restore stops with the range, or goes on and lists them all."""

import json
import os

import pytest
from small_store import MemoryTarget, restore_to

from backy.domain.chunk import chunk_id
from backy.ground.errors import ImageDamaged, MapDamaged, ReadBackDiffers
from backy.ground.linux import Buffer
from damaging import chunk_file
from testsite import CHUNK, Site

CONTENTS = [bytes([number]) * CHUNK for number in range(1, 8)]
SIZE = 7 * CHUNK + 100


@pytest.fixture
def rotten(site: Site) -> Site:
    """A revision of eight chunks, with the third one bad and the sixth one missing."""
    site.image.write_bytes(b"".join(CONTENTS) + b"e" * 100)
    site.backup()
    bad, missing = (chunk_file(site, CONTENTS[number]) for number in (2, 5))
    bad.chmod(0o600)
    bad.write_bytes(bad.read_bytes()[:-1] + b"?")
    missing.unlink()
    return site


EXPECTED = b"".join([*CONTENTS[:2], bytes(CHUNK), *CONTENTS[3:5], bytes(CHUNK), CONTENTS[6], b"e" * 100])
RANGES = [(2 * CHUNK, CHUNK), (5 * CHUNK, CHUNK)]


def test_a_restore_stops_with_the_byte_range(rotten: Site) -> None:
    """The first range that cannot be produced is named, with the reason and what to do."""
    target = MemoryTarget()

    with pytest.raises(ImageDamaged) as caught:
        restore_to(rotten, "latest", target)

    assert (2 * CHUNK, CHUNK) == (caught.value.offset, caught.value.length)
    assert not target.finished


def test_the_command_line_names_the_range_and_leaves_no_file(rotten: Site) -> None:
    """One sentence, exit code 1, no target."""
    done = rotten.cli("restore", str(rotten.folder / "out.raw"))

    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert any(
        f"bytes {offset} to {offset + length - 1} cannot be restored" in done.stderr
        for offset, length in RANGES
    )
    assert "--keep-going restores the rest." in done.stderr
    assert ["backups", "image.raw"] == sorted(os.listdir(rotten.folder))


def test_keep_going_restores_the_rest_and_lists_the_ranges(rotten: Site) -> None:
    """Zeros where it is damaged, the list as JSON and on stderr, and exit code 1."""
    target, listed = rotten.folder / "out.raw", rotten.folder / "bad.json"
    target.write_bytes(b"\xff" * 2 * SIZE)

    done = rotten.cli("restore", "--keep-going", "--bad-ranges", str(listed), str(target))

    assert 1 == done.returncode
    assert EXPECTED == target.read_bytes()
    found = json.loads(listed.read_text())
    assert RANGES == [(one["offset"], one["length"]) for one in found]
    bad, missing = (chunk_id(CONTENTS[number]).hex() for number in (2, 5))
    reasons = [f"chunk {bad} is damaged: its checksum does not match.", f"chunk {missing} is missing."]
    assert reasons == [one["why"] for one in found]
    assert "2 ranges (8.0 KiB) could not be restored; the target has zeros there:" in done.stderr


def test_one_bad_range_is_told_in_the_singular(site: Site) -> None:
    """The sentence is made for one, too."""
    site.image.write_bytes(CONTENTS[0])
    site.backup()
    for path in site.chunk_files():
        path.unlink()

    done = site.cli("restore", "--keep-going", str(site.folder / "out.raw"))

    assert "backy: 1 range (4.0 KiB) could not be restored; the target has zeros there:" in done.stderr


def test_keep_going_reads_the_rest_back(rotten: Site) -> None:
    """The bad ranges are left out of the comparison; everything else is compared."""
    target = MemoryTarget()

    bad = restore_to(rotten, "latest", target, keep_going=True, read_back=True)

    assert RANGES == [(one.offset, one.length) for one in bad]
    assert EXPECTED == bytes(target.content)


def test_keep_going_streams_zeros_in_place_of_what_is_lost(rotten: Site) -> None:
    """On standard output too every byte stands at its offset."""
    done = rotten.cli("restore", "--keep-going", "-")

    assert (1, EXPECTED) == (done.returncode, done.stdout.encode())


def test_keep_going_on_a_whole_revision_finds_nothing(site: Site) -> None:
    """No list, and exit code 0."""
    site.image.write_bytes(CONTENTS[0])
    site.backup()

    done = site.cli("restore", "--keep-going", str(site.folder / "out.raw"))

    assert (0, "") == (done.returncode, done.stderr)


def test_a_damaged_map_cannot_be_worked_around(rotten: Site) -> None:
    """Without its map nothing of a revision can be placed, so even --keep-going stops."""
    revision = rotten.history().revisions[0]
    path = rotten.job / f"{revision.uuid}.map"
    path.chmod(0o600)
    path.write_bytes(b"")

    with pytest.raises(MapDamaged):
        restore_to(rotten, "latest", MemoryTarget(), keep_going=True)


def test_a_list_that_cannot_be_written_is_told_before_hours_of_work(rotten: Site) -> None:
    """A missing directory is a mistake in the request."""
    words = ("--keep-going", "--bad-ranges", str(rotten.folder / "missing" / "list"))
    done = rotten.cli("restore", *words, str(rotten.folder / "out.raw"))

    assert (2, "") == (done.returncode, done.stdout)
    assert "--bad-ranges: the directory of " in done.stderr
    assert not (rotten.folder / "out.raw").exists()


def test_a_stream_that_ends_early_is_called_incomplete(rotten: Site) -> None:
    """What has been written there is no image."""
    done = rotten.cli("restore", "-")

    assert 1 == done.returncode
    assert "; target - is incomplete; --keep-going restores the rest." in done.stderr


def test_bad_ranges_needs_keep_going(rotten: Site) -> None:
    """Alone it would never be written."""
    done = rotten.cli("restore", "--bad-ranges", "list", str(rotten.folder / "out.raw"))

    assert (2, "backy: --bad-ranges: it goes with --keep-going.\n") == (done.returncode, done.stderr)


class LyingTarget(MemoryTarget):
    """Returns another byte than was written at one place."""

    def __init__(self, lie_at: int) -> None:
        super().__init__()
        self._lie_at = lie_at

    def read_back(self, buffer: Buffer, offset: int, length: int) -> int:
        """See `Target.read_back`."""
        count = super().read_back(buffer, offset, length)
        if offset <= self._lie_at < offset + count:
            buffer.view[self._lie_at - offset] ^= 1
        return count


class ShortTarget(MemoryTarget):
    """Loses its last byte."""

    def finish(self) -> None:
        """See `Target.finish`."""
        del self.content[-1:]


@pytest.mark.parametrize("at", [0, CHUNK - 1, CHUNK, 2 * CHUNK, 3 * CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 9])
def test_read_back_finds_a_target_that_lies(site: Site, at: int) -> None:
    """In data, in zeros, at the edges of chunks and in the last byte: the range is named."""
    site.image.write_bytes(b"a" * CHUNK + bytes(CHUNK) + b"c" * CHUNK + b"d" * 10)
    site.backup()

    with pytest.raises(ReadBackDiffers) as caught:
        restore_to(site, "latest", LyingTarget(at), read_back=True)

    assert caught.value.offset <= at < caught.value.offset + caught.value.length
    assert "do not use it" in caught.value.message


def test_read_back_finds_a_target_that_lost_its_end(site: Site) -> None:
    """A byte that is not there differs, too."""
    site.image.write_bytes(b"a" * CHUNK + b"b")
    site.backup()

    with pytest.raises(ReadBackDiffers):
        restore_to(site, "latest", ShortTarget(), read_back=True)


def test_read_back_of_a_stream_is_refused(site: Site) -> None:
    """There is nothing to read again."""
    done = site.cli("restore", "--read-back", "-")

    assert (2, 1) == (done.returncode, done.stderr.count("\n"))
    assert "standard output cannot be read back" in done.stderr
