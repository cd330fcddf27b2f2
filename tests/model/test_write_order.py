"""F4, F5, F21, F22: the order in which a backup does things, which is what makes it safe."""

import json
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from modelfaults import Killed, armed, failing, killing, recorded

from backy.domain.chunk import Encoder, chunk_id, encode_full, parse_codec
from backy.domain.chunkmap import Entry
from backy.ground import durable, locks
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.ground.errors import ChunkMissing, StorageFailed
from backy.operation import parallel
from backy.repository import chunks
from backy.repository.chunks import ChunkReader, ChunkWriter
from backy.repository.users import registered
from testsite import CHUNK, Site

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}|[0-9a-f-]{36}(/[0-9a-f]{64})?")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chunks a batch, from one thread."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    monkeypatch.setattr(chunks, "BATCH_SIZE", 3 * CHUNK)


@pytest.fixture
def steps(site: Site, small_batches: None) -> list[str]:
    """The steps of a backup of eight chunks, below the repository's path."""
    site.image.write_bytes(os.urandom(8 * CHUNK))
    with recorded() as found:
        site.backup()
    return below(site, found)


def below(site: Site, steps: list[str]) -> list[str]:
    """The steps without the repository's path."""
    return [step.replace(f"{site.base}/", "") for step in steps]


def first(steps: Sequence[str], prefix: str) -> int:
    """Position of the first step that begins so."""
    return next(at for at, step in enumerate(steps) if step.startswith(prefix))


def last(steps: Sequence[str], prefix: str) -> int:
    """Position of the last step that begins so."""
    return len(steps) - 1 - first(steps[::-1], prefix)


def test_a_writer_is_registered_before_its_first_look_at_a_chunk_a_record_or_a_map(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No knowledge about the store is older than the registration that keeps it true."""
    site.image.write_bytes(os.urandom(3 * CHUNK))
    site.backup()
    seen: list[str] = []
    for method in ("has", "open_file", "names", "scan"):
        _watch(monkeypatch, method, seen)

    with armed(seen.append):
        site.backup()

    link = first(seen, f"link {site.chunks}/users/")
    looks = [at for at, one in enumerate(seen) if one.startswith("look ") and _tells(site, one)]
    assert looks
    assert link < min(looks)
    assert max(looks) < first(seen, f"remove {site.chunks}/users/")


def _watch(monkeypatch: pytest.MonkeyPatch, method: str, seen: list[str]) -> None:
    real = getattr(Directory, method)

    def watched(self: Directory, *names: str) -> Any:
        seen.append(f"look {self.path}/{''.join(names)}")
        return real(self, *names)

    monkeypatch.setattr(Directory, method, watched)


def _tells(site: Site, look: str) -> bool:
    """Whether a look tells about chunks, records or maps, and not only about the format."""
    path = Path(look.removeprefix("look "))
    if path.is_relative_to(site.job):
        return path.name in {"vm", ""} or path.suffix in {".rev", ".map"}
    return path.parent.parent == site.chunks


def test_a_writer_unregisters_only_after_the_last_sync(steps: list[str]) -> None:
    """The record's directory is durable before collection may forget that we were there."""
    assert first(steps, "rename vm/") < last(steps, "sync ") < first(steps, "remove chunks/users/")
    assert steps[-1].startswith("remove chunks/users/")


def test_a_writer_is_on_the_list_at_every_step_up_to_the_last_sync(
    site: Site, small_batches: None
) -> None:
    """Whenever collection takes its census, it sees a locked file of this writer."""
    site.image.write_bytes(os.urandom(8 * CHUNK))
    listed: list[tuple[str, int]] = []

    def look(step: str) -> None:
        listed.append((step, len(os.listdir(site.chunks / "users"))))

    with armed(look):
        site.backup()

    steps = [step for step, _ in listed]
    begin, end = first(steps, f"make {site.chunks}/tmp"), last(steps, "sync ")
    assert {1} == {count for _, count in listed[begin : end + 1]}


def test_the_commit_is_the_very_end_of_a_fixed_order(steps: list[str]) -> None:
    """Chunks, all names, map, record, directory, rename, directory (F22: a sync between each)."""
    end = [_NAME.sub("*", step) for step in steps[last(steps, "link chunks/") :]]

    assert [step for step in end if not step.startswith(("write ", "create "))] == [
        "link chunks/*",
        "remove chunks/tmp/*",
        "sync chunks/tmp/*",
        "sync file in vm",
        "sync file in vm",
        "link vm/*.pending",
        "sync vm",
        "link vm/*.map",
        "sync vm",
        "rename vm/*.pending",
        "sync vm",
        "remove chunks/tmp/*",
        "remove chunks/users/*",
    ]


def test_all_names_are_made_durable_between_the_last_one_and_the_record(
    site: Site, steps: list[str]
) -> None:
    """Also where a run adds none: the names that it hits may be another writer's newest (F4)."""
    with recorded() as found:
        site.backup()
    unchanged = below(site, found)

    assert last(steps, "link chunks/") < last(steps, "sync chunks/tmp/") < last(steps, "link vm/")
    assert [] == [step for step in unchanged if step.startswith("write chunks/tmp/")]
    assert 1 == len([step for step in unchanged if step.startswith("sync chunks/tmp/")])
    assert first(unchanged, "sync chunks/tmp/") < first(unchanged, "link vm/")


def test_each_batch_opens_its_own_descriptor_first_and_syncs_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many threads too: opened before the first write, synced after the last, then named (F5)."""
    log: list[tuple[durable.Batch, str]] = []
    lock = threading.Lock()

    def watch(method: str) -> None:
        real = getattr(durable.Batch, method)

        def watched(self: durable.Batch, *args: Any) -> Any:
            with lock:
                log.append((self, method))
            return real(self, *args)

        monkeypatch.setattr(durable.Batch, method, watched)

    for method in ("__init__", "write", "sync", "link_into"):
        watch(method)
    monkeypatch.setattr(chunks, "BATCH_SIZE", 3 * CHUNK)
    monkeypatch.setattr(parallel, "THREADS", 4)
    site.image.write_bytes(os.urandom(30 * CHUNK))

    site.backup()

    done: dict[durable.Batch, list[str]] = {}
    for batch, method in log:
        done.setdefault(batch, []).append(method)
    for_names, *for_chunks = done.values()
    assert ["__init__", "sync"] == for_names
    assert len(for_chunks) > 9
    for methods in for_chunks:
        writes = methods.count("write")
        assert ["__init__", *["write"] * writes, "sync", "link_into"] == methods


def test_a_chunk_that_is_claimed_but_not_named_does_not_count(site: Site) -> None:
    """A second thread is told "on its way", and no reader sees it before its batch is named (F22)."""
    plain = os.urandom(CHUNK)
    entry = Entry(chunk_id(plain))
    frame = encode_full(entry.ident, plain, Encoder(parse_codec("lz4")))
    with (
        Directory.open(str(site.chunks)) as store,
        registered(store, "vm", SystemClock().now()) as user,
    ):
        writer = ChunkWriter(store, user.temporary)
        reader = ChunkReader(store, CHUNK)

        assert writer.claim(entry)
        assert not writer.claim(entry)
        writer.store(entry, frame)
        with pytest.raises(ChunkMissing):
            reader.read(entry)
        writer.finish()
        assert plain == reader.read(entry)


def test_one_failed_batch_fails_the_run_although_others_met_its_chunks(
    site: Site, small_batches: None
) -> None:
    """The image has each chunk twice; the second is a hit on a claim whose batch fails (F22)."""
    site.image.write_bytes(os.urandom(6 * CHUNK) * 2)
    with recorded() as steps:
        site.backup()
    for path in [*site.job.glob("*-*"), *site.chunk_files()]:
        path.unlink()
    syncs = [at for at, step in enumerate(steps, start=1) if step.startswith("sync ")]

    for at in syncs[:2]:
        with armed(failing(at, 5)), pytest.raises(StorageFailed):
            site.backup()
        assert () == site.history().revisions
        assert [] == list(site.job.glob("*.pending"))


def test_unnamed_files_have_a_living_owner_and_go_with_it(site: Site, small_batches: None) -> None:
    """Every file in tmp lies in the folder of a user whose lock is held (F21)."""
    site.image.write_bytes(os.urandom(8 * CHUNK))
    owned: list[bool] = []

    def look(step: str) -> None:
        for path in (site.chunks / "tmp").glob("*/*"):
            note = site.chunks / "users" / path.parent.name
            fd = os.open(note, os.O_RDONLY)
            owned.append(not locks.try_exclusive(fd))
            os.close(fd)
            assert {"job", "pid", "since"} == set(json.loads(note.read_text()))

    with armed(look):
        site.backup()

    assert len(owned) > 8
    assert all(owned)
    assert [] == list((site.chunks / "tmp").iterdir())


def test_what_a_killed_writer_left_is_left_alone(site: Site, small_batches: None) -> None:
    """Nobody but collection removes it, however old it is (F21)."""
    site.image.write_bytes(os.urandom(8 * CHUNK))
    with armed(killing(12)), pytest.raises(Killed):
        site.backup()
    left = sorted((site.chunks / "tmp").glob("*/*"))

    site.backup()

    assert left
    assert left == sorted((site.chunks / "tmp").glob("*/*"))
    assert 1 == len(list((site.chunks / "users").iterdir()))


def test_small_chunks_that_many_threads_write_at_once_do_not_mix(site: Site) -> None:
    """Each file holds its own chunk, however short: no memory is shared between the threads."""
    site.image.write_bytes(
        b"".join(number.to_bytes(4, "big") * (CHUNK // 4) for number in range(1, 600))
    )

    revision = site.backup()

    assert [] == site.verify().findings
    assert site.image.read_bytes() == site.restored(revision)


def test_a_short_write_of_a_chunk_is_continued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes only a page at a time gets the rest too, and nothing is padded."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: real(fd, content[:CHUNK]))
    site.image.write_bytes(os.urandom(5 * CHUNK))

    revision = site.backup()

    monkeypatch.undo()
    assert [] == site.verify().findings
    assert site.image.read_bytes() == site.restored(revision)
