"""A plugin of nbdkit: a disk in a file, which treats marked blocks badly while it is told to.

    nbdkit python faulty_plugin.py file=DISK faults=FOLDER

The file FOLDER/fail-writes makes each write that holds MARKER fail with EIO, FOLDER/lose-writes has it
dropped and called done, FOLDER/fail-reads makes each read of such bytes fail. So data can be hit and
metadata spared, which a file system needs to go on.

Limits: run by nbdkit with its own Python, never imported; a marker has to lie within one block.
"""

import builtins
import errno
import os
from typing import Any

# nbdkit gives it to its plugins, and nobody else can import it.
import nbdkit  # type: ignore[import-not-found]

API_VERSION = 2
MARKER = b"bad sector"

_options: dict[str, str] = {}


def config(key: str, value: str) -> None:
    """Take a parameter of the command line."""
    _options[key] = value


def thread_model() -> Any:
    """Let one request end before the next begins."""
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def open(_readonly: bool) -> Any:  # noqa: A001 - nbdkit's name
    """Open the disk for a client."""
    return builtins.open(_options["file"], "r+b", buffering=0)


def close(disk: Any) -> None:
    """Let a client go."""
    disk.close()


def get_size(disk: Any) -> int:
    """Tell the disk's size."""
    return os.fstat(disk.fileno()).st_size


def can_flush(_disk: Any) -> bool:
    """Say that flushes are understood; the file is no disk that could lose power."""
    return True


def flush(_disk: Any, _flags: int) -> None:
    """Do nothing."""


def pread(disk: Any, buffer: Any, offset: int, _flags: int) -> None:
    """Fill the buffer, or fail."""
    os.preadv(disk.fileno(), [buffer], offset)
    if _is("fail-reads") and MARKER in bytes(buffer):
        _fail()


def pwrite(disk: Any, buffer: Any, offset: int, _flags: int) -> None:
    """Write the buffer, or drop it, or fail."""
    marked = MARKER in bytes(buffer)
    if marked and _is("fail-writes"):
        _fail()
    if not (marked and _is("lose-writes")):
        os.pwrite(disk.fileno(), buffer, offset)


def _is(fault: str) -> bool:
    return os.path.exists(os.path.join(_options["faults"], fault))


def _fail() -> None:
    nbdkit.set_error(errno.EIO)
    raise OSError(errno.EIO, os.strerror(errno.EIO))
