"""Records: what is written is read, and what no backy wrote is a ValueError and nothing worse.

A hostile record may well be sealed, since the seal has no key: `sealed` members are tried too.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain import sealed
from backy.domain.revision import (
    Disk,
    MapDigest,
    Origin,
    Revision,
    SourceIdentity,
    Stats,
    Trust,
    UnknownFormat,
    parse,
    serialise,
    summed,
)
from fakes import fake_revision
from strategies import repeatable, revisions

GOOD = fake_revision(1, "daily")
MEMBERS: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(GOOD))
MAP = MEMBERS["maps"][0]


def record(**members: object) -> bytes:
    """A well sealed record with some other members."""
    return sealed.seal(msgspec.json.encode({**MEMBERS, **members}))


def sealed_text(change: Callable[[str], str]) -> bytes:
    """A record whose JSON text was changed before it was sealed, whatever that made of it."""
    body = change(sealed.unseal(serialise(GOOD)).decode()).removesuffix("\n}").encode()
    return body + sealed._MARK + sealed._checksum(body) + sealed._END


@repeatable(100)
@given(revision=revisions())
def test_record_round_trips(revision: Revision) -> None:
    """Every revision is read back as it was written."""
    assert revision == parse(serialise(revision))


def test_record_is_what_the_format_says() -> None:
    """The members of a record, their order and their spelling are these."""
    expected = {
        "format": 1,
        "uuid": "00000001-0000-4000-8000-000000000001",
        "taken_at": "2024-01-02T00:00:00Z",
        "tags": {"daily": "schedule"},
        "trust": "trusted",
        "distrust": None,
        "consistency": "consistent",
        "parent": None,
        "maps": [{"disk": "", "size": 160, "root": "00" * 32, "image_size": 0}],
        "source": {"type": "file"},
        "stats": {
            "duration": 0.0,
            "bytes_scanned": 0,
            "bytes_changed": 0,
            "bytes_read": 0,
            "bytes_audited": 0,
            "bytes_new": 0,
            "bytes_written": 0,
            "chunks": 0,
            "chunks_zero": 0,
            "chunks_new": 0,
            "chunks_delta": 0,
            "chunks_hit": 0,
            "chunks_inherited": 0,
            "seconds": {},
        },
    }
    found = msgspec.json.decode(serialise(GOOD))
    del found["checksum"]

    assert list(expected.items()) == list(found.items())


def test_times_in_other_zones_become_utc() -> None:
    """A record written with another offset means the same instant."""
    found = parse(record(taken_at="2024-01-02T05:30:00+05:30"))

    assert datetime(2024, 1, 2, tzinfo=UTC) == found.taken_at
    assert timedelta(0) == found.taken_at.utcoffset()


@pytest.mark.parametrize(
    "members",
    [
        {"format": 2},
        {"format": 0},
        {"format": -1},
        {"format": 10**9},
        {"format": "1"},
        {"compression": "none"},
        {"format": 2, "compression": "none"},
        {"maps": [{**MAP, "key": "x"}]},
        {"source": {"type": "file", "pool": "rbd"}},
        {"stats": {**MEMBERS["stats"], "disks": 1}},
        {"trust": "doubtful"},
        {"consistency": "maybe"},
        {"tags": {"daily": "inherited"}},
        {"source": {}},
        {"maps": {}},
        {"maps": None},
        {"tags": []},
        {"uuid": 1},
        {"taken_at": 1704153600},
        {"taken_at": "yesterday"},
        {"stats": {**MEMBERS["stats"], "chunks": 1.5}},
        {"stats": {**MEMBERS["stats"], "chunks": "1"}},
    ],
)
def test_record_of_another_version_is_unknown(members: dict[str, object]) -> None:
    """A whole record that says what this version never says was written by another one."""
    with pytest.raises(UnknownFormat, match=r"record format|other members"):
        parse(record(**members))


@pytest.mark.parametrize(
    "members",
    [
        {"uuid": ""},
        {"uuid": "not a uuid"},
        {"uuid": "../../../etc/passwd"},
        {"uuid": GOOD.uuid.replace("-", "")},
        {"uuid": "{" + GOOD.uuid + "}"},
        {"uuid": "urn:uuid:" + GOOD.uuid},
        {"uuid": "ABCDEF00-0000-4000-8000-000000000001"},
        {"taken_at": "2024-01-02T00:00:00"},
        {"maps": [{**MAP, "size": -1}]},
        {"maps": [{**MAP, "image_size": -1}]},
        {"maps": [{**MAP, "root": ""}]},
        {"maps": [{**MAP, "root": "00" * 31}]},
        {"maps": [{**MAP, "root": "00" * 33}]},
        {"maps": [{**MAP, "root": "zz" * 32}]},
    ],
)
def test_record_with_impossible_values_is_refused(members: dict[str, object]) -> None:
    """Values of the right type that cannot be true are a ValueError, not another version's record."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse(record(**members))

    assert not isinstance(caught.value, UnknownFormat)


@pytest.mark.parametrize("taken_at", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_time_outside_the_calendar_is_refused(taken_at: str) -> None:
    """A time that has no UTC form is a ValueError as well."""
    with pytest.raises(ValueError, match="time"):
        parse(record(taken_at=taken_at))


@pytest.mark.parametrize("name", ["../x", "a.b", "a/b", "a\0b", "-", "x" * 33, "a\n", "é"])
def test_hostile_disk_name_is_refused(name: str) -> None:
    """A disk's name becomes part of a file name, so it keeps to the allowed letters in records too."""
    with pytest.raises(ValueError, match="disk"):
        parse(record(maps=[{**MAP, "disk": name}]))


def test_two_maps_of_one_disk_are_refused() -> None:
    """Nobody could say which of them is the image."""
    with pytest.raises(ValueError, match="map"):
        parse(record(maps=[MAP, MAP]))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "a b", "../x", "x" * 64, ""])
def test_hostile_tag_is_refused(name: str) -> None:
    """A tag that no command would have accepted does not reach terminals and logs through a record."""
    with pytest.raises(ValueError, match="tag"):
        parse(record(tags={name: "manual"}))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace('"duration": 0.0', '"duration": NaN'), id="NaN"),
        pytest.param(
            lambda text: text.replace('"duration": 0.0', '"duration": Infinity'), id="Infinity"
        ),
        pytest.param(lambda text: text.replace('"duration": 0.0', '"duration": 1e999'), id="1e999"),
        pytest.param(lambda text: text.replace('"format": 1', '"format": ' + "1" * 50_000), id="long"),
        pytest.param(lambda text: text.replace("null", "[" * 100_000), id="open lists"),
        pytest.param(lambda text: text.replace("null", "[" * 9999 + "]" * 9999), id="deep lists"),
        pytest.param(
            lambda text: text.replace("null", '{"a":' * 9999 + "1" + "}" * 9999), id="deep tables"
        ),
        pytest.param(lambda text: text.replace('"daily"', '"\\ud800"'), id="half a character"),
        pytest.param(lambda text: text.replace('"daily"', '"da\0ily"'), id="NUL"),
        pytest.param(lambda text: text.replace("{", "[", 1), id="not a table"),
        pytest.param(lambda _: "", id="nothing"),
        pytest.param(lambda _: "null", id="null"),
        pytest.param(lambda _: '"text"', id="text"),
        pytest.param(lambda text: text + text, id="twice"),
    ],
)
def test_sealed_text_that_is_no_record_is_refused(change: Callable[[str], str]) -> None:
    """A good seal over bad JSON is a ValueError, however deep or strange it is."""
    with pytest.raises(ValueError, match=r"."):
        parse(sealed_text(change))


def test_sealed_bytes_that_are_no_text_are_refused() -> None:
    """Invalid UTF-8 inside a good seal is a ValueError."""
    body = sealed.unseal(serialise(GOOD)).removesuffix(b"\n}").replace(b"daily", b"\xff\xfe")
    with pytest.raises(ValueError, match=r"."):
        parse(body + sealed._MARK + sealed._checksum(body) + sealed._END)


@repeatable(100)
@given(at=st.integers(0, len(serialise(GOOD)) - 1), mask=st.integers(1, 255))
def test_every_flipped_byte_of_a_record_is_found(at: int, mask: int) -> None:
    """A digit that flips in a time or a tag is as visible as one in a brace."""
    content = bytearray(serialise(GOOD))
    content[at] ^= mask

    with pytest.raises(ValueError, match="checksum"):
        parse(bytes(content))


@repeatable(150)
@given(
    key=st.sampled_from(sorted(MEMBERS)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        ),
        max_leaves=4,
    ),
)
def test_any_member_value_is_read_or_refused(key: str, value: object) -> None:
    """No value of any member makes reading do anything else than return a revision or a ValueError."""
    try:
        found = parse(record(**{key: value}))
    except ValueError:
        return

    assert found.taken_at.tzinfo is UTC


def test_image_size_is_that_of_all_disks() -> None:
    """A revision of several disks is as large as all of them."""
    maps = tuple(MapDigest(disk=disk, size=1, root="00" * 32, image_size=5) for disk in ("", "data"))
    whole = Revision(
        uuid=GOOD.uuid, taken_at=GOOD.taken_at, tags={}, maps=maps, source=GOOD.source, stats=Stats()
    )

    assert 10 == whole.image_size


def test_only_distrusted_revisions_are_distrusted() -> None:
    """Trusted and verified ones may be parents and count for retention."""
    found = {trust: fake_revision(1, trust=trust).is_distrusted for trust in Trust}

    assert {Trust.TRUSTED: False, Trust.VERIFIED: False, Trust.DISTRUSTED: True} == found


def test_tags_are_replaced_in_a_copy() -> None:
    """A revision is frozen: other tags make another revision."""
    other = GOOD.with_tags({"manual:x": Origin.MANUAL})

    assert {"daily": Origin.SCHEDULE} == GOOD.tags
    assert (GOOD.uuid, {"manual:x": Origin.MANUAL}) == (other.uuid, other.tags)
    assert SourceIdentity(type="file") == other.source


DISK = {"source": {"type": "file"}, "stats": MEMBERS["stats"]}


def of_disks(**members: object) -> bytes:
    """A well sealed record of the disk `root`, with some other members."""
    given: dict[str, object] = {
        "source": None,
        "maps": [{**MAP, "disk": "root"}],
        "disks": {"root": DISK},
    }
    return record(**{**given, **members})


def test_record_of_disks_is_what_the_format_says() -> None:
    """Each disk has what a record of one image has, in place of that."""
    document = msgspec.json.decode(serialise(parse(of_disks(freeze="guest-frozen"))))

    assert {"root": DISK} == document["disks"]
    assert "guest-frozen" == document["freeze"]
    assert not {"source", "reading"} & set(document)


@pytest.mark.parametrize(
    "members",
    [
        {"disks": None},
        {"disks": {}},
        {"disks": {"data": DISK}},
        {"disks": {"root": DISK, "data": DISK}},
        {"source": {"type": "file"}},
        {"reading": {"last_full": GOOD.uuid}},
    ],
)
def test_record_that_contradicts_itself_about_disks_is_none(members: dict[str, object]) -> None:
    """What was read must be said of each map, once."""
    with pytest.raises(ValueError, match=r"disk|what was read"):
        parse(of_disks(**members))


def test_revision_knows_its_disks() -> None:
    """One of a single image has a disk without a name."""
    alone, several = GOOD, parse(of_disks(consistency="torn"))

    assert (
        Disk(source=SourceIdentity(type="file"), stats=Stats()) == alone.disk("") == several.disk("root")
    )
    assert (None, None) == (alone.disk("root"), several.disk(""))


def test_figures_of_disks_add_up() -> None:
    """Seconds too, by phase."""
    one = Stats(duration=1.0, bytes_read=5, chunks=2, seconds={"read": 0.5, "snapshot": 0.1})
    other = Stats(duration=2.0, bytes_read=7, chunks_new=1, seconds={"read": 0.25})

    assert Stats(
        duration=3.0, bytes_read=12, chunks=2, chunks_new=1, seconds={"read": 0.75, "snapshot": 0.1}
    ) == summed([one, other])
