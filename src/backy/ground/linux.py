"""Linux calls that Python's `os` lacks, as typed functions.

Each raises OSError with errno like `os` does. They go through libc by ctypes, which releases the
GIL during the call.

    >>> buffer = Buffer(4096)
    >>> is_zero(buffer, 4096)
    True

Limits: 64-bit Linux; syncfs tells write errors from kernel 5.8 on (`errors_are_told`).
"""

import ctypes
import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress

PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.memcmp.restype = ctypes.c_int
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

# Calls that never wait: letting other threads run meanwhile costs more than they do.
_quick = ctypes.PyDLL(None, use_errno=True)
for _name in ("memcmp", "mmap", "munmap", "mincore"):
    getattr(_quick, _name).argtypes = getattr(_libc, _name).argtypes
_quick.mmap.restype = ctypes.c_void_p

# Copied in place, without letting other threads run.
_SHORT = 64 << 10

_SYNC_FILE_RANGE_WRITE = 2
_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2
_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_BLKROGET = 0x125E
_PR_SET_PDEATHSIG = 1
_BLKZEROOUT = 0x127F

# struct timex of <sys/timex.h>, on 64 bits; its size is rounded up.
_TIMEX_SIZE = 256
_TIMEX_STATUS = 40
_STA_UNSYNC = 0x40

# f_type of statfs(2), from linux/magic.h; the file systems whose flock, syncfs and rename backy trusts.
_FILE_SYSTEMS = {
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xEF53: "ext4",
    0x2FC12FC1: "zfs",
    0x01021994: "tmpfs",
    0x6969: "nfs",
    0x65735546: "fuse",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x794C7630: "overlayfs",
}
TRUSTED_FILE_SYSTEMS = ("xfs", "btrfs", "ext4", "zfs", "tmpfs")


class Buffer:
    """Page-aligned memory of at least `size` bytes in whole pages, as direct I/O needs it.

    `view` is writable; `address` is for libc. Comparing memoryviews is ten times slower than
    memcmp, so contents are compared with `is_zero` and `equal` only.
    """

    def __init__(self, size: int) -> None:
        self.size = max(-(-size // PAGE), 1) * PAGE
        self._map = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Huge pages: fewer faults, and direct I/O pins one page instead of 512.
        with suppress(OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self._map)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def clear(self, start: int, stop: int) -> None:
        """Set bytes `start` to `stop` to zero."""
        if stop - start <= _SHORT:
            self.view[start:stop] = bytes(stop - start)
        else:
            ctypes.memset(self.address + start, 0, stop - start)

    def fill(self, content: bytes | bytearray | memoryview, start: int = 0) -> None:
        """Copy `content` to `start`; the GIL is released meanwhile where that is possible."""
        length = len(content)
        if start + length > self.size:
            raise ValueError(f"{length} bytes do not fit at {start} of {self.size}")
        if length <= _SHORT:
            self.view[start : start + length] = content
        elif isinstance(content, bytes):
            ctypes.memmove(self.address + start, content, length)
        elif isinstance(content, memoryview) and content.readonly:
            self.view[start : start + length] = content
        else:
            source = ctypes.c_char.from_buffer(content)
            ctypes.memmove(self.address + start, ctypes.addressof(source), length)

    def fill_around(self, content: bytes, holes: Iterable[tuple[int, int]]) -> None:
        """As `fill` at 0, but for `holes`: ascending (start, stop), of which nothing is touched."""
        if len(content) > self.size:
            raise ValueError(f"{len(content)} bytes do not fit in {self.size}")
        source = memoryview(content)
        at = 0
        for hole, stop in (*holes, (len(content), 0)):
            start = min(hole, len(content))
            if start - at > _SHORT:
                ctypes.memmove(self.address + at, _address(content) + at, start - at)
            elif start > at:
                self.view[at:start] = source[at:start]
            at = stop


def _address(content: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value or 0


def is_zero(buffer: Buffer, length: int, start: int = 0) -> bool:
    """Whether `length` bytes from `start` are all zero; stops at the first that is not."""
    if length == 0:
        return True
    if any(buffer.view[start : start + min(length, 64)]):
        return False
    # A run of zeros equals itself shifted by one byte.
    at = buffer.address + start
    return not _libc.memcmp(at, at + 1, length - 1)


def equal(buffer: Buffer, length: int, pieces: Iterable[tuple[bytes, int, int]]) -> bool:
    """Whether the first `length` bytes are these pieces, one behind the other: (bytes, at, length)."""
    reached = 0
    for source, at, size in pieces:
        if reached + size > min(length, buffer.size) or at + size > len(source):
            return False
        compare = _quick.memcmp if size <= _SHORT else _libc.memcmp
        if compare(buffer.address + reached, _address(source) + at, size):
            return False
        reached += size
    return reached == length


def differing(buffer: Buffer, other: bytes, block: int) -> list[int]:
    """Numbers of the blocks in which `buffer` differs from `other`, as far as that goes."""
    if len(other) > buffer.size:
        raise ValueError(f"{len(other)} bytes are not in {buffer.size}")
    ours, theirs = buffer.address, _address(other)
    found: list[int] = []
    # Larger pieces first: most are equal.
    stride = 16 * block
    for at in range(0, len(other), stride):
        stop = min(at + stride, len(other))
        if _quick.memcmp(ours + at, theirs + at, stop - at):
            found += [
                one // block
                for one in range(at, stop, block)
                if _quick.memcmp(ours + one, theirs + one, min(block, stop - one))
            ]
    return found


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def syncfs(fd: int) -> None:
    """Write everything of the file system that holds `fd`; tells errors since `fd` was opened, once."""
    _check(_libc.syncfs(fd))


def start_writeback(fd: int, length: int) -> None:
    """Let the kernel begin to write the first `length` bytes of a file no promise (sync_file_range)."""
    _check(_libc.sync_file_range(fd, 0, length, _SYNC_FILE_RANGE_WRITE))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros and give its space back, on files and on block devices that can."""
    _check(_libc.fallocate(fd, _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, length))


def write_zeros(fd: int, offset: int, length: int) -> None:
    """Make a range of a block device read as zeros, writing them where the device knows no other way."""
    fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", offset, length))


def device_size(fd: int) -> int:
    """Bytes of a block device."""
    return int(struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0])


def sector_size(fd: int) -> int:
    """Logical block size of a block device in bytes: what direct I/O must align to."""
    return int(struct.unpack("I", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))[0])


def is_read_only(fd: int) -> bool:
    """Whether a block device refuses writes; it may still be open for writing (BLKROGET)."""
    return bool(struct.unpack("i", fcntl.ioctl(fd, _BLKROGET, bytes(4)))[0])


def file_system(fd: int) -> str:
    """Name of the file system that holds `fd`, or its magic number where the name is not known."""
    found = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(fd, found))
    magic = struct.unpack_from("q", found.raw)[0] & 0xFFFFFFFF
    return _FILE_SYSTEMS.get(magic, hex(magic))


def errors_are_told() -> bool:
    """Whether syncfs reports write errors: kernel 5.8 and later (syncfs(2), "Versions")."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (5, 8)


def clock_is_synchronised() -> bool:
    """Whether somebody, such as chrony, keeps the clock right: STA_UNSYNC of adjtimex(2) is not set."""
    found = ctypes.create_string_buffer(_TIMEX_SIZE)  # its `modes` are 0: only asks
    _libc.adjtimex(found)
    return not struct.unpack_from("i", found.raw, _TIMEX_STATUS)[0] & _STA_UNSYNC


def resident_share(fd: int, offset: int, length: int) -> float:
    """Share (0 to 1) of a file's range that lies in the page cache; `offset` is page-aligned.

    mincore(2) on a mapping that is never touched: it neither reads nor faults. For users who may
    not write the file the kernel answers 1 for everything.
    """
    if length == 0:
        return 0.0
    address = _quick.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if address in (None, ctypes.c_void_p(-1).value):
        return 0.0
    try:
        pages = -(-length // PAGE)
        found = ctypes.create_string_buffer(pages)
        if _quick.mincore(address, length, found):
            return 0.0
        return 1 - found.raw[:pages].count(b"\0") / pages
    finally:
        _quick.munmap(address, length)


def end_with_parent(parent: int) -> bool:
    """Get SIGTERM when our parent ends (prctl(2)); False if `parent` has gone already.

    `parent` may be further up, where a wrapper such as sudo stands between.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0))
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def keep_freed_memory() -> None:
    """Tell malloc to reuse chunk-sized blocks instead of returning them to the kernel.

    Without this every 4 MiB buffer of a codec costs a thousand page faults. mallopt(3):
    M_MMAP_THRESHOLD is -3 (32 MiB is its maximum), M_TRIM_THRESHOLD -1, M_ARENA_MAX -8: with an arena
    a thread, what one has freed would stay out of reach of the others, half as much again in all.
    """
    _libc.mallopt(-8, 1)
    _libc.mallopt(-3, 32 << 20)
    _libc.mallopt(-1, 64 << 20)
