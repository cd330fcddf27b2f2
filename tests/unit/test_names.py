"""Names that become files: an allow-list, against some 300 hostile spellings (T20)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.names import check_disk_name, check_job_name, check_tag_name
from backy.ground.errors import NameRefused
from strategies import hostile_names, repeatable

pytestmark = pytest.mark.proof("T20")

Check = Callable[[str], str]

CHECKS: list[Check] = [check_job_name, check_disk_name, check_tag_name]
ALLOWED: dict[Check, set[str]] = {
    check_job_name: set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"),
    check_disk_name: set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"),
    check_tag_name: set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:+-"),
}
LONGEST: dict[Check, int] = {check_job_name: 63, check_disk_name: 32, check_tag_name: 63}


def refusal(check: Check, name: str) -> NameRefused | None:
    """The error that a check raises for a name."""
    try:
        check(name)
    except NameRefused as error:
        return error
    return None


def test_there_are_some_two_hundred_hostile_names() -> None:
    """The list is long enough to be worth its name."""
    assert len(hostile_names()) >= 200


@pytest.mark.parametrize("check", CHECKS)
def test_hostile_names_are_refused(check: Check) -> None:
    """Nothing that leaves a directory, hides a file or breaks a terminal is a name."""
    assert [] == [name for name in hostile_names() if refusal(check, name) is None]


@pytest.mark.parametrize("check", CHECKS)
def test_hostile_names_are_shown_on_one_clean_line(check: Check) -> None:
    """No message holds a control character of the name or a line break."""
    found = [refusal(check, name) for name in hostile_names()]

    assert [] == [error.name for error in found if error and not error.message.isprintable()]


@pytest.mark.parametrize(
    "name",
    ["vm01", "a", "0", "vm01.root", "VM-01_x", "a..b", "a.", "x" * 63, "chunks1", "Chunks", "store"],
)
def test_ordinary_job_name_is_accepted(name: str) -> None:
    """Letters, digits, dots, dashes and underscores, up to 63, are a job's name."""
    assert name == check_job_name(name)


def test_job_may_not_be_named_like_the_chunk_store() -> None:
    """A job's directory lies beside `chunks`, so it cannot be that."""
    with pytest.raises(NameRefused, match="it is the chunk store's") as caught:
        check_job_name("chunks")

    assert ("job", "chunks", 2) == (caught.value.kind, caught.value.name, caught.value.exit_code)


@pytest.mark.parametrize("name", ["root", "vda", "0", "data-1", "A_b", "x" * 32])
def test_ordinary_disk_name_is_accepted(name: str) -> None:
    """Letters, digits, dashes and underscores, up to 32, are a disk's name."""
    assert name == check_disk_name(name)


@pytest.mark.parametrize("name", ["a.b", ".", "a.map", "x" * 33])
def test_disk_name_with_a_dot_is_refused(name: str) -> None:
    """`UUID.DISK.map` is taken apart at its dots, so a disk's name has none."""
    with pytest.raises(NameRefused):
        check_disk_name(name)


@pytest.mark.parametrize("name", ["daily", "manual:before-upgrade", "_x", "1h+", "a.b:c", "x" * 63])
def test_ordinary_tag_name_is_accepted(name: str) -> None:
    """Tags may have colons and pluses too."""
    assert name == check_tag_name(name)


@repeatable(300)
@given(name=st.text(max_size=70), check=st.sampled_from(CHECKS))
def test_accepted_name_has_allowed_characters_only(name: str, check: Check) -> None:
    """Whatever passes consists of ASCII characters of the list and is not too long."""
    try:
        check(name)
    except NameRefused:
        return

    assert 1 <= len(name) <= LONGEST[check]
    assert set(name) <= ALLOWED[check]


@repeatable(100)
@given(name=st.text("abzAZ019._-", min_size=1, max_size=63), check=st.sampled_from(CHECKS[:2]))
def test_accepted_name_stays_in_its_directory(name: str, check: Check) -> None:
    """As a path, an accepted name is one visible entry of the directory it is looked up in."""
    try:
        check(name)
    except NameRefused:
        return

    assert (Path("/base") / name).parts == ("/", "base", name)
    assert f"/base/{name}" == os.path.normpath(f"/base/{name}")
    assert not name.startswith((".", "-"))
