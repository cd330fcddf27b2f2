"""T23: a backup in a control group with too little memory is killed by the kernel; nothing is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashsite import noise

from tally import Tally
from testsite import Site

pytestmark = [pytest.mark.proof("T23"), pytest.mark.root]

# From too little to start, over too little for the chunks in flight, to enough.
LIMITS = range(16 << 20, 257 << 20, 16 << 20)


@pytest.fixture
def group(as_root: None) -> Iterator[Path]:
    """A control group of its own, below ours."""
    parent = _memory_group()
    folder = parent / f"backy-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs a control group for memory: {error}")
    try:
        if _limit_file(folder) is None:
            pytest.skip("needs the memory controller in a group below ours")
        yield folder
    finally:
        folder.rmdir()


def _memory_group() -> Path:
    """Where this process stands in the hierarchy that limits memory, of version 2 or 1."""
    version_1 = Path("/sys/fs/cgroup/memory")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return version_1 / path.lstrip("/")
        if controllers == "" and not version_1.exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/")
    pytest.skip("needs control groups")


def _limit_file(group: Path) -> Path | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (group / name).exists():
            return group / name
    return None


def backed_up_within(group: Path, site: Site, limit: int) -> int:
    """The exit code of a backup that has so many bytes, page cache included."""
    path = _limit_file(group)
    assert path is not None
    path.write_text(str(limit))
    words = [sys.executable, "-m", "backy", "-b", str(site.job), "backup", "daily"]
    entering = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", entering, "sh", *words], check=False, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def test_a_backup_that_is_killed_for_want_of_memory_loses_nothing(
    tmp_path: Path, group: Path, tally: Tally
) -> None:
    """At each limit it is killed or ends well, the earlier revision stays, and in the end it passes."""
    site = Site(tmp_path, chunk_size=4 << 20)
    site.image.write_bytes(noise(1, 8 << 20))
    first = site.backup()
    image = site.image.read_bytes()
    site.image.write_bytes(noise(2, 48 << 20))
    codes = []
    for limit in LIMITS:
        codes.append(backed_up_within(group, site, limit))
        assert codes[-1] in (0, -signal.SIGKILL)
        assert image == site.restored(first)
        assert [] == site.verify().findings
        assert codes.count(0) + 1 == len(site.history().revisions)
        if codes[-1] == 0:
            break

    killed = codes.count(-signal.SIGKILL)
    tally.tell(len(codes), f"out of memory: killed {killed} times, passed with {limit >> 20} MiB")
    assert killed
    assert 0 == codes[-1]
    assert site.image.read_bytes() == site.restored(site.history().revisions[-1])
