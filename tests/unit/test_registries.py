"""Sources and targets by what an operator writes."""

import os
import socket
import sys
from pathlib import Path

import pytest

from backy.domain.chunkmap import NO_DISK
from backy.domain.config import SourceConfig, SourcesConfig
from backy.ground.errors import ConfigError, OptionRefused, TargetRefused
from backy.source.file import FileSource
from backy.source.registry import from_argument, open_group
from backy.target.device import DeviceTarget
from backy.target.file import FileTarget
from backy.target.registry import find_target
from backy.target.stream import StreamTarget
from fakes import loop_device
from strategies import hostile_names


def test_file_source_is_opened_by_its_type() -> None:
    """Type `file` with a filename gives a file source."""
    group = open_group(SourceConfig("file", {"filename": "/x"}), "config", None)

    assert [NO_DISK] == list(group.disks)
    assert isinstance(group.disks[NO_DISK], FileSource)
    assert "/x" == group.disks[NO_DISK].image


def test_disks_are_opened_by_name() -> None:
    """In the order of the list."""
    config = SourcesConfig({name: SourceConfig("file", {"filename": f"/{name}"}) for name in "ba"})

    disks = open_group(config, "config", None).disks

    assert {"b": "/b", "a": "/a"} == {name: source.image for name, source in disks.items()}
    assert ["b", "a"] == list(disks)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (SourcesConfig({"a": SourceConfig("floppy", {})}), "sources[a].type"),
        (SourcesConfig({"a": SourceConfig("file", {})}), "sources[a].filename"),
        (
            SourcesConfig({"a": SourceConfig("file", {"filename": "/x", "pre-snapshot": "x"})}),
            "sources[a].pre-snapshot",
        ),
        (
            SourcesConfig({"a": SourceConfig("file", {"filename": "/x"})}, {"snapshot-timeout": 0}),
            "snapshot-timeout",
        ),
    ],
)
def test_wrong_disk_is_told_with_its_key(config: SourcesConfig, key: str) -> None:
    """By the disk's name; what concerns all of them stands beside the list."""
    with pytest.raises(ConfigError) as caught:
        open_group(config, "JOB/config", None)

    assert ("JOB/config", key) == (caught.value.file, caught.value.key)


@pytest.mark.parametrize(
    ("kind", "settings", "key"),
    [
        ("floppy", {"filename": "/x"}, "source.type"),
        ("", {}, "source.type"),
        ("file", {}, "source.filename"),
        ("file", {"filename": ""}, "source.filename"),
        ("file", {"filename": 7}, "source.filename"),
        ("file", {"filename": True}, "source.filename"),
        ("file", {"filename": "/a\0b"}, "source.filename"),
        ("file", {"filename": "/x", "pool": "rbd"}, "source.pool"),
        ("file", {"filename": "/x", "clone": "maybe"}, "source.clone"),
        ("file", {"filename": "/x", "clone": True}, "source.clone"),
        ("file", {"filename": "/x", "clone": 0}, "source.clone"),
        ("file", {"filename": "/x", "clone-directory": "clones"}, "source.clone-directory"),
        ("file", {"filename": "/x", "clone-directory": "/a\0"}, "source.clone-directory"),
        ("file", {"filename": "/x", "pre-snapshot": " "}, "source.pre-snapshot"),
        ("file", {"filename": "/x", "post-snapshot": True}, "source.post-snapshot"),
        ("file", {"filename": "/x", "snapshot-timeout": "soon"}, "source.snapshot-timeout"),
        ("file", {"filename": "/x", "snapshot-timeout": 0}, "source.snapshot-timeout"),
        ("file", {"filename": "/x", "snapshot-timeout": "2d"}, "source.snapshot-timeout"),
    ],
)
def test_wrong_source_is_told_with_its_key(
    kind: str, settings: dict[str, str | int | bool], key: str
) -> None:
    """Unknown types, missing names and other types' keys are errors of the configuration."""
    with pytest.raises(ConfigError) as caught:
        open_group(SourceConfig(kind, settings), "JOB/config", None)

    assert ("JOB/config", key) == (caught.value.file, caught.value.key)


def test_source_of_the_command_line_becomes_a_configuration() -> None:
    """`init file disk.raw` remembers the absolute path."""
    assert SourceConfig("file", {"filename": "/srv/disk.raw"}) == from_argument(
        "file", "disk.raw", "/srv/disk.raw"
    )


@pytest.mark.parametrize(
    ("kind", "source", "key"), [("tape", "x", "TYPE"), ("file", "", "SOURCE"), ("file", "a\0", "SOURCE")]
)
def test_wrong_source_on_the_command_line_is_refused(kind: str, source: str, key: str) -> None:
    """The error names the argument."""
    with pytest.raises(OptionRefused) as caught:
        from_argument(kind, source, source)

    assert key == caught.value.option


def test_dash_is_standard_output() -> None:
    """`-` is a stream and never a file of that name."""
    assert isinstance(find_target("-", sys.stdout.fileno()), StreamTarget)


@pytest.mark.parametrize("kind", ["new", "existing", "link", "dangling link"])
def test_path_of_a_file_is_a_file(tmp_path: Path, kind: str) -> None:
    """A file that is there or is not, and a link to either, is a file to restore to."""
    path = tmp_path / "image"
    if kind == "existing":
        path.touch()
    elif kind != "new":
        path.symlink_to("other")
        if kind == "link":
            (tmp_path / "other").touch()

    assert isinstance(find_target(str(path), -1), FileTarget)


@pytest.mark.root
def test_path_of_a_device_is_a_device(tmp_path: Path, as_root: None) -> None:
    """A block device is written in place, also through a link such as /dev/vg/lv."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with loop_device(tmp_path / "disk") as device:
        (tmp_path / "lv").symlink_to(device)
        found = [find_target(path, -1) for path in (device, str(tmp_path / "lv"))]

    assert [DeviceTarget] * 2 == [type(one) for one in found]


@pytest.mark.parametrize("kind", ["directory", "FIFO", "socket", "character device"])
def test_what_can_hold_no_image_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories, FIFOs, sockets and character devices are refused without opening them."""
    monkeypatch.chdir(tmp_path)  # socket paths are short
    if kind == "directory":
        os.mkdir("odd")
    elif kind == "FIFO":
        os.mkfifo("odd")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("odd")
    else:
        os.symlink("/dev/null", "odd")

    with pytest.raises(TargetRefused, match="it was not touched"):
        find_target("odd", -1)


def test_hostile_path_is_a_file_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No spelling of a path does anything but name a file or give one sentence."""
    monkeypatch.chdir(tmp_path)
    for name in set(hostile_names()) - {"-"}:
        try:
            assert isinstance(find_target(name, -1), FileTarget)
        except TargetRefused as error:
            assert error.message  # noqa: PT017 - either is right

    assert [] == os.listdir(tmp_path)
