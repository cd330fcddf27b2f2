"""Source types by name: from a job's configuration to its sources.

    >>> group = open_group(SourceConfig("rbd", {"pool": "rbd", "image": "vm01"}), "config", None)
    >>> [source.image for source in group.disks.values()]
    ['rbd/vm01']

Limits: checks the settings' form only; whether the image is there shows when it is read.
"""

import time
from collections.abc import Mapping
from functools import partial

from backy.domain import handshake_settings, rbd_settings
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import SourceConfig, SourcesConfig, source_key
from backy.domain.file_settings import FILENAME, KEYS, FileSettings, parse_file_settings
from backy.domain.freeze_request import RequestOwner
from backy.domain.group_settings import COMMAND_KEYS, GROUP_KEYS, GroupSettings, parse_group_settings
from backy.domain.rbd_settings import RbdSettings, parse_rbd_settings
from backy.domain.setting import WrongSetting
from backy.domain.strict_yaml import check_keys
from backy.ground.ceph import Access
from backy.ground.clock import SystemClock
from backy.ground.errors import ConfigError, OptionRefused
from backy.source.base import Owner, Source
from backy.source.clonefiles import remove_clones
from backy.source.commands import Commands
from backy.source.file import Cloning, FileSource
from backy.source.group import Group, Prune, Quiesce
from backy.source.handshake import Handshake, Means, connect
from backy.source.rbd import RbdSource
from backy.source.rbd_snapshots import remove_snapshots

_IN_CEPH = handshake_settings.TYPES
TYPES = ("file", *_IN_CEPH)


def file_settings(config: SourceConfig, file: str, disk: str = NO_DISK) -> FileSettings:
    """The settings of a source of type `file`; ConfigError with the key, also for other types."""
    key = source_key(disk)
    if config.type != "file":
        raise ConfigError(file, f"{key}.type", f"{config.type!r} is not the type of a file")
    check_keys(config.settings, KEYS if disk != NO_DISK else (*KEYS, *COMMAND_KEYS), file, key)
    try:
        return parse_file_settings(config.settings)
    except WrongSetting as error:
        raise ConfigError(file, f"{key}.{error.key}", str(error)) from error


def image_settings(config: SourceConfig, file: str, disk: str = NO_DISK) -> RbdSettings:
    """The settings of a source in Ceph; ConfigError with the key."""
    key, known = source_key(disk), rbd_settings.KEYS
    check_keys(config.settings, known if disk != NO_DISK else (*known, *GROUP_KEYS), file, key)
    try:
        return parse_rbd_settings(config.settings)
    except WrongSetting as error:
        raise ConfigError(file, f"{key}.{error.key}", str(error)) from error


def open_group(config: SourceConfig | SourcesConfig, file: str, owner: Owner | None) -> Group:
    """The disks that a configuration file describes; ConfigError with the key.

    Snapshots are made in the name of `owner`; without one nothing is made or run, for a look only.
    """
    disks: dict[str, Source] = {}
    in_ceph: dict[str, RbdSource] = {}
    for disk, one in config.disks.items():
        if one.type in _IN_CEPH:
            disks[disk] = in_ceph[disk] = RbdSource(image_settings(one, file, disk))
        else:
            disks[disk] = _opened(one, file, owner, disk)
    try:
        types = [one.type for one in config.disks.values()]
        settings = parse_group_settings(config.settings, types)
    except WrongSetting as error:
        prefix = "" if isinstance(config, SourcesConfig) else f"{source_key(NO_DISK)}."
        raise ConfigError(file, f"{prefix}{error.key}", str(error)) from error
    if owner is None:
        return Group(disks)
    others: list[Prune] = []
    if not in_ceph:
        others.append(partial(remove_snapshots, Access()))
    if len(in_ceph) == len(disks):
        others.append(partial(remove_clones, owner))
    return Group(disks, _quiesce(settings, owner, in_ceph), owner.job, others)


def _quiesce(settings: GroupSettings, owner: Owner, in_ceph: Mapping[str, RbdSource]) -> Quiesce:
    if settings.handshake is None:
        return Commands(settings.pre_snapshot, settings.post_snapshot, settings.timeout)
    asked_by = RequestOwner(owner.repository, owner.job)
    return Handshake(settings.handshake, asked_by, in_ceph, Means(SystemClock(), time.sleep, connect))


def _opened(config: SourceConfig, file: str, owner: Owner | None, disk: str) -> FileSource:
    if config.type not in TYPES:
        known = ", ".join(TYPES)
        why = f"{config.type!r} is not known; known are {known}"
        raise ConfigError(file, f"{source_key(disk)}.type", why)
    settings = file_settings(config, file, disk)
    if owner is None:
        return FileSource(settings.filename)
    cloning = Cloning(owner._replace(disk=disk), settings.clone_directory, settings.clone)
    return FileSource(settings.filename, cloning)


def from_argument(kind: str, source: str, absolute: str) -> SourceConfig:
    """The configuration for `backy init KIND SOURCE`; `absolute` is SOURCE as an absolute path."""
    if kind == handshake_settings.ALWAYS:
        raise OptionRefused("TYPE", f"{kind!r} needs a VM too: begin with 'rbd', and edit JOB/config")
    if kind not in TYPES:
        raise OptionRefused("TYPE", f"{kind!r} is not known; known are {', '.join(TYPES)}")
    if kind in _IN_CEPH:
        try:
            return SourceConfig(kind, dict(rbd_settings.parse_spec(source)))
        except ValueError as error:
            raise OptionRefused("SOURCE", str(error)) from error
    if not source or "\0" in source:
        raise OptionRefused("SOURCE", "it must be the path of an image or block device")
    if any("\ud800" <= one <= "\udfff" for one in absolute):
        raise OptionRefused("SOURCE", "its path is not UTF-8, which no configuration can hold")
    return SourceConfig(kind, {FILENAME: absolute})
