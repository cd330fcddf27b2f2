"""Distrust, as an operator meets it: who says so, what follows, and who takes it back."""

import pytest
from in_process import backy
from refusals import refused, run_like_others
from sharedstore import SHARED, everywhere, here, records, reports, two_jobs

from backy.domain.revision import Distrust
from damaging import chunk_file, spoil
from testsite import CHUNK, Site


@pytest.fixture
def store(site: Site) -> Site:
    """Two days of `vm`, and `db`, which shares its first chunk with both."""
    return two_jobs(site)


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
    bad = spoil(chunk_file(store, SHARED))

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
    spoil(chunk_file(store, SHARED))
    assert 1 == everywhere(store, "verify").returncode

    before = backy("-c", str(config), "check").out
    assert 0 == here(store, "backup", "daily").returncode
    after = backy("-c", str(config), "check").out

    assert [True, True] == [text in before for text in texts]
    assert [False, False] == [text in after for text in texts]
