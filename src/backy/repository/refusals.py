"""Refusals: files that the system will not let go, told and left alone, so that all others go.

    refusals = Refusals()
    with refusals.one(path):        a broken inode, an immutable file: noted, and the next one is tried
        durable.remove(folder, name)
    refusals.found

A file that stays takes its space and does no harm: it is looked at anew by each collection. What has
gone meanwhile is no refusal.

Limits: never around a sync, nor around anything after which more may be removed than otherwise. Errors
that are not about one file, such as that of a full disk, and too many refusals end the run.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from backy.ground.errors import OF_THE_DISK, StorageFailed

# The last two: an immutable file, or one in a folder of somebody else's.
_OF_ONE_FILE = (*OF_THE_DISK, errno.EACCES, errno.EPERM)
# So many are no matter of single files.
_MOST = 1000


class Refusals:
    """What was refused so far, by path, in the order of the tries."""

    def __init__(self) -> None:
        self.found: dict[str, StorageFailed] = {}

    @contextmanager
    def one(self, path: str) -> Iterator[None]:
        """Deal with one file."""
        try:
            yield
        except OSError as error:
            self._note(path, error, StorageFailed("look at", path, error.errno or errno.EIO))
        except StorageFailed as error:
            self._note(path, error, error)

    def _note(self, path: str, error: Exception, told: StorageFailed) -> None:
        if told.code == errno.ENOENT:
            return
        if told.code not in _OF_ONE_FILE or len(self.found) >= _MOST:
            raise error
        self.found.setdefault(path, told)
