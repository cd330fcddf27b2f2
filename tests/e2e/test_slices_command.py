"""What `verify --slice` says, and what verify says of what it could not do."""

import json

import pytest
from refusals import refused, unchanged
from sharedstore import FIRST, SHARED, everywhere, here, records, two_jobs

from damaging import chunk_file, held, spoil
from testsite import CHUNK, Site


@pytest.fixture
def store(site: Site) -> Site:
    """Two days of `vm`, and `db`, which shares its first chunk with both."""
    return two_jobs(site)


def test_a_slice_proves_the_whole_store_and_moves_aside(store: Site) -> None:
    """Bad chunks of all jobs, with whom they hurt, and what is missing at the end of the cycle."""
    bad = spoil(chunk_file(store, SHARED))
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
    spoil(chunk_file(store, SHARED))
    assert 1 == everywhere(store, "verify", "--slice", "1h").returncode


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
