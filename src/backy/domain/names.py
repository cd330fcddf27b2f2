"""Which names may become files: jobs, disks and tags, by allow-list.

    >>> check_job_name("vm01.root")
    'vm01.root'

Limits: a job's name is also its directory's, so it is never `chunks`, never begins with a dot and
never holds a slash; a disk's holds no dot, since `UUID.DISK.map` is split there.
"""

import re

from backy.ground.errors import NameRefused

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_DISK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,62}", re.ASCII)

MANUAL_PREFIX = "manual:"


def check_job_name(name: str) -> str:
    """The name itself, or NameRefused."""
    if _JOB.fullmatch(name) is None:
        rule = "use letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit"
        raise NameRefused("job", name, rule)
    if name == "chunks":
        raise NameRefused("job", name, "it is the chunk store's")
    return name


def check_disk_name(name: str) -> str:
    """The name itself, or NameRefused."""
    if _DISK.fullmatch(name) is None:
        rule = "use letters, digits, '_' and '-', at most 32, beginning with a letter or digit"
        raise NameRefused("disk", name, rule)
    return name


def check_tag_name(name: str) -> str:
    """The name itself, or NameRefused."""
    if _TAG.fullmatch(name) is None:
        rule = "use letters, digits, '_', '.', ':', '+' and '-', at most 63"
        raise NameRefused("tag", name, rule)
    return name
