"""Targets by what an operator writes: a path, a block device, `-`, or `rbd:POOL/IMAGE`.

Limits: nothing is opened for writing before `Target.begin`.
"""

import os
import stat
from typing import NamedTuple

from backy.domain.rbd_settings import CONF, USER, parse_rbd_settings, parse_spec
from backy.ground.errors import TargetRefused
from backy.target.base import Target
from backy.target.device import DeviceTarget
from backy.target.file import FileTarget
from backy.target.rbd import PREFIX, RbdTarget
from backy.target.stream import StreamTarget

STREAM = "-"
_DEVICES = "/dev/"
_SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - no file of ours: the one place in /dev for files


class CephOptions(NamedTuple):
    """How an image in Ceph is reached, and whether one that exists may be overwritten.

    What is None is found as librados does: CEPH_CONF or /etc/ceph/ceph.conf, and client.admin.
    """

    conf: str | None = None
    user: str | None = None
    overwrite: bool = False


def find_target(path: str, stdout: int, ceph: CephOptions | None = None) -> Target:
    """The target that `path` names; TargetRefused for what can hold no image."""
    if path == STREAM:
        return StreamTarget(stdout)
    if path.startswith(PREFIX):
        return _image(path, ceph or CephOptions())
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (OSError, ValueError) as error:
        raise TargetRefused(path, getattr(error, "strerror", None) or "it is no path") from error
    if stat.S_ISBLK(mode):
        return DeviceTarget(path)
    if stat.S_ISDIR(mode):
        raise TargetRefused(path, "it is a directory: name the file to make in it")
    if not stat.S_ISREG(mode):
        raise TargetRefused(path, "it is neither a file nor a block device: '-' is standard output")
    if not path:
        raise TargetRefused("''", "it is empty: name a file, a block device or '-'")
    if _is_device_name(os.path.realpath(path)):
        why = "there is no block device of that name, and a file in /dev would lie in memory"
        raise TargetRefused(path, why)
    return FileTarget(path)


def _image(path: str, ceph: CephOptions) -> Target:
    try:
        settings: dict[str, object] = dict(parse_spec(path.removeprefix(PREFIX)))
        if ceph.conf is not None:
            settings[CONF] = os.path.abspath(ceph.conf)
        if ceph.user is not None:
            settings[USER] = ceph.user
        return RbdTarget(parse_rbd_settings(settings), overwrite=ceph.overwrite)
    except ValueError as error:
        raise TargetRefused(path, str(error)) from error


def _is_device_name(path: str) -> bool:
    """Whether only a device can be meant; a mistyped one must not become a file in memory."""
    return path.startswith(_DEVICES) and not path.startswith(_SHARED_MEMORY)
