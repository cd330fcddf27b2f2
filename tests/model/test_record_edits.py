"""F11, F14: records are edited one at a time and never come back; what was swapped shows."""

import os
import threading
from pathlib import Path

import pytest
from modelfaults import recorded

from backy.domain.chunkmap import NO_DISK
from backy.domain.revision import Origin, Revision
from backy.ground import locks
from backy.ground.directory import Directory
from backy.ground.errors import HistoryUnclear, MapDamaged, RecordDamaged, RevisionGone
from backy.operation.select import choose_one
from backy.operation.verify import Kind
from backy.repository import history as histories
from backy.repository.maps import MapWriter, open_pinned
from testsite import CHUNK, Site


def tagged(revision: Revision, tag: str) -> Revision:
    """The revision with one more tag."""
    return revision.with_tags({**revision.tags, tag: Origin.MANUAL})


@pytest.fixture
def revisions(site: Site) -> tuple[Revision, Revision]:
    """Two revisions of different images of the same size."""
    site.image.write_bytes(os.urandom(3 * CHUNK))
    first = site.backup()
    site.image.write_bytes(os.urandom(3 * CHUNK))
    return first, site.backup()


def swap(one: Path, other: Path) -> None:
    """Exchange two files' contents."""
    contents = one.read_bytes(), other.read_bytes()
    for path, content in zip((other, one), contents, strict=True):
        path.unlink()
        path.write_bytes(content)


# ..Edits (F11)...............................................................................


def test_an_edit_starts_from_the_record_as_it_is_now(
    site: Site, revisions: tuple[Revision, Revision]
) -> None:
    """What another edit wrote after our look at the history is not lost."""
    uuid = revisions[0].uuid
    with Directory.open(str(site.job)) as job:
        histories.edit(job, uuid, lambda now: tagged(now, "manual:theirs"))
        after = histories.edit(job, uuid, lambda now: tagged(now, "manual:ours"))

    assert {"daily", "manual:theirs", "manual:ours"} == set(after.tags)
    assert after == site.history().revisions[0]


def test_an_edit_holds_the_lock_from_its_reading_to_its_writing(
    site: Site, revisions: tuple[Revision, Revision]
) -> None:
    """While one edit decides, no other one and no forget may begin."""
    free = []

    def look(now: Revision) -> Revision:
        fd = os.open(site.job / ".history", os.O_RDWR)
        free.append(locks.try_exclusive(fd))
        os.close(fd)
        return now

    with Directory.open(str(site.job)) as job:
        histories.edit(job, revisions[0].uuid, look)

    assert [False] == free


def test_two_edits_at_once_both_count(site: Site, revisions: tuple[Revision, Revision]) -> None:
    """The second waits for the first, and reads what it wrote."""
    uuid = revisions[0].uuid
    first_reads, second_begun = threading.Event(), threading.Event()

    def slow(now: Revision) -> Revision:
        first_reads.set()
        assert second_begun.wait(60)
        return tagged(now, "manual:slow")

    def edit_slowly() -> None:
        with Directory.open(str(site.job)) as job:
            histories.edit(job, uuid, slow)

    thread = threading.Thread(target=edit_slowly)
    thread.start()
    assert first_reads.wait(60)
    with Directory.open(str(site.job)) as job:
        second_begun.set()
        histories.edit(job, uuid, lambda now: tagged(now, "manual:quick"))
    thread.join()

    assert {"daily", "manual:slow", "manual:quick"} == set(site.history().revisions[0].tags)


def test_an_edit_of_a_forgotten_revision_fails_and_does_not_bring_it_back(
    site: Site, revisions: tuple[Revision, Revision]
) -> None:
    """A stale look at the history cannot resurrect a record whose chunks may go."""
    uuid = revisions[0].uuid
    with Directory.open(str(site.job)) as job:
        histories.forget(job, uuid)
        with recorded() as steps, pytest.raises(RevisionGone):
            histories.edit(job, uuid, lambda now: tagged(now, "manual:late"))
        with pytest.raises(RevisionGone):
            histories.forget(job, uuid)

    assert [] == steps
    assert [revisions[1].uuid] == [one.uuid for one in site.history().revisions]
    assert not (site.job / f"{uuid}.rev").exists()


def test_an_edit_whose_change_fails_leaves_the_record_alone(
    site: Site, revisions: tuple[Revision, Revision]
) -> None:
    """An exception between reading and writing costs nothing, and frees the lock."""
    uuid = revisions[0].uuid
    before = (site.job / f"{uuid}.rev").read_bytes()

    def refuse(now: Revision) -> Revision:
        raise RevisionGone(now.uuid)

    with Directory.open(str(site.job)) as job:
        with pytest.raises(RevisionGone):
            histories.edit(job, uuid, refuse)
        histories.edit(job, uuid, lambda now: now)

    assert before == (site.job / f"{uuid}.rev").read_bytes()


# ..Swapped and flipped (F14).................................................................


def test_swapped_maps_are_refused_and_found(site: Site, revisions: tuple[Revision, Revision]) -> None:
    """Each map is whole, but it is not the one that the record describes: no wrong day comes back."""
    first, second = revisions
    swap(site.job / f"{first.uuid}.map", site.job / f"{second.uuid}.map")

    for revision in revisions:
        with pytest.raises(MapDamaged):
            site.restored(revision)
    found = {(one.kind, one.revision) for one in site.verify().findings}
    assert {(Kind.MAP, first.uuid), (Kind.MAP, second.uuid)} == found


def test_a_map_of_the_same_revision_with_other_entries_is_refused_and_found(
    site: Site, revisions: tuple[Revision, Revision]
) -> None:
    """Whole in itself, of the same size and with the same UUID, but not the one that was recorded."""
    first, second = revisions
    (site.job / f"{first.uuid}.map").unlink()
    with Directory.open(str(site.job)) as job:
        with open_pinned(job, second.uuid, second.maps[0]) as of_second:
            forged = MapWriter(job, first.uuid, NO_DISK, of_second.layout)
            for index, entry in of_second.used():
                forged.expect(index)
                forged.set(index, entry)
        assert first.maps[0].size == forged.seal().size
        forged.link()
        forged.close()

    with pytest.raises(MapDamaged):
        site.restored(first)
    assert [(Kind.MAP, first.uuid)] == [(one.kind, one.revision) for one in site.verify().findings]


def test_swapped_records_are_refused_and_found(site: Site, revisions: tuple[Revision, Revision]) -> None:
    """A record states its own UUID, so it is worth nothing under another's name."""
    first, second = revisions
    swap(site.job / f"{first.uuid}.rev", site.job / f"{second.uuid}.rev")

    assert () == site.history().revisions
    assert {Kind.RECORD} == {one.kind for one in site.verify().findings}


def test_every_flipped_digit_and_letter_of_a_record_shows(
    site: Site, revisions: tuple[Revision, Revision]
) -> None:
    """Although it is valid JSON: another time, tag, size or digest is never believed."""
    record = site.job / f"{revisions[1].uuid}.rev"
    content = record.read_bytes()
    tried = 0
    for at, byte in enumerate(content):
        if not chr(byte).isalnum():
            continue
        other = ord("7") if chr(byte).isdigit() and byte != ord("7") else byte ^ 2
        record.unlink()
        record.write_bytes(content[:at] + bytes([other]) + content[at + 1 :])
        with Directory.open(str(site.job)) as job:
            history = histories.load(job)

        assert [revisions[0].uuid] == [one.uuid for one in history.revisions]
        assert [revisions[1].uuid] == [one.uuid for one in history.unreadable]
        tried += 1

    assert tried > 500
    assert isinstance(history.unreadable[0].error, RecordDamaged)


def test_while_a_record_is_unreadable_nobody_guesses_which_is_the_latest(
    site: Site, revisions: tuple[Revision, Revision]
) -> None:
    """The day before must not come back as a success; a full UUID names what it names."""
    first, second = revisions
    (site.job / f"{second.uuid}.rev").unlink()
    (site.job / f"{second.uuid}.rev").write_bytes(b"{}")
    history = site.history()

    with pytest.raises(HistoryUnclear):
        choose_one(history, "latest", "vm")
    with pytest.raises(RecordDamaged):
        choose_one(history, second.uuid, "vm")
    assert first.uuid == choose_one(history, first.uuid, "vm").uuid
    assert first.uuid == site.backup().parent
