"""Bad input: a second backup of the same job at the same time; everything else goes on beside one."""

import fcntl
import os
from collections.abc import Iterator

import pytest
from refusals import refused, unchanged

from testsite import CHUNK, Site


@pytest.fixture
def busy(site: Site) -> Iterator[Site]:
    """A site with one revision whose job is being backed up by somebody."""
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    holder = os.open(site.job / ".backup", os.O_RDWR)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        yield site
    finally:
        os.close(holder)


def test_a_second_backup_of_the_job_is_refused(busy: Site) -> None:
    """At once, without waiting, and without touching anything."""
    with unchanged(busy):
        why = "a backup of 'vm' is running already; nothing was done."
        refused(busy.cli("backup", "daily"), 1, why)


def test_a_backup_of_another_job_goes_on(busy: Site) -> None:
    """The lock is the job's."""
    busy.add_job("other", busy.image)

    assert 0 == busy.backup(job="other").stats.chunks_new


def test_everything_but_a_backup_works_meanwhile(busy: Site) -> None:
    """Restore, verify, status, find, tags and forget share no lock with a backup."""
    out = str(busy.folder / "out.raw")
    words = (
        ["restore", out],
        ["verify"],
        ["status"],
        ["find"],
        ["tags", "add", "-r", "0", "manual:x"],
        ["forget", "-r", "0"],
    )

    assert [0] * len(words) == [busy.cli(*one).returncode for one in words]


def test_the_lock_ends_with_its_holder(site: Site) -> None:
    """A lock file alone means nothing, however old: nobody has to remove it."""
    site.image.write_bytes(b"data")
    (site.job / ".backup").write_text("pid 1, long ago")
    os.utime(site.job / ".backup", (0, 0))

    assert 0 == site.cli("backup", "daily").returncode
    assert "pid 1, long ago" == (site.job / ".backup").read_text()
