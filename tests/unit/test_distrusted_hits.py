"""Hits in a distrusted store: each counts in the very form that the map is to name."""

import os
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.operation import parallel
from damaging import chunk_file, distrust, spoil
from testsite import CHUNK, Site

LARGE = 16 * CHUNK


@pytest.fixture
def both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Site, bytes, bytes]:
    """A store in which one content is there as a delta and in full: the site, and base and content."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    site = Site(tmp_path, chunk_size=LARGE)
    base = os.urandom(LARGE)
    content = bytes([base[0] ^ 1]) + base[1:]
    site.image.write_bytes(base)
    site.backup()
    # At its first place it stands on the parent's chunk; at the second there is nothing to stand on.
    site.image.write_bytes(content + content)
    site.backup()
    assert {chunk_file(site, base), chunk_file(site, content), delta(site, content, base)} == {
        *site.chunk_files()
    }
    return site, base, content


def delta(site: Site, plain: bytes, base: bytes) -> Path:
    """The file of a chunk as a delta."""
    return chunk_file(site, plain).with_name(f"{chunk_id(plain).hex()}.{chunk_id(base).hex()}")


def test_a_proven_delta_is_no_proof_of_the_full_chunk(both_forms: tuple[Site, bytes, bytes]) -> None:
    """They are two files, and the rotten one is stored anew."""
    site, _, content = both_forms
    distrust(site, site.history().revisions[0])
    spoil(chunk_file(site, content))

    made = site.backup()

    assert content + content == site.restored(made)
    assert 1 == len(list((site.chunks / "quarantine").glob("*/report")))
    assert [] == [one for one in site.verify().findings if one.revision == made.uuid]


def test_a_delta_that_is_gone_is_no_hit(both_forms: tuple[Site, bytes, bytes]) -> None:
    """The full chunk is, which stands in for it: the new map names what is there."""
    site, base, content = both_forms
    distrust(site, site.history().revisions[0])
    delta(site, content, base).unlink()

    made = site.backup()

    assert {chunk_file(site, content).name} == site.chunks_of(made)
