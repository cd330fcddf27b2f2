"""Targets by what an operator writes: a path, a block device, or `-`.

Limits: nothing is opened for writing before `Target.begin`.
"""

import os
import stat

from backy.ground.errors import TargetRefused
from backy.target.base import Target
from backy.target.device import DeviceTarget
from backy.target.file import FileTarget
from backy.target.stream import StreamTarget

STREAM = "-"
_DEVICES = "/dev/"
_SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - no file of ours: the one place in /dev for files


def find_target(path: str, stdout: int) -> Target:
    """The target that `path` names; TargetRefused for what can hold no image."""
    if path == STREAM:
        return StreamTarget(stdout)
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


def _is_device_name(path: str) -> bool:
    """Whether only a device can be meant; a mistyped one must not become a file in memory."""
    return path.startswith(_DEVICES) and not path.startswith(_SHARED_MEMORY)
