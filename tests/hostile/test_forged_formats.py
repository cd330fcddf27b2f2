"""T19, T24: a store whose format file is forged, newer or damaged is not touched by any command."""

import json
from typing import Any

import pytest
from filetree import tree
from forged import sealed_as
from in_process import backy

from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T19")

WHOLE = {
    "format": 1,
    "requires": [],
    "chunk_size": CHUNK,
    "repository": "11111111-1111-4111-8111-111111111111",
}


def document(**members: Any) -> bytes:
    """A format file's JSON with some members replaced."""
    return json.dumps({**WHOLE, **members}, indent=2).encode()


NEWER: dict[str, bytes] = {
    "format 2": document(format=2),
    "format 0": document(format=0),
    "format -1": document(format=-1),
    "format 2^63": document(format=2**63),
    "a newer format with other members": document(format=3, chunk_size="any", more=[1]),
    "a requirement": document(requires=["deltas"]),
    "a requirement in another alphabet": document(requires=["\u0416"]),
    "a requirement that clears the screen": document(requires=["\x1b[2J\nbacky: all is well"]),
    "an unknown member": document(more=1),
    "chunks of 8 MiB": document(chunk_size=8 << 20),
    "chunks of 1 byte": document(chunk_size=1),
    "chunks of 5000 bytes": document(chunk_size=5000),
    "chunks of -4096 bytes": document(chunk_size=-4096),
    "chunks of 2^62 bytes": document(chunk_size=2**62),
    "a wrong type": document(chunk_size="4096"),
    "requirements that are no list": document(requires="none"),
}
BROKEN: dict[str, bytes] = {
    "no repository id": document(repository="x"),
    "no JSON": b"no\n}",
    "deep nesting": b'{\n  "a": ' + b"[" * 20_000 + b"]" * 20_000 + b',\n  "format": 1\n}',
    "NaN": document(format=float("nan")),
    "a list": b"[\n}",
}
READING = [["status"], ["find"], ["verify"], ["restore", "out"]]
WRITING = [
    ["backup", "daily"],
    ["forget", "-r", "0"],
    ["tags", "add", "-r", "0", "manual:x"],
    ["init", "file", "image.raw"],
]


@pytest.fixture
def backed_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with one revision, and the working directory beside it."""
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    monkeypatch.chdir(site.folder)
    (site.chunks / "format").chmod(0o600)
    return site


@pytest.mark.parametrize("content", NEWER.values(), ids=NEWER.keys())
def test_a_newer_store_is_not_touched(backed_up: Site, content: bytes) -> None:
    """Every command says in one sentence that another version is needed, and writes nothing."""
    (backed_up.chunks / "format").write_bytes(sealed_as(content))

    check_refused(backed_up, "is not known to this version of backy; use a newer one.")


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_forged_format_file_is_told(backed_up: Site, content: bytes) -> None:
    """What no version would seal is damage, and nothing is done with such a store."""
    (backed_up.chunks / "format").write_bytes(sealed_as(content))

    check_refused(backed_up, "chunks/format")


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 100, b"{}", b"v2", b"x" * 100_000])
def test_a_damaged_format_file_is_told(backed_up: Site, content: bytes) -> None:
    """Unsealed, empty, zeroed, too long: none of it is taken for a format."""
    (backed_up.chunks / "format").write_bytes(content)

    check_refused(backed_up, "chunks/format is not a backy repository: ")


def check_refused(site: Site, why: str) -> None:
    """Each command ends with one sentence that holds `why`; the whole site stays as it is."""
    before = tree(site.folder)
    for words in READING + WRITING:
        done = backy("-b", str(site.job), *words)
        assert (2 if words == ["verify"] else 1) == done.code, (words, done)
        assert "" == done.out
        assert 1 == done.err.count("\n"), done.err
        assert why in done.err
        assert "\x1b" not in done.err
    assert before == tree(site.folder)
