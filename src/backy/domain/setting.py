"""One setting of a source or of a job's disks: read by its rule, or wrong with its key.

    >>> setting({"snapshot-timeout": "2m"}, "snapshot-timeout", len, "")
    2

Limits: pure.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from backy.domain.strict_yaml import shown

Value = TypeVar("Value")


class WrongSetting(ValueError):
    """A setting that cannot be meant."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


def setting(
    settings: Mapping[str, object], key: str, read: Callable[[object], Value], default: object
) -> Value:
    """What `read` makes of a setting, or of the default; its ValueError becomes a WrongSetting."""
    try:
        return read(settings.get(key, default))
    except ValueError as error:
        raise WrongSetting(key, str(error)) from error


def command_line(found: object) -> str:
    """A line for the shell; ValueError."""
    if not isinstance(found, str) or not found.strip() or "\0" in found:
        raise ValueError(f"{shown(found)} is not a command line")
    return found
