"""What collection remembers: written in one step, refused if damaged, and never at the cost of a job."""

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backy.domain.collection import Known
from backy.ground import failpoint
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.repository.remembered import (
    Outcome,
    read_known,
    read_outcome,
    write_known,
    write_outcome,
)
from fakes import Steps

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
KNOWN = Known(jobs={"vm": ("a", "b")}, absent={"gone": NOW})
OUTCOME = Outcome(at=NOW, stopped=("why",), chunks=3, condemned=2, purged=1)


@pytest.fixture
def chunks(tmp_path: Path) -> Iterator[Directory]:
    """A folder for both files."""
    with Directory.open(str(tmp_path)) as chunks:
        yield chunks


def test_before_the_first_run_nothing_is_known(chunks: Directory) -> None:
    """Which is no damage."""
    assert Known(jobs={}) == read_known(chunks)
    assert read_outcome(chunks) is None


def test_what_was_written_is_read(chunks: Directory) -> None:
    """And replaces what was there."""
    assert write_known(chunks, Known(jobs={}))
    assert write_known(chunks, KNOWN)
    write_outcome(chunks, OUTCOME)

    assert (KNOWN, OUTCOME) == (read_known(chunks), read_outcome(chunks))
    assert ["collection", "known"] == chunks.names()


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_damage(chunks: Directory, bit: int) -> None:
    """Anywhere in the list: it is refused, and never read as a shorter one."""
    write_known(chunks, KNOWN)
    path = Path(chunks.path, "known")
    sound = path.read_bytes()
    path.chmod(0o600)
    for at in range(len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << bit]) + sound[at + 1 :])
        with pytest.raises(ValueError, match=r"\S"):
            read_known(chunks)


def test_a_list_that_was_cut_short_is_damage(chunks: Directory) -> None:
    """At any byte; an empty file is no empty list."""
    write_known(chunks, KNOWN)
    path = Path(chunks.path, "known")
    sound = path.read_bytes()
    path.chmod(0o600)
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        with pytest.raises(ValueError, match=r"\S"):
            read_known(chunks)


@pytest.mark.parametrize("code", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_list_that_the_disk_does_not_return_is_damage(
    chunks: Directory, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As on file systems with checksums of their own."""

    def fails(_name: str) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(chunks, "open_file", fails)
    with pytest.raises(ValueError, match=os.strerror(code)):
        read_known(chunks)


@pytest.mark.parametrize("kind", ["directory", "pipe", "link"])
def test_what_is_no_file_is_told_by_its_path(chunks: Directory, kind: str) -> None:
    """And is not taken for a missing list."""
    path = Path(chunks.path, "known")
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("elsewhere")

    with pytest.raises(StorageFailed, match=f"read {path}: "):
        read_known(chunks)


@pytest.mark.parametrize("content", [b"", b"rotten", b"{}"])
def test_a_damaged_outcome_is_none(chunks: Directory, content: bytes) -> None:
    """It is only for telling."""
    Path(chunks.path, "collection").write_bytes(content)

    assert read_outcome(chunks) is None


# ..A full disk................................................................................


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["create in", "write in", "sync file in", "link", "rename", "sync "])
def test_on_a_full_disk_the_list_is_forgotten(chunks: Directory, step: str, code: int) -> None:
    """An old one would name what this run removes, and so stop the next."""
    write_known(chunks, Known(jobs={"vm": ("old",)}))
    failed: list[str] = []

    def fail_once(reached: str) -> None:
        if reached.startswith(step) and not failed:
            failed.append(reached)
            raise OSError(code, os.strerror(code))

    failpoint.install(fail_once)

    assert not write_known(chunks, KNOWN)
    assert Known(jobs={}) == read_known(chunks)


def test_on_a_full_disk_the_list_stays_if_something_vanished(chunks: Directory) -> None:
    """Otherwise the next run would take an unmounted job for garbage."""
    write_known(chunks, KNOWN)
    failpoint.install(Steps(fail_at="create in", code=errno.ENOSPC))

    assert not write_known(chunks, Known(jobs={"vm": ("a",)}), complete=False)
    assert KNOWN == read_known(chunks)


def test_on_a_full_disk_a_success_lets_an_old_outcome_be_forgotten(chunks: Directory) -> None:
    """It is no longer true, and no reason to fail."""
    write_outcome(chunks, OUTCOME)
    failpoint.install(Steps(fail_at="create in", code=errno.ENOSPC))
    write_outcome(chunks, Outcome(at=NOW))

    assert read_outcome(chunks) is None


def test_on_a_full_disk_a_failure_leaves_the_old_outcome(chunks: Directory) -> None:
    """An old failure still says that something is wrong, and an old success gets old."""
    write_outcome(chunks, OUTCOME)
    failpoint.install(Steps(fail_at="create in", code=errno.ENOSPC))
    write_outcome(chunks, Outcome(at=NOW + timedelta(days=1), stopped=("full",)))

    assert OUTCOME == read_outcome(chunks)


@pytest.mark.parametrize("complete", [True, False])
def test_other_errors_are_told_and_leave_the_old_list(chunks: Directory, complete: bool) -> None:
    """A disk that errs says nothing about room."""
    write_known(chunks, KNOWN)
    write_outcome(chunks, OUTCOME)
    failpoint.install(Steps(fail_at="write in", code=errno.EIO))

    with pytest.raises(StorageFailed):
        write_known(chunks, Known(jobs={}), complete=complete)
    with pytest.raises(StorageFailed):
        write_outcome(chunks, Outcome(at=NOW))
    assert (KNOWN, OUTCOME) == (read_known(chunks), read_outcome(chunks))
