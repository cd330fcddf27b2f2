"""Many reads of one file at once: Linux's asynchronous I/O (io_submit(2)).

    left = manyreads.read(fd, buffer, [Part(offset=8192, length=4096, start=0), …])

A read of 4 KiB past the page cache waits for the disk longer than all that is done with it takes, and
letting other threads run meanwhile costs Python as much again. Submitted together, the disk has all of
them at once, and the thread waits once.

    >>> buffer = linux.Buffer(4096)
    >>> with open("/proc/self/exe", "rb") as file:
    ...     left = read(file.fileno(), buffer, [Part(0, 4096, 0)])
    >>> left or bytes(buffer.view[:4])
    b'\\x7fELF'

Limits: what could not be read this way, because of an error, the end of the file, or since the kernel
has no such calls, forbids them or is out of queues, is returned, and to be read in the usual way. The
reads overlap only with O_DIRECT. Numbers and structures: linux/aio_abi.h.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from backy.ground import linux

# Reads of one call that are with the kernel at the same time.
DEPTH = 256


class Part(NamedTuple):
    """`length` bytes of a file from `offset`, that go to `start` in a buffer."""

    offset: int
    length: int
    start: int


class _Calls(NamedTuple):
    """Numbers of system calls: asm/unistd_64.h, asm-generic/unistd.h."""

    setup: int
    destroy: int
    getevents: int
    submit: int


_CALLS = {"x86_64": _Calls(206, 207, 208, 209), "aarch64": _Calls(0, 1, 4, 2)}
# data, key, flags, operation, priority, file, buffer, bytes, offset, reserved, flags, event file
_CONTROL = struct.Struct("<QIIHhIQQqQII")
# data, control block, result: bytes or -errno, second result
_EVENT = struct.Struct("<QQqq")
_PREAD = 0
_POINTER = ctypes.sizeof(ctypes.c_void_p)

# Queues that wait for their next use. They stay until the process ends, since closing one takes the
# kernel some 30 ms, and there are no more of them than threads that read at the same time.
_idle: list["_Queue"] = []

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def read(fd: int, buffer: linux.Buffer, parts: Sequence[Part]) -> list[Part]:
    """Read parts into the buffer; those that were not read in whole are returned, in order."""
    queue = _idle.pop() if _idle else _new_queue()
    if queue is None:
        return list(parts)
    left: list[Part] = []
    try:
        for first in range(0, len(parts), DEPTH):
            left += queue.read(fd, buffer, parts[first : first + DEPTH])
    except BaseException:
        # The kernel may still write to the buffer: only the end of the queue is the end of that.
        queue.close()
        raise
    _idle.append(queue)
    return left


class _Queue:
    """A queue in the kernel, for one thread at a time; OSError where there can be none."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._id = ctypes.c_ulong(0)
        _call(calls.setup, DEPTH, ctypes.byref(self._id))
        self._events = ctypes.create_string_buffer(DEPTH * _EVENT.size)

    def close(self) -> None:
        """Have the kernel forget it, after the reads that are under way."""
        _call(self._calls.destroy, self._id)

    def read(self, fd: int, buffer: linux.Buffer, parts: Sequence[Part]) -> list[Part]:
        """See above; at most DEPTH parts."""
        blocks = bytearray()
        for number, (offset, length, start) in enumerate(parts):
            if not 0 <= start <= start + length <= buffer.size:
                raise ValueError(f"{length} bytes do not fit at {start} of {buffer.size}")
            at = buffer.address + start
            blocks += _CONTROL.pack(number, 0, 0, _PREAD, 0, fd, at, length, offset, 0, 0, 0)
        unread = dict(enumerate(parts))
        for number, result in self._ended(self._submitted(blocks)):
            if result == parts[number].length:
                del unread[number]
        return list(unread.values())

    def _submitted(self, blocks: bytearray) -> int:
        """Hand over control blocks: how many of the first ones the kernel took."""
        memory = (ctypes.c_char * len(blocks)).from_buffer(blocks)
        first = ctypes.addressof(memory)
        each = range(first, first + len(blocks), _CONTROL.size)
        pointers = (ctypes.c_void_p * len(each))(*each)
        taken = 0
        with suppress(OSError):
            while taken < len(each):
                rest = ctypes.byref(pointers, taken * _POINTER)
                taken += _call(self._calls.submit, self._id, len(each) - taken, rest)
        return taken

    def _ended(self, count: int) -> Iterator[tuple[int, int]]:
        """(number, result) of as many reads; until the last has come the buffer is the kernel's."""
        while count:
            try:
                found = _call(self._calls.getevents, self._id, count, count, self._events, None)
            except InterruptedError:
                continue
            yield from (
                (number, result)
                for number, _, result, _ in _EVENT.iter_unpack(self._events.raw[: found * _EVENT.size])
            )
            count -= found


def _new_queue() -> _Queue | None:
    calls = _CALLS.get(platform.machine())
    if calls is not None:
        with suppress(OSError):
            return _Queue(calls)
    return None


def _call(number: int, *arguments: object) -> int:
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
