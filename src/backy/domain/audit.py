"""The audit of what was not read: which chunks a backup reads although a source says they are unchanged.

A source that tells changes may be wrong, and nobody would ever see it: what is in the store is whole.
So each run reads one of 30 strata of the chunks, in turn, and some at random. Whatever the source has
hidden in a chunk is found within 30 runs with certainty, and without one that reads everything.

    audit = Audit(last_full=uuid, runs=7, used=459)
    audit.picks(number, slot, ordinal)

Which stratum a chunk is in follows from the UUID of the last full read, which no guest knows, so that
a guest cannot choose where it would be missed.

    >>> audit = Audit("11111111-1111-4111-8111-111111111111", runs=1, used=0)
    >>> picked = [audit.picks(0, slot, slot) for slot in range(4096)]
    >>> 100 < sum(picked) < 180
    True

Limits: pure but for the random ones; certain only for what stays hidden, not for what is overwritten
meanwhile.
"""

import random
from uuid import UUID

import blake3

from backy.domain.chunkmap import PAGE_ENTRIES

STRATA = 30
AT_RANDOM = 4


class Audit:
    """What one run audits: chunks by page and slot, and by their place among all that are in use."""

    def __init__(self, last_full: str, runs: int, used: int) -> None:
        """`runs` counts from the last full read; `used` is about how many chunks may be audited."""
        self._key = blake3.blake3(UUID(last_full).bytes).digest()
        self._stratum = runs % STRATA
        drawn = random.SystemRandom().sample(range(used), min(AT_RANDOM, used))
        self._ordinals = frozenset(drawn)
        self._page: tuple[int, bytes] = (-1, b"")

    def picks(self, page: int, slot: int, ordinal: int) -> bool:
        """Whether to audit the chunk in a slot of a page, the `ordinal`th that could be."""
        if self._page[0] != page:
            strata = blake3.blake3(page.to_bytes(8, "little"), key=self._key).digest(PAGE_ENTRIES)
            self._page = (page, strata)
        return self._page[1][slot] % STRATA == self._stratum or ordinal in self._ordinals
