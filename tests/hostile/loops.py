"""Loop devices for tests that run as root.

    with loop_device(folder / "disk.raw", size=1 << 20, fill=b"\xff") as device: …

Limits: needs root and util-linux; everything is detached at the end, also after a failure.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def loop_device(backing: Path, *, size: int, fill: bytes = b"\xff", sector: int = 512) -> Iterator[Path]:
    """A loop device of that size, full of `fill`, with that logical sector size."""
    backing.write_bytes(fill * size)
    made = run("losetup", "--find", "--show", "--sector-size", str(sector), str(backing))
    device = Path(made.strip())
    try:
        yield device
    finally:
        run("losetup", "--detach", str(device))


@contextmanager
def mounted(device: Path, folder: Path, *options: str) -> Iterator[Path]:
    """The device or directory, mounted on `folder`."""
    folder.mkdir(exist_ok=True)
    run("mount", *options, str(device), str(folder))
    try:
        yield folder
    finally:
        run("umount", str(folder))


def run(*words: str) -> str:
    """Run a system tool that must succeed; returns what it printed."""
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout
