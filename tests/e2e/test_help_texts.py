"""`--help`: every command is listed by the line it has itself, and shows how it is used."""

import click
import pytest
from click.testing import CliRunner

from backy.cli.main import ALIASES, COMMANDS, cli
from testsite import run_backy


def command_of(name: str) -> click.Command:
    """The click command of that name."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_shows_the_commands_own_line(name: str) -> None:
    """The lines stand apart from the commands so that help starts fast; they must not drift."""
    first = (command_of(name).help or "").split("\n")[0]

    assert first == COMMANDS[name].line
    assert first == command_of(name).get_short_help_str(limit=200)


@pytest.mark.parametrize("name", ALIASES)
def test_another_name_leads_to_the_same_command(name: str) -> None:
    """`rm` is `forget`, as on upstream's main."""
    assert command_of(ALIASES[name]) is command_of(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_of_itself(name: str) -> None:
    """Each example line is a call of that very command, with -b, that could be copied."""
    text = CliRunner().invoke(cli, [name, "--help"]).output
    examples = text.split("Example:\n", 1)[1].split("\n\n")[0].splitlines()

    assert examples
    for line in examples:
        words = line.split()
        assert "backy" == words[0]
        assert name in words


def test_help_lists_every_command_and_every_other_name() -> None:
    """In the real process, within the width of a terminal."""
    done = run_backy("--help")

    assert (0, "") == (done.returncode, done.stderr)
    lines = [line.strip() for line in done.stdout.splitlines()]
    for name, listed in COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(listed.line) for line in lines), name
    for name, target in ALIASES.items():
        assert any(line.split() == [name, "same", "as", target] for line in lines), name


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_a_command_needs_no_repository(flag: str) -> None:
    """Wherever one stands."""
    for name in (*COMMANDS, *ALIASES):
        done = CliRunner().invoke(cli, ["-b", "/nowhere", name, flag])
        assert 0 == done.exit_code
        assert done.output.startswith("Usage: ")


def test_the_version_is_told() -> None:
    """As scripts ask for it."""
    done = run_backy("--version")

    assert (0, "backy, version ") == (done.returncode, done.stdout[:15])
