"""Damage and healing, as an operator meets them: verify, backup, reports, repair."""

import json
import os

import pytest
import yaml
from refusals import refused, run_like_others, unchanged
from sharedstore import FIRST, SECOND, SHARED, everywhere, here, records, reports, two_jobs

from damaging import chunk_file, spoil
from testsite import CHUNK, Site, run_backy


@pytest.fixture
def store(site: Site) -> Site:
    """Two days of `vm`, and `db`, which shares its first chunk with both."""
    return two_jobs(site)


def test_a_damaged_chunk_of_two_jobs_heals_with_the_next_backup(store: Site) -> None:
    """Found, moved aside, marked on all sides, stored anew, noted; then verify finds nothing."""
    bad = spoil(chunk_file(store, SHARED))

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
    spoil(chunk_file(store, FIRST))

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
    spoil(chunk_file(store, SECOND))
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
    spoil(chunk_file(store, SHARED))

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
    bad = spoil(chunk_file(store, SHARED))
    (store.chunks / "quarantine").chmod(0o500)

    done = run_like_others(store, "verify")

    (store.chunks / "quarantine").chmod(0o700)
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert "warning: not everything could be moved aside or marked: make " in done.stderr
    assert bad.exists()


# ..Reports...................................................................................


def test_a_report_is_shown_and_deleted_when_nobody_needs_it(store: Site) -> None:
    """Not while a revision lacks the chunk; the begin of its name is enough."""
    bad = spoil(chunk_file(store, FIRST))
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
    spoil(chunk_file(store, FIRST))
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
    spoil(chunk_file(store, SECOND))
    spoil(chunk_file(store, FIRST))
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
    spoil(chunk_file(store, SECOND))
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
