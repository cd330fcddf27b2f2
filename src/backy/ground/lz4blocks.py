"""LZ4 blocks, without the copies that the library's own functions make.

    packed = compress(content, acceleration=2)
    content = decompress(packed, bound=4 << 20)

`lz4.block` lets LZ4 write to memory of its own and copies what it wrote into the result, while no other
thread can run: a tenth of what a backup or `verify` takes, and an eighth of the memory. Here the same
code, which the library's extension exports, writes into the result itself.

    >>> decompress(compress(b"a" * 1000, 1), 1000) == b"a" * 1000
    True

Limits: where the extension does not export it, `lz4.block` does the work. Block format and signatures:
lz4.h, doc/lz4_Block_format.md of LZ4.
"""

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import lz4.block

Bytes: TypeAlias = bytes | bytearray | memoryview


class _View(ctypes.Structure):
    """Py_buffer of Python's stable ABI."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("object", ctypes.py_object),
        ("length", ctypes.c_ssize_t),
        ("item_size", ctypes.c_ssize_t),
        ("read_only", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_view = ctypes.pythonapi.PyObject_GetBuffer
_get_view.argtypes = [ctypes.py_object, ctypes.POINTER(_View), ctypes.c_int]
_release_view = ctypes.pythonapi.PyBuffer_Release
_release_view.argtypes = [ctypes.POINTER(_View)]
_release_view.restype = None
# With no bytes given, those of the new object are what the memory held: to be written, once, by us.
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]
_new_bytes.restype = ctypes.py_object


def _load() -> ctypes.CDLL | None:
    """The extension that has LZ4 in it, or is linked to it."""
    found = importlib.util.find_spec("lz4.block._block")
    memory, number = ctypes.c_void_p, ctypes.c_int
    try:
        library = ctypes.CDLL(found.origin if found is not None else None)
        library.LZ4_decompress_safe.argtypes = [memory, memory, number, number]
        library.LZ4_compress_fast.argtypes = [memory, memory, number, number, number]
        library.LZ4_compressBound.argtypes = [number]
    except (OSError, AttributeError):
        return None
    return library


_library = _load()


@contextmanager
def _viewed(content: Bytes) -> Iterator[_View]:
    view = _View()
    _get_view(content, ctypes.byref(view), 0)
    try:
        yield view
    finally:
        _release_view(ctypes.byref(view))


def compress(content: Bytes, acceleration: int) -> Bytes:
    """One block; more acceleration is faster, and larger."""
    if _library is None:
        packed: bytes = lz4.block.compress(
            content, mode="fast", acceleration=acceleration, store_size=False
        )
        return packed
    bound = _library.LZ4_compressBound(len(content))
    result: bytes = _new_bytes(None, bound)
    with _viewed(content) as source, _viewed(result) as target:
        size = _library.LZ4_compress_fast(
            source.address, target.address, source.length, bound, acceleration
        )
    if size <= 0:
        raise ValueError(f"LZ4 does not compress {len(content)} bytes")
    return memoryview(result)[:size]


def decompress(packed: Bytes, bound: int) -> bytes:
    """What a block expands to, at most `bound` bytes; ValueError if it is more, or no block."""
    if _library is None:
        try:
            plain: bytes = lz4.block.decompress(packed, uncompressed_size=bound)
        except lz4.block.LZ4BlockError as error:
            raise ValueError(str(error)) from error
        return plain
    result: bytes = _new_bytes(None, bound)
    with _viewed(packed) as source, _viewed(result) as target:
        size = _library.LZ4_decompress_safe(source.address, target.address, source.length, bound)
    if size < 0:
        raise ValueError(f"LZ4 stops at byte {-size - 1}")
    return result if size == bound else result[:size]
