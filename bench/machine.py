"""What the figures were measured on."""

import os
import platform
import subprocess
import time
from pathlib import Path


def facts(work: Path) -> dict[str, str]:
    """The machine, as rows for the report."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "CPU": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(work),
        "Python": platform.python_version(),
    }


def cpu_model() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def file_system(path: Path) -> str:
    """The type of the file system that holds a path."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
