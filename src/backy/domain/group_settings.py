"""The settings that concern all disks of a job: what is done around their snapshots.

    >>> parse_group_settings({"post-snapshot": "thaw", "snapshot-timeout": "2m"}, ["file"]).timeout
    120

Either commands are run, or the VM's host is asked (`handshake_settings`).

They stand beside `sources`, or in the one `source`.

Limits: pure; other settings are passed over.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from backy.domain import handshake_settings
from backy.domain.handshake_settings import HandshakeSettings, parse_handshake
from backy.domain.setting import WrongSetting, command_line, setting
from backy.ground.units import parse_interval

PRE, POST, TIMEOUT = "pre-snapshot", "post-snapshot", "snapshot-timeout"
COMMAND_KEYS = (PRE, POST, TIMEOUT)
GROUP_KEYS = (*COMMAND_KEYS, *handshake_settings.KEYS)

DEFAULT_TIMEOUT = 60
_MAX_TIMEOUT = 86400


class GroupSettings(NamedTuple):
    """What is run around the snapshots, and for how many seconds each command may take.

    `handshake`: how the VM's host is asked to make them, if it is to be.
    """

    pre_snapshot: str | None = None
    post_snapshot: str | None = None
    timeout: int = DEFAULT_TIMEOUT
    handshake: HandshakeSettings | None = None


def parse_group_settings(settings: Mapping[str, object], types: Collection[str]) -> GroupSettings:
    """The settings of sources of these types; WrongSetting for the first that is wrong."""
    for wrong in wrong_group_settings(settings, types):
        raise wrong
    wanted = handshake_settings.is_wanted(types, settings)
    return _commands(settings)._replace(handshake=parse_handshake(settings) if wanted else None)


def wrong_group_settings(
    settings: Mapping[str, object], types: Collection[str]
) -> Iterator[WrongSetting]:
    """All that are wrong, for those who tell every mistake at once; a missing VM is not told."""
    for key in COMMAND_KEYS:
        try:
            _commands({key: settings[key]} if key in settings else {})
        except WrongSetting as error:
            yield error
    asking = [key for key in handshake_settings.KEYS if key in settings]
    if asking and not set(types) <= set(handshake_settings.TYPES):
        yield WrongSetting(asking[0], "a VM's host is asked for snapshots of images in Ceph only")
        return
    yield from handshake_settings.wrong_handshake_settings(settings)
    if handshake_settings.is_wanted(types, settings):
        for key in (PRE, POST):
            if key in settings:
                yield WrongSetting(key, "the VM's host is asked to freeze the guest, so there is none")


def _commands(settings: Mapping[str, object]) -> GroupSettings:
    return GroupSettings(
        setting(settings, PRE, command_line, None) if PRE in settings else None,
        setting(settings, POST, command_line, None) if POST in settings else None,
        setting(settings, TIMEOUT, _timeout, DEFAULT_TIMEOUT),
    )


def _timeout(found: object) -> int:
    seconds = parse_interval(str(found))
    if isinstance(found, bool) or seconds > _MAX_TIMEOUT:
        raise ValueError("it must be an interval of at most 1d")
    return seconds
