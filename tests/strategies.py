"""What the tests draw their values from: one strategy a concept, shared by every folder.

    @repeatable(50)
    @given(plain=plain_bytes(20_000), codec=st.sampled_from(CODECS))
    def test_…

Every law is tried on the same examples in every run (`repeatable`), so a red test stays red.

Limits: values only; nothing here opens a file.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from backy.domain.chunk import ID_SIZE, ZERO, ChunkId
from backy.domain.revision import (
    Consistency,
    Disk,
    Distrust,
    Freeze,
    Kept,
    MapDigest,
    Origin,
    Reading,
    Revision,
    SourceIdentity,
    Stats,
    Trust,
    View,
)

CODECS = ("none", "lz4", "zstd:-7", "zstd", "zstd:19")
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)

_COUNTS = st.integers(0, 1 << 60)


def repeatable(examples: int) -> Callable[[Any], Any]:
    """Settings of a law: the same examples in every run, however slow the machine is today."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def boundary_sizes(unit: int) -> list[int]:
    """Sizes around everything that a size can be rounded to: sectors, pages and whole units."""
    around = [0, 512, 4096, unit, 2 * unit, 5 * unit]
    return sorted({size + step for size in around for step in (-1, 0, 1) if size + step >= 0})


def plain_bytes(most: int, least: int = 1) -> st.SearchStrategy[bytes]:
    """Bytes of any length as images have them: runs of zeros, of one byte, and of noise."""
    piece = st.one_of(
        st.integers(1, most).map(bytes),
        st.tuples(st.integers(1, 255), st.integers(1, most)).map(lambda run: bytes([run[0]]) * run[1]),
        st.binary(min_size=1, max_size=200),
    )

    def joined(pieces: list[bytes]) -> bytes:
        return b"".join(pieces)[:most].ljust(least, b"\0")

    return st.lists(piece, max_size=8).map(joined)


def chunk_ids() -> st.SearchStrategy[ChunkId]:
    """Identities of chunks that are not zero."""
    return st.binary(min_size=ID_SIZE, max_size=ID_SIZE).filter(lambda one: one != ZERO).map(ChunkId)


def uuids() -> st.SearchStrategy[str]:
    """UUIDs in the usual form."""
    return st.uuids().map(str)


def tag_names() -> st.SearchStrategy[str]:
    """Names that a tag may have."""
    return st.builds(str.__add__, st.sampled_from("aZ0_"), st.text("abyzAZ019_.:+-", max_size=12))


def disk_names() -> st.SearchStrategy[str]:
    """Names that a disk may have; the empty one stands for an image without disks."""
    name = st.builds(str.__add__, st.sampled_from("aZ0"), st.text("abyzAZ019_-", max_size=31))
    return st.just("") | name


def instants() -> st.SearchStrategy[datetime]:
    """Times with a zone, to the microsecond."""
    naive = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - zones come next
    return naive.map(lambda one: one.replace(tzinfo=UTC))


def revisions() -> st.SearchStrategy[Revision]:
    """Any revision that a record can state."""
    digest = st.binary(min_size=32, max_size=32).map(bytes.hex)
    map_digest = st.builds(MapDigest, disk=disk_names(), size=_COUNTS, root=digest, image_size=_COUNTS)
    identity = st.builds(
        SourceIdentity,
        type=st.just("file"),
        path=st.none() | st.text(max_size=20),
        inode=st.none() | _COUNTS,
        changed_ns=st.none() | _COUNTS,
        size=st.none() | _COUNTS,
        view=st.none() | st.sampled_from(View),
        kept=st.none()
        | st.builds(Kept, path=st.text(max_size=20), inode=_COUNTS, changed_ns=_COUNTS, size=_COUNTS),
    )
    reading = st.builds(
        Reading,
        last_full=uuids(),
        since=st.none() | uuids(),
        runs=_COUNTS,
        why=st.text(max_size=20),
        audit_failed=st.booleans(),
    )
    counts = {name: _COUNTS for name in Stats.__struct_fields__ if name not in ("duration", "seconds")}
    stats = st.builds(
        Stats,
        duration=st.floats(0, 1e9),
        seconds=st.dictionaries(st.text(max_size=9), st.floats(0, 1e9), max_size=3),
        **counts,
    )
    disk = st.builds(
        Disk,
        source=identity,
        stats=stats,
        reading=st.none() | reading,
        consistency=st.sampled_from(Consistency),
    )
    alone = st.builds(
        Revision,
        uuid=uuids(),
        taken_at=instants(),
        tags=st.dictionaries(tag_names(), st.sampled_from(Origin), max_size=4),
        trust=st.sampled_from(Trust),
        distrust=st.none() | st.sampled_from(Distrust),
        consistency=st.sampled_from(Consistency),
        parent=st.none() | uuids(),
        maps=st.lists(map_digest, max_size=3, unique_by=lambda one: one.disk).map(tuple),
        source=identity,
        stats=stats,
        reading=st.none() | reading,
        freeze=st.none() | st.sampled_from(Freeze),
    )

    def of_disks(one: Revision) -> st.SearchStrategy[Revision]:
        names = {found.disk: disk for found in one.maps}
        return st.fixed_dictionaries(names).map(
            lambda found: msgspec.structs.replace(one, source=None, reading=None, disks=found)
        )

    return alone | alone.flatmap(of_disks)


def histories(most: int = 8) -> st.SearchStrategy[list[Revision]]:
    """A history, oldest first: one revision a day, under UUIDs and tags that recur in specs."""
    tags = st.dictionaries(st.sampled_from(["daily", "weekly", "manual:x"]), st.just(Origin.SCHEDULE))
    found = st.lists(st.tuples(tags, st.sampled_from(Trust)), max_size=most)
    return found.map(lambda days: [_of_day(day, *one) for day, one in enumerate(days)])


def _of_day(day: int, tags: dict[str, Origin], trust: Trust) -> Revision:
    return Revision(
        uuid=f"{day:08x}-0000-4000-8000-{day:012x}",
        taken_at=EPOCH + timedelta(days=day),
        tags=tags,
        trust=trust,
        maps=(),
        source=SourceIdentity(type="file"),
        stats=Stats(),
    )


def specs() -> st.SearchStrategy[str]:
    """Revision specs that follow the grammar; some name nothing, and some are refused when applied."""
    words = ["0", "1", "3", "99", "last", "latest", "first", "all", "clean", "local", "remote", "daily"]
    lists = ["tag:daily", "tag:none", "trust:trusted", "trust:DISTRUSTED", "server:", "manual:x"]
    atoms = st.sampled_from(words) | st.sampled_from(lists)
    ends = st.sampled_from(["", "0", "2", "last", "2024-01-03", "20240105", "2024-01-02T03:04+01:00"])
    ranges = st.tuples(ends, ends).map("..".join)

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        called = st.tuples(st.sampled_from(["first", "last", "not", "reverse", ""]), inner)
        joined = st.tuples(inner, st.sampled_from([",", " , ", "&", " & "]), inner)
        return called.map(lambda one: f"{one[0]}({one[1]})") | joined.map("".join)

    return st.recursive(atoms | ranges, larger, max_leaves=8)


def near_misses(alphabet: list[str]) -> st.SearchStrategy[str]:
    """Text made of a grammar's own pieces and of anything else, in no order at all."""
    return st.lists(st.sampled_from(alphabet) | st.text(max_size=3), max_size=12).map("".join)


def hostile_names() -> tuple[str, ...]:
    """Names that try to leave a directory, to hide, or to break a terminal or a parser; about 300."""
    seeds = [
        ".",
        "..",
        "...",
        "/",
        "//",
        "\\",
        "~",
        "~root",
        "-",
        "--help",
        "-rf",
        "*",
        "?",
        "$(id)",
        "`id`",
    ]
    seeds += [
        "a/b",
        "a/../b",
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..",
        "a\\b",
        "./a",
        "a/",
        "/a",
        "|",
    ]
    seeds += [
        "%2e%2e",
        "%2e%2e%2f",
        "%00",
        "..%c0%af",
        "&",
        ";",
        "'",
        '"',
        "<a>",
        "a b",
        " a",
        "a ",
        "{}",
        "[a]",
    ]
    seeds += [
        "\0",
        "a\0b",
        "a\0",
        "\n",
        "a\n",
        "\na",
        "a\nb",
        "a\r",
        "\t",
        "a\x1b[31m",
        "\x7f",
        "\x85",
        "\u2028",
    ]
    seeds += [
        "\u202e",
        "\u200b",
        "a\u0301",
        "\uff0e\uff0e",
        "\u2215",
        "\uff0f",
        "\u0660",
        "a\u0661",
        "\xb2",
        "\xe9",
    ]
    seeds += [
        "\ud800",
        "a\udcff",
        "\U0001f600",
        "\u0430",
        "\u2024\u2024",
        "",
        "#",
        "a#b",
        "a=b",
        "a,b",
        "a@b",
        "!",
    ]
    seeds += ["a" * 64, "a" * 300, "a" * 5000, "a." * 40]
    outer = ["{}", "../{}", "{}/..", "x/{}"]
    return tuple(dict.fromkeys(shape.format(seed) for shape in outer for seed in seeds))
