"""Revision specs that are wrong: one error with a position, for any text at all."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import revspec
from backy.domain.revision import Revision
from backy.ground.errors import SpecError
from fakes import fake_revision
from strategies import hostile_names, near_misses, repeatable

HISTORY = [fake_revision(day, "daily") for day in range(3)]
PIECES = [*"(),&. 01-:", "..", "last", "first(", "not(", "reverse", "tag:daily", "all", "manual:x"]
PIECES += ["trust:", "server:", "2024-01-01", "20240102T", "00000001-0000", "T00:00Z"]


@pytest.mark.parametrize(
    ("spec", "position", "why"),
    [
        ("", 0, "a revision is missing"),
        ("   ", 3, "a revision is missing"),
        (",", 0, "a revision is missing before ','"),
        ("0,", 2, "a revision is missing"),
        (",0", 0, "a revision is missing before ','"),
        ("0,,1", 2, "a revision is missing before ','"),
        ("0 &", 3, "a revision is missing"),
        ("& 0", 0, "a revision is missing before '&'"),
        ("()", 1, "a revision is missing before ')'"),
        ("(0", 2, "a ')' is missing"),
        ("(0,1", 4, "a ')' is missing"),
        ("0)", 1, "')' is not expected here"),
        ("(0))", 3, "')' is not expected here"),
        ("first(", 6, "a revision is missing"),
        ("first()", 6, "a revision is missing before ')'"),
        ("last(0", 6, "a ')' is missing"),
        ("frist(0)", 5, "'(' is not expected here"),
        ("0(1)", 1, "'(' is not expected here"),
        ("(0)(1)", 3, "'(' is not expected here"),
        ("0..1..2", 4, "'..' is not expected here"),
        ("....", 2, "a revision is missing before '..'"),
        ("  tag:", 2, "'tag:' is none of"),
        ("0, trust:maybe", 3, "'trust:maybe' is none of"),
        ("colour:blue", 0, "'colour:blue' is none of"),
        ("0, last(remote)", 3, "last(remote) of no revision"),
        ("0, all..1", 3, "all is a list"),
        ("0, 2024-01-01", 3, "a date is only the end of a range"),
        ("(" * 60, 51, "too many parentheses"),
    ],
)
def test_mistake_is_told_with_its_position(spec: str, position: int, why: str) -> None:
    """The error names the character at which the mistake begins, counted from 0."""
    with pytest.raises(SpecError) as caught:
        revspec.select(spec, HISTORY)

    assert position == caught.value.position
    assert caught.value.why.startswith(why)
    assert 2 == caught.value.exit_code


def test_message_points_at_the_mistake() -> None:
    """The operator sees the spec with a mark under the mistake."""
    with pytest.raises(SpecError) as caught:
        revspec.parse("last(0")

    assert (
        "revision spec: a ')' is missing, at character 7:\n  last(0\n        ^" == caught.value.message
    )


@pytest.mark.parametrize("depth", [1, 10, 50])
def test_nested_parentheses_are_understood(depth: int) -> None:
    """Fifty levels are more than anyone writes."""
    assert HISTORY[-1:] == revspec.select("(" * depth + "0" + ")" * depth, HISTORY)


@pytest.mark.parametrize("opening", ["(", "not(", "first(", "0,(", "0&(", "0..(", "(0),("])
@pytest.mark.parametrize("depth", [51, 5000])
def test_too_many_parentheses_are_an_error(opening: str, depth: int) -> None:
    """Depth is bounded by the parser, not by Python's stack."""
    with pytest.raises(SpecError, match=r"too many parentheses|is a list"):
        revspec.select(opening * depth + "0" + ")" * depth, HISTORY)


@pytest.mark.parametrize("operator", [",", "&"])
@pytest.mark.parametrize("count", [100, 1000, 5000])
def test_long_chains_are_understood(operator: str, count: int) -> None:
    """A script may name as many revisions as fit on a command line."""
    assert HISTORY[-1:] == revspec.select(operator.join(["0"] * count), HISTORY)


@pytest.mark.parametrize(
    "text", ["0" * 5000, "9" * 10, "\u0660", "\xb2", "0x1", "1_0", "+1", "-1", "0.5"]
)
def test_only_plain_digits_are_a_number(text: str) -> None:
    """Other digits, other bases and numbers that no history reaches name no revision."""
    assert [] == revspec.select(text, HISTORY)


def test_hostile_text_selects_nothing_or_is_an_error() -> None:
    """Names of files and control characters name no revision."""
    for text in hostile_names():
        with suppress(SpecError):
            assert [] == revspec.select(text, HISTORY) or not text.strip("./")


@repeatable(400)
@given(text=near_misses(PIECES))
def test_pieces_of_the_grammar_give_a_list_or_an_error(text: str) -> None:
    """Any order of the grammar's pieces is a list or a SpecError whose position lies in the text."""
    _list_or_error(text, HISTORY)


@repeatable(300)
@given(text=st.text(max_size=40))
def test_any_text_gives_a_list_or_an_error(text: str) -> None:
    """Any text is a list or a SpecError whose position lies in the text."""
    _list_or_error(text, HISTORY)


@repeatable(200)
@given(text=st.text(alphabet="0123456789-T:.+Z /", max_size=30))
def test_anything_like_a_date_gives_a_list_or_an_error(text: str) -> None:
    """Half dates, wrong dates and far dates are no exception."""
    _list_or_error(f"{text}..", HISTORY)
    _list_or_error(f"..{text}", [])


def _list_or_error(text: str, history: list[Revision]) -> None:
    wrong = None
    found: list[Revision] = []
    try:
        found = revspec.select(text, history)
    except SpecError as error:
        wrong = error

    assert all(one in history for one in found)
    assert wrong is None or (0 <= wrong.position <= len(text) and wrong.message)
