"""`forget` and `rm`: revisions leave the history only when exactly they were meant."""

import pytest
from refusals import refused, unchanged

from testsite import CHUNK, Site


@pytest.fixture
def three_days(site: Site) -> Site:
    """A site with three revisions; the middle one is tagged weekly."""
    for day in range(3):
        site.image.write_bytes(b"%d" % day * CHUNK)
        site.backup(tag="weekly" if day == 1 else "daily")
    return site


def uuids(site: Site) -> list[str]:
    """All UUIDs, oldest first."""
    return [one.uuid for one in site.history().revisions]


@pytest.mark.parametrize("command", ["forget", "rm"])
@pytest.mark.parametrize(
    ("spec", "day"), [("0", 2), ("first", 0), ("weekly", 1), ("last(tag:daily)", 2)]
)
def test_one_revision_is_forgotten(three_days: Site, command: str, spec: str, day: int) -> None:
    """It is named; the others still restore and verify."""
    before = uuids(three_days)

    done = three_days.cli(command, "-r", spec)

    assert (0, f"forgot revision {before[day]}\n", "") == (done.returncode, done.stdout, done.stderr)
    assert [one for one in before if one != before[day]] == uuids(three_days)
    assert [] == three_days.verify().findings
    for one in three_days.history().revisions:
        assert b"%d" % before.index(one.uuid) * CHUNK == three_days.restored(one)


def test_several_are_forgotten_only_when_that_is_said(three_days: Site) -> None:
    """Without --yes their number is told, and nothing goes."""
    with unchanged(three_days):
        done = three_days.cli("forget", "-r", "tag:daily")
        refused(done, 2, "-r: 'tag:daily' matches 2 revisions: add --yes to forget them all.")
    kept = uuids(three_days)[1]

    assert 0 == three_days.cli("forget", "--yes", "-r", "tag:daily").returncode
    assert [kept] == uuids(three_days)


def test_all_can_be_forgotten_and_backed_up_again(three_days: Site) -> None:
    """An empty history is a good one."""
    assert 0 == three_days.cli("forget", "--yes", "-r", "all").returncode
    assert [] == uuids(three_days)
    assert 0 == three_days.cli("verify").returncode

    assert 0 == three_days.cli("backup", "daily").returncode
    assert 1 == len(uuids(three_days))


def test_a_revision_cannot_be_forgotten_twice(three_days: Site) -> None:
    """The second time there is no such revision."""
    gone = uuids(three_days)[0]
    assert 0 == three_days.cli("forget", "-r", gone).returncode

    with unchanged(three_days):
        refused(three_days.cli("forget", "-r", gone), 1, f"no revision of 'vm' matches {gone!r}")


def test_forget_never_guesses_what_is_meant(three_days: Site) -> None:
    """Without -r there is no default."""
    with unchanged(three_days):
        done = three_days.cli("forget")

    assert 2 == done.returncode
    assert "Missing option '-r'" in done.stderr


@pytest.mark.parametrize("spec", ["latest", "0", "all", "daily", "0000"])
def test_while_a_record_is_unreadable_only_full_uuids_count(three_days: Site, spec: str) -> None:
    """Not even with --yes: the unreadable one may be the one that was meant."""
    first, _, last = uuids(three_days)
    record = three_days.job / f"{last}.rev"
    record.chmod(0o600)
    record.write_bytes(b"")

    with unchanged(three_days):
        refused(three_days.cli("forget", "--yes", "-r", spec), 1, f"{last}.rev")
    for uuid in (last, first):
        assert f"forgot revision {uuid}\n" == three_days.cli("forget", "-r", uuid).stdout
