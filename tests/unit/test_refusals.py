"""Refusals: one file that the system refuses is noted, and what concerns more than one ends the run."""

import errno
import os

import pytest

from backy.ground.errors import StorageFailed
from backy.repository.refusals import Refusals

PATH = "/srv/file"


def fail(code: int, *, storage: bool = False) -> None:
    """Fail as the system does, or as what writes lasting files says it."""
    if storage:
        raise StorageFailed("remove", PATH, code)
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("storage", [False, True])
@pytest.mark.parametrize("code", [errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EACCES, errno.EPERM])
def test_an_error_of_one_file_is_noted(code: int, *, storage: bool) -> None:
    """Once, however often it is met."""
    refusals = Refusals()
    for _ in range(2):
        with refusals.one(PATH):
            fail(code, storage=storage)

    (found,) = refusals.found.values()
    assert ("remove" if storage else "look at", PATH, code) == (found.action, found.path, found.code)


@pytest.mark.parametrize("storage", [False, True])
def test_what_has_gone_is_no_refusal(*, storage: bool) -> None:
    """Nor is what went well."""
    refusals = Refusals()
    with refusals.one(PATH):
        fail(errno.ENOENT, storage=storage)
    with refusals.one(PATH):
        pass

    assert {} == refusals.found


@pytest.mark.parametrize("storage", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENOMEM])
def test_an_error_of_the_whole_disk_or_process_is_raised(code: int, *, storage: bool) -> None:
    """As it came."""
    refusals = Refusals()
    with pytest.raises(StorageFailed if storage else OSError), refusals.one(PATH):
        fail(code, storage=storage)

    assert {} == refusals.found


def test_too_many_are_no_matter_of_single_files() -> None:
    """So memory is bounded, and a disk that fails as a whole is told as such."""
    refusals = Refusals()
    for number in range(1000):
        with refusals.one(f"{PATH}-{number}"):
            fail(errno.EIO)

    with pytest.raises(OSError, match="Input/output"), refusals.one(PATH):
        fail(errno.EIO)
