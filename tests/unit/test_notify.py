"""What systemd hears of the service, over a real datagram socket."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from backy.daemon.notify import Notifier


def bound(address: str) -> socket.socket:
    """The service manager's end, which never waits."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.setblocking(False)
    return listener


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager that listens at tmp_path/notify."""
    with closing(bound(str(tmp_path / "notify"))) as listener:
        yield listener


def notifier(path: str | Path, **environment: str) -> Notifier:
    """The notifier of a service that was started with this NOTIFY_SOCKET."""
    return Notifier.of_environment({"NOTIFY_SOCKET": str(path), **environment})


def test_assignments_arrive_as_lines_of_one_datagram(manager: socket.socket, tmp_path: Path) -> None:
    """Each call is one message, in order."""
    ours = notifier(tmp_path / "notify")
    ours.send("READY=1", "STATUS=2 jobs")
    ours.send("STOPPING=1")

    assert [b"READY=1\nSTATUS=2 jobs", b"STOPPING=1"] == [manager.recv(4096) for _ in range(2)]


def test_abstract_names_are_written_with_an_at_sign() -> None:
    """The user manager of systemd uses names that are no files."""
    name = f"backy-test-{os.getpid()}"
    with closing(bound(f"\0{name}")) as manager:
        notifier(f"@{name}").send("READY=1")

        assert b"READY=1" == manager.recv(4096)


def test_reload_tells_since_when(manager: socket.socket, tmp_path: Path) -> None:
    """Type=notify-reload wants RELOADING=1 with the monotonic time in microseconds."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier(tmp_path / "notify").reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    first, second = manager.recv(4096).decode().splitlines()
    assert "RELOADING=1" == first
    assert "MONOTONIC_USEC" == second.partition("=")[0]
    assert before <= int(second.partition("=")[2]) <= after


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_nothing_is_sent_without_a_socket(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside systemd no socket is even made."""

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket, "socket", refuse)
    ours = Notifier.of_environment(environment)
    ours.send("READY=1")
    ours.reloading()

    assert Notifier(None, None) == ours


def test_service_manager_that_is_gone_is_nobodys_failure(tmp_path: Path) -> None:
    """Neither a missing socket nor one that nobody listens at stops the service."""
    notifier(tmp_path / "missing").send("READY=1")
    bound(str(tmp_path / "left")).close()
    notifier(tmp_path / "left").send("READY=1")
    notifier("/" + "x" * 300).send("READY=1")


def test_service_manager_that_does_not_read_does_not_block(
    manager: socket.socket, tmp_path: Path
) -> None:
    """With its queue full, messages are lost and the scheduler goes on."""
    ours = notifier(tmp_path / "notify")
    for _ in range(5000):
        ours.send("WATCHDOG=1")

    assert b"WATCHDOG=1" == manager.recv(4096)


OURS = str(os.getpid())


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": OURS}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "1.5"}, None),
        ({"WATCHDOG_PID": OURS}, None),
    ],
)
def test_watchdog_hears_of_us_twice_in_its_time(
    environment: Mapping[str, str], seconds: float | None
) -> None:
    """Half of what systemd allows, and never if the watchdog is another process's or set wrongly."""
    assert seconds == Notifier.of_environment(environment).interval


@pytest.mark.parametrize("digits", ["\u00b2", "\u0663", "9" * 5000])
def test_watchdog_time_that_is_no_plain_number_is_none(digits: str) -> None:
    """Digits of other scripts and numbers beyond all bounds stop no service."""
    assert Notifier.of_environment({"WATCHDOG_USEC": digits}).interval is None
