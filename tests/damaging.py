"""What befalls a repository: rot, doubt, and an edit that hangs.

    spoil(chunk_file(site, plain)); distrust(site, revision)
    with held(site): …

Limits: of the job `vm` unless another is named.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry
from backy.domain.revision import Distrust, Revision
from backy.ground import locks
from backy.ground.directory import Directory
from backy.repository import layout, trust
from testsite import Site


def chunk_file(site: Site, plain: bytes) -> Path:
    """Where the full chunk with these bytes lies, or lay."""
    return site.chunks / layout.chunk_path(Entry(chunk_id(plain)))


def spoil(path: Path) -> Path:
    """Flip a bit in a file's last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 8
    path.chmod(0o600)
    path.write_bytes(content)
    return path


def distrust(site: Site, *revisions: Revision) -> None:
    """As an operator who does not trust the disk."""
    with (
        Directory.open(str(site.chunks)) as chunks,
        Directory.open(str(site.job)) as job,
        trust.distrusting(chunks),
    ):
        for one in revisions:
            trust.distrust(job, one.uuid, Distrust.STORE)


@contextmanager
def held(site: Site, job: str = "vm") -> Iterator[None]:
    """Somebody's edit of a job's records does not come to its end."""
    fd = os.open(site.base / job / ".history", os.O_RDWR)
    try:
        locks.wait_exclusive(fd)
        yield
    finally:
        os.close(fd)
