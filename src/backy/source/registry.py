"""Source types by name: from a job's configuration to its sources.

    >>> open_source(SourceConfig("rbd", {"pool": "rbd", "image": "vm01"}), "config", None).image
    'rbd/vm01'

Limits: checks the settings' form only; whether the image is there shows when it is read.
"""

import time
from collections.abc import Mapping

from backy.domain import handshake_settings, rbd_settings
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import SourceConfig
from backy.domain.file_settings import (
    FILENAME,
    KEYS,
    FileSettings,
    WrongSetting,
    parse_command_settings,
    parse_file_settings,
)
from backy.domain.freeze_request import RequestOwner
from backy.domain.rbd_settings import RbdSettings, parse_rbd_settings
from backy.domain.strict_yaml import check_keys
from backy.ground.clock import SystemClock
from backy.ground.errors import ConfigError, OptionRefused
from backy.source.base import Owner, Source
from backy.source.commands import Commands
from backy.source.file import Cloning, FileSource
from backy.source.group import Group
from backy.source.handshake import Handshake, Means, connect
from backy.source.rbd import RbdSource

_OF_RBD = (*rbd_settings.TYPES, handshake_settings.ALWAYS)
TYPES = ("file", *_OF_RBD)


def file_settings(config: SourceConfig, file: str) -> FileSettings:
    """The settings of a source of type `file`; ConfigError with the key, also for other types."""
    if config.type != "file":
        raise ConfigError(file, "source.type", f"{config.type!r} is no type of a file")
    check_keys(config.settings, KEYS, file, "source")
    try:
        return parse_file_settings(config.settings)
    except WrongSetting as error:
        raise ConfigError(file, f"source.{error.key}", str(error)) from error


def image_settings(config: SourceConfig, file: str) -> RbdSettings:
    """The settings of a source of type `rbd`; ConfigError with the key."""
    check_keys(config.settings, (*rbd_settings.KEYS, *handshake_settings.KEYS), file, "source")
    try:
        return parse_rbd_settings(config.settings)
    except WrongSetting as error:
        raise ConfigError(file, f"source.{error.key}", str(error)) from error


def open_group(config: SourceConfig, file: str, owner: Owner | None) -> Group:
    """The disks that a configuration file describes; ConfigError with the key.

    Snapshots are made in the name of `owner`; without one nothing is made or run, for a look only.
    """
    if config.type in _OF_RBD:
        image = RbdSource(image_settings(config, file))
        asking = _handshake(config, file, owner, {NO_DISK: image}) if owner is not None else None
        return Group({NO_DISK: image}, asking, "" if owner is None else owner.job)
    disks = {NO_DISK: open_source(config, file, owner)}
    if owner is None:
        return Group(disks)
    settings = parse_command_settings(config.settings)
    commands = Commands(settings.pre_snapshot, settings.post_snapshot, settings.timeout)
    return Group(disks, commands, owner.job)


def _handshake(
    config: SourceConfig, file: str, owner: Owner, disks: Mapping[str, RbdSource]
) -> Handshake | None:
    """How the VM's host is asked, if it is to be; ConfigError with the key."""
    try:
        for wrong in handshake_settings.wrong_handshake_settings(config.settings):
            raise wrong
        if not handshake_settings.is_wanted(config.type, config.settings):
            return None
        settings = handshake_settings.parse_handshake(config.settings)
    except WrongSetting as error:
        raise ConfigError(file, f"source.{error.key}", str(error)) from error
    asked_by = RequestOwner(owner.repository, owner.job)
    return Handshake(settings, asked_by, disks, Means(SystemClock(), time.sleep, connect))


def open_source(config: SourceConfig, file: str, owner: Owner | None) -> Source:
    """The source of one disk, without what is done around its snapshots; ConfigError with the key."""
    if config.type not in TYPES:
        known = ", ".join(TYPES)
        raise ConfigError(file, "source.type", f"{config.type!r} is not known; known are {known}")
    if config.type in _OF_RBD:
        return RbdSource(image_settings(config, file))
    settings = file_settings(config, file)
    if owner is None:
        return FileSource(settings.filename)
    return FileSource(settings.filename, Cloning(owner, settings.clone_directory, settings.clone))


def from_argument(kind: str, source: str, absolute: str) -> SourceConfig:
    """The configuration for `backy init KIND SOURCE`; `absolute` is SOURCE as an absolute path."""
    if kind not in TYPES:
        raise OptionRefused("TYPE", f"{kind!r} is not known; known are {', '.join(TYPES)}")
    if kind in _OF_RBD:
        try:
            return SourceConfig(kind, dict(rbd_settings.parse_spec(source)))
        except ValueError as error:
            raise OptionRefused("SOURCE", str(error)) from error
    if not source or "\0" in source:
        raise OptionRefused("SOURCE", "it must be the path of an image or block device")
    if any("\ud800" <= one <= "\udfff" for one in absolute):
        raise OptionRefused("SOURCE", "its path is not UTF-8, which no configuration can hold")
    return SourceConfig(kind, {FILENAME: absolute})
