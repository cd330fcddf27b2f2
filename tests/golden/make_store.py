"""Writes tests/golden/store-N.tar.gz: a small store that every later version of backy must read.

    make golden

It has every form that the formats know: chunks by all codecs, full and delta, a short last chunk, a
map with a base table, a page of zeros and two stored pages, records with every tag origin. What the
images hold is in store-N.json, as sizes and SHA-256. Run once for each new format version; files
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

from backy.domain import chunk
from backy.domain.chunk import Encoder, parse_codec
from backy.domain.chunkmap import NO_DISK, PAGE_ENTRIES, Entry, Layout
from backy.domain.revision import Consistency, Origin, Revision, SourceIdentity, Stats, Trust
from backy.ground.directory import Directory
from backy.repository import history as histories
from backy.repository.chunks import ChunkWriter
from backy.repository.layout import STORE_FORMAT
from backy.repository.maps import MapWriter
from backy.repository.repository import Repository
from backy.repository.users import registered
from testsite import CHUNK, Site

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
    """Write archive and expectations, unless they have been written before."""
    archive = HERE / f"store-{STORE_FORMAT}.tar.gz"
    if archive.exists():
        raise SystemExit(f"{archive.name} is there: released formats stay as they are")
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        expected = dict(_full(site, day, codec) for day, codec in enumerate(("lz4", "zstd:3", "none")))
        expected.update([_delta(site)])
        _edit(site, next(iter(expected)))
        _pack(site, archive)
    (HERE / f"store-{STORE_FORMAT}.json").write_text(json.dumps(expected, indent=2) + "\n")


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
