"""A source that hides a change, backed up until the audit finds it.

    runs = lie_until_found(site, Random(7))

Limits: chunks of 16 blocks; the audit's random chunks are the caller's to switch off.
"""

from random import Random

from backy.domain.audit import STRATA
from backy.domain.revision import Distrust, Revision
from backy.ground.linux import PAGE
from fakes import FakeSource
from testsite import Site

_CHUNKS = 12
_BLOCKS = 16 * _CHUNKS


def lie_until_found(site: Site, numbers: Random) -> int:
    """How many backups it took; the last one is true, and those before it are distrusted."""
    zeros = bytes(16 * PAGE)
    content = [numbers.choice([zeros, numbers.randbytes(16 * PAGE)]) for _ in range(_CHUNKS)]
    source = FakeSource(b"".join(content), frozen=True)
    before = [site.backup(source=source) for _ in range(numbers.randrange(3))]
    before.append(site.backup(source=source))
    hidden = numbers.randrange(_BLOCKS)
    source.hidden.add(hidden)
    source.write(hidden * PAGE, numbers.randbytes(PAGE))
    for runs in range(1, STRATA + 1):
        for _ in range(numbers.randrange(3)):
            # Also in the same chunk, but never all of it, and never the block itself.
            block = numbers.choice([numbers.randrange(_BLOCKS), hidden ^ 1])
            if block != hidden:
                source.write(block * PAGE, numbers.choice([bytes(PAGE), numbers.randbytes(PAGE)]))
        revision = site.backup(source=source)
        assert revision.reading is not None
        if revision.reading.audit_failed:
            _check_the_end(site, before[0], bytes(source.content))
            return runs
        assert bytes(source.content) != site.restored(revision)
    raise AssertionError(f"not found in {STRATA} runs")


def _check_the_end(site: Site, full: Revision, image: bytes) -> None:
    """The last revision is true, and so is the one that read everything; nobody else is believed."""
    first, *hinted, last = site.history().revisions
    assert image == site.restored(last)
    assert first.uuid == full.uuid
    assert first.is_good
    assert last.is_good
    assert all((Distrust.SOURCE, False) == (one.distrust, one.is_good) for one in hinted)
