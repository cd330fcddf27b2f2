"""What lies below a directory, to be compared before and after.

before = tree(folder)
…
assert before == tree(folder)
"""

import os
import stat
from pathlib import Path

LARGE = 256 << 20


def tree(folder: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Every entry with its kind and mode, contents (of large files the size), and `times`.

    The time of the last status change shows writes that were taken back, too.
    """
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes() if status.st_size < LARGE else status.st_size
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        when = (status.st_mtime_ns, status.st_ctime_ns) if times else ()
        found[str(path.relative_to(folder))] = (oct(status.st_mode), content, *when)
    return found
