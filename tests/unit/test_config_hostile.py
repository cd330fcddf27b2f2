"""Configuration files that attack: bombs, tags, depth, odd scalars, and anything at all.

Whatever the text, it is a configuration or a ConfigError with one short sentence.
"""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.config import GlobalConfig, JobConfig, parse_global, parse_job
from backy.ground.errors import ConfigError
from strategies import near_misses, repeatable

LONGEST_MESSAGE = 1000
SCALARS = [
    '!!int ""',
    '!!int "-"',
    '!!int ":"',
    '!!float ""',
    '!!float ":"',
    "!!bool maybe",
    "!!timestamp never",
    "!!binary '*'",
    "!!null x",
    "!!str {a: b}",
    "!!set {a, b}",
    "!!omap [a]",
    "!!python/object/apply:os.system ['touch pwned']",
    "!!python/name:os.system",
    "!unknown x",
    "2024-13-45",
    "2024-01-01T00:00:00+99:99",
    "0x" + "f" * 6000,
    "9" * 6000,
    "1e999",
    ".nan",
    "*undefined",
    "&a [*a]",
    "&a {b: *a}",
    '"\\ud800"',
    '"a\\0b"',
    '"a\\nb"',
    '"\\e[31m"',
]
PIECES = ["global", "base-dir", "codec", "source", "type", "filename", "schedule", "daily", "interval"]
PIECES += [
    ": ",
    ":",
    "\n",
    "\n  ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "'",
    '"',
    "|",
    ">",
    "#",
    "&a ",
    "*a",
    "!!int ",
    "?",
]
PIECES += [
    "---\n",
    "...\n",
    "<<: ",
    "\t",
    "%",
    "@",
    "1d",
    "10",
    "/srv",
    "null",
    "true",
    "2024-01-01",
    "~",
    "0x",
]


def refusal(parse: Callable[[str, str], GlobalConfig | JobConfig], text: str) -> ConfigError | None:
    """The error that a text gives; None where it is accepted."""
    try:
        parse(text, "file")
    except ConfigError as error:
        return error
    return None


def is_short(error: ConfigError | None) -> bool:
    """Whether there is no error, or one that an operator can read."""
    return error is None or len(error.message) < LONGEST_MESSAGE


def bomb(levels: int, place: str, section: str = "jobs") -> str:
    """A billion-laughs document of 10 ** levels words, which `place` refers to as *top."""
    lines = [f"{section}:", "  a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for level in range(1, levels):
        below = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"  a{level}: &{'top' if level == levels - 1 else f'a{level}'} [{below}]")
    return "\n".join(lines) + "\n" + place


@pytest.mark.parametrize(
    "place", ["global: {base-dir: %s}", "global: {codec: %s}", "global: %s", "%s", "{%s: 1}"]
)
@pytest.mark.parametrize("scalar", SCALARS)
def test_odd_value_is_read_or_refused_in_one_sentence(scalar: str, place: str) -> None:
    """No tag, number, alias or escape of YAML makes reading do anything else."""
    assert is_short(refusal(parse_global, place % scalar))


@pytest.mark.parametrize(
    "place",
    [
        "source: {type: %s, filename: /x}\nschedule: {}",
        "source: {type: file, filename: %s}\nschedule: {}",
        "source: %s\nschedule: {}",
        "source: {type: file}\nschedule: %s",
        "source: {type: file}\nschedule: {daily: %s}",
        "source: {type: file}\nschedule: {daily: {interval: %s, keep: 1}}",
        "source: {type: file}\nschedule: {daily: {interval: 1d, keep: %s}}",
        "source: {type: file}\nschedule: {? %s : {interval: 1d, keep: 1}}",
    ],
)
@pytest.mark.parametrize("scalar", SCALARS)
def test_odd_value_in_a_job_is_read_or_refused_in_one_sentence(scalar: str, place: str) -> None:
    """Nor does it in any place of a job's file."""
    assert is_short(refusal(parse_job, place % scalar))


@pytest.mark.parametrize(
    "place", ["global: {base-dir: *top}", "global: {codec: *top}", "global: {*top : 1}"]
)
def test_alias_bomb_is_refused_without_expanding_it(place: str) -> None:
    """A few lines that stand for a million words are refused as shortly as any other wrong value."""
    error = refusal(parse_global, bomb(6, place))

    assert error is not None
    assert is_short(error)


def test_alias_bomb_as_an_interval_is_refused_without_expanding_it() -> None:
    """The same holds where a value is turned into text before it is looked at."""
    place = "source: {type: file}\nschedule: {daily: {interval: *top, keep: 1}}"
    error = refusal(parse_job, bomb(6, place, section="path"))

    assert error is not None
    assert is_short(error)


def test_alias_bomb_that_nobody_looks_at_is_harmless() -> None:
    """Aliases are shared and not copied, so a bomb in the scheduler's sections costs nothing here."""
    assert GlobalConfig() == parse_global(bomb(9, "global: {}"), "backy.conf")


@pytest.mark.parametrize("depth", [500, 5000])
@pytest.mark.parametrize("brackets", ["[]", ("{a: ", "}")])
def test_deep_nesting_is_refused(depth: int, brackets: tuple[str, str]) -> None:
    """Depth is an error of the file, not of the reader."""
    nested = brackets[0] * depth + brackets[1] * depth
    error = refusal(parse_global, "global: {base-dir: " + nested + "}")

    assert error is not None
    assert is_short(error)


def test_nesting_of_a_megabyte_does_not_kill_the_process() -> None:
    """The largest file that is read at all may be nothing but brackets; that is no crash either."""
    program = """
from backy.domain.config import parse_global
from backy.ground.errors import ConfigError
try:
    parse_global("global: {base-dir: " + "[" * 500_000 + "]" * 500_000 + "}", "backy.conf")
except ConfigError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (0, "refused\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize(
    "text",
    [
        "global: {base-dir: /a, base-dir: /b}",
        "global: {base-dir: /a}\nglobal: {codec: lz4}",
        "source: {type: file}\nschedule: {a: {interval: 1d, keep: 1}, a: {interval: 1d, keep: 9}}",
    ],
)
def test_key_that_stands_twice_is_refused(text: str) -> None:
    """Which of two values was meant is not ours to guess: silently dropping one loses a setting."""
    parse = parse_global if text.startswith("global") else parse_job
    with pytest.raises(ConfigError, match="twice"):
        parse(text, "file")


def test_base_directory_with_a_nul_is_refused() -> None:
    """No path holds a NUL, so this is told here and not by the first call that takes the path."""
    with pytest.raises(ConfigError, match="base-dir"):
        parse_global('global: {base-dir: "/srv\\0x"}', "backy.conf")


@repeatable(400)
@given(text=near_misses(PIECES))
def test_pieces_of_configuration_are_read_or_refused(text: str) -> None:
    """Any order of the pieces of configuration files is read or refused."""
    for parse in (parse_global, parse_job):
        error = refusal(parse, text)
        assert error is None or error.message


@repeatable(300)
@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Any text at all is read or refused."""
    for parse in (parse_global, parse_job):
        error = refusal(parse, text)
        assert error is None or error.message


@repeatable(200)
@given(
    document=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=4)
        | st.sampled_from(PIECES),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*PIECES[:9], "keep", "global"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_document_is_read_or_refused(document: object) -> None:
    """Any tables and lists, with right and wrong keys in right and wrong places, are read or refused."""
    for parse in (parse_global, parse_job):
        error = refusal(parse, json.dumps(document))
        assert error is None or error.message
