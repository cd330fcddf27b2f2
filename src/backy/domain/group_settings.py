"""The settings that concern all disks of a job: what is done around their snapshots.

    >>> parse_group_settings({"post-snapshot": "thaw", "snapshot-timeout": "2m"}).timeout
    120

They stand beside `sources`, or in the one `source`.

Limits: pure; other settings are passed over.
"""

from collections.abc import Mapping
from typing import NamedTuple

from backy.domain.setting import WrongSetting, command_line, setting
from backy.ground.units import parse_interval

PRE, POST, TIMEOUT = "pre-snapshot", "post-snapshot", "snapshot-timeout"
GROUP_KEYS = (PRE, POST, TIMEOUT)

DEFAULT_TIMEOUT = 60
_MAX_TIMEOUT = 86400


class GroupSettings(NamedTuple):
    """What is run around the snapshots, and for how many seconds each command may take."""

    pre_snapshot: str | None = None
    post_snapshot: str | None = None
    timeout: int = DEFAULT_TIMEOUT


def parse_group_settings(settings: Mapping[str, object]) -> GroupSettings:
    """The settings; WrongSetting for the first that is wrong."""
    return GroupSettings(
        setting(settings, PRE, command_line, None) if PRE in settings else None,
        setting(settings, POST, command_line, None) if POST in settings else None,
        setting(settings, TIMEOUT, _timeout, DEFAULT_TIMEOUT),
    )


def wrong_group_settings(settings: Mapping[str, object]) -> list[WrongSetting]:
    """All that are wrong, for those who tell every mistake at once."""
    found = []
    for key, value in settings.items():
        try:
            parse_group_settings({key: value})
        except WrongSetting as error:
            found.append(error)
    return found


def _timeout(found: object) -> int:
    seconds = parse_interval(str(found))
    if isinstance(found, bool) or seconds > _MAX_TIMEOUT:
        raise ValueError("it must be an interval of at most 1d")
    return seconds
