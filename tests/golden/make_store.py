"""Writes tests/golden/store-N.tar.gz: small stores that every later version of backy must read.

    make golden

store-1 has every form that the formats know: chunks by all codecs, full and delta, a short last chunk,
a map with a base table, a page of zeros and two stored pages, records with every tag origin. store-2 is
what a source with snapshots gives: deltas that backups wrote on inherited maps, a list of snapshots,
records that say what was read and why, and what an audit has found.

What the images hold is in store-N.json, as sizes and SHA-256. A new store comes with new forms; files
that were released are never written again.
"""

import gzip
import hashlib
import io
import json
import random
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from backy.domain import audit, chunk
from backy.domain.chunk import Encoder, parse_codec
from backy.domain.chunkmap import NO_DISK, PAGE_ENTRIES, Entry, Layout
from backy.domain.revision import Consistency, Origin, Revision, SourceIdentity, Stats, Trust
from backy.ground.directory import Directory
from backy.ground.linux import PAGE
from backy.repository import history as histories
from backy.repository.chunks import ChunkWriter
from backy.repository.maps import MapWriter
from backy.repository.repository import Repository
from backy.repository.users import registered
from fakes import FakeSource
from testsite import CHUNK, Site

Expected = dict[str, dict[str, object]]

HERE = Path(__file__).parent
EPOCH = datetime(2026, 11, 1, 3, 0, tzinfo=UTC)
LAYOUT = Layout(CHUNK, 3 * PAGE_ENTRIES * CHUNK - 1000)
DELTA_REVISION = "00000000-0000-4000-8000-00000000de17"


class _Noon:
    """A clock that stands at a given day."""

    def __init__(self, day: int) -> None:
        self._now = EPOCH + timedelta(days=day)

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._now

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return 0.0


def main() -> None:
    """Write those archives, with expectations, that have not been written before."""
    missing = {name: make for name, make in STORES.items() if not (HERE / f"{name}.tar.gz").exists()}
    if not missing:
        raise SystemExit("all stores are there: released formats stay as they are")
    for name, make in missing.items():
        with tempfile.TemporaryDirectory() as folder:
            site, expected = make(Path(folder))
            _pack(site, HERE / f"{name}.tar.gz")
        (HERE / f"{name}.json").write_text(json.dumps(expected, indent=2) + "\n")


def _store_1(folder: Path) -> tuple[Site, Expected]:
    site = Site(folder)
    expected = dict(_full(site, day, codec) for day, codec in enumerate(("lz4", "zstd:3", "none")))
    expected.update([_delta(site)])
    _edit(site, next(iter(expected)))
    return site, expected


def _store_2(folder: Path) -> tuple[Site, Expected]:
    """Days of small changes, zeros, growth, and a source that hides one, which an audit finds."""
    site = Site(folder, chunk_size=16 * PAGE)
    # As a running machine's, and compressible, so that the archive is small.
    source = FakeSource(b"".join(bytes([number]) * PAGE for number in range(1, 57)), frozen=True)
    expected: Expected = {}
    for day in range(9):
        site.codec, site.clock = ("lz4", "zstd:3", "none")[day % 3], _Noon(day)
        if day in (1, 2, 5, 6, 8):
            for block in (day, 20 + day, 40):
                source.write(block * PAGE, bytes([100 + day]) * PAGE)
        if day == 2:
            source.write(48 * PAGE, bytes(8 * PAGE))
        if day == 3:
            source.content += bytes(17 * PAGE) + b"the end"
        if day == 4:
            source.hidden.add(50)
            source.write(50 * PAGE, b"h" * PAGE)
        is_audited = day == 6
        with patch.object(audit.Audit, "picks", lambda *_, is_audited=is_audited: is_audited):
            revision = site.backup(source=source)
        image = bytes(source.content)
        if day in (4, 5):
            image = image[: 50 * PAGE] + bytes(PAGE) + image[51 * PAGE :]
        expected[revision.uuid] = _described(image)
    return site, expected


STORES = {"store-1": _store_1, "store-2": _store_2}


def _full(site: Site, day: int, codec: str) -> tuple[str, dict[str, object]]:
    """A revision of an image with data in the first and the last page."""
    numbers = random.Random(day)
    site.codec, site.clock = codec, _Noon(day)
    with site.image.open("wb") as image:
        image.truncate(LAYOUT.image_size)
        image.write(numbers.randbytes(CHUNK // 4) * 12)
        image.write(b"the same on every day ".ljust(CHUNK, b"."))
        image.seek(LAYOUT.image_size - 1000)
        image.write(numbers.randbytes(10) * 100)
    revision = site.backup(tag="daily")
    return revision.uuid, _described(site.image.read_bytes())


def _delta(site: Site) -> tuple[str, dict[str, object]]:
    """A revision whose first chunk is a delta against a full one, as later versions write them."""
    base = bytes(range(256)) * (CHUNK // 256)
    plain = b"changed" + base[7:]
    encoder = Encoder(parse_codec("lz4"))
    base_id, plain_id = chunk.chunk_id(base), chunk.chunk_id(plain)
    entries = [Entry(plain_id, base_id), Entry(base_id)]
    image = Layout(CHUNK, 2 * CHUNK)
    with (
        Repository.open(str(site.base)) as repository,
        registered(repository.chunks, "vm", EPOCH) as user,
        Directory.open(str(site.job)) as job,
    ):
        writer = ChunkWriter(repository.chunks, user.temporary)
        for entry, frame in zip(
            entries,
            (
                chunk.encode_delta(plain_id, plain, base_id, base, 0, encoder),
                chunk.encode_full(base_id, base, encoder),
            ),
            strict=True,
        ):
            assert writer.claim(entry)
            writer.store(entry, frame)
        writer.finish()
        new_map = MapWriter(job, DELTA_REVISION, NO_DISK, image)
        for index, entry in enumerate(entries):
            new_map.expect(index)
            new_map.set(index, entry)
        revision = Revision(
            uuid=DELTA_REVISION,
            taken_at=EPOCH + timedelta(days=9),
            tags={"daily": Origin.SCHEDULE, "odd": Origin.FORCED, "manual:kept": Origin.MANUAL},
            consistency=Consistency.TORN,
            trust=Trust.VERIFIED,
            maps=(new_map.seal(),),
            source=SourceIdentity(type="file"),
            stats=Stats(chunks=2, chunks_new=2),
        )
        histories.commit(job, revision, [new_map])
        new_map.close()
    return DELTA_REVISION, _described(plain + base)


def _edit(site: Site, uuid: str) -> None:
    """A forgotten revision's neighbour that was edited."""
    with Directory.open(str(site.job)) as job:
        histories.edit(job, uuid, lambda one: one.with_tags({**one.tags, "manual:first": Origin.MANUAL}))


def _described(content: bytes) -> dict[str, object]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _pack(site: Site, archive: Path) -> None:
    """Pack the repository, without times and owners."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(site.base.rglob("*")):
            member = tar.gettarinfo(path, str(path.relative_to(site.base)))
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            if path.is_file():
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
    archive.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


if __name__ == "__main__":
    main()
