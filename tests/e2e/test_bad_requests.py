"""Bad input: tags, specs, names and options that cannot be meant; the exit code tells by whose fault."""

import pytest
from refusals import refused, unchanged

from testsite import CHUNK, Site, parsed, run_backy

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def two_days(site: Site) -> Site:
    """A site with two revisions."""
    for day in (b"one", b"two"):
        site.image.write_bytes(day * CHUNK)
        site.backup()
    return site


# ..Tags......................................................................................


@pytest.mark.parametrize("tag", ["nightly", "Daily", "manual", "manual:", "daily,nightly"])
def test_an_unknown_tag_is_refused(two_days: Site, tag: str) -> None:
    """Before the image is looked at; the schedule's tags are named."""
    why = "is not in the job's schedule (daily, weekly, monthly): use one of these, manual:NAME, or -f."
    with unchanged(two_days):
        refused(two_days.cli("backup", tag), 1, why)


def test_an_unknown_tag_is_taken_by_force_and_marked(two_days: Site) -> None:
    """The record knows that it was forced, so that it goes at the next expiry."""
    assert 0 == two_days.cli("backup", "-f", "nightly,daily,manual:x").returncode

    latest = parsed(two_days.cli("status", "-r", "latest", "--json"))[0]
    assert {"nightly": "forced", "daily": "schedule", "manual:x": "manual"} == latest["tags"]


@pytest.mark.parametrize("tags", ["", ",", " , "])
def test_a_backup_needs_a_tag(two_days: Site, tags: str) -> None:
    """A revision without any would be nobody's to keep."""
    with unchanged(two_days):
        refused(two_days.cli("backup", tags), 2, "TAGS: name at least one tag, such as daily.")


@pytest.mark.parametrize("tag", ["a b", "a/b", "-f..", "\u00e4", "a" * 64])
def test_an_impossible_tag_is_a_usage_error(two_days: Site, tag: str) -> None:
    """Even by force."""
    with unchanged(two_days):
        refused(two_days.cli("backup", "-f", "--", tag), 2, "is no tag name: use letters, digits")


# ..Specs.....................................................................................

POSITIONS = {
    "first(": 7,
    "(all": 5,
    "all)": 4,
    "all & ": 7,
    "all , , all": 7,
    "0..tag:daily": 1,
    "tag:": 1,
    "trust:maybe": 1,
    "all & trust:maybe": 7,
    "2026-11-01": 1,
    "&": 1,
    "": 1,
}


@pytest.mark.parametrize(("spec", "position"), POSITIONS.items())
def test_a_bad_spec_is_shown_with_the_position_of_the_mistake(
    two_days: Site, spec: str, position: int
) -> None:
    """A sentence, the spec, and a mark below the character; exit code 2."""
    done = two_days.cli("find", "-r", spec)

    refused(done, 2, "revision spec: ", f", at character {position}:\n", lines=3)
    assert [f"  {spec}", " " * (position + 1) + "^"] == done.stderr.splitlines()[1:]


@pytest.mark.parametrize(
    "words",
    [["restore", "-r", "(", "out"], ["verify", "-r", "("], ["forget", "-r", "("], ["status", "-r", "("]],
)
def test_every_command_that_takes_a_spec_shows_its_mistake(two_days: Site, words: list[str]) -> None:
    """Verify too ends with 2, since it could not run."""
    with unchanged(two_days):
        refused(two_days.cli(*words), 2, "at character 2", lines=3)


@pytest.mark.parametrize(
    "spec", ["2", "99", UNKNOWN, "weekly", "manual:none", "tag:weekly", "last & weekly"]
)
def test_no_such_revision_is_told(two_days: Site, spec: str) -> None:
    """Well formed, but nothing matches: exit code 1, and 2 for verify."""
    out = str(two_days.folder / "out.raw")
    with unchanged(two_days):
        for words in (["restore", "-r", spec, out], ["find", "-r", spec], ["forget", "-r", spec]):
            refused(
                two_days.cli(*words), 1, f"no revision of 'vm' matches {spec!r}; 'backy status' lists"
            )
        refused(
            two_days.cli("verify", "-r", spec), 2, "nothing was verified: no revision of 'vm' matches"
        )


@pytest.mark.parametrize("spec", ["all", "tag:daily", "0,1", "first..last"])
def test_restore_wants_exactly_one_revision(two_days: Site, spec: str) -> None:
    """A choice of several is never narrowed by itself."""
    with unchanged(two_days):
        done = two_days.cli("restore", "-r", spec, str(two_days.folder / "out.raw"))
        refused(done, 1, f"{spec!r} matches 2 revisions (", "name one, for instance as last(")


def test_an_ambiguous_uuid_prefix_is_told(site: Site) -> None:
    """After a few revisions two begin with the same digit; four are needed to be taken for a UUID."""
    for _ in range(3):
        site.backup()
    uuids = [one.uuid for one in site.history().revisions]

    assert [f"{uuid}\n" for uuid in uuids] == [site.cli("find", "-r", uuid[:8]).stdout for uuid in uuids]
    refused(site.cli("find", "-r", uuids[0][:3]), 1, "no revision of 'vm' matches")


# ..Names and options.........................................................................


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../vm", "/vm", ".hidden", "", "chunks", "x" * 64])
def test_a_job_name_that_leads_elsewhere_is_a_usage_error(two_days: Site, name: str) -> None:
    """With `/` or `..`, hidden, empty, too long, or the chunk store's own."""
    with unchanged(two_days):
        for words in (["init", "file", str(two_days.image)], ["backup", "daily"]):
            done = run_backy("-b", str(two_days.base), "-j", name, *words)
            refused(done, 2, f"{name!r} is no job name: ")


def test_a_job_and_another_jobs_directory_do_not_go_together(two_days: Site) -> None:
    """-b BASE/vm -j other means two jobs."""
    with unchanged(two_days):
        done = run_backy("-b", str(two_days.job), "-j", "other", "backup", "daily")
        refused(done, 2, "is a job's directory itself, so 'other' cannot go with it.")


USAGE = {
    "an unknown command": (["bakup"], "No such command 'bakup'. Did you mean 'backup'?"),
    "an unknown option": (["status", "--jsn"], "No such option"),
    "a missing argument": (["backup"], "Missing argument 'TAGS'."),
    "an argument too many": (["backup", "daily", "weekly"], "unexpected extra argument"),
    "a missing option": (["forget"], "Missing option '-r'"),
    "an option without its value": (["restore", "-r"], "requires an argument"),
    "an unknown action": (
        ["tags", "drop", "-r", "0", "x"],
        "'drop' is not one of 'set', 'add', 'remove'.",
    ),
}


@pytest.mark.parametrize(("words", "why"), USAGE.values(), ids=USAGE.keys())
def test_a_wrong_command_line_shows_the_usage(two_days: Site, words: list[str], why: str) -> None:
    """Exit code 2, and what is wrong, mostly below the usage."""
    with unchanged(two_days):
        done = two_days.cli(*words)

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("Usage: ") or "requires an argument" in why
    assert why in done.stderr


def test_no_command_at_all_shows_the_help_and_is_no_mistake() -> None:
    """As in 2.5: exit code 0."""
    done = run_backy()

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("Usage: ")
