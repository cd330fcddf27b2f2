"""The settings of a source of type `file`: what operators write, as a frozen record.

    >>> parse_file_settings({"filename": "/srv/vm01.raw", "clone": "off"}).clone
    False

Limits: pure; whether a path exists shows when it is used.
"""

from collections.abc import Mapping
from typing import NamedTuple

from backy.domain.setting import WrongSetting, setting
from backy.domain.strict_yaml import shown

FILENAME, CLONE, CLONE_DIRECTORY = "filename", "clone", "clone-directory"
KEYS = (FILENAME, CLONE, CLONE_DIRECTORY)


class FileSettings(NamedTuple):
    """Where the image is, and whether and where it is cloned: None for its own directory."""

    filename: str
    clone: bool = True
    clone_directory: str | None = None


def parse_file_settings(settings: Mapping[str, object]) -> FileSettings:
    """The settings, whose keys were checked; WrongSetting for the first that is wrong or missing."""
    return FileSettings(
        setting(settings, FILENAME, _filename, None),
        setting(settings, CLONE, _switch, "auto"),
        setting(settings, CLONE_DIRECTORY, _directory, None) if CLONE_DIRECTORY in settings else None,
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
