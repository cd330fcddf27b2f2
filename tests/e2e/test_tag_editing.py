"""`tags set|add|remove`: labels change, and nothing else."""

import pytest
from refusals import refused, unchanged

from testsite import CHUNK, Site, parsed


@pytest.fixture
def two_days(site: Site) -> Site:
    """A site with two revisions tagged daily."""
    for day in (b"one", b"two"):
        site.image.write_bytes(day * CHUNK)
        site.backup()
    return site


def tags(site: Site) -> list[dict[str, str]]:
    """Tags with their origins, oldest revision first."""
    return [one["tags"] for one in parsed(site.cli("status", "--json"))]


DAILY = {"daily": "schedule"}
EDITS = {
    ("add", "weekly"): {"daily": "schedule", "weekly": "schedule"},
    ("add", "manual:x,weekly"): {"daily": "schedule", "manual:x": "manual", "weekly": "schedule"},
    ("add", "daily"): DAILY,
    ("set", "weekly"): {"weekly": "schedule"},
    ("set", "manual:x, daily"): {"manual:x": "manual", "daily": "schedule"},
    ("set", ""): {},
    ("remove", "daily"): {},
    ("remove", "weekly"): DAILY,
    ("remove", "no-such-tag"): DAILY,
    ("add", ""): DAILY,
}


@pytest.mark.parametrize(("words", "expected"), EDITS.items())
def test_an_edit_changes_the_revisions_that_are_named(
    two_days: Site, words: tuple[str, str], expected: dict[str, str]
) -> None:
    """The result is printed, the other revision keeps its tags, and both still verify."""
    action, names = words
    uuid = two_days.history().revisions[1].uuid

    done = two_days.cli("tags", action, "-r", "latest", names)

    assert (0, "") == (done.returncode, done.stderr)
    assert f"revision {uuid}: {','.join(expected) or '(no tags)'}\n" == done.stdout
    assert [DAILY, expected] == tags(two_days)
    assert [] == two_days.verify().findings


def test_an_edit_of_several_revisions_prints_each(two_days: Site) -> None:
    """Oldest first, as the spec names them."""
    done = two_days.cli("tags", "add", "-r", "all", "weekly")

    uuids = [one.uuid for one in two_days.history().revisions]
    assert [f"revision {uuid}: daily,weekly" for uuid in uuids] == done.stdout.splitlines()


def test_an_edit_keeps_everything_else_of_the_record(two_days: Site) -> None:
    """Only the tags differ afterwards."""
    before = parsed(two_days.cli("status", "--json"))

    assert 0 == two_days.cli("tags", "set", "-r", "0", "weekly").returncode

    after = parsed(two_days.cli("status", "--json"))
    before[1]["tags"] = {"weekly": "schedule"}
    assert before == after


def test_an_unknown_tag_needs_force_and_is_marked(two_days: Site) -> None:
    """As for a backup."""
    with unchanged(two_days):
        done = two_days.cli("tags", "add", "-r", "0", "nightly")
        refused(done, 1, "tag 'nightly' is not in the job's schedule")

    assert 0 == two_days.cli("tags", "add", "-f", "-r", "0", "nightly").returncode
    assert {"daily": "schedule", "nightly": "forced"} == tags(two_days)[1]


def test_a_tag_that_stays_keeps_its_origin(two_days: Site) -> None:
    """Setting a forced tag again needs no force, and does not whitewash it."""
    assert 0 == two_days.cli("tags", "add", "-f", "-r", "0", "nightly").returncode
    assert 0 == two_days.cli("tags", "set", "-r", "0", "nightly,weekly").returncode

    assert {"nightly": "forced", "weekly": "schedule"} == tags(two_days)[1]


@pytest.mark.parametrize("expected", ["weekly", "daily,weekly", ""])
def test_an_edit_with_other_expectations_is_refused(two_days: Site, expected: str) -> None:
    """What somebody else changed meanwhile is not overwritten; exit code 1."""
    with unchanged(two_days):
        done = two_days.cli("tags", "set", "-r", "0", "--expect", expected, "weekly")
        refused(done, 1, "has the tags daily, not ", "; nothing was changed.")


def test_an_edit_with_the_right_expectation_is_done(two_days: Site) -> None:
    """The order of the expected tags does not matter."""
    assert 0 == two_days.cli("tags", "add", "-r", "0", "--expect", "daily", "weekly").returncode
    words = ("tags", "set", "-r", "0", "--expect", "weekly, daily", "monthly")
    assert 0 == two_days.cli(*words).returncode

    assert [DAILY, {"monthly": "schedule"}] == tags(two_days)


def test_a_revision_without_tags_stays_unless_told(two_days: Site) -> None:
    """--autoremove forgets it, and says so."""
    assert 0 == two_days.cli("tags", "remove", "-r", "0", "daily").returncode
    assert [DAILY, {}] == tags(two_days)
    uuid = two_days.history().revisions[0].uuid

    done = two_days.cli("tags", "remove", "--autoremove", "-r", "first", "daily")

    assert [f"revision {uuid}: (no tags)", f"forgot revision {uuid}"] == done.stdout.splitlines()
    assert [{}] == tags(two_days)


@pytest.mark.parametrize("names", ["a b", "a/b", "../x", "\x1b[2J"])
def test_an_impossible_tag_is_refused(two_days: Site, names: str) -> None:
    """Also by force, and also for removing."""
    for action in ("set", "add", "remove"):
        with unchanged(two_days):
            refused(two_days.cli("tags", action, "-f", "-r", "0", names), 2, "is no tag name: ")
