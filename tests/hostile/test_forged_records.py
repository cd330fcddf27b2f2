"""T19: records that no version wrote, under a checksum that holds, cause a sentence and nothing else."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from filetree import tree
from forged import FORGED, document_of, put_record, record_of, sealed_as
from in_process import backy
from small_store import EPOCH, StandingClock

from backy.domain.revision import parse
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T19")


def described(**members: Any) -> list[dict[str, Any]]:
    """The list of one map, with some members replaced."""
    return [{"disk": "", "size": 160, "root": "00" * 32, "image_size": 0, **members}]


def nested(depth: int, opening: str, closing: str) -> bytes:
    """A record with a member nested that deep."""
    deep = opening * depth + closing * depth
    return document_of(record_of()).replace(b"{", b'{\n  "deep": ' + deep.encode() + b",", 1)


WRONG_TYPES: dict[str, list[Any]] = {
    "format": [0, 2, -1, 1.5, "1", None, True, [], 2**63, 10**30],
    "uuid": [1, None, "", "x", FORGED.upper(), "{" + FORGED + "}", "urn:uuid:" + FORGED, "../" + FORGED],
    "taken_at": ["", "now", 0, None, "2026-11-01T03:00:00", "2026-13-01T00:00:00Z", "2026-11-01"],
    "tags": [None, [], "daily", {"daily": "other"}, {"daily": None}, {"daily": {}}],
    "trust": [None, "", "TRUSTED", "yes", 1],
    "distrust": ["", "other", 1],
    "consistency": [None, "maybe"],
    "parent": [1, [], {}],
    "maps": [None, {}, "x", [None], [[]], [{}], 1],
    "source": [None, [], {}, {"type": 1}, {"type": "file", "more": 1}, {"type": "file", "inode": "x"}],
    "stats": [None, [], {"duration": "x"}, {"duration": None}, {"chunks": 1.5}, {"more": 1}],
}
HOSTILE_MAPS: list[dict[str, Any]] = [
    {"size": -1},
    {"size": 2**63},
    {"size": 2**64},
    {"size": 10**30},
    {"image_size": -1},
    {"image_size": 2**63},
    {"image_size": 2**64 - 1},
    {"root": ""},
    {"root": "0"},
    {"root": "00" * 31},
    {"root": "zz" * 32},
    {"root": "\u0660\u0660" * 32},
    {"disk": "../../outside"},
    {"disk": "/etc/passwd"},
    {"disk": "a/b"},
    {"disk": "nul\0"},
    {"disk": "a.b"},
    {"disk": "x" * 4000},
    {"disk": None},
    {"more": 1},
]
UNUSABLE: dict[str, bytes] = {
    **{
        f"{member}={value!r:.40}": document_of(record_of(**{member: value}))
        for member, values in WRONG_TYPES.items()
        for value in values
    },
    **{
        f"without {member}": document_of({k: v for k, v in record_of().items() if k != member})
        for member in ("uuid", "taken_at", "tags", "maps", "source", "stats")
    },
    **{
        "maps " + json.dumps(map_)[:40]: document_of(record_of(maps=described(**map_)))
        for map_ in HOSTILE_MAPS
    },
    "unknown member": document_of(record_of(surprise=1)),
    "an unknown member that clears the screen": document_of(record_of(**{"\x1b[2J\n\r": 1})),
    "NaN": document_of(record_of(stats={"duration": float("nan")})),
    "Infinity": document_of(record_of(stats={"duration": float("inf")})),
    "a float that is infinite": document_of(record_of()).replace(b"0.1", b"1e999"),
    "an integer of a million digits": document_of(record_of()).replace(b"0.1", b"1" * 1_000_000),
    "a hundred thousand arrays": nested(100_000, "[", "]"),
    "a hundred thousand objects": nested(100_000, '{"a":', "}").replace(b":}", b":1}"),
    "half a million open arrays": b'{\n  "deep": ' + b"[" * 500_000 + b"\n}",
    "tags nested deeply": document_of(record_of()).replace(b'"schedule"', b"[" * 99_999 + b"]" * 99_999),
    "no object": b"[\n}",
    "nothing": b"\n}",
    "only white space": b"   \n}",
    "not UTF-8": document_of(record_of()).replace(b"daily", b"\xff\xfe"),
    "a lone surrogate": document_of(record_of(parent="\ud800")),
    "an escaped lone surrogate": document_of(record_of()).replace(b"daily", b"\\ud800"),
    "two documents": document_of(record_of()) + document_of(record_of()),
    "a comment": document_of(record_of()).replace(b"{", b"{ // comment\n", 1),
    "a trailing comma": document_of(record_of())[:-2] + b",\n}",
    "a time before all times": document_of(record_of(taken_at="0001-01-01T00:00:00+23:59")),
    "a time after all times": document_of(record_of(taken_at="9999-12-31T23:59:59-23:59")),
    "a tag with a newline": document_of(record_of(tags={"a\nb": "schedule"})),
    "a tag that clears the screen": document_of(record_of(tags={"\x1b[2J": "schedule"})),
    "an empty tag": document_of(record_of(tags={"": "schedule"})),
    "the same disk twice": document_of(record_of(maps=described() + described())),
    "no map at all": document_of(record_of(maps=[])),
}


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with a good revision, older than the forged one; log and lock files are there already."""
    site.image.write_bytes(b"good" * CHUNK)
    site.clock = StandingClock(EPOCH - timedelta(days=9))
    site.backup()
    (site.job / "backy.log").touch()
    (site.job / ".history").touch()
    return site


@pytest.mark.parametrize("document", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_forged_record_is_named_and_nothing_else_happens(backed_up: Site, document: bytes) -> None:
    """Verify finds it, nothing relative is restored, the good revision is, and nothing is written."""
    good = backed_up.history().revisions[0]
    put_record(backed_up, document)
    before = tree(backed_up.base, times=False)
    at, out = ("-b", str(backed_up.job), "-q"), str(backed_up.folder / "out.raw")

    found = json.loads(backy(*at, "verify", "--json", "--no-quarantine").out)["findings"]
    assert {FORGED} == {one["revision"] for one in found}
    assert 1 == backy(*at, "restore", out).code
    assert not (backed_up.folder / "out.raw").exists()
    assert 0 == backy(*at, "restore", "-r", good.uuid, out).code
    status = backy(*at, "status")
    assert FORGED in status.out + status.err
    assert "\x1b" not in status.out + status.err
    assert backy(*at, "find").code in (0, 1)
    assert without_log(before) == without_log(tree(backed_up.base, times=False))

    assert 0 == backy(*at, "forget", "-r", FORGED).code
    assert 0 == backy(*at, "restore", out).code


def without_log(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """The log is written by everything."""
    return {path: what for path, what in found.items() if not path.endswith("backy.log")}


LIVABLE: dict[str, bytes] = {
    "the member that counts comes last": document_of(record_of()).replace(
        b'"trust"', b'"trust": "distrusted",\n  "trust"'
    ),
    "a very long time": document_of(record_of(stats={"duration": 1e300})),
    "negative statistics": document_of(record_of(stats={"duration": -1e9, "bytes_written": -(2**62)})),
    "escaped letters": document_of(record_of()).replace(b"daily", b"\\u0064aily"),
    "a path with a newline": document_of(record_of(source={"type": "file", "path": "/a\n\x1b[2Jb"})),
    "the first of all times": document_of(record_of(taken_at="0001-01-01T00:00:00Z")),
    "the last of all times": document_of(record_of(taken_at="9999-12-31T23:59:59Z")),
}


@pytest.fixture
def own_zone() -> Iterator[None]:
    """Whatever zone a test sets ends with it; to be asked for before `monkeypatch`."""
    yield
    time.tzset()


@pytest.mark.parametrize("document", LIVABLE.values(), ids=LIVABLE.keys())
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_an_odd_record_can_be_shown(
    own_zone: None, backed_up: Site, document: bytes, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a record may say stops the listing of the others, in any zone."""
    good = backed_up.history().revisions[0]
    put_record(backed_up, document)
    monkeypatch.setenv("TZ", zone)
    time.tzset()

    for words in (["status"], ["status", "--json"], ["status", "--yaml"], ["find"], ["verify"]):
        done = backy("-b", str(backed_up.job), *words)
        assert done.code in (0, 1)
        assert good.uuid in done.out or words == ["verify"]
        assert "\x1b" not in done.out + done.err


def test_a_record_longer_than_any_real_one_is_not_read(backed_up: Site) -> None:
    """Five megabytes of white space are no reason to use memory."""
    put_record(backed_up, document_of(record_of()).replace(b"{", b"{" + b" " * (5 << 20), 1))

    assert ["record"] == [
        one["kind"]
        for one in json.loads(backy("-b", str(backed_up.job), "verify", "--json").out)["findings"]
    ]


def test_the_forgery_itself_is_sound(tmp_path: Path) -> None:
    """What these tests vary is a record that this version reads."""
    assert FORGED == parse(sealed_as(document_of(record_of()))).uuid
