"""T5, T9: a power cut after a chunk was moved aside, or back, on a disk that loses what was not synced.

Every part of what was not synced may last while the rest does not, and each is tried.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from lossydisk import LossyDisk
from modelfaults import Hook, armed

from backy.domain.chunk import Encoder, chunk_id, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground.directory import Directory
from backy.repository import layout, quarantine
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T5")

PLAIN = b"plain".ljust(CHUNK, b".")
FULL = Entry(chunk_id(PLAIN))
GOOD = b"".join(bytes(part) for part in encode_full(FULL.ident, PLAIN, Encoder(parse_codec("lz4"))))
BAD = b"rotten"
# Of four changes that were not synced, and there are no more at the end of any test, each set.
EVERY_CUT = pytest.mark.parametrize("lasting", range(16))


class Chosen(Random):
    """Not drawn: the N-th change lasts if the N-th bit is set."""

    def __init__(self, bits: int) -> None:
        super().__init__(0)
        self._bits = bits

    def random(self) -> float:
        """Below a half for what lasts."""
        self._bits, bit = divmod(self._bits, 2)
        return 0.0 if bit else 1.0


def acts(**before: Callable[[], None]) -> Hook:
    """Does something once, right before the first step of a kind."""

    def hook(step: str) -> None:
        act = before.pop(step.partition(" ")[0], None)
        if act is not None:
            act()

    return hook


def put(disk: LossyDisk, path: Path, content: bytes) -> None:
    """Somebody else has this file in place of what was there, and has synced it."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    disk.notice(path)


def copies(site: Site, path: Path) -> list[bytes]:
    """What of the chunk is there, in the store and aside."""
    aside = site.chunks.glob(f"quarantine/*/{path.name}")
    return [one.read_bytes() for one in (path, *aside) if one.exists()]


@EVERY_CUT
def test_a_bad_chunk_that_was_moved_aside_outlives_a_power_cut(site: Site, lasting: int) -> None:
    """Nothing is deleted, and some of its bytes may be good."""
    path = site.chunks / layout.chunk_path(FULL)
    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        put(disk, path, BAD)
        assert quarantine.set_aside(chunks, CHUNK, FULL)
        disk.cut(Chosen(lasting))

    assert [BAD] == copies(site, path)


@EVERY_CUT
def test_a_good_chunk_that_is_linked_back_outlives_a_power_cut(site: Site, lasting: int) -> None:
    """Somebody replaced the bad one right before it was moved."""
    path = site.chunks / layout.chunk_path(FULL)
    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        put(disk, path, BAD)
        with armed(acts(move=lambda: put(disk, path, GOOD))):
            assert quarantine.set_aside(chunks, CHUNK, FULL) is None
        disk.cut(Chosen(lasting))

    assert GOOD in copies(site, path)


@EVERY_CUT
def test_a_good_chunk_that_replaces_a_bad_one_outlives_a_power_cut(site: Site, lasting: int) -> None:
    """While it was aside by mistake, somebody linked a bad copy back from the trash."""
    path = site.chunks / layout.chunk_path(FULL)
    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        put(disk, path, BAD)
        meanwhile = acts(move=lambda: put(disk, path, GOOD), link=lambda: put(disk, path, BAD))
        with armed(meanwhile):
            assert quarantine.set_aside(chunks, CHUNK, FULL) is None
        assert [GOOD] == copies(site, path)
        disk.cut(Chosen(lasting))

    assert GOOD in copies(site, path)
