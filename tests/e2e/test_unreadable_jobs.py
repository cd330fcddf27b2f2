"""One job that cannot be read keeps no other from being shown, verified and marked."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from refusals import run_like_others

from damaging import chunk_file, spoil
from testsite import CHUNK, Site

SHARED = b"s" * CHUNK


@pytest.fixture
def store(site: Site) -> Iterator[Site]:
    """Three jobs that share a chunk, of which others than root cannot look into `closed`."""
    site.image.write_bytes(SHARED + b"v" * CHUNK)
    for name in ("closed", "zz"):
        other = site.folder / f"{name}.raw"
        other.write_bytes(SHARED + name.encode()[:1] * CHUNK)
        site.add_job(name, other)
        site.backup(job=name)
    site.backup()
    (site.base / "closed").chmod(0)
    yield site
    (site.base / "closed").chmod(0o700)


def everywhere(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command on the whole repository, as a user who is not root."""
    return run_like_others(site, *words, job=None)


def trusts(site: Site) -> dict[str, str]:
    """Of the newest revision of each job that can be read."""
    return {name: site.history(job=name).revisions[-1].trust.value for name in ("vm", "zz")}


def test_status_shows_the_other_jobs(store: Site) -> None:
    """And fails, since it could not show everything; the job stands there with the reason."""
    done = everywhere(store, "status")
    listed = json.loads(everywhere(store, "status", "--json").stdout)

    assert 1 == done.returncode
    assert ["closed", "vm", "zz"] == [line.split()[0] for line in done.stdout.splitlines()[-3:]]
    assert "cannot be read" in done.stdout
    assert f"warning: open {store.base}/closed: permission denied" in done.stderr
    assert [True, False, False] == [bool(one["problem"]) for one in listed]


def test_verify_verifies_and_marks_the_other_jobs(store: Site) -> None:
    """It ends as one that could not look, since nobody knows whether all is well."""
    done = everywhere(store, "verify")

    assert 2 == done.returncode
    assert "2 revisions, 3 chunks verified: no findings" in done.stdout
    assert f"warning: job 'closed' was not verified: open {store.base}/closed: " in done.stderr
    assert {"vm": "verified", "zz": "verified"} == trusts(store)


def test_findings_in_other_jobs_are_what_verify_ends_with(store: Site) -> None:
    """What is known to be bad counts more than what is not known, and is marked where that can be."""
    everywhere(store, "verify")
    spoil(chunk_file(store, SHARED))

    done = everywhere(store, "verify", "--json")

    assert 1 == done.returncode
    found = json.loads(done.stdout)
    assert {"vm", "zz"} == {one["job"] for one in found["findings"]}
    assert ["closed"] == [one["job"] for one in found["unreadable"]]
    assert {"vm": "trusted", "zz": "trusted"} == trusts(store)
    assert [CHUNK] * 2 == [
        site.damaged for job in ("vm", "zz") for site in store.history(job=job).revisions
    ]


def test_a_case_is_reported_once_all_jobs_can_be_asked(store: Site) -> None:
    """Before, nobody knows whom it hurts."""
    spoil(chunk_file(store, SHARED))
    everywhere(store, "verify")
    assert [] == list((store.chunks / "quarantine").glob("*/report"))
    (store.base / "closed").chmod(0o700)

    assert 1 == everywhere(store, "verify").returncode

    (report,) = (store.chunks / "quarantine").glob("*/report")
    assert {"closed", "vm", "zz"} == {one["job"] for one in json.loads(report.read_text())["revisions"]}
    assert [CHUNK] == [one.damaged for one in store.history(job="closed").revisions]


def test_a_backup_distrusts_its_own_job_although_another_cannot_be_read(store: Site) -> None:
    """It cannot know whom else it hurts, and says so; what it found of its own counts."""
    assert 0 == run_like_others(store, "distrust", "--reason", "store", job="zz").returncode
    spoil(chunk_file(store, SHARED))

    done = run_like_others(store, "backup", "daily")

    assert 0 == done.returncode
    assert "revisions (1) are distrusted" in done.stderr
    assert "/closed: permission denied" in done.stderr
    assert ["distrusted", "trusted"] == [one.trust.value for one in store.history().revisions]


def test_a_job_that_is_named_and_cannot_be_read_ends_verify(store: Site) -> None:
    """There is nothing else to do."""
    done = run_like_others(store, "verify", job="closed")

    assert 2 == done.returncode
    assert "permission denied" in done.stderr
