"""Bad input: damaged records, maps and chunks, as an operator meets them on the command line."""

import os
from typing import Any

import pytest
from refusals import refused, unchanged

from damaging import chunk_file, spoil
from testsite import CHUNK, Site, parsed, run_backy

SHARED, FIRST, SECOND = b"shared" * CHUNK, b"first " * CHUNK, b"second" * CHUNK
PIECES = (SHARED[:CHUNK], FIRST[:CHUNK], SECOND[:CHUNK])


@pytest.fixture
def two_days(site: Site) -> Site:
    """Two revisions that share their first chunk; the second day has one of its own."""
    for own in PIECES[1:]:
        site.image.write_bytes(PIECES[0] + own)
        site.backup()
    return site


def uuids(site: Site) -> list[str]:
    """UUIDs of the revisions by their files, oldest first, readable or not."""
    records = sorted(site.job.glob("*.rev"), key=lambda path: path.stat().st_mtime_ns)
    return [path.stem for path in records]


def findings(site: Site, *more: str) -> list[dict[str, Any]]:
    """What verify finds, leaving all as it is; it ends with 1."""
    done = site.cli("verify", "--json", "--no-quarantine", *more)
    assert (1, "") == (done.returncode, done.stderr)
    found: list[dict[str, Any]] = parsed(done)["findings"]
    return found


def test_verify_of_a_good_job_ends_with_0(two_days: Site) -> None:
    """And says how much it looked at."""
    assert "2 revisions, 3 chunks verified: no findings\n" == two_days.cli("verify").stdout
    found = parsed(two_days.cli("verify", "--json"))
    changed = {"aside": 0, "damaged": 0, "healed": 0, "verified": 0, "failed": None}
    assert {"revisions": 2, "chunks": 3, "findings": [], "unreadable": [], **changed} == found
    assert "2 revisions, checksums of 3 chunks verified: no findings\n" == (
        two_days.cli("verify", "--quick").stdout
    )


@pytest.mark.parametrize("more", [[], ["--quick"]])
def test_a_damaged_chunk_is_named_with_the_revisions_and_ranges(two_days: Site, more: list[str]) -> None:
    """Each revision that needs it, with the bytes of its image; as JSON and as a table."""
    path = spoil(chunk_file(two_days, PIECES[1]))
    first, _ = uuids(two_days)

    (found,) = findings(two_days, *more)

    assert {
        "kind": "chunk",
        "job": "vm",
        "revision": first,
        "disk": "",
        "chunk": path.name,
        "ranges": [{"offset": CHUNK, "length": CHUNK}],
        "why": f"chunk {path.name} is damaged: its checksum does not match.",
    } == found
    table = two_days.cli("verify", *more)
    assert 1 == table.returncode
    head, row, closing, aside = table.stdout.splitlines()
    assert ["What", "Job", "Revision"] == head.split()[:3]
    assert ["chunk", "vm", first, f"{CHUNK}+{CHUNK}"] == row.split()[:4]
    assert closing.endswith(": 1 finding")
    assert "1 chunk moved aside, 1 revision damaged: see 'backy reports'" == aside


def test_a_damaged_chunk_that_is_shared_hurts_both(two_days: Site) -> None:
    """One file, two findings."""
    spoil(chunk_file(two_days, PIECES[0]))

    assert uuids(two_days) == sorted(
        (one["revision"] for one in findings(two_days)), key=uuids(two_days).index
    )


def test_verify_looks_at_the_revisions_it_is_asked_for(two_days: Site) -> None:
    """A good one is good, whatever became of the other."""
    spoil(chunk_file(two_days, PIECES[1]))

    assert [0, 1] == [two_days.cli("verify", "-r", spec).returncode for spec in ("0", "1")]


def test_a_restore_of_a_damaged_chunk_stops_and_of_others_does_not(two_days: Site) -> None:
    """With the byte range; the target is not made."""
    spoil(chunk_file(two_days, PIECES[1]))
    out = two_days.folder / "out.raw"

    with unchanged(two_days):
        refused(
            two_days.cli("restore", "-r", "first", str(out)),
            1,
            f"bytes {CHUNK} to {2 * CHUNK - 1} cannot be restored: chunk ",
            "; --keep-going restores the rest.",
        )
        assert not out.exists()
        assert 0 == two_days.cli("restore", str(out)).returncode
    assert PIECES[0] + PIECES[2] == out.read_bytes()


def test_a_damaged_map_is_named(two_days: Site) -> None:
    """Its revision cannot be restored at all; the other can, also as the latest."""
    first, _ = uuids(two_days)
    path = spoil(two_days.job / f"{first}.map")
    out = two_days.folder / "out.raw"

    (found,) = findings(two_days)
    assert ("map", first, [{"offset": 0, "length": 2 * CHUNK}]) == (
        found["kind"],
        found["revision"],
        found["ranges"],
    )
    refused(two_days.cli("restore", "-r", first, str(out)), 1, f"{path}: the chunk map is damaged: ")
    assert 0 == two_days.cli("restore", str(out)).returncode


@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_or_missing_record_stops_what_is_relative(two_days: Site, *, gone: bool) -> None:
    """The newest record may be the one that was meant, so the day before is no answer."""
    first, second = uuids(two_days)
    record = two_days.job / f"{second}.rev"
    spoil(record)
    if gone:
        record.unlink()
    out = str(two_days.folder / "out.raw")

    with unchanged(two_days):
        for words in (
            ["restore", out],
            ["find"],
            ["forget", "-r", "0"],
            ["restore", "-r", "daily", out],
        ):
            refused(two_days.cli(*words), 1, "may not be what you mean", f"{second}.rev")
        for more in ([], ["-r", "latest"], ["-r", second]):
            (found,) = findings(two_days, *more)
            assert ("record", second) == (found["kind"], found["revision"])
        status = two_days.cli("status")
        assert (0, True, True) == (status.returncode, first in status.stdout, second in status.stderr)
    assert 0 == two_days.cli("restore", "-r", first, out).returncode
    assert [0, 1] == [two_days.cli("verify", "-r", one).returncode for one in (first, second)]


def test_a_backup_after_a_damaged_record_is_made(two_days: Site) -> None:
    """Damage of old revisions keeps nobody from making a new one."""
    spoil(two_days.job / f"{uuids(two_days)[1]}.rev")

    assert 0 == two_days.cli("backup", "daily").returncode
    assert 3 == len(list(two_days.job.glob("*.rev")))


def test_a_damaged_record_is_forgotten_by_its_uuid(two_days: Site) -> None:
    """After that everything is as if it had been forgotten while it was whole."""
    first, second = uuids(two_days)
    spoil(two_days.job / f"{second}.rev")

    assert f"forgot revision {second}\n" == two_days.cli("forget", "-r", second).stdout

    assert f"{first}\n" == two_days.cli("find").stdout
    assert 0 == two_days.cli("verify").returncode


def test_a_missing_record_is_accepted_by_its_uuid(two_days: Site) -> None:
    """A revision whose record vanished was perhaps meant to go; saying so clears the finding."""
    first, second = uuids(two_days)
    (two_days.job / f"{first}.rev").unlink()
    assert "accepts that." in two_days.cli("status").stderr

    assert 0 == two_days.cli("forget", "-r", first).returncode

    assert f"{second}\n" == two_days.cli("find").stdout
    assert (0, "") == (two_days.cli("verify").returncode, two_days.cli("status").stderr)


def test_verify_of_a_repository_goes_on_past_a_damaged_job(two_days: Site) -> None:
    """All jobs are looked at, and each finding names its job."""
    two_days.add_job("other", two_days.image)
    two_days.backup(job="other")
    for name in ("vm", "other"):
        for record in (two_days.base / name).glob("*.rev"):
            os.truncate(record, 0)

    found = parsed(two_days.cli("verify", "--json", "-r", "all"))["findings"]
    assert {"vm"} == {one["job"] for one in found}
    everywhere = parsed(run_backy("-b", str(two_days.base), "verify", "--json"))["findings"]
    assert ["other", "vm", "vm"] == [one["job"] for one in everywhere]
