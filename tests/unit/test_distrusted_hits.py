"""Hits in a distrusted store: each counts in the very form that the map is to name."""

import os
from pathlib import Path

import pytest

from backy.domain.chunk import chunk_id
from backy.domain.revision import Distrust, Revision
from backy.ground.directory import Directory
from backy.operation import parallel
from backy.repository import trust
from backy.repository.repository import Repository
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
    assert {full(site, base), full(site, content), delta(site, content, base)} == {*site.chunk_files()}
    return site, base, content


def full(site: Site, plain: bytes) -> Path:
    """The file of a chunk in full."""
    name = chunk_id(plain).hex()
    return site.chunks / name[:2] / name


def delta(site: Site, plain: bytes, base: bytes) -> Path:
    """The file of a chunk as a delta."""
    return full(site, plain).with_name(f"{chunk_id(plain).hex()}.{chunk_id(base).hex()}")


def distrust(site: Site, revision: Revision) -> None:
    """As an operator who does not trust the disk."""
    with (
        Repository.open(str(site.base)) as repository,
        Directory.open(str(site.job)) as job,
        trust.distrusting(repository.chunks),
    ):
        trust.distrust(job, revision.uuid, Distrust.STORE)


def spoil(path: Path) -> None:
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 8
    path.chmod(0o600)
    path.write_bytes(content)


def test_a_proven_delta_is_no_proof_of_the_full_chunk(both_forms: tuple[Site, bytes, bytes]) -> None:
    """They are two files, and the rotten one is stored anew."""
    site, _, content = both_forms
    distrust(site, site.history().revisions[0])
    spoil(full(site, content))

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

    assert {full(site, content).name} == site.chunks_of(made)
