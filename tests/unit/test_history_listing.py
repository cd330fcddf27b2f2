"""Listing a history: what is a revision, what is unreadable, what is lost, and what is ignored."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from backy.domain import sealed
from backy.domain.revision import serialise
from backy.ground.directory import Directory
from backy.ground.errors import FormatUnknown, RecordDamaged
from backy.repository import history
from fakes import fake_revision
from strategies import hostile_names

REVISIONS = [fake_revision(number, "daily") for number in range(4)]
ONE = REVISIONS[1]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Directory]:
    """A job's empty directory."""
    with Directory.open(str(tmp_path)) as directory:
        yield directory


def put(job: Directory, name: str, content: bytes = b"") -> Path:
    """A file of the job."""
    path = Path(job.file_path(name))
    path.write_bytes(content)
    return path


def test_revisions_are_listed_oldest_first(job: Directory) -> None:
    """The time decides, not the name and not the order of the directory."""
    later = msgspec.structs.replace(REVISIONS[0], taken_at=fake_revision(9).taken_at)
    for one in (REVISIONS[3], later, ONE, REVISIONS[2]):
        put(job, f"{one.uuid}.rev", serialise(one))

    assert (ONE, REVISIONS[2], REVISIONS[3], later) == history.load(job).revisions


def test_revisions_of_one_instant_have_a_fixed_order(job: Directory) -> None:
    """Two revisions of the same time are ordered by their UUID, so `latest` is always the same."""
    twins = [msgspec.structs.replace(one, taken_at=ONE.taken_at) for one in REVISIONS]
    for one in reversed(twins):
        put(job, f"{one.uuid}.rev", serialise(one))

    assert tuple(twins) == history.load(job).revisions


def test_empty_directory_has_an_empty_history(job: Directory) -> None:
    """A job that has never been backed up has no revision, and nothing is wrong with that."""
    assert history.History((), (), ()) == history.load(job)


@pytest.mark.parametrize("suffix", [".pending", ".forgotten"])
def test_record_in_another_state_is_no_revision(job: Directory, suffix: str) -> None:
    """What is not committed, or was forgotten, is neither listed nor missed."""
    put(job, ONE.uuid + suffix, serialise(ONE))
    put(job, f"{ONE.uuid}.map")

    assert history.History((), (), ()) == history.load(job)


@pytest.mark.parametrize("name", [".map", ".data.map"])
def test_map_without_any_record_is_a_lost_revision(job: Directory, name: str) -> None:
    """A record that vanished without `forget` is told, whichever disk's map is left."""
    put(job, ONE.uuid + name)

    assert (ONE.uuid,) == history.load(job).lost


def test_revision_of_many_maps_is_lost_once(job: Directory) -> None:
    """One line a revision, sorted."""
    for one in (REVISIONS[2], ONE):
        for name in (".map", ".a.map", ".b.map"):
            put(job, one.uuid + name)

    assert (ONE.uuid, REVISIONS[2].uuid) == history.load(job).lost


def test_revision_that_is_committed_during_the_listing_is_not_lost(
    job: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may see the map before the record: a second look decides."""
    put(job, f"{ONE.uuid}.map")
    real = Directory.names

    def early(directory: Directory) -> list[str]:
        names = real(directory)
        put(job, f"{ONE.uuid}.rev", serialise(ONE))
        return names

    monkeypatch.setattr(Directory, "names", early)

    assert history.History((ONE,), (), ()) == history.load(job)


def test_revision_that_is_forgotten_during_the_listing_is_left_out(
    job: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was listed and is gone when it is read is neither an error nor a loss."""
    path = put(job, f"{ONE.uuid}.rev", serialise(ONE))
    put(job, f"{ONE.uuid}.map")
    real = Directory.names

    def late(directory: Directory) -> list[str]:
        names = real(directory)
        if path.exists():
            path.rename(path.with_suffix(".forgotten"))
        return names

    monkeypatch.setattr(Directory, "names", late)

    assert history.History((), (), ()) == history.load(job)


def newer(content: bytes) -> bytes:
    """The same record in the next format."""
    return sealed.seal(sealed.unseal(content).replace(b'"format": 1', b'"format": 2'))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.write_bytes(b""), RecordDamaged),
        (lambda path: path.write_bytes(serialise(ONE)[:-10]), RecordDamaged),
        (lambda path: path.write_bytes(serialise(ONE).replace(b"2024", b"2025")), RecordDamaged),
        (lambda path: path.write_bytes(serialise(REVISIONS[2])), RecordDamaged),
        (lambda path: path.write_bytes(bytes((4 << 20) + 1)), RecordDamaged),
        (lambda path: path.write_bytes(newer(serialise(ONE))), FormatUnknown),
        (os.mkfifo, RecordDamaged),
        (Path.mkdir, RecordDamaged),
        (lambda path: path.symlink_to("good"), RecordDamaged),
    ],
)
def test_record_that_cannot_be_used_is_told_beside_the_others(
    job: Directory, make: Callable[[Path], object], kind: type
) -> None:
    """One bad record hides no good one, and comes with the error that says why."""
    put(job, "good", serialise(ONE))
    put(job, f"{REVISIONS[3].uuid}.rev", serialise(REVISIONS[3]))
    make(Path(job.file_path(f"{ONE.uuid}.rev")))

    found = history.load(job)
    assert (REVISIONS[3],) == found.revisions
    assert [(ONE.uuid, kind)] == [(one.uuid, type(one.error)) for one in found.unreadable]
    assert () == found.lost


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "backy.log",
        "note.rev",
        f"{ONE.uuid}",
        f"{ONE.uuid}.rev.bak",
        f".{ONE.uuid}.rev.new",
        f"{ONE.uuid.upper().replace('0', 'A')}.rev",
        f"{ONE.uuid}.rev\n",
        f"x{ONE.uuid}.rev",
        f"{ONE.uuid}.map.old",
        f"{ONE.uuid}.a.b.map",
        f"{ONE.uuid}..map",
    ],
)
def test_other_files_are_not_ours(job: Directory, name: str) -> None:
    """Only the exact names are records and maps."""
    put(job, name, serialise(ONE))

    assert history.History((), (), ()) == history.load(job)


def test_hostile_file_names_are_not_ours(job: Directory) -> None:
    """Whatever names lie in a job's directory, listing it does not fail."""
    names = [name for name in hostile_names() if "/" not in name]
    for name in names:
        with suppress(OSError, ValueError):  # some are no file names at all
            put(job, name)

    assert history.History((), (), ()) == history.load(job)
