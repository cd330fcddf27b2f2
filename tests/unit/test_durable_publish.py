"""Publishing one file: a name appears whole, synced and never in another's place, or not at all."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.ground import durable, failpoint, linux
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from fakes import FailAt, Steps

Act = Callable[[Directory], None]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Directory]:
    """An open directory with a file `old`."""
    (tmp_path / "old").write_bytes(b"before")
    with Directory.open(str(tmp_path)) as directory:
        yield directory


def read(directory: Directory, name: str) -> bytes:
    """The contents of a file."""
    return Path(directory.file_path(name)).read_bytes()


@pytest.mark.parametrize("content", [b"", b"x", bytearray(b"xy"), memoryview(b"x" * 100_000)])
def test_publish_names_a_file_with_these_bytes(folder: Directory, content: durable.Bytes) -> None:
    """The new file holds what was given, whatever kind of bytes that was."""
    durable.publish(folder, "new", content)

    assert bytes(content) == read(folder, "new")
    assert ["new", "old"] == folder.names()


def test_publish_makes_files_that_nobody_writes(folder: Directory) -> None:
    """A published file is read-only, unless the caller says otherwise."""
    before = os.umask(0o022)
    try:
        durable.publish(folder, "new", b"x")
        durable.publish(folder, "config", b"x", mode=0o640)
    finally:
        os.umask(before)

    found = {name: stat.S_IMODE(os.stat(folder.file_path(name)).st_mode) for name in ("new", "config")}
    assert {"new": 0o440, "config": 0o640} == found


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling"])
def test_publish_never_replaces(folder: Directory, kind: str) -> None:
    """Whatever has the name keeps it; the error says that it exists."""
    path = Path(folder.file_path("taken"))
    make: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_bytes(b"theirs"),
        "directory": path.mkdir,
        "link": lambda: path.symlink_to("old"),
        "dangling": lambda: path.symlink_to("nowhere"),
    }
    make[kind]()
    before = os.lstat(path)

    with pytest.raises(StorageFailed) as caught:
        durable.publish(folder, "taken", b"ours")

    assert errno.EEXIST == caught.value.code
    assert before.st_ino == os.lstat(path).st_ino
    assert b"before" == read(folder, "old")
    assert ["old", "taken"] == folder.names()


def test_publish_writes_then_syncs_then_names(folder: Directory) -> None:
    """The name comes last, after the bytes are on the disk."""
    steps = Steps()
    failpoint.install(steps)
    durable.publish(folder, "new", b"x")

    assert ["create", "write", "sync", "link"] == steps.verbs()


@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_publish_that_fails_anywhere_leaves_nothing(folder: Directory, step: int, code: int) -> None:
    """No name, no temporary file and no descriptor stays behind, and the error has the errno."""
    hook = FailAt(step, code)
    descriptors = len(os.listdir("/proc/self/fd"))
    failpoint.install(hook)

    with pytest.raises(StorageFailed) as caught:
        durable.publish(folder, "new", b"x")

    assert code == caught.value.code
    assert hook.step is not None
    assert ["old"] == folder.names()
    assert descriptors == len(os.listdir("/proc/self/fd"))


def test_replace_swaps_the_contents(folder: Directory) -> None:
    """The name has the new bytes, in a new file, and nothing else is left."""
    inode = os.stat(folder.file_path("old")).st_ino
    durable.replace(folder, "old", b"after")

    assert b"after" == read(folder, "old")
    assert inode != os.stat(folder.file_path("old")).st_ino
    assert ["old"] == folder.names()


def test_replace_syncs_before_and_after_the_rename(folder: Directory) -> None:
    """The new bytes last before they get the name, and the name lasts when `replace` returns."""
    steps = Steps()
    failpoint.install(steps)
    durable.replace(folder, "old", b"after")

    assert ["create", "write", "sync", "link", "rename", "sync"] == steps.verbs()


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_replace_that_fails_before_the_rename_keeps_the_old_bytes(folder: Directory, step: int) -> None:
    """Up to the rename nothing has changed, and a second try succeeds whatever was left."""
    failpoint.install(FailAt(step))
    with pytest.raises(StorageFailed):
        durable.replace(folder, "old", b"after")
    failpoint.install(None)

    assert b"before" == read(folder, "old")
    durable.replace(folder, "old", b"after")
    assert (["old"], b"after") == (folder.names(), read(folder, "old"))


def test_replace_whose_last_sync_fails_says_so(folder: Directory) -> None:
    """The name may or may not last then, so this is an error."""
    failpoint.install(FailAt(6))
    with pytest.raises(StorageFailed, match="sync"):
        durable.replace(folder, "old", b"after")

    assert b"after" == read(folder, "old")


def test_unnamed_file_is_seen_by_nobody(folder: Directory) -> None:
    """Until it is linked, a new file is in no directory; closed without a name it is gone."""
    file = durable.UnnamedFile(folder)
    file.append(b"head")
    file.append(b"body")
    file.overwrite(0, b"HE")
    assert (8, ["old"]) == (file.length, folder.names())

    file.sync()
    file.link("new")
    file.close()
    file.close()

    assert b"HEadbody" == read(folder, "new")


@pytest.mark.parametrize("kind", ["missing", "directory", "file", "link"])
def test_make_directory_accepts_only_a_real_directory(folder: Directory, kind: str) -> None:
    """One that is there is fine; a file or a link in its place is an error and stays."""
    path = Path(folder.file_path("sub"))
    make: dict[str, Callable[[], object]] = {
        "missing": lambda: None,
        "directory": path.mkdir,
        "file": lambda: path.write_bytes(b""),
        "link": lambda: path.symlink_to("/"),
    }
    make[kind]()
    if kind in ("missing", "directory"):
        durable.make_directory(folder, "sub")
        assert path.is_dir()
        return

    with pytest.raises(StorageFailed, match="make"):
        durable.make_directory(folder, "sub")


def test_new_directory_is_closed_to_others(folder: Directory) -> None:
    """Backups hold everybody's data, so a new directory is its owner's alone."""
    durable.make_directory(folder, "sub")

    assert 0o700 == stat.S_IMODE(os.stat(folder.file_path("sub")).st_mode)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda at: durable.remove(at, "none"), errno.ENOENT),
        (lambda at: durable.remove(at, "full"), errno.EISDIR),
        (lambda at: durable.remove_directory(at, "full"), errno.ENOTEMPTY),
        (lambda at: durable.remove_directory(at, "old"), errno.ENOTDIR),
        (lambda at: durable.rename(at, "none", "new"), errno.ENOENT),
        (lambda at: durable.publish(at, "x" * 256, b""), errno.ENAMETOOLONG),
    ],
)
def test_refusal_of_the_system_is_a_storage_error(folder: Directory, act: Act, code: int) -> None:
    """An OSError leaves as StorageFailed with its errno, and nothing has changed."""
    Path(folder.file_path("full/inner")).mkdir(parents=True)

    with pytest.raises(StorageFailed) as caught:
        act(folder)

    assert code == caught.value.code
    assert (["full", "old"], b"before") == (folder.names(), read(folder, "old"))


@pytest.mark.parametrize(
    "act",
    [
        lambda at: durable.remove(at, "old"),
        lambda at: durable.rename(at, "old", "new"),
        lambda at: durable.make_directory(at, "sub"),
        lambda at: durable.remove_directory(at, "empty"),
        durable.sync_directory,
    ],
)
def test_every_changing_call_is_a_failpoint(folder: Directory, act: Act) -> None:
    """A failure injected before the call leaves everything as it was."""
    Path(folder.file_path("empty")).mkdir()
    failpoint.install(FailAt(1, errno.ENOSPC))

    with pytest.raises(StorageFailed, match="the disk is full"):
        act(folder)

    assert ["empty", "old"] == folder.names()


def test_sync_all_is_syncfs_of_that_descriptor(
    folder: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors are told by descriptor, so it has to be the one that was given; and they are passed on."""
    synced: list[int] = []
    monkeypatch.setattr(linux, "syncfs", synced.append)
    durable.sync_all(folder.fd, folder.path)
    assert [folder.fd] == synced

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(linux, "syncfs", failing)
    with pytest.raises(StorageFailed, match="Input/output error"):
        durable.sync_all(folder.fd, folder.path)
