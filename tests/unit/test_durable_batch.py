"""Batches: many files, one sync, and no final name before it."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.ground import durable, failpoint, linux
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from fakes import FailAt, Steps


def open_descriptors() -> set[int]:
    """All descriptors of this process, without the one that listing them takes."""
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


class Place:
    """A folder for temporary names and one for final ones."""

    def __init__(self, path: Path) -> None:
        (path / "tmp").mkdir()
        (path / "final").mkdir()
        self.temporary = Directory.open(str(path / "tmp"))
        self.final = Directory.open(str(path / "final"))

    def names(self) -> tuple[list[str], list[str]]:
        """Temporary and final names."""
        return self.temporary.names(), self.final.names()

    def filled(self, *names: str) -> durable.Batch:
        """A batch with one file a name, whose contents are the name."""
        batch = durable.Batch(self.temporary)
        for name in names:
            batch.write(name, [name.encode()])
        return batch

    def fill_and_name(self, batch: durable.Batch, *names: str) -> None:
        """All that a batch is made for, with one file a name."""
        for name in names:
            batch.write(name, [name.encode()])
        batch.sync()
        batch.link_into(self.links(*names))

    def links(self, *names: str) -> list[tuple[str, Directory, str]]:
        """What to give to `link_into` for these names."""
        return [(name, self.final, f"{name}.final") for name in names]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Two open folders."""
    found = Place(tmp_path)
    yield found
    found.temporary.close()
    found.final.close()


def test_batch_names_its_files_after_one_sync(place: Place) -> None:
    """All writes come first, then one sync, then link and unlink of each file."""
    steps = Steps()
    failpoint.install(steps)
    batch = place.filled("a", "b")
    batch.sync()
    batch.link_into(place.links("a", "b"))
    batch.close()

    assert ["open", "write", "write", "sync", "link", "remove", "link", "remove"] == steps.verbs()
    assert ([], ["a.final", "b.final"]) == place.names()
    assert b"a" == place.final.read("a.final", 10)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 << 20])
def test_file_of_a_batch_holds_all_parts(place: Place, size: int) -> None:
    """Parts are written one behind the other, empty ones too, and the bytes are counted."""
    batch = durable.Batch(place.temporary)
    written = batch.write("a", [b"head", b"", memoryview(bytearray(size)), bytearray(b"tail")])

    assert size + 8 == written
    assert b"head" + bytes(size) + b"tail" == place.temporary.read("a", 4 << 20)
    batch.discard()


def test_nothing_has_a_final_name_before_the_sync(place: Place) -> None:
    """At the moment of the sync every file still has its temporary name only."""
    seen: list[tuple[list[str], list[str]]] = []

    def look(step: str) -> None:
        if step.startswith("sync"):
            seen.append(place.names())

    failpoint.install(look)
    batch = place.filled("a", "b")
    batch.sync()
    batch.link_into(place.links("a", "b"))
    batch.close()

    assert [(["a", "b"], [])] == seen


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_failing_sync_names_nothing(place: Place, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """An error that the kernel tells at the sync is raised, and the discarded batch leaves nothing."""

    def lost(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(linux, "syncfs", lost)
    batch = place.filled("a", "b")
    with pytest.raises(StorageFailed) as caught:
        batch.sync()
    batch.discard()

    assert code == caught.value.code
    assert ([], []) == place.names()


def test_sync_uses_a_descriptor_from_before_the_first_write(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells an error only to descriptors from before it: each batch opens its own first."""
    given: list[int] = []
    monkeypatch.setattr(linux, "syncfs", given.append)
    before = open_descriptors()
    batches = [durable.Batch(place.temporary) for _ in range(2)]
    opened = open_descriptors() - before
    for number, batch in enumerate(batches):
        batch.write(str(number), [b"x"])
        batch.sync()
        batch.discard()

    assert 2 == len(set(given))
    assert set(given) <= opened


def test_name_that_is_taken_stays_with_who_has_it(place: Place) -> None:
    """A chunk that another writer named meanwhile is not replaced; ours goes, the rest is named."""
    place.filled("a").close()
    Path(place.final.file_path("a.final")).write_bytes(b"theirs")
    batch = place.filled("b", "c")
    batch.sync()
    batch.link_into([("b", place.final, "a.final"), ("c", place.final, "c.final")])
    batch.close()

    assert (["a"], ["a.final", "c.final"]) == place.names()
    assert b"theirs" == place.final.read("a.final", 10)


def test_temporary_name_that_is_taken_is_an_error(place: Place) -> None:
    """A file in the user's own folder is never written over."""
    place.filled("a").close()
    batch = durable.Batch(place.temporary)
    with pytest.raises(StorageFailed) as caught:
        batch.write("a", [b"x"])
    batch.close()

    assert errno.EEXIST == caught.value.code
    assert b"a" == place.temporary.read("a", 10)


def test_link_to_elsewhere_is_not_written_through(place: Place, tmp_path: Path) -> None:
    """A link under a temporary name leads nowhere: the file behind it keeps its bytes."""
    (tmp_path / "victim").write_bytes(b"safe")
    Path(place.temporary.file_path("a")).symlink_to(tmp_path / "victim")
    batch = durable.Batch(place.temporary)
    with pytest.raises(StorageFailed):
        batch.write("a", [b"x"])
    batch.close()

    assert b"safe" == (tmp_path / "victim").read_bytes()


@pytest.mark.parametrize("step", range(2, 9))
def test_batch_that_fails_anywhere_leaves_whole_names_only(place: Place, step: int) -> None:
    """After a failure at any step and `discard`, final names have all bytes, and no others exist."""
    hook = FailAt(step)
    failpoint.install(hook)
    batch = durable.Batch(place.temporary)
    with pytest.raises(StorageFailed):
        place.fill_and_name(batch, "a", "b")
    failpoint.install(None)
    batch.discard()

    temporary, final = place.names()
    assert [] == temporary
    assert hook.step is not None
    assert final == {7: ["a.final"], 8: ["a.final", "b.final"], 6: ["a.final"]}.get(step, [])
    assert all(place.final.read(name, 10) == name[:1].encode() for name in final)


def test_discard_removes_what_has_no_name(place: Place) -> None:
    """A batch that is given up leaves neither files nor descriptors, and may be given up twice."""
    descriptors = open_descriptors()
    batch = place.filled("a", "b")
    batch.discard()
    batch.discard()

    assert ([], []) == place.names()
    assert descriptors == open_descriptors()


def test_discard_goes_on_where_a_file_cannot_be_removed(place: Place) -> None:
    """What the disk does not let go is collection's to remove; the rest goes."""
    batch = place.filled("a", "b", "c")
    Path(place.temporary.file_path("b")).unlink()
    Path(place.temporary.file_path("b")).mkdir()
    batch.discard()

    assert (["b"], []) == place.names()


@pytest.mark.parametrize("part", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
def test_any_kind_of_bytes_can_be_written(place: Place, part: durable.Bytes) -> None:
    """A part may be bytes, a bytearray or a view, also one that cannot be written to."""
    batch = durable.Batch(place.temporary)
    batch.write("a", [part])

    assert b"bytes" == place.temporary.read("a", 10)
    batch.discard()


def test_disk_that_fills_up_within_a_write_is_told_as_full(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that gets half of its bytes to the disk is continued, so that the real reason shows."""
    real = os.write
    room = [4096]

    def nearly_full(fd: int, content: memoryview) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, content[: room.pop()])

    def full(fd: int, parts: list[memoryview]) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", nearly_full)
    monkeypatch.setattr(os, "writev", full)
    batch = durable.Batch(place.temporary)
    with pytest.raises(StorageFailed) as caught:
        batch.write("a", [b"x" * 8192])
    batch.discard()

    assert errno.ENOSPC == caught.value.code


@pytest.fixture
def without_direct_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no O_DIRECT."""

    def refuse(fd: int, content: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "write", refuse)


@pytest.mark.usefixtures("without_direct_writes")
def test_short_writes_are_continued(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a few bytes at a time gets all of them in the end."""
    real = os.writev

    def stingy(fd: int, parts: list[memoryview]) -> int:
        return real(fd, [parts[0][:3]])

    monkeypatch.setattr(os, "writev", stingy)
    batch = durable.Batch(place.temporary)
    batch.write("a", [b"0123456789", b"abcde"])

    assert b"0123456789abcde" == place.temporary.read("a", 20)
    batch.discard()


@pytest.mark.usefixtures("without_direct_writes")
def test_write_of_nothing_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes no byte and tells no error does not make us loop for ever."""
    monkeypatch.setattr(os, "writev", lambda *_: 0)
    batch = durable.Batch(place.temporary)
    with pytest.raises(StorageFailed) as caught:
        batch.write("a", [b"x"])
    batch.discard()

    assert errno.EIO == caught.value.code
    assert ([], []) == place.names()
