"""An image that changes while it is read is backed up, and never called good."""

import os
from collections.abc import Callable

import pytest
from in_process import Outcome, backy
from loops import loop_device

from backy.ground import failpoint
from testsite import CHUNK, Site, parsed


def backed_up_while(site: Site, change: Callable[[], None], *, job: str = "vm") -> Outcome:
    """A backup during which `change` happens once, after the first chunk was read."""
    done: list[str] = []

    def hook(step: str) -> None:
        if step.startswith("write ") and "/chunks/tmp/" in step and not done:
            done.append(step)
            change()

    failpoint.install(hook)
    try:
        return backy("-b", str(site.base), "-j", job, "backup", "daily")
    finally:
        failpoint.install(None)
        assert done, "nothing was changed"


def overwrite(site: Site) -> None:
    """Write another byte in place."""
    with site.image.open("r+b") as image:
        image.seek(-1, os.SEEK_END)
        image.write(b"!")


def append(site: Site) -> None:
    """Make it longer."""
    with site.image.open("ab") as image:
        image.write(b"!")


def rewrite(site: Site) -> None:
    """Write the bytes that are there already."""
    with site.image.open("r+b") as image:
        image.write(site.image.read_bytes())


def overwrite_and_hide_it(site: Site) -> None:
    """Set the time of modification back, as some programs do; the change of status stays."""
    before = site.image.stat()
    overwrite(site)
    os.utime(site.image, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = [overwrite, append, rewrite, overwrite_and_hide_it]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_makes_a_torn_revision(site: Site, change: Callable[[Site], None]) -> None:
    """The backup is kept, with a warning, and both the record and status say what it is."""
    site.image.write_bytes(os.urandom(20 * CHUNK))

    done = backed_up_while(site, lambda: change(site))

    assert (0, 1) == (done.code, done.err.count("\n"))
    assert done.err.startswith("backy: warning: the image changed while it was read")
    (record,) = parsed(site.cli("status", "--json"))
    assert "torn" == record["consistency"]
    listed = site.cli("status")
    assert listed.stdout.splitlines()[1].endswith("torn: changed while it was read")
    assert "warning: 1 revision" in listed.stderr
    assert [] == site.verify().findings


def test_an_untouched_image_is_consistent(site: Site) -> None:
    """Reading it, and what others do beside it, does not count."""
    site.image.write_bytes(os.urandom(20 * CHUNK))

    def look() -> None:
        (site.folder / "beside").write_bytes(site.image.read_bytes())

    done = backed_up_while(site, look)

    assert (0, "") == (done.code, done.err)
    assert ["consistent"] == [one["consistency"] for one in parsed(site.cli("status", "--json"))]


def test_an_image_that_shrinks_ends_the_backup(site: Site) -> None:
    """What is cut off cannot be read, and half an image is no revision."""
    site.image.write_bytes(os.urandom(200 * CHUNK))

    done = backed_up_while(site, lambda: os.truncate(site.image, CHUNK))

    assert (1, 1) == (done.code, done.err.count("\n"))
    assert "it became shorter while it was read; no revision was made." in done.err
    assert ([], []) == (list(site.job.glob("*.rev")), list(site.job.glob("*.map")))
    assert [[], []] == [list((site.chunks / name).iterdir()) for name in ("tmp", "users")]


def test_a_torn_revision_is_counted_in_the_overview(site: Site) -> None:
    """Where all jobs are listed, too."""
    site.image.write_bytes(os.urandom(20 * CHUNK))
    backed_up_while(site, lambda: overwrite(site))

    (job,) = parsed(site.cli("status", "--json"))[:1]
    assert "torn" == job["consistency"]
    done = backy("-b", str(site.base), "status")
    assert done.out.splitlines()[1].endswith("1 torn")


@pytest.mark.root
def test_a_device_that_is_written_meanwhile_is_torn(as_root: None, site: Site) -> None:
    """A device has no times; its write counter tells."""
    with loop_device(site.folder / "disk.raw", size=64 * CHUNK, fill=b"d") as device:
        site.add_job("disk", device)

        def write() -> None:
            fd = os.open(device, os.O_WRONLY)
            os.pwrite(fd, b"!" * 4096, 0)
            os.fsync(fd)
            os.close(fd)

        done = backed_up_while(site, write, job="disk")
        assert "the image changed while it was read" in done.err
        again = backy("-b", str(site.base), "-j", "disk", "backup", "daily")

    assert (0, "") == (again.code, again.err)
