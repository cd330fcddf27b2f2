"""Source types by name: from a job's configuration to its sources.

    >>> group = open_group(SourceConfig("rbd", {"pool": "rbd", "image": "vm01"}), "config", None)
    >>> [source.image for source in group.disks.values()]
    ['rbd/vm01']

Limits: checks the settings' form only; whether the image is there shows when it is read.
"""

from backy.domain import rbd_settings
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import SourceConfig, SourcesConfig, source_key
from backy.domain.file_settings import FILENAME, KEYS, FileSettings, parse_file_settings
from backy.domain.group_settings import GROUP_KEYS, parse_group_settings
from backy.domain.rbd_settings import RbdSettings, parse_rbd_settings
from backy.domain.setting import WrongSetting
from backy.domain.strict_yaml import check_keys
from backy.ground.errors import ConfigError, OptionRefused
from backy.source.base import Owner, Source
from backy.source.commands import Commands
from backy.source.file import Cloning, FileSource
from backy.source.group import Group
from backy.source.rbd import RbdSource

TYPES = ("file", *rbd_settings.TYPES)

# Older files have these of a handshake beside an image.
_HANDSHAKE = ("vm", "consul_acl_token")


def file_settings(config: SourceConfig, file: str, disk: str = NO_DISK) -> FileSettings:
    """The settings of a source of type `file`; ConfigError with the key, also for other types."""
    key = source_key(disk)
    if config.type != "file":
        raise ConfigError(file, f"{key}.type", f"{config.type!r} is not the type of a file")
    check_keys(config.settings, KEYS if disk != NO_DISK else (*KEYS, *GROUP_KEYS), file, key)
    try:
        return parse_file_settings(config.settings)
    except WrongSetting as error:
        raise ConfigError(file, f"{key}.{error.key}", str(error)) from error


def image_settings(config: SourceConfig, file: str, disk: str = NO_DISK) -> RbdSettings:
    """The settings of a source of type `rbd`; ConfigError with the key."""
    key, keys = source_key(disk), (*rbd_settings.KEYS, *_HANDSHAKE)
    check_keys(config.settings, keys if disk != NO_DISK else (*keys, *GROUP_KEYS), file, key)
    try:
        return parse_rbd_settings(config.settings)
    except WrongSetting as error:
        raise ConfigError(file, f"{key}.{error.key}", str(error)) from error


def open_group(config: SourceConfig | SourcesConfig, file: str, owner: Owner | None) -> Group:
    """The disks that a configuration file describes; ConfigError with the key.

    Snapshots are made in the name of `owner`; without one nothing is made or run, for a look only.
    """
    disks = {disk: _opened(one, file, owner, disk) for disk, one in config.disks.items()}
    try:
        settings = parse_group_settings(config.settings)
    except WrongSetting as error:
        prefix = "" if isinstance(config, SourcesConfig) else f"{source_key(NO_DISK)}."
        raise ConfigError(file, f"{prefix}{error.key}", str(error)) from error
    if owner is None:
        return Group(disks)
    commands = Commands(settings.pre_snapshot, settings.post_snapshot, settings.timeout)
    return Group(disks, commands, owner.job)


def _opened(config: SourceConfig, file: str, owner: Owner | None, disk: str) -> Source:
    if config.type not in TYPES:
        why = f"{config.type!r} is not known; known are {', '.join(TYPES)}"
        raise ConfigError(file, f"{source_key(disk)}.type", why)
    if config.type in rbd_settings.TYPES:
        return RbdSource(image_settings(config, file, disk))
    settings = file_settings(config, file, disk)
    if owner is None:
        return FileSource(settings.filename)
    cloning = Cloning(owner._replace(disk=disk), settings.clone_directory, settings.clone)
    return FileSource(settings.filename, cloning)


def from_argument(kind: str, source: str, absolute: str) -> SourceConfig:
    """The configuration for `backy init KIND SOURCE`; `absolute` is SOURCE as an absolute path."""
    if kind not in TYPES:
        raise OptionRefused("TYPE", f"{kind!r} is not known; known are {', '.join(TYPES)}")
    if kind in rbd_settings.TYPES:
        try:
            return SourceConfig(kind, dict(rbd_settings.parse_spec(source)))
        except ValueError as error:
            raise OptionRefused("SOURCE", str(error)) from error
    if not source or "\0" in source:
        raise OptionRefused("SOURCE", "it must be the path of an image or block device")
    if any("\ud800" <= one <= "\udfff" for one in absolute):
        raise OptionRefused("SOURCE", "its path is not UTF-8, which no configuration can hold")
    return SourceConfig(kind, {FILENAME: absolute})
