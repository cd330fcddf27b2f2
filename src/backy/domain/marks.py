"""Marks: which chunk ids somebody needs, in the same memory for ten ids and for a billion.

One bitmap of 2^31 bits, indexed by 31 bits of the id. Two ids may share a bit: then a chunk that
nobody needs stays for one more collection, which looks at other bits. A chunk that somebody needs is
never without its mark.

    >>> marks = Marks(word=0)
    >>> marks.add_page(bytes(range(32)) * 2)
    >>> bytes(range(32)).hex() in marks, ("ff" * 32) in marks
    (True, False)

Limits: 256 MiB of memory where marks are spread; nothing is ever unmarked. A page of 4096 ids takes
half a millisecond.
"""

import mmap
from array import array

from backy.domain.chunk import ID_SIZE

_BITS = 31
_WORD = 4
WORDS = ID_SIZE // _WORD
_BYTE_MASK = (1 << (_BITS - 3)) - 1


class Marks:
    """A set of chunk ids that may hold a few more than were added."""

    def __init__(self, word: int) -> None:
        """`word` (0 to 7) chooses the 32 bits of an id that count; each collection takes others."""
        self._word = word
        self._hex = slice(word * _WORD * 2, (word + 1) * _WORD * 2)
        # Anonymous memory, so that only what is marked is ever made; a bytearray is written at once.
        self._bits = memoryview(
            mmap.mmap(-1, 1 << (_BITS - 3), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        )

    def add_page(self, idents: bytes) -> None:
        """Mark ids, given one behind the other. Zero ids, of chunks without a file, do no harm."""
        words = array("I", idents)
        words.byteswap()  # so that a word is the number that its hex digits say
        bits = self._bits
        for word in words[self._word :: WORDS]:
            bits[word >> 3 & _BYTE_MASK] |= 1 << (word & 7)

    def __contains__(self, name: str) -> bool:
        """Whether the chunk with that file name (`ID` or `ID.BASEID`) is marked."""
        word = int(name[self._hex], 16)
        return self._bits[word >> 3 & _BYTE_MASK] >> (word & 7) & 1 == 1
