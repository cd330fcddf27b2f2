"""Directories: names are looked up in the open directory, and links, FIFOs and the like lead nowhere."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.ground.directory import Directory


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Directory]:
    """An open directory with a file `file` and a directory `sub`, beside a file `secret`."""
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    (inner / "file").write_bytes(b"content")
    (tmp_path / "secret").write_bytes(b"secret")
    with Directory.open(str(inner)) as directory:
        yield directory


def path_in(directory: Directory, name: str) -> Path:
    """Path of an entry."""
    return Path(directory.file_path(name))


def bind_socket(path: Path) -> None:
    """Leave a socket file."""
    server = socket.socket(socket.AF_UNIX)
    before = os.getcwd()
    os.chdir(path.parent)  # socket paths are short
    try:
        server.bind(path.name)
    finally:
        os.chdir(before)
        server.close()


ODD: dict[str, Callable[[Path], object]] = {
    "link to a file": lambda path: path.symlink_to("file"),
    "link out of it": lambda path: path.symlink_to("../secret"),
    "absolute link": lambda path: path.symlink_to("/etc/passwd"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to("odd"),
    "directory": Path.mkdir,
    "FIFO": os.mkfifo,
    "socket": bind_socket,
}


def test_file_is_read(folder: Directory) -> None:
    """A regular file is opened and read."""
    assert b"content" == folder.read("file", 7)

    fd = folder.open_file("file")
    assert b"content" == os.pread(fd, 100, 0)
    os.close(fd)


@pytest.mark.parametrize("kind", ODD)
def test_anything_but_a_regular_file_is_refused(folder: Directory, kind: str) -> None:
    """Links are not followed, a FIFO does not block, and no descriptor is left open."""
    ODD[kind](path_in(folder, "odd"))
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(OSError, match=r".") as caught:
        folder.open_file("odd")

    assert caught.value.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO)
    assert before == len(os.listdir("/proc/self/fd"))


def test_fifo_with_a_waiting_writer_is_refused_too(folder: Directory) -> None:
    """That somebody would write to the FIFO does not make it a file."""
    os.mkfifo(path_in(folder, "odd"))
    reader = os.open(path_in(folder, "odd"), os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path_in(folder, "odd"), os.O_WRONLY)
    os.write(writer, b"lies")

    with pytest.raises(OSError, match="not a regular file"):
        folder.open_file("odd")
    os.close(writer)
    os.close(reader)


@pytest.mark.parametrize("kind", [*(kind for kind in ODD if kind != "directory"), "file"])
def test_anything_but_a_real_directory_cannot_be_entered(folder: Directory, kind: str) -> None:
    """A link in a directory's place is refused, also one to a directory."""
    path = path_in(folder, "odd")
    if kind == "link to a file":
        path.symlink_to("sub")
    elif kind == "file":
        path.write_bytes(b"")
    else:
        ODD[kind](path)

    with pytest.raises(OSError, match=r".") as caught:
        folder.enter("odd")

    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


def test_argument_of_open_may_be_a_link(folder: Directory, tmp_path: Path) -> None:
    """Links in the path that an operator gives are followed."""
    (tmp_path / "link").symlink_to("inner")
    with Directory.open(str(tmp_path / "link")) as directory:
        assert ["file", "sub"] == directory.names()


def test_open_directory_stays_itself_when_its_name_is_taken(folder: Directory, tmp_path: Path) -> None:
    """Whoever swaps the directory's path for a link does not lead us elsewhere."""
    (tmp_path / "inner").rename(tmp_path / "moved")
    (tmp_path / "inner").symlink_to("/etc")

    assert ["file", "sub"] == folder.names()
    assert b"content" == folder.read("file", 100)
    assert not folder.has("passwd")


@pytest.mark.parametrize("kind", ODD)
def test_entry_of_any_kind_is_there(folder: Directory, kind: str) -> None:
    """`has` looks at the name itself, so a dangling link is there."""
    ODD[kind](path_in(folder, "odd"))

    assert folder.has("odd")
    assert not folder.has("missing")


def test_names_are_sorted(folder: Directory) -> None:
    """Names come sorted, whatever order the file system has."""
    for name in ("z", "a", ".hidden", "ä"):
        path_in(folder, name).touch()

    assert [".hidden", "a", "file", "sub", "z", "ä"] == folder.names()


def test_scan_tells_real_directories(folder: Directory) -> None:
    """A link to a directory is none."""
    path_in(folder, "link").symlink_to("sub")

    assert {"file": False, "sub": True, "link": False} == dict(folder.scan())
    assert {"file", "sub", "link"} == {name for name, _ in folder.scan()}


@pytest.mark.parametrize("limit", [0, 6])
def test_file_beyond_the_limit_is_refused(folder: Directory, limit: int) -> None:
    """A record or configuration of a gigabyte is refused by its size, not read."""
    with pytest.raises(OSError, match=r".") as caught:
        folder.read("file", limit)

    assert errno.EFBIG == caught.value.errno


def test_paths_are_for_messages(folder: Directory, tmp_path: Path) -> None:
    """Entries know where they are, also below the root."""
    with folder.enter("sub") as sub:
        assert f"{tmp_path}/inner/sub" == sub.path
    with Directory.open("/") as root:
        assert "/etc" == root.file_path("etc")


def test_close_may_come_twice(folder: Directory) -> None:
    """A second close does not close somebody else's descriptor."""
    sub = folder.enter("sub")
    sub.close()
    other = os.open("/dev/null", os.O_RDONLY)
    sub.close()

    os.fstat(other)
    os.close(other)
    assert -1 == sub.fd
