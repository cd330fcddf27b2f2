"""LZ4 blocks: what the library's own functions give, in both directions, without their copies."""

import random

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.ground import linux, lz4blocks
from strategies import plain_bytes, repeatable

TEXT = b"a chunk of text, and more of it. " * 300
NOISE = random.Random(2).randbytes(5000)
KINDS = [bytes, bytearray, memoryview]


def in_buffer(content: bytes) -> memoryview:
    """The same bytes as a writable view of mapped memory, as chunks and frames are."""
    buffer = linux.Buffer(max(len(content), 1))
    buffer.fill(content)
    return buffer.view[: len(content)]


def test_the_extension_has_what_is_needed() -> None:
    """Or all other tests would look at the library only."""
    assert lz4blocks._library is not None


@pytest.mark.parametrize("kind", [*KINDS, in_buffer])
@pytest.mark.parametrize("content", [b"x", TEXT, NOISE, bytes(70_000), NOISE * 1000])
def test_the_library_expands_what_is_compressed_here(content: bytes, kind: type) -> None:
    """From any kind of memory; and it takes no more than what the library makes of it, or a little."""
    for acceleration in (1, 2, 8):
        packed = bytes(lz4blocks.compress(kind(content), acceleration))
        theirs = lz4.block.compress(content, mode="fast", acceleration=acceleration, store_size=False)

        assert content == lz4.block.decompress(packed, uncompressed_size=len(content))
        assert len(packed) <= len(theirs) * 1.01 + 1


@repeatable(100)
@given(content=plain_bytes(30_000), kind=st.sampled_from([*KINDS, in_buffer]), spare=st.integers(0, 99))
def test_decompress_undoes_compress(content: bytes, kind: type, spare: int) -> None:
    """Also where the bound is larger than what comes out."""
    packed = kind(bytes(lz4blocks.compress(content, 2)))

    assert content == lz4blocks.decompress(packed, len(content) + spare)


@repeatable(300)
@given(packed=st.binary(max_size=300), bound=st.integers(1, 2000))
def test_any_bytes_expand_as_the_library_expands_them(packed: bytes, bound: int) -> None:
    """Hostile blocks give the same bytes, or are refused by both."""
    try:
        expected = lz4.block.decompress(packed, uncompressed_size=bound)
    except (ValueError, lz4.block.LZ4BlockError):
        with pytest.raises(ValueError, match="LZ4"):
            lz4blocks.decompress(packed, bound)
    else:
        assert expected == lz4blocks.decompress(packed, bound)


def test_a_block_that_expands_to_more_is_refused() -> None:
    """Nothing is written behind the bound."""
    with pytest.raises(ValueError, match="LZ4 stops"):
        lz4blocks.decompress(lz4blocks.compress(TEXT, 1), len(TEXT) - 1)


def test_without_the_extensions_functions_the_library_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of the library that hides them is slower, and no less right."""
    fast = bytes(lz4blocks.compress(TEXT, 2))
    monkeypatch.setattr(lz4blocks, "_library", None)

    for packed in (fast, lz4blocks.compress(TEXT, 2)):
        assert TEXT == lz4blocks.decompress(packed, len(TEXT))
        with pytest.raises(ValueError, match="Decompression failed"):
            lz4blocks.decompress(packed, 10)


@pytest.mark.parametrize("name", [None, "/nonexistent/extension.so"])
def test_an_extension_that_cannot_be_loaded_is_done_without(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """Neither a missing file nor missing functions are errors."""

    class Found:
        origin = name

    monkeypatch.setattr("importlib.util.find_spec", lambda _: Found() if name else None)

    assert lz4blocks._load() is None
