"""Run one command as a whole process and say what it cost; and the housekeeping round it.

A sample holds the wall time from start to exit, the CPU time (user and system) of the process and
of all its children that it waited for, and the peak memory: the resident size of its largest
process, as the kernel accounts it at exit. The kernel's own writing back of dirty pages belongs
to no process: `settle`, the time that a `sync` takes after the command, shows how much of it was
left to do, and `others`, in cores, what everything else on the machine used meanwhile.

Limits: a child's peak memory begins with that of the runner at the time of the fork (about 20
MiB), and memory that is shared by several processes is not told apart.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from resource import struct_rusage

BUFFER = 1 << 20
LAST_LINES = 5


@dataclass(frozen=True)
class Command:
    """What to run. `environment` is all that the process sees of it."""

    arguments: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """The cost of one command: seconds, and bytes for `peak`; `others` is a number of cores."""

    wall: float
    cpu: float
    peak: int
    settle: float
    others: float


class CommandFailedError(Exception):
    """A command ended with an exit code other than 0, or did the wrong thing."""

    def __init__(self, command: Command, reason: str) -> None:
        super().__init__(f"`{' '.join(command.arguments)}` {reason}")


def measure(command: Command, log: Path) -> Sample:
    """Run a command to its end, its output appended to `log`, and return its cost."""
    os.sync()
    busy_before = busy_cpu_seconds()
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command.arguments)}\n".encode())
        output.flush()
        started = time.perf_counter()
        usage, code = run_to_end(command, output.fileno())
        wall = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    others = max(0.0, busy_cpu_seconds() - busy_before - cpu) / wall
    if code != 0:
        raise CommandFailedError(command, f"ended with {code}: {last_lines(log)}")
    started = time.perf_counter()
    os.sync()
    settle = time.perf_counter() - started
    return Sample(wall, cpu, usage.ru_maxrss * 1024, settle, others)


def run_to_end(command: Command, output: int) -> tuple[struct_rusage, int]:
    """Run a command; its resource usage (reaped children included) and its exit code."""
    process = subprocess.Popen(
        command.arguments,
        cwd=command.directory,
        env=command.environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage, process.returncode


def run(command: Command, log: Path) -> None:
    """Run a command whose cost does not matter."""
    with log.open("ab") as output:
        done = subprocess.run(
            command.arguments,
            cwd=command.directory,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise CommandFailedError(command, f"ended with {done.returncode}: {last_lines(log)}")


def last_lines(log: Path) -> str:
    """The end of a log, on one line."""
    lines = log.read_text(errors="replace").splitlines()
    return " / ".join(line.strip() for line in lines[-LAST_LINES:])


def busy_cpu_seconds() -> float:
    """The CPU time used on the whole machine since it started: neither idle nor waiting."""
    ticks = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def read_into_cache(*paths: Path) -> None:
    """Read files, and all files in folders: the next command finds them in the page cache."""
    buffer = memoryview(bytearray(BUFFER))
    for path in paths:
        for file in iter_files(path):
            with file.open("rb", buffering=0) as opened:
                for start, end in data_extents(opened.fileno()):
                    opened.seek(start)
                    left = end - start
                    while left > 0 and (count := opened.readinto(buffer[:left])):
                        left -= count


def data_extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are not holes, as (start, end)."""
    end = 0
    size = os.fstat(descriptor).st_size
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def allocated_bytes(*paths: Path) -> int:
    """What files, and all files in folders, take on the disk; each inode counts once."""
    stats = [file.stat() for path in paths for file in iter_files(path)]
    return sum({(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for stat in stats}.values())


def iter_files(path: Path) -> Iterator[Path]:
    """The file itself, or all files in a folder; symbolic links are not followed."""
    if path.is_file():
        yield path
    elif path.is_dir():
        files = (file for file in sorted(path.rglob("*")) if not file.is_symlink())
        yield from (file for file in files if file.is_file())
