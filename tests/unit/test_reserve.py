"""The reserve: given up on a nearly full disk only, and made again when there is room."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopdisk import mounted

from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.repository import layout, reserve
from fakes import Steps

SIZE = 1 << 20


@pytest.fixture
def chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Directory]:
    """A folder, and a reserve of 1 MiB."""
    monkeypatch.setattr(layout, "RESERVE_SIZE", SIZE)
    with Directory.open(str(tmp_path)) as chunks:
        yield chunks


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Have so many bytes free on the disk."""
    monkeypatch.setattr(reserve, "free_bytes", lambda _: size)


def test_the_reserve_really_takes_its_room(chunks: Directory) -> None:
    """As much as it says, on a file system that compresses and one that makes holes, too."""
    reserve.make(chunks, 3 * SIZE + 5)
    found = Path(chunks.path, "reserve")

    assert 3 * SIZE + 5 == found.stat().st_size <= found.stat().st_blocks * 512
    assert len(set(found.read_bytes()[:4096])) > 200


@pytest.mark.parametrize(
    ("left", "stays"), [(0, False), (SIZE - 1, False), (SIZE, True), (99 * SIZE, True)]
)
def test_it_is_given_up_where_less_than_its_size_is_free(
    chunks: Directory, monkeypatch: pytest.MonkeyPatch, left: int, stays: bool
) -> None:
    """Otherwise it is left alone."""
    reserve.make(chunks, SIZE)
    free(monkeypatch, left)
    reserve.give_up(chunks)

    assert stays is chunks.has("reserve")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "ext4", "btrfs"])
def test_its_room_is_there_as_soon_as_it_was_given_up(tmp_path: Path, kind: str) -> None:
    """Some file systems give space back only when they are synced, and collection needs it at once."""
    with mounted(tmp_path, kind, 300 << 20) as disk, Directory.open(str(disk.folder)) as chunks:
        reserve.make(chunks, 32 * SIZE)
        with disk.filled(SIZE):
            assert disk.free < 16 * SIZE
            reserve.give_up(chunks)
            assert disk.free > 16 * SIZE


def test_what_was_given_up_cannot_be_given_up_again(
    chunks: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is no error."""
    free(monkeypatch, 0)
    reserve.give_up(chunks)

    assert [] == chunks.names()


def test_an_empty_reserve_stays(chunks: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody wanted none, and shall not get one."""
    reserve.make(chunks, 0)
    free(monkeypatch, 0)
    reserve.give_up(chunks)
    free(monkeypatch, 99 * SIZE)

    assert reserve.restore(chunks)
    assert 0 == Path(chunks.path, "reserve").stat().st_size


@pytest.mark.parametrize(
    ("left", "roomy", "made"),
    [(2 * SIZE, True, True), (2 * SIZE - 1, True, False), (SIZE, False, True), (SIZE - 1, False, False)],
)
def test_it_is_made_again_if_that_leaves_room(
    chunks: Directory, monkeypatch: pytest.MonkeyPatch, left: int, roomy: bool, made: bool
) -> None:
    """As much as it takes, unless less will do."""
    free(monkeypatch, left)

    assert made is reserve.restore(chunks, roomy=roomy)
    assert made is chunks.has("reserve")


def test_a_disk_that_fills_meanwhile_is_no_error(
    chunks: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collection has done its work; nothing of the reserve is left lying about."""
    free(monkeypatch, 9 * SIZE)
    failpoint.install(Steps(fail_at="write in", code=errno.ENOSPC))

    assert not reserve.restore(chunks)
    assert [] == chunks.names()


def test_a_disk_that_fails_is_one(chunks: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other errors are told."""
    free(monkeypatch, 9 * SIZE)
    failpoint.install(Steps(fail_at="write in", code=errno.EIO))

    with pytest.raises(StorageFailed):
        reserve.restore(chunks)
