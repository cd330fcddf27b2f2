"""Two jobs that share a chunk, and commands on them in this process, as an operator gives them.

store = two_jobs(site); here(store, "distrust"); records(store); reports(store)
"""

import subprocess
from typing import Any

from in_process import backy

from testsite import CHUNK, Site, parsed

SHARED, FIRST, SECOND, OTHER = (bytes([number]) * CHUNK for number in (1, 2, 3, 4))


def two_jobs(site: Site) -> Site:
    """Two days of `vm`, and `db`, which shares its first chunk with both."""
    other = site.folder / "db.raw"
    other.write_bytes(SHARED + OTHER)
    site.add_job("db", other)
    for own in (FIRST, SECOND):
        site.image.write_bytes(SHARED + own)
        site.backup()
    site.backup(job="db")
    return site


def everywhere(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command on the whole repository."""
    done = backy("-b", str(site.base), *words)
    return subprocess.CompletedProcess(words, done.code, done.out, done.err)


def here(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command on the job `vm`."""
    return everywhere(site, "-j", "vm", *words)


def records(site: Site, job: str = "vm") -> list[dict[str, Any]]:
    """What `backy status` says of the revisions of a job."""
    listed: list[dict[str, Any]] = parsed(everywhere(site, "-j", job, "status", "--json"))
    return listed


def reports(site: Site) -> list[dict[str, Any]]:
    """What `backy reports` lists."""
    listed: list[dict[str, Any]] = parsed(everywhere(site, "reports", "--json"))
    return listed
