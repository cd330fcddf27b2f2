"""Tags: which are allowed, where they came from, and how a list of them is edited."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.revision import Origin
from backy.domain.tags import Edit, allowed, edited, split
from backy.ground.errors import NameRefused, OptionRefused, TagRefused
from strategies import hostile_names, repeatable, tag_names

SCHEDULE = ["daily", "weekly"]
BEFORE = {"daily": Origin.SCHEDULE, "hourly": Origin.SCHEDULE, "manual:x": Origin.MANUAL}


@pytest.mark.parametrize(
    ("text", "force", "origins"),
    [
        ("daily", False, {"daily": Origin.SCHEDULE}),
        ("weekly,daily", False, {"weekly": Origin.SCHEDULE, "daily": Origin.SCHEDULE}),
        (" daily , weekly ", False, {"daily": Origin.SCHEDULE, "weekly": Origin.SCHEDULE}),
        ("daily,,daily,", False, {"daily": Origin.SCHEDULE}),
        ("manual:before-upgrade", False, {"manual:before-upgrade": Origin.MANUAL}),
        ("manual:a:b", False, {"manual:a:b": Origin.MANUAL}),
        ("other", True, {"other": Origin.FORCED}),
        ("other,daily", True, {"other": Origin.FORCED, "daily": Origin.SCHEDULE}),
        ("manual:", True, {"manual:": Origin.FORCED}),
    ],
)
def test_tags_know_where_they_came_from(text: str, force: bool, origins: dict[str, Origin]) -> None:
    """The schedule's, the operator's and the forced ones are told apart, in the order given."""
    assert list(origins.items()) == list(allowed(text, SCHEDULE, force).items())


@pytest.mark.parametrize("text", ["hourly", "daily,hourly", "Daily", "manual", "manual:"])
def test_tag_outside_the_schedule_is_refused(text: str) -> None:
    """A tag that would never expire as the schedule says is refused, and the error lists what may be."""
    with pytest.raises(TagRefused) as caught:
        allowed(text, SCHEDULE, force=False)

    assert ("daily", "weekly") == caught.value.allowed
    assert "(daily, weekly): use one of these, manual:NAME, or -f." in caught.value.message


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_no_tag_at_all_is_refused(text: str, force: bool) -> None:
    """A revision that nothing keeps would go at the next expiry."""
    with pytest.raises(OptionRefused, match="at least one tag, such as daily"):
        allowed(text, SCHEDULE, force)


def test_hostile_tag_names_are_refused_even_by_force() -> None:
    """No spelling that could break a terminal, a log or a spec becomes a tag."""
    for name in hostile_names():
        if name and name == name.strip() and "," not in name:  # blanks and commas only part tags
            with pytest.raises(NameRefused):
                allowed(name, SCHEDULE, force=True)


@pytest.mark.parametrize(
    ("edit", "text", "after"),
    [
        (Edit.SET, "weekly", {"weekly": Origin.SCHEDULE}),
        (Edit.SET, "manual:x,hourly", {"manual:x": Origin.MANUAL, "hourly": Origin.SCHEDULE}),
        (Edit.SET, "", {}),
        (Edit.ADD, "weekly", {**BEFORE, "weekly": Origin.SCHEDULE}),
        (Edit.ADD, "hourly", BEFORE),
        (Edit.ADD, "", BEFORE),
        (Edit.REMOVE, "daily", {"hourly": Origin.SCHEDULE, "manual:x": Origin.MANUAL}),
        (Edit.REMOVE, "daily,hourly,manual:x", {}),
        (Edit.REMOVE, "unknown", BEFORE),
        (Edit.REMOVE, "", BEFORE),
    ],
)
def test_edit_keeps_the_origin_of_tags_that_stay(
    edit: Edit, text: str, after: dict[str, Origin]
) -> None:
    """`hourly` left the schedule: it may be kept and removed, but is not called forced for that."""
    assert after == edited(BEFORE, edit, text, SCHEDULE, force=False)


@pytest.mark.parametrize("edit", [Edit.SET, Edit.ADD])
def test_new_tag_outside_the_schedule_needs_force(edit: Edit) -> None:
    """Editing follows the same rule as a backup."""
    with pytest.raises(TagRefused):
        edited(BEFORE, edit, "other", SCHEDULE, force=False)

    assert Origin.FORCED is edited(BEFORE, edit, "other", SCHEDULE, force=True)["other"]


def test_edit_leaves_its_argument_alone() -> None:
    """The tags before are not changed in place."""
    before = dict(BEFORE)
    for edit in Edit:
        edited(before, edit, "daily", SCHEDULE, force=False)

    assert BEFORE == before


@repeatable(80)
@given(names=st.lists(tag_names(), max_size=6))
def test_split_gives_each_name_once_in_order(names: list[str]) -> None:
    """A list is read in order; a name that comes twice counts once."""
    assert list(dict.fromkeys(names)) == split(" , ".join(names))


@repeatable(80)
@given(names=st.lists(tag_names(), max_size=4), more=st.lists(tag_names(), max_size=4))
def test_remove_undoes_add(names: list[str], more: list[str]) -> None:
    """Adding tags and removing them again leaves those that were there and not named."""
    before = dict.fromkeys(names, Origin.FORCED)
    text = ",".join(more)
    added = edited(before, Edit.ADD, text, [], force=True)

    expected = {name: origin for name, origin in before.items() if name not in more}
    assert expected == edited(added, Edit.REMOVE, text, [], force=False)
