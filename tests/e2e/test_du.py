"""`backy du`: bytes that only one revision keeps, and only one job, as an oracle counts them."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filetree import tree
from hypothesis import given
from hypothesis import strategies as st
from in_process import backy
from refusals import refused
from small_store import EPOCH, SmallStore, plain_revision

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import NO_DISK, Entry, Layout
from backy.ground.directory import Directory
from backy.operation import usage as measuring
from backy.operation.progress import NoProgress
from backy.operation.usage import usage
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.maps import MapWriter
from backy.repository.repository import Repository
from collecting import back_up, forget, in_trash, names
from strategies import repeatable
from testsite import CHUNK, Site, run_backy

JOBS = ("a", "b", "c")
IDENTS = [chunk_id(b"%d" % number) for number in range(12)]
ENTRIES = [Entry(ident) for ident in IDENTS] + [
    Entry(IDENTS[number], IDENTS[-number]) for number in range(1, 6)
]


class Made(NamedTuple):
    """A revision of the random store."""

    job: str
    uuid: str
    entries: list[Entry]

    @property
    def files(self) -> set[str]:
        """Names of all files that it needs."""
        bases = {entry.base.hex() for entry in self.entries if entry.base is not None}
        return {layout.chunk_name(entry) for entry in self.entries} | bases


def document(*words: str) -> dict[str, Any]:
    """What `du --json` prints."""
    done = backy(*words, "du", "--json")
    assert (0, "") == (done.code, done.err)
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


# ..Against an oracle..........................................................................


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A store with all chunks, each of another size, and three jobs."""
    site = Site(tmp_path_factory.mktemp("du"))
    shutil.rmtree(site.job)
    for number, entry in enumerate(ENTRIES):
        path = site.chunks / layout.chunk_path(entry)
        path.write_bytes(bytes([number + 1]) * CHUNK * (number + 1))
    return site


def make(site: Site, images: list[tuple[str, list[Entry]]]) -> Iterator[Made]:
    """Make these revisions, and no others."""
    for name in JOBS:
        shutil.rmtree(site.base / name, ignore_errors=True)
        (site.base / name).mkdir()
    for number, (name, entries) in enumerate(images):
        uuid = f"00000000-0000-4000-8000-{number:012d}"
        with Directory.open(str(site.base / name)) as job:
            writer = MapWriter(job, uuid, NO_DISK, Layout(CHUNK, CHUNK * len(entries)))
            for index, entry in enumerate(entries):
                writer.expect(index)
                writer.set(index, entry)
            revision = plain_revision(uuid, EPOCH + timedelta(days=number), writer.seal())
            histories.commit(job, revision, [writer])
            writer.close()
        yield Made(name, uuid, entries)


def size(site: Site, files: set[str]) -> int:
    """Bytes on the disk."""
    return sum((site.chunks / name[:2] / name).stat().st_blocks * 512 for name in files)


@repeatable(60)
@given(
    images=st.lists(
        st.tuples(st.sampled_from(JOBS), st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=6)),
        max_size=7,
    ),
    ids_a_pass=st.sampled_from([1, 3, 1000]),
)
def test_du_counts_what_only_one_needs(
    store: Site, images: list[tuple[str, list[Entry]]], ids_a_pass: int
) -> None:
    """Random images of three jobs, in one pass or many, as by counting the files of each."""
    made = list(make(store, images))
    needed_by = Counter(file for one in made for file in one.files)
    jobs = {name: set().union(*(one.files for one in made if one.job == name)) for name in JOBS}
    needed_by_jobs = Counter(file for files in jobs.values() for file in files)

    with pytest.MonkeyPatch.context() as patch, Repository.open(str(store.base)) as repository:
        patch.setattr(measuring, "IDS_A_PASS", ids_a_pass)
        found = usage(repository, NoProgress())

    alone = {one.uuid: size(store, {file for file in one.files if needed_by[file] == 1}) for one in made}
    assert alone == {one.revision.uuid: one.alone for one in found.revisions}
    assert {
        name: (
            sum(one.job == name for one in made),
            size(store, {file for file in files if needed_by_jobs[file] == 1}),
        )
        for name, files in jobs.items()
        if files
    } == {one.job: (one.revisions, one.alone) for one in found.jobs}
    assert [] == found.unreadable


def test_a_revision_alone_is_what_gc_gives_back(site: Site) -> None:
    """Forgetting one that shares a chunk with another frees what `du` said."""
    first = back_up(site, 1)
    content = site.image.read_bytes()
    back_up(site, 2)
    site.image.write_bytes(content[:CHUNK] + site.image.read_bytes()[CHUNK:])
    site.backup()
    (said,) = [one for one in document("-b", str(site.job))["revisions"] if one["uuid"] == first.uuid]
    before = size(site, names(site))
    forget(site, first)
    assert 0 == backy("-b", str(site.base), "gc", "--now").code

    assert said["bytes_alone"] == before - size(site, names(site)) > 0
    assert set() == in_trash(site)


# ..What it prints.............................................................................


def test_without_a_job_jobs_are_listed(tmp_path: Path) -> None:
    """With their number of revisions."""
    store = SmallStore(tmp_path)
    done = backy("-b", str(store.site.base), "du")

    head, row = done.out.splitlines()
    assert (0, "") == (done.code, done.err)
    assert ["Job", "Revisions", "Alone"] == head.split()
    assert ["vm", "3"] == row.split()[:2]


def test_with_a_job_its_revisions_are_listed(tmp_path: Path) -> None:
    """Oldest first."""
    store = SmallStore(tmp_path)
    done = backy("-b", str(store.site.job), "du")

    head, *rows = done.out.splitlines()
    assert (0, "") == (done.code, done.err)
    assert head.endswith("Alone")
    assert list(store.uuids) == [row.split()[2] for row in rows]


def test_an_empty_repository_uses_nothing(site: Site) -> None:
    """Which is no error."""
    assert {"jobs": [], "revisions": [], "unreadable": []} == document("-b", str(site.base))
    assert (0, "Job  Revisions  Alone\n", "") == backy("-b", str(site.base), "du")


def test_a_job_that_is_not_there_is_refused(site: Site) -> None:
    """As by every command."""
    refused(run_backy("-b", str(site.base), "-j", "none", "du"), 1, "there is no job 'none'")
    assert 2 == site.cli("du", "--what").returncode


def test_a_copy_of_a_job_shares_everything(site: Site) -> None:
    """Under the same UUIDs: forgetting one of the two gives nothing back."""
    revision = back_up(site, 1)
    shutil.copytree(site.job, site.base / "copy")
    found = document("-b", str(site.base))

    assert [(name, revision.uuid, 0) for name in ("copy", "vm")] == [
        (one["job"], one["uuid"], one["bytes_alone"]) for one in found["revisions"]
    ]
    assert [("copy", 1, 0), ("vm", 1, 0)] == [
        (one["job"], one["revisions"], one["bytes_alone"]) for one in found["jobs"]
    ]


def test_what_cannot_be_read_is_named_and_not_counted(site: Site) -> None:
    """A record, and a map; the others are measured."""
    damaged, without_map, kept = (back_up(site, seed) for seed in range(3))
    record = site.job / f"{damaged.uuid}.rev"
    record.unlink()
    record.write_bytes(b"rotten")
    (site.job / f"{without_map.uuid}.map").unlink()
    before = tree(site.base)
    done = backy("-b", str(site.job), "du", "--json")
    found = json.loads(done.out)

    assert before == tree(site.base)
    assert 0 == done.code
    assert {f"vm/{one.uuid}" for one in (damaged, without_map)} == set(found["unreadable"])
    assert 2 == done.err.count("cannot be read: its chunks are not counted.\n")
    assert [(kept.uuid, size(site, site.chunks_of(kept)))] == [
        (one["uuid"], one["bytes_alone"]) for one in found["revisions"]
    ]


def test_a_damaged_page_and_a_lost_record_are_named(site: Site) -> None:
    """What the page told is not known, so the others' figures may be too high, and that is said."""
    damaged, lost, _ = (back_up(site, seed) for seed in range(3))
    path = site.job / f"{damaged.uuid}.map"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    (site.job / f"{lost.uuid}.rev").unlink()

    found = json.loads(backy("-b", str(site.base), "du", "--json").out)["unreadable"]

    assert {f"vm/{one.uuid}" for one in (damaged, lost)} == set(found)


def test_a_chunk_that_is_missing_takes_no_space(site: Site) -> None:
    """It is verify's to tell."""
    back_up(site, 1, chunks=1)
    site.chunk_files()[0].unlink()

    assert [0] == [one["bytes_alone"] for one in document("-b", str(site.base))["revisions"]]
