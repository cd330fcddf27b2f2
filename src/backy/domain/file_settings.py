"""The settings of a source of type `file`: what operators write, as a frozen record.

    >>> parse_file_settings({"filename": "/srv/vm01.raw", "snapshot-timeout": "2m"}).timeout
    120

Limits: pure; whether a path exists shows when it is used.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from backy.domain.strict_yaml import shown
from backy.ground.units import parse_interval

FILENAME, CLONE, CLONE_DIRECTORY = "filename", "clone", "clone-directory"
PRE, POST, TIMEOUT = "pre-snapshot", "post-snapshot", "snapshot-timeout"
COMMAND_KEYS = (PRE, POST, TIMEOUT)
KEYS = (FILENAME, CLONE, CLONE_DIRECTORY, *COMMAND_KEYS)

Value = TypeVar("Value")

DEFAULT_TIMEOUT = 60
_MAX_TIMEOUT = 86400


class FileSettings(NamedTuple):
    """Where the image is; whether and where it is cloned; what is run around that, and for how long.

    `clone_directory` is None for the image's own; `timeout` is in seconds, for each command.
    """

    filename: str
    clone: bool = True
    clone_directory: str | None = None
    pre_snapshot: str | None = None
    post_snapshot: str | None = None
    timeout: int = DEFAULT_TIMEOUT


class CommandSettings(NamedTuple):
    """What is run around the snapshots of any type of source, for `timeout` seconds each."""

    pre_snapshot: str | None = None
    post_snapshot: str | None = None
    timeout: int = DEFAULT_TIMEOUT


class WrongSetting(ValueError):
    """A setting that cannot be meant."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


def parse_command_settings(settings: Mapping[str, object]) -> CommandSettings:
    """The settings of the commands, whatever else is there; WrongSetting."""
    return CommandSettings(
        _value(settings, PRE, _command, None) if PRE in settings else None,
        _value(settings, POST, _command, None) if POST in settings else None,
        _value(settings, TIMEOUT, _timeout, DEFAULT_TIMEOUT),
    )


def parse_file_settings(settings: Mapping[str, object]) -> FileSettings:
    """The settings, whose keys were checked; WrongSetting for the first that is wrong or missing."""
    return FileSettings(
        _value(settings, FILENAME, _filename, None),
        _value(settings, CLONE, _switch, "auto"),
        _value(settings, CLONE_DIRECTORY, _directory, None) if CLONE_DIRECTORY in settings else None,
        *parse_command_settings(settings),
    )


def wrong_file_settings(settings: Mapping[str, object]) -> list[WrongSetting]:
    """All that are wrong, for those who tell every mistake at once; a missing name is not told."""
    found = []
    for key, value in settings.items():
        try:
            parse_file_settings({FILENAME: "/", key: value})
        except WrongSetting as error:
            found.append(error)
    return found


def _value(
    settings: Mapping[str, object], key: str, read: Callable[[object], Value], default: object
) -> Value:
    try:
        return read(settings.get(key, default))
    except ValueError as error:
        raise WrongSetting(key, str(error)) from error


def _filename(found: object) -> str:
    if not isinstance(found, str) or not found or "\0" in found:
        raise ValueError("it must be the path of an image or block device")
    return found


def _switch(found: object) -> bool:
    # YAML takes a bare off for false.
    if found in ("auto", "off") or found is False:
        return found == "auto"
    raise ValueError(f"{shown(found)} is neither auto nor off")


def _directory(found: object) -> str:
    if not isinstance(found, str) or not found.startswith("/") or "\0" in found:
        raise ValueError(f"{shown(found)} is not the absolute path of a directory")
    return found


def _command(found: object) -> str:
    if not isinstance(found, str) or not found.strip() or "\0" in found:
        raise ValueError(f"{shown(found)} is not a command line")
    return found


def _timeout(found: object) -> int:
    seconds = parse_interval(str(found))
    if isinstance(found, bool) or seconds > _MAX_TIMEOUT:
        raise ValueError("it must be an interval of at most 1d")
    return seconds
