"""Which objects of an image in Ceph are asked together what has changed in them."""

from hypothesis import given
from hypothesis import strategies as st

from backy.ground.rbd import Piece
from backy.source.rbd_changes import _ASKED_OBJECTS, _GAP_OBJECTS, _stretches
from strategies import repeatable

OBJECT = 4096


def objects(*numbers: int) -> list[Piece]:
    """One piece an object."""
    return [Piece(number * OBJECT, OBJECT, True) for number in numbers]


@repeatable(200)
@given(changed=st.dictionaries(st.integers(0, 60), st.booleans()))
def test_every_object_is_in_one_stretch_or_told_as_discarded(changed: dict[int, bool]) -> None:
    """Nothing is left out or comes twice, and what was discarded stays as the map told it."""
    pieces = [Piece(number * OBJECT, OBJECT, exists) for number, exists in sorted(changed.items())]
    found = list(_stretches(pieces, OBJECT))
    ends = [one.offset + one.length for one in found]

    assert [one for one in pieces if not one.exists] == [one for one in found if not one.exists]
    assert all(end <= following.offset for end, following in zip(ends, found[1:], strict=False))
    for piece in pieces:
        assert 1 == sum(
            one.exists == piece.exists and one.offset <= piece.offset < one.offset + one.length
            for one in found
        )


def test_near_objects_are_asked_together() -> None:
    """A short gap is asked as well, a longer one is not."""
    behind = 1 + _GAP_OBJECTS

    assert [Piece(0, (behind + 1) * OBJECT, True)] == list(_stretches(objects(0, behind), OBJECT))
    assert objects(0, behind + 1) == list(_stretches(objects(0, behind + 1), OBJECT))


def test_no_stretch_is_longer_than_may_be_asked_at_once() -> None:
    """An answer of so many objects fits into memory, whatever has changed in them."""
    everything = [Piece(0, _ASKED_OBJECTS * OBJECT, True), *objects(_ASKED_OBJECTS)]

    assert everything == list(_stretches(objects(*range(_ASKED_OBJECTS + 1)), OBJECT))
