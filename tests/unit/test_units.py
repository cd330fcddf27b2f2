"""Sizes and durations as people write them, and intervals as configurations do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.ground.units import format_duration, format_size, parse_interval
from strategies import hostile_names, repeatable


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (4 << 20, "4.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (64 << 40, "64.0 TiB"),
        (1 << 50, "1.0 PiB"),
        (1 << 60, "1.0 EiB"),
        (1 << 80, "1048576.0 EiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_size_is_written_in_binary_units(size: int, text: str) -> None:
    """Sizes have one decimal from KiB upwards."""
    assert text == format_size(size)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.24, "3.2 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (250, "4 min 10 s"),
        (3599, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (3600, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration_is_written_in_at_most_two_units(seconds: float, text: str) -> None:
    """The two largest units are enough for people."""
    assert text == format_duration(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1s", 1),
        ("15m", 900),
        ("25h", 90_000),
        ("1d", 86_400),
        ("4w", 2_419_200),
        (" 30d ", 2_592_000),
        ("007d", 604_800),
    ],
)
def test_interval_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    """One integer and one of s, m, h, d, w; digits alone are seconds."""
    assert seconds == parse_interval(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "1d12h",
        "1.5d",
        "-1d",
        "+1d",
        "1 d",
        "1D",
        "1y",
        "1e3",
        "0x10",
        "1_0",
        "\u0661d",
        "1" * 13,
    ],
)
def test_anything_else_is_no_interval(text: str) -> None:
    """Fractions, signs, two units, other digits and other units are refused with the reason."""
    with pytest.raises(ValueError, match="is not a number with one of the units s, m, h, d, w"):
        parse_interval(text)


@pytest.mark.parametrize("text", ["0", "0d", "000w"])
def test_interval_of_nothing_is_refused(text: str) -> None:
    """A backup every zero seconds is no schedule."""
    with pytest.raises(ValueError, match="longer than 0"):
        parse_interval(text)


def test_hostile_text_is_no_interval() -> None:
    """Any other text is a ValueError."""
    for text in hostile_names():
        with pytest.raises(ValueError, match="is not a number"):
            parse_interval(text)


@repeatable(100)
@given(
    number=st.integers(1, 10**11),
    unit=st.sampled_from([("", 1), ("m", 60), ("d", 86400), ("w", 604800)]),
)
def test_interval_is_the_product(number: int, unit: tuple[str, int]) -> None:
    """Every number and unit gives their product in seconds."""
    assert number * unit[1] == parse_interval(f"{number}{unit[0]}")
