"""Marks: what was added is always found, whatever bits count, and little else is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.chunk import ID_SIZE, ZERO, chunk_id
from backy.domain.marks import WORDS, Marks
from strategies import repeatable

IDENTS = st.binary(min_size=ID_SIZE, max_size=ID_SIZE)


@repeatable(30)
@given(word=st.integers(0, WORDS - 1), idents=st.lists(IDENTS, max_size=20))
def test_every_id_that_was_added_is_found(word: int, idents: list[bytes]) -> None:
    """As a full chunk, and as a delta against any base."""
    marks = Marks(word)
    marks.add_page(b"".join(idents))

    for ident in idents:
        assert ident.hex() in marks
        assert f"{ident.hex()}.{'ab' * ID_SIZE}" in marks


@pytest.mark.parametrize("word", range(WORDS))
def test_ids_that_were_not_added_are_not_found(word: int) -> None:
    """Of a thousand ids beside a thousand others, at most one shares a bit with them."""
    numbers = random.Random(word)
    marks = Marks(word)
    marks.add_page(numbers.randbytes(1000 * ID_SIZE))

    assert sum(numbers.randbytes(ID_SIZE).hex() in marks for _ in range(1000)) <= 1


@pytest.mark.parametrize("word", range(WORDS))
def test_only_the_chosen_word_of_an_id_counts(word: int) -> None:
    """So what shares a bit with a needed chunk in one collection does not in the next."""
    ident = chunk_id(b"needed")
    at = slice(word * 4, word * 4 + 4)
    twin = bytearray(chunk_id(b"garbage"))
    twin[at] = ident[at]
    marks, others = Marks(word), Marks((word + 1) % WORDS)
    for one in (marks, others):
        one.add_page(ident)

    assert twin.hex() in marks
    assert twin.hex() not in others


def test_empty_marks_hold_nothing() -> None:
    """Not even zeros, before a page with a zero chunk came by."""
    marks = Marks(0)
    marks.add_page(b"")

    assert ZERO.hex() not in marks
    assert "ff" * ID_SIZE not in marks


def test_a_zero_chunk_in_a_page_marks_no_other() -> None:
    """Pages have zero ids between the others."""
    marks = Marks(3)
    marks.add_page(ZERO + chunk_id(b"one") + ZERO)

    assert chunk_id(b"one").hex() in marks
    assert chunk_id(b"two").hex() not in marks


@pytest.mark.parametrize("name", ["", "note", "zz" * ID_SIZE, "README" * 20])
def test_what_is_no_chunk_name_is_refused(name: str) -> None:
    """A stranger's file is neither marked nor unmarked."""
    with pytest.raises(ValueError, match="invalid literal"):
        assert name in Marks(0)
