"""Rules of damage and healing: what is lost, whom that hurts, and the order in which it is told."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelfaults import Hook, armed, recorded
from small_store import EPOCH, add_revision

from backy.domain.chunk import Encoder, chunk_id, encode_full, parse_codec
from backy.domain.chunkmap import Entry, Layout
from backy.ground import failpoint
from backy.ground.clock import SystemClock
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.operation.trust import note_healed, settle
from backy.repository import damage, layout, quarantine
from backy.repository.repository import Repository
from damaging import chunk_file, spoil
from testsite import CHUNK, Site

A, B = (bytes([number]) * CHUNK for number in (1, 2))


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    """The repository, open; no hook is left behind."""
    with Repository.open(str(site.base)) as opened:
        yield opened
    failpoint.install(None)


def back_up(site: Site, content: bytes) -> None:
    """A revision of the image."""
    site.image.write_bytes(content)
    site.backup()


def lose(repository: Repository, path: Path, plain: bytes) -> None:
    """The chunk rots, and a verify moves it aside and says whom that hurts."""
    spoil(path)
    entry = Entry(chunk_id(plain))
    assert quarantine.set_aside(repository.chunks, repository.format.chunk_size, entry)
    settle(repository, SystemClock(), "verify")


def test_each_page_is_judged_by_the_bases_of_its_own_map(site: Site, repository: Repository) -> None:
    """Two maps have a page of the same bytes, whose entry leans on another base in each."""
    plain, base, other = (chunk_id(content) for content in (b"plain", b"base", b"other"))
    image = Layout(CHUNK, CHUNK)
    first = add_revision(site, EPOCH, image, [Entry(plain, base)])
    second = add_revision(site, EPOCH.replace(day=2), image, [Entry(plain, other)])

    for needed, revision in ((base, first), (other, second)):
        (found,) = damage.needing(repository, {Entry(needed)})
        assert revision.uuid == found.hurt.revision


def test_a_chunk_that_is_rescued_between_the_looks_is_not_lost(
    site: Site, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the trash at the first look, and in the store again when the trash has been looked at."""
    back_up(site, A)
    (revision,) = site.history().revisions
    path, elsewhere = chunk_file(site, A), site.folder / "elsewhere"
    path.rename(elsewhere)
    enter = Directory.enter

    def rescued(self: Directory, name: str) -> Directory:
        if name == layout.TRASH:
            elsewhere.rename(path)
        return enter(self, name)

    monkeypatch.setattr(Directory, "enter", rescued)
    with Directory.open(str(site.job)) as job:
        assert [] == list(damage.lost_of(repository.chunks, job, revision))


def test_a_report_comes_after_the_marks(site: Site, repository: Repository) -> None:
    """A kill between them leaves a case without a report, which the next verify completes."""
    back_up(site, A + B)

    with recorded() as steps:
        lose(repository, chunk_file(site, A), A)

    renamed = [step for step in steps if step.startswith("rename ")]
    (mark,) = (at for at, step in enumerate(renamed) if step.endswith(".rev.new"))
    (report,) = (at for at, step in enumerate(renamed) if step.endswith("/.report.new"))
    assert mark < report


def test_the_name_of_a_new_chunk_lasts_before_anything_says_that_it_healed(
    site: Site, repository: Repository
) -> None:
    """It may be that of another backup which has not come to its end."""
    back_up(site, A + B)
    path = chunk_file(site, A)
    lose(repository, path, A)
    frame = encode_full(chunk_id(A), A, Encoder(parse_codec("lz4")))
    path.write_bytes(b"".join(bytes(part) for part in frame))

    with recorded() as steps:
        assert 1 == note_healed(repository, SystemClock(), "backup")

    assert [0] == [one.damaged for one in site.history().revisions]
    synced = steps.index(f"sync {path.parent}")
    assert [] == [step for step in steps[:synced] if step.startswith("rename ")]


def test_a_revision_that_could_not_be_healed_for_want_of_room_is_marked(
    site: Site, repository: Repository
) -> None:
    """A chunk is lost as it commits; its image has it still, but the new file does not fit."""
    back_up(site, A + B)

    with armed(lost_at_commit(site, repository)), pytest.raises(StorageFailed):
        site.backup()

    assert [CHUNK, CHUNK] == [one.damaged for one in site.history().revisions]


def lost_at_commit(site: Site, repository: Repository) -> Hook:
    """`A` is lost right before a commit, and from then on no chunk can be stored."""

    def full(step: str) -> None:
        if step.startswith("write ") and "/chunks/tmp/" in step:
            raise OSError(errno.ENOSPC, "full")

    def hook(step: str) -> None:
        if step.startswith("rename ") and step.endswith(".pending"):
            failpoint.install(None)
            lose(repository, chunk_file(site, A), A)
            failpoint.install(full)

    return hook
