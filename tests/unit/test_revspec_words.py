"""Revision specs: atoms, functions, lists, and how they bind.

The history of all tables here, newest last, numbered as `N` counts (0 is the newest):

    day   N   tags                 trust
    0     4   daily weekly         verified
    1     3   daily                distrusted
    2     2   manual:x             trusted
    3     1   daily weekly         trusted
    4     0   daily                trusted
"""

import pytest
from hypothesis import given

from backy.domain import revspec
from backy.domain.revision import Revision, Trust
from backy.ground.errors import SpecError
from fakes import fake_revision
from strategies import histories, repeatable, specs

HISTORY = [
    fake_revision(0, "daily", "weekly", trust=Trust.VERIFIED),
    fake_revision(1, "daily", trust=Trust.DISTRUSTED),
    fake_revision(2, "manual:x"),
    fake_revision(3, "daily", "weekly"),
    fake_revision(4, "daily"),
]
UUID_2 = HISTORY[2].uuid


def days(spec: str, history: list[Revision] = HISTORY) -> list[int]:
    """Days of the revisions that a spec selects, in its order."""
    return [int(one.uuid[:8], 16) for one in revspec.select(spec, history)]


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("0", [4]),
        ("1", [3]),
        ("4", [0]),
        ("5", []),
        ("999999999", []),
        ("00", [4]),
        ("last", [4]),
        ("latest", [4]),
        ("first", [0]),
        ("daily", [4]),
        ("weekly", [3]),
        ("manual:x", [2]),
        ("manual:other", []),
        ("hourly", []),
        (UUID_2, [2]),
        (UUID_2.upper(), [2]),
        ("00000002", [2]),
        ("00000002-0000", [2]),
        ("ffff0000-0000", []),
        ("99999999-0000-4000-8000-000000000000", []),
    ],
)
def test_single_word_names_one_revision_or_none(spec: str, selected: list[int]) -> None:
    """A number counts from the newest; a UUID, its unique prefix and a bare tag name one revision."""
    assert selected == days(spec)


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("clean", [0, 1, 2, 3, 4]),
        ("local", [0, 1, 2, 3, 4]),
        ("server:", [0, 1, 2, 3, 4]),
        ("remote", []),
        ("server:other", []),
        ("tag:daily", [0, 1, 3, 4]),
        ("tag:weekly", [0, 3]),
        ("tag:manual:x", [2]),
        ("tag:none", []),
        ("trust:trusted", [2, 3, 4]),
        ("trust:distrusted", [1]),
        ("trust:verified", [0]),
        ("trust:Verified", [0]),
        ("trust:TRUSTED", [2, 3, 4]),
    ],
)
def test_list_word_names_revisions_oldest_first(spec: str, selected: list[int]) -> None:
    """Lists keep the history's order."""
    assert selected == days(spec)


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("first(tag:weekly)", [0]),
        ("last(tag:weekly)", [3]),
        ("first(reverse(all))", [4]),
        ("last(0, tag:daily)", [3]),
        ("reverse(all)", [4, 3, 2, 1, 0]),
        ("reverse(0,4)", [0, 4]),
        ("not(all)", []),
        ("not(remote)", [0, 1, 2, 3, 4]),
        ("not(tag:daily)", [2]),
        ("not(reverse(tag:daily))", [2]),
        ("not(0)", [0, 1, 2, 3]),
        ("not(not(0,4))", [0, 4]),
        ("reverse(remote)", []),
        (" last ( tag:weekly ) ", [3]),
        ("last(last)", [4]),
        ("first(first(first))", [0]),
    ],
)
def test_function_works_on_the_list_in_its_order(spec: str, selected: list[int]) -> None:
    """`first` and `last` go by position in the list; `not` is the rest of the history, oldest first."""
    assert selected == days(spec)


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("0,tag:daily", [4, 0, 1, 3]),
        ("tag:daily,0", [0, 1, 3, 4]),
        ("0,1,2", [4, 3, 2]),
        ("2,0,2,0", [2, 4]),
        ("remote,0", [4]),
        ("tag:daily & tag:weekly", [0, 3]),
        ("reverse(tag:daily) & tag:weekly", [3, 0]),
        ("tag:weekly & reverse(tag:daily)", [0, 3]),
        ("tag:daily & remote", []),
    ],
)
def test_union_and_intersection_keep_the_left_order(spec: str, selected: list[int]) -> None:
    """`,` puts lists one behind the other without doubles; `&` keeps the left one's order."""
    assert selected == days(spec)


@pytest.mark.parametrize(
    ("spec", "same_as"),
    [
        ("0,1&tag:weekly", "0,(1&tag:weekly)"),
        ("tag:weekly&1,0", "(tag:weekly&1),0"),
        ("0..2&tag:daily", "(0..2)&tag:daily"),
        ("tag:daily&2..0", "tag:daily&(2..0)"),
        ("0,3..4", "0,(3..4)"),
        ("3..4,0", "(3..4),0"),
        ("0,1&1..2,4", "0,(1&(1..2)),4"),
        ("not(0,1&3)", "not(0,(1&3))"),
        ("((0))", "0"),
        ("(((0)),((1)))", "0,1"),
        ("tag:daily&tag:weekly&first", "(tag:daily&tag:weekly)&first"),
    ],
)
def test_ranges_bind_before_intersections_and_these_before_unions(spec: str, same_as: str) -> None:
    """Without parentheses `..` binds closest, then `&`, then `,`."""
    assert days(same_as) == days(spec)


def test_parentheses_override_the_binding() -> None:
    """What stands in parentheses is taken first."""
    assert [4] == days("(0,1)&(0,2)")
    assert [4, 3] == days("0,1&(1,2)")


@pytest.mark.parametrize("spec", ["all", "tag:daily", "0,1", "not(0)", "reverse(all)", "0..1", "last"])
def test_empty_history_gives_nothing(spec: str) -> None:
    """Nothing is selected where there is nothing, and that is no error here."""
    assert [] == days(spec, [])


@pytest.mark.parametrize("function", ["first", "last"])
def test_first_and_last_of_nothing_are_errors(function: str) -> None:
    """A function that promises one revision says so when there is none."""
    with pytest.raises(SpecError, match="of no revision"):
        days(f"{function}(tag:none)")


def test_prefix_of_several_uuids_is_an_error() -> None:
    """A prefix must be unique; the error counts what it begins."""
    with pytest.raises(SpecError, match="begins 5 UUIDs"):
        days("0000000a", _alike(5))


def _alike(count: int) -> list[Revision]:
    """Revisions whose UUIDs begin alike."""
    uuids = [f"0000000a-0000-4000-8000-{number:012x}" for number in range(count)]
    return [_renamed(fake_revision(number), uuid) for number, uuid in enumerate(uuids)]


def _renamed(one: Revision, uuid: str) -> Revision:
    return Revision(
        uuid=uuid, taken_at=one.taken_at, tags={}, maps=one.maps, source=one.source, stats=one.stats
    )


def test_full_uuid_beats_prefix_and_tag() -> None:
    """A full UUID names its revision even where another one carries it as a tag."""
    tagged = fake_revision(7, UUID_2)

    assert [2] == days(UUID_2, [*HISTORY, tagged])


def test_spec_of_a_full_uuid_tells_it() -> None:
    """Only a spec that is nothing but a UUID is independent of the rest of the history."""
    found = {
        spec: revspec.parse(spec).uuid for spec in [UUID_2, UUID_2.upper(), f"({UUID_2})", "0", "last"]
    }

    assert {
        UUID_2: UUID_2,
        UUID_2.upper(): UUID_2,
        f"({UUID_2})": UUID_2,
        "0": None,
        "last": None,
    } == found


@repeatable(200)
@given(spec=specs(), history=histories())
def test_spec_selects_revisions_of_the_history_once_each(spec: str, history: list[Revision]) -> None:
    """Whatever a spec means, it names revisions of this history, and none twice."""
    try:
        found = [one.uuid for one in revspec.select(spec, history)]
    except SpecError:
        return

    assert set(found) <= {one.uuid for one in history}
    assert sorted(set(found)) == sorted(found)


@repeatable(150)
@given(spec=specs(), history=histories())
def test_not_is_the_rest_of_the_history(spec: str, history: list[Revision]) -> None:
    """A list and its `not` are the whole history together, and have nothing in common."""
    try:
        listed = revspec.select(spec, history)
    except SpecError:
        return
    rest = revspec.select(f"not({spec})", history)

    assert [one for one in history if one not in listed] == rest
    assert [] == revspec.select(f"({spec}) & not({spec})", history)


@repeatable(150)
@given(spec=specs(), history=histories())
def test_printed_spec_means_the_same(spec: str, history: list[Revision]) -> None:
    """The form in which a spec is shown, with its binding made visible, selects the same."""
    try:
        found = revspec.select(spec, history)
    except SpecError:
        return

    assert found == revspec.select(str(revspec.parse(spec)), history)
