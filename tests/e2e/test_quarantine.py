"""Damage and healing, as an operator meets them: verify, backup, reports, repair, slices."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import backy
from refusals import refused, run_like_others, unchanged

from backy.domain.chunk import chunk_id
from backy.domain.revision import Distrust
from backy.ground import locks
from testsite import CHUNK, Site, parsed, run_backy

SHARED, FIRST, SECOND, OTHER = (bytes([number]) * CHUNK for number in (1, 2, 3, 4))


@pytest.fixture
def store(site: Site) -> Site:
    """Two days of `vm`, and `db`, which shares its first chunk with both."""
    other = site.folder / "db.raw"
    other.write_bytes(SHARED + OTHER)
    site.add_job("db", other)
    for own in (FIRST, SECOND):
        site.image.write_bytes(SHARED + own)
        site.backup()
    site.backup(job="db")
    return site


def chunk_file(site: Site, plain: bytes) -> Path:
    """Where the chunk with these bytes lies, or lay."""
    name = chunk_id(plain).hex()
    return site.chunks / name[:2] / name


def spoil(site: Site, plain: bytes) -> Path:
    """Flip a bit in a chunk's file."""
    path = chunk_file(site, plain)
    content = bytearray(path.read_bytes())
    content[-1] ^= 8
    path.chmod(0o600)
    path.write_bytes(content)
    return path


def everywhere(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command on the whole repository."""
    done = backy("-b", str(site.base), *words)
    return subprocess.CompletedProcess(words, done.code, done.out, done.err)


def here(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command on the job `vm`."""
    return everywhere(site, "-j", "vm", *words)


def records(site: Site, job: str = "vm") -> list[dict[str, Any]]:
    """What `backy status` says of the revisions of a job."""
    listed: list[dict[str, Any]] = parsed(everywhere(site, "-j", job, "status", "--json"))
    return listed


def reports(site: Site) -> list[dict[str, Any]]:
    """What `backy reports` lists."""
    listed: list[dict[str, Any]] = parsed(everywhere(site, "reports", "--json"))
    return listed


def test_a_damaged_chunk_of_two_jobs_heals_with_the_next_backup(store: Site) -> None:
    """Found, moved aside, marked on all sides, stored anew, noted; then verify finds nothing."""
    bad = spoil(store, SHARED)

    found = everywhere(store, "verify")

    assert 1 == found.returncode
    assert "1 chunk moved aside, 3 revisions damaged: see 'backy reports'\n" in found.stdout
    assert not bad.exists()
    assert [CHUNK] * 3 == [one["damaged"] for job in ("vm", "db") for one in records(store, job)]
    (report,) = reports(store)
    assert ("open", bad.name, "verify") == (report["state"], report["chunk"], report["found_by"])
    assert {"vm", "db"} == {one["job"] for one in report["revisions"]}
    assert [{"offset": 0, "length": CHUNK}] == report["revisions"][0]["ranges"]

    backup = here(store, "backup", "daily")

    assert 0 == backup.returncode
    assert "damaged chunks have healed, their content is in the store again (1)." in backup.stderr
    assert [0] * 4 == [one["damaged"] for job in ("vm", "db") for one in records(store, job)]
    (report,) = reports(store)
    assert ("healed", "backup") == (report["state"], report["healed_by"])
    verified = everywhere(store, "verify")
    assert (0, "") == (verified.returncode, verified.stderr)
    assert {"verified"} == {one["trust"] for job in ("vm", "db") for one in records(store, job)}
    for revision in store.history().revisions:
        assert store.restored(revision).startswith(SHARED)


def test_healthy_revisions_are_untouched_by_a_neighbours_damage(store: Site) -> None:
    """Only who needs the chunk is marked, and the rest restores as before."""
    spoil(store, FIRST)

    assert 1 == everywhere(store, "verify").returncode

    assert [CHUNK, 0] == [one["damaged"] for one in records(store)]
    assert ["trusted", "verified"] == [one["trust"] for one in records(store)]
    assert [0] == [one["damaged"] for one in records(store, "db")]
    first, second = store.history().revisions
    assert SHARED + SECOND == store.restored(second)
    out = store.folder / "out.raw"
    refused(
        here(store, "restore", "-r", first.uuid, str(out)),
        1,
        f"bytes {CHUNK} to {2 * CHUNK - 1} cannot be restored: chunk ",
    )


def test_a_damaged_revision_is_no_parent(store: Site) -> None:
    """Nothing is taken from it unread, and `status` says what is lost."""
    spoil(store, SECOND)
    assert 1 == everywhere(store, "verify").returncode
    first = store.history().revisions[0].uuid
    status = here(store, "status")
    assert "damaged: 4.0 KiB lost" in status.stdout
    assert "warning: 1 revision of 'vm' is damaged: see 'backy reports'." in status.stderr

    assert 0 == here(store, "backup", "daily").returncode

    assert [None, first, first] == [one["parent"] for one in records(store)]
    assert [0, 0, 0] == [one["damaged"] for one in records(store)]


def test_a_missing_chunk_is_marked_without_a_report_and_heals(store: Site) -> None:
    """There is nothing to be moved aside, but whom it hurts is marked all the same."""
    chunk_file(store, SHARED).unlink()

    assert 1 == here(store, "verify").returncode

    assert [] == reports(store)
    assert [CHUNK] * 3 == [one["damaged"] for job in ("vm", "db") for one in records(store, job)]
    assert 0 == here(store, "backup", "daily").returncode
    assert [0] * 3 == [one["damaged"] for one in records(store)]
    assert 0 == everywhere(store, "verify").returncode
    assert [0] == [one["damaged"] for one in records(store, "db")]


def test_verify_may_be_asked_to_change_nothing(store: Site) -> None:
    """--no-quarantine finds as much, moves nothing and marks nothing."""
    spoil(store, SHARED)

    with unchanged(store):
        assert 1 == here(store, "verify", "--no-quarantine").returncode


def test_a_chunk_that_cannot_be_read_is_never_moved(store: Site) -> None:
    """What the system refuses to read may be fine: a finding, and all stays where it is."""
    path = chunk_file(store, SHARED)
    path.chmod(0)

    done = run_like_others(store, "verify")

    assert (1, "") == (done.returncode, done.stderr)
    assert path.exists()
    assert [] == list((store.chunks / "quarantine").iterdir())
    assert [0] * 2 == [one["damaged"] for one in records(store)]


def test_verify_says_where_it_could_not_move_a_chunk_aside(store: Site) -> None:
    """Without the right to write, the findings are all there is: exit code 1, and one warning."""
    bad = spoil(store, SHARED)
    (store.chunks / "quarantine").chmod(0o500)

    done = run_like_others(store, "verify")

    (store.chunks / "quarantine").chmod(0o700)
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert "warning: not everything could be moved aside or marked: make " in done.stderr
    assert bad.exists()


# ..Reports...................................................................................


def test_a_report_is_shown_and_deleted_when_nobody_needs_it(store: Site) -> None:
    """Not while a revision lacks the chunk; the begin of its name is enough."""
    bad = spoil(store, FIRST)
    assert "no reports\n" == everywhere(store, "reports").stdout
    assert 1 == everywhere(store, "verify").returncode
    (report,) = reports(store)
    (first, _) = store.history().revisions

    shown = everywhere(store, "reports", "show", report["case"][:8])
    assert 0 == shown.returncode
    assert f"vm   {first.uuid}  {CHUNK}+{CHUNK}" in shown.stdout
    with unchanged(store):
        refused(
            everywhere(store, "reports", "delete", report["case"]),
            1,
            "1 revision still lack its chunk; --force deletes it.",
        )
    assert 0 == here(store, "forget", "-r", first.uuid).returncode
    assert 0 == everywhere(store, "reports-delete", report["case"]).returncode
    assert [] == reports(store)
    assert [] == list(store.chunks.glob(f"quarantine/*/{bad.name}"))


def test_a_report_is_deleted_by_force(store: Site) -> None:
    """The operator knows better; the damaged bytes are gone for good."""
    spoil(store, FIRST)
    assert 1 == everywhere(store, "verify").returncode
    (report,) = reports(store)

    assert 0 == everywhere(store, "reports", "delete", "--force", report["case"]).returncode

    assert [] == reports(store)
    assert 1 == here(store, "verify", "-r", "first").returncode


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["show", "nobody"], 1, "'nobody' names no report; 'backy reports list' shows them."),
        (["show"], 2, "CASE: 'show' takes one."),
        (["list", "x"], 2, "CASE: 'list' takes none."),
        (["list", "--force"], 2, "--force: only 'delete' takes it."),
        (["show", "../.."], 1, "names no report"),
    ],
)
def test_a_report_that_cannot_be_meant_is_refused(
    store: Site, words: list[str], code: int, why: str
) -> None:
    """In one sentence, and nothing happens."""
    with unchanged(store):
        refused(everywhere(store, "reports", *words), code, why)


def test_what_is_not_backys_in_the_quarantine_is_left_alone(store: Site) -> None:
    """Stray files and folders are passed over by all that looks there."""
    quarantine = store.chunks / "quarantine"
    (quarantine / "note").write_text("mine")
    (quarantine / "folder").mkdir()

    assert [0, 0, 0] == [
        everywhere(store, *words).returncode for words in (["verify"], ["reports"], ["gc"])
    ]

    assert {"note", "folder"} == set(os.listdir(quarantine))


# ..Repair....................................................................................


def test_repair_fills_what_the_image_still_has(store: Site) -> None:
    """The newest revision is whole again; what the image lacks is named."""
    spoil(store, SECOND)
    spoil(store, FIRST)
    assert 1 == everywhere(store, "verify").returncode
    first, second = store.history().revisions

    done = everywhere(store, "repair", "vm")

    assert 1 == done.returncode
    assert f"{first.uuid}  {CHUNK}+{CHUNK}\n" in done.stdout
    assert done.stdout.endswith("2 damaged revisions, 1 chunk stored anew, 1 revision still damaged\n")
    assert [CHUNK, 0] == [one["damaged"] for one in records(store)]
    assert SHARED + SECOND == store.restored(second)
    assert ["healed", "open"] == sorted(one["state"] for one in reports(store))
    again = json.loads(everywhere(store, "repair", "vm", "--json").stdout)
    assert [{"disk": "", "offset": CHUNK, "length": CHUNK}] == again["left"][0]["ranges"]


def test_repair_reads_an_image_that_the_jobs_command_makes(store: Site) -> None:
    """As a backup does, where there is no image without it."""
    hidden = store.folder / "hidden.raw"
    store.image.rename(hidden)
    config = yaml.safe_load((store.job / "config").read_text())
    config["source"]["pre-snapshot"] = f"cp {hidden} {store.image}"
    config["source"]["post-snapshot"] = f"rm {store.image}"
    (store.job / "config").write_text(yaml.safe_dump(config))
    spoil(store, SECOND)
    assert 1 == here(store, "verify").returncode

    done = here(store, "repair")

    assert (0, "") == (done.returncode, done.stderr)
    assert 0 == here(store, "verify").returncode
    assert not store.image.exists()


def test_repair_of_two_jobs_at_once_is_refused(store: Site) -> None:
    """One of the two names must be a mistake."""
    with unchanged(store):
        refused(run_backy("-b", str(store.base), "-j", "other", "repair", "vm"), 2, "'other'", "'vm'")


def test_repair_of_a_whole_job_has_nothing_to_do(store: Site) -> None:
    """And says so with 0."""
    done = here(store, "repair")

    assert (0, "0 damaged revisions, 0 chunks stored anew, 0 revisions still damaged\n") == (
        done.returncode,
        done.stdout,
    )


# ..Distrust..................................................................................


def test_verify_never_clears_what_the_source_is_to_blame_for(store: Site) -> None:
    """Chunks that prove to be good say nothing about an image that was read wrong (F11)."""
    assert 0 == here(store, "distrust", "-r", "0").returncode

    assert 0 == here(store, "verify").returncode

    assert ["verified", "distrusted"] == [one["trust"] for one in records(store)]
    assert "source" == records(store)[1]["distrust"]
    assert "1 revision trusted again\n" == here(store, "distrust", "-r", "0", "--undo").stdout
    assert 0 == here(store, "verify").returncode
    assert ["verified"] * 2 == [one["trust"] for one in records(store)]


def test_distrust_in_the_store_is_cleared_by_verify(store: Site) -> None:
    """And the marker that has backups read their hits again goes with the last of it."""
    marker = store.chunks / "distrusted"
    assert "2 revisions distrusted\n" == here(store, "distrust", "--reason", "store").stdout
    assert marker.exists()
    assert 0 == here(store, "verify", "-r", "first").returncode
    assert marker.exists()

    assert 0 == here(store, "verify").returncode

    assert ["verified"] * 2 == [one["trust"] for one in records(store)]
    assert not marker.exists()


def test_distrust_takes_days(store: Site) -> None:
    """Both ends belong to it; nothing matches outside."""
    assert "0 revisions distrusted\n" == here(store, "distrust", "--until", "2020-01-01").stdout
    assert "2 revisions distrusted\n" == here(store, "distrust", "-f", "2020-01-01").stdout
    refused(
        here(store, "distrust", "-f", "yesterday"), 2, "--from: 'yesterday' is not a day written as "
    )
    refused(
        here(store, "distrust", "-r", "0", "-u", "2020-01-01"),
        2,
        "-r: it does not go with --from and --until.",
    )


def test_a_record_that_cannot_be_read_keeps_no_other_from_being_distrusted(store: Site) -> None:
    """It is named; the day on which records cannot be read is the day to distrust the disk."""
    store.backup()
    damaged, readable = store.history().revisions[-2:]
    (store.job / f"{damaged.uuid}.rev").chmod(0o600)
    (store.job / f"{damaged.uuid}.rev").write_bytes(b"rotten")

    done = store.cli("distrust", "--reason", "store")

    assert 0 == done.returncode
    assert f"warning: {damaged.uuid}.rev cannot be read, and is left as it is" in done.stderr
    found = store.history().revisions
    assert readable.uuid in {one.uuid for one in found}
    assert {Distrust.STORE} == {one.distrust for one in found}


def test_a_backup_in_a_distrusted_store_reads_its_hits_again(store: Site) -> None:
    """The bad one is moved aside and stored anew; who leaned on it is whole again, but not believed."""
    assert 0 == everywhere(store, "-j", "db", "distrust", "--reason", "store").returncode
    bad = spoil(store, SHARED)

    done = here(store, "backup", "daily")

    assert 0 == done.returncode
    assert "damaged chunks were moved aside (1)." in done.stderr
    assert "revisions (2) are distrusted until 'backy verify' has proven them." in done.stderr
    assert bad.exists()
    (report,) = reports(store)
    assert ("healed", "backup", "backup") == (
        report["state"],
        report["found_by"],
        report["healed_by"],
    )
    assert 3 == len(report["revisions"]) - 1
    assert ["distrusted", "distrusted", "trusted"] == [one["trust"] for one in records(store)]
    assert 0 == everywhere(store, "verify").returncode
    assert ["verified"] * 3 == [one["trust"] for one in records(store)]


def test_a_parent_with_a_damaged_map_makes_the_store_distrusted(store: Site) -> None:
    """Everything that nobody has verified is believed no more, and the backup leans on nothing."""
    first, second = store.history().revisions
    path = store.job / f"{second.uuid}.map"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)

    done = here(store, "backup", "daily")

    assert 0 == done.returncode
    assert "a chunk map is damaged, so revisions (2) are distrusted until " in done.stderr
    assert (store.chunks / "distrusted").exists()
    assert [None, first.uuid, None] == [one["parent"] for one in records(store)]
    assert [0, 2 * CHUNK, 0] == [one["damaged"] for one in records(store)]
    assert ["distrusted", "distrusted", "trusted"] == [one["trust"] for one in records(store)]


def test_a_backup_that_cannot_read_its_hits_is_not_believed(store: Site) -> None:
    """They may be fine and cannot be replaced, so the revision is made, and does not count."""
    assert 0 == everywhere(store, "-j", "db", "distrust", "--reason", "store").returncode
    path = chunk_file(store, SHARED)
    path.chmod(0)

    done = run_like_others(store, "backup", "daily")

    path.chmod(0o440)
    assert 0 == done.returncode
    assert "chunks that are needed cannot be read, so this revision is distrusted." in done.stderr
    assert ("distrusted", "store") == (records(store)[-1]["trust"], records(store)[-1]["distrust"])
    assert path.exists()
    assert 0 == everywhere(store, "verify").returncode
    assert "verified" == records(store)[-1]["trust"]


def test_check_warns_of_what_has_not_healed(store: Site) -> None:
    """Open reports and damaged revisions, until they have healed."""
    config = store.folder / "backy.conf"
    schedule = "schedules: {default: {daily: {interval: 1d, keep: 9}}}"
    source = f"{{type: file, filename: {store.image}}}"
    config.write_text(
        f"global: {{base-dir: {store.base}}}\n{schedule}\n"
        f"jobs: {{vm: {{schedule: default, source: {source}}}}}\n"
    )
    texts = ["1 damaged chunk is in quarantine and not healed", "2 revisions are damaged"]
    spoil(store, SHARED)
    assert 1 == everywhere(store, "verify").returncode

    before = backy("-c", str(config), "check").out
    assert 0 == here(store, "backup", "daily").returncode
    after = backy("-c", str(config), "check").out

    assert [True, True] == [text in before for text in texts]
    assert [False, False] == [text in after for text in texts]


# ..Slices....................................................................................


def test_a_slice_proves_the_whole_store_and_moves_aside(store: Site) -> None:
    """Bad chunks of all jobs, with whom they hurt, and what is missing at the end of the cycle."""
    bad = spoil(store, SHARED)
    chunk_file(store, FIRST).unlink()

    done = everywhere(store, "verify", "--slice", "1h", "--json")

    assert 1 == done.returncode
    found = json.loads(done.stdout)
    assert ([bad.name], 3, True) == (
        [one["chunk"] for one in found["bad"]],
        found["chunks"],
        found["whole"],
    )
    assert [2 * CHUNK, CHUNK] == [one["damaged"] for one in records(store)]
    site_again = here(store, "backup", "daily")
    assert 0 == site_again.returncode
    again = everywhere(store, "verify", "--slice", "1h")
    assert 1 == again.returncode
    assert "the whole store is verified now" in again.stdout


@pytest.mark.parametrize("words", [["-r", "0"], ["--quick"], ["--no-quarantine"]])
def test_a_slice_is_of_the_whole_store(store: Site, words: list[str]) -> None:
    """What chooses revisions does not go with it, nor does a time that is none."""
    with unchanged(store):
        refused(everywhere(store, "verify", "--slice", "30m", *words), 2, "--slice: it does not go ")
        refused(everywhere(store, "verify", "--slice", "soon"), 2, "--slice: 'soon' is not a number ")


def test_a_slice_that_could_not_do_everything_ends_as_one_that_could_not_look(store: Site) -> None:
    """Nobody knows whether all is well; what it found counts more."""
    (store.chunks / "verified").mkdir()

    done = everywhere(store, "verify", "--slice", "1h")

    assert (2, 1) == (done.returncode, done.stderr.count("\n"))
    assert "warning: not everything could be done: " in done.stderr
    spoil(store, SHARED)
    assert 1 == everywhere(store, "verify", "--slice", "1h").returncode


@contextmanager
def held(site: Site) -> Iterator[None]:
    """Somebody's edit of the records of `vm` does not come to its end."""
    fd = os.open(site.job / ".history", os.O_RDWR)
    try:
        locks.wait_exclusive(fd)
        yield
    finally:
        os.close(fd)


def test_a_verify_that_could_not_take_distrust_away_says_so(store: Site) -> None:
    """All is good, but the record goes on saying otherwise, for which verify was perhaps run."""
    assert 0 == here(store, "distrust", "--reason", "store").returncode

    with held(store):
        done = here(store, "verify")
        looked_only = here(store, "verify", "--no-quarantine")
        everything = everywhere(store, "verify")

    assert "no findings" in done.stdout
    said = "backy: warning: not everything could be moved aside or marked: "
    for one in (done, everything):
        assert (2, 1) == (one.returncode, one.stderr.count("\n"))
        assert one.stderr.startswith(f"{said}{store.job}/.history is held ")
    assert (0, "") == (looked_only.returncode, looked_only.stderr)
    assert {"distrusted"} == {one["trust"] for one in records(store)}
    assert (0, "") == ((again := here(store, "verify")).returncode, again.stderr)
    assert {"verified"} == {one["trust"] for one in records(store)}


@pytest.mark.parametrize("more", [[], ["--quick"]])
def test_a_verify_that_could_not_note_that_a_chunk_is_back_says_so(store: Site, more: list[str]) -> None:
    """The record goes on saying that the revision is damaged."""
    path = chunk_file(store, FIRST)
    content = path.read_bytes()
    path.unlink()
    assert 1 == here(store, "verify").returncode
    path.write_bytes(content)

    with held(store):
        done = here(store, "verify", *more)

    assert 2 == done.returncode
    assert "warning: not everything could be moved aside or marked: " in done.stderr
    assert [CHUNK, 0] == [one["damaged"] for one in records(store)]


def test_a_verify_that_only_could_not_mark_what_is_good_as_verified_is_content(store: Site) -> None:
    """As on a read-only disk: what its records say is as true as before."""
    with held(store):
        done = here(store, "verify")

    assert (0, "") == (done.returncode, done.stderr)
