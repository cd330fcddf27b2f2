"""Doctor, for sources of type `file`: whether the image is there, readable, and can be cloned.

    check("vm01", SourceConfig("file", {"filename": "/srv/vm01.raw"}))()

Cloning is tried with two files without names, which vanish by themselves.

Limits: settings are those of a configuration that was accepted; `pre-snapshot` and `post-snapshot`
are not run.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence

from backy.domain.config import SourceConfig
from backy.domain.diagnosis import Finding, fine, note, wrong
from backy.domain.file_settings import FileSettings, parse_file_settings
from backy.ground import fiemap, linux
from backy.ground.units import format_size
from backy.source.clone import PROVEN


def check(name: str, source: SourceConfig) -> Callable[[], Sequence[Finding]]:
    """What looks at one job's image."""
    return lambda: _look(f"job {name}", source)


def _look(subject: str, source: SourceConfig) -> Sequence[Finding]:
    settings = parse_file_settings(source.settings)
    path = settings.filename
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        cure = "let backy's user read it"
        if error.errno == errno.ENOENT:
            cure = "correct 'filename', or mount its disk"
        return [wrong(subject, f"the image {path} cannot be read ({why}): {cure}")]
    try:
        return [_judge(subject, settings, fd)]
    finally:
        os.close(fd)


def _judge(subject: str, settings: FileSettings, fd: int) -> Finding:
    """What is open as the image."""
    path = settings.filename
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        return wrong(subject, f"{path} is neither a file nor a block device: correct 'filename'")
    text = f"{path} has {format_size(os.lseek(fd, 0, os.SEEK_END))}"
    if stat.S_ISBLK(mode):
        return fine(subject, f"{text}, a device that is read in place")
    if not settings.clone:
        return fine(subject, f"{text}, read in place, as 'clone' says")
    return _cloning(subject, settings, linux.file_system(fd), text)


def _cloning(subject: str, settings: FileSettings, kind: str, text: str) -> Finding:
    """Whether a backup could make a clone; `text` tells of the image."""
    own = os.path.dirname(os.path.realpath(settings.filename))
    place = settings.clone_directory or own
    expected = settings.clone_directory is not None
    if kind not in PROVEN:
        why = f"{text}, read in place, since {kind} makes no clones"
        cure = "remove 'clone-directory', or put the image on XFS or btrfs"
        return wrong(subject, f"{why}: {cure}") if expected else fine(subject, why)
    try:
        _try_clone(own if os.access(own, os.W_OK, effective_ids=True) else place, place)
    except OSError as error:
        why = f"{text}, but no clone can be made in {place} ({os.strerror(error.errno or 0)})"
        cure = "make it writable and of the image's file system, or say 'clone: off'"
        return wrong(subject, f"{why}: {cure}") if expected else note(subject, f"{why}: {cure}")
    return fine(subject, f"{text}, backed up from clones in {place}")


def _try_clone(source: str, target: str) -> None:
    """Clone 4 KiB between files without names in two directories; OSError."""
    flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
    image = os.open(source, flags, 0o600)
    try:
        os.pwrite(image, bytes(4096), 0)
        new = os.open(target, flags, 0o600)
        try:
            fiemap.clone(new, image)
        finally:
            os.close(new)
    finally:
        os.close(image)
