"""What every refusal has in common: the exit code, one sentence on stderr, and nothing changed.

with unchanged(site):
refused(site.cli("backup", "nightly"), 1, "tag 'nightly' is not in the job's schedule")
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filetree import tree

from testsite import Site

# Lock files and the log are made by commands that fail, too; they are no part of any revision.
_BESIDES = (".backup", ".history", "backy.log")

# What takes root's rights over files away from a process.
_AS_OTHERS = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]


def run_like_others(
    site: Site, *words: str, job: str | None = "vm"
) -> "subprocess.CompletedProcess[str]":
    """`site.cli` as a process that needs permissions like everybody else, also where we are root.

    Of another job, or with None of the whole repository.
    """
    place = site.base if job is None else site.base / job
    under = _AS_OTHERS if os.geteuid() == 0 else []
    return subprocess.run(
        [*under, sys.executable, "-m", "backy", "-b", str(place), *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(done: "subprocess.CompletedProcess[str]", code: int, *parts: str, lines: int = 1) -> None:
    """The command ended with this code and one sentence with these parts; stdout stayed empty."""
    assert (code, "", lines) == (done.returncode, done.stdout, done.stderr.count("\n")), done
    assert done.stderr.startswith("backy: "), done.stderr
    assert lines > 1 or done.stderr.endswith((".\n", "?\n")), done.stderr
    for part in parts:
        assert part in done.stderr


def visible(site: Site) -> dict[str, tuple[object, ...]]:
    """Everything in the repository but locks and logs; directories without times."""
    found = tree(site.base, times=False) if site.base.exists() else {}
    return {path: what for path, what in found.items() if Path(path).name not in _BESIDES}


@contextmanager
def unchanged(site: Site) -> Iterator[None]:
    """Nothing becomes visible inside the block, and nothing half done is left."""
    before = visible(site)
    yield
    assert before == visible(site)
