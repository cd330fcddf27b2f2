"""Progress: a bar on a terminal, one plain line a minute elsewhere, nothing with -q."""

import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from backy.cli.progress import LineProgress, choose_progress
from backy.operation.progress import NoProgress
from testsite import CHUNK, Site


class FakeClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self.seconds


def on_a_terminal(site: Site, *words: str, term: str = "xterm") -> "tuple[int, str]":
    """Exit code, and what a command shows on a terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "backy", *words],
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env={**os.environ, "COLUMNS": "120", "TERM": term},
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:  # EIO: the other end is closed
            pass
    os.close(master)
    return process.returncode, shown.decode()


@pytest.fixture
def backed_up(site: Site) -> Site:
    """A site with one revision."""
    site.image.write_bytes(b"data" * CHUNK)
    site.backup()
    return site


WORDS = {
    "backup": ["backup", "daily"],
    "restore": ["restore", "--read-back", "OUT"],
    "verify": ["verify"],
}


@pytest.mark.parametrize("command", WORDS)
def test_a_terminal_shows_a_bar_with_rate_and_time_left(backed_up: Site, command: str) -> None:
    """Named by what is done, with sizes."""
    words = [word.replace("OUT", str(backed_up.folder / "out.raw")) for word in WORDS[command]]

    code, shown = on_a_terminal(backed_up, "-b", str(backed_up.job), *words)

    assert 0 == code
    assert command in shown
    assert "━" in shown
    assert "/s" in shown
    assert "KiB" in shown
    assert "iB/s" in shown  # in the same units as the sizes
    assert "0:00:00" in shown
    assert ("read back" in shown) == (command == "restore")


@pytest.mark.parametrize("command", WORDS)
def test_quiet_shows_nothing_on_a_terminal_either(backed_up: Site, command: str) -> None:
    """No bar, and the cursor stays where it is."""
    words = [word.replace("OUT", str(backed_up.folder / "out.raw")) for word in WORDS[command]]

    assert (0, "") == on_a_terminal(backed_up, "-q", "-b", str(backed_up.job), *words)


def test_a_terminal_without_a_cursor_shows_no_bar(backed_up: Site) -> None:
    """Such as the shells of editors: lines a minute, as for a log."""
    assert (0, "") == on_a_terminal(backed_up, "-b", str(backed_up.job), "verify", term="dumb")


def test_an_error_on_a_terminal_stands_in_a_line_of_its_own(backed_up: Site) -> None:
    """Below the bar that it ends."""
    for path in backed_up.chunk_files():
        path.unlink()

    out = str(backed_up.folder / "out.raw")
    code, shown = on_a_terminal(backed_up, "-b", str(backed_up.job), "restore", out)

    assert 1 == code
    # Which of the chunks is missed first is a matter of threads.
    said = re.compile(r"backy: bytes \d+ to \d+ cannot be restored: chunk [0-9a-f]{64} is missing; ")
    assert any(said.match(line) for line in shown.replace("\x1b[?25h", "").splitlines())


def test_one_line_a_minute_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in the first minute, then done, total, rate and time left, once a minute."""
    clock = FakeClock()
    progress = LineProgress(clock)
    progress.begin("backup", 600 << 20)

    for _ in range(240):  # four minutes, one MiB a second
        clock.seconds += 1
        progress.advance(1 << 20)
    progress.end()

    assert [
        "backup: 60.0 MiB of 600.0 MiB, 1.0 MiB/s, 9 min 0 s left",
        "backup: 120.0 MiB of 600.0 MiB, 1.0 MiB/s, 8 min 0 s left",
        "backup: 180.0 MiB of 600.0 MiB, 1.0 MiB/s, 7 min 0 s left",
        "backup: 240.0 MiB of 600.0 MiB, 1.0 MiB/s, 6 min 0 s left",
    ] == capsys.readouterr().err.splitlines()


def test_work_of_less_than_a_minute_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Cron sends no mail for it."""
    clock = FakeClock()
    progress = LineProgress(clock)
    progress.begin("verify", 100)
    clock.seconds += 59.9
    progress.advance(100)
    progress.end()

    assert "" == capsys.readouterr().err


def test_a_second_phase_counts_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Reading back starts at nothing."""
    clock = FakeClock()
    progress = LineProgress(clock)
    for what in ("restore", "read back"):
        progress.begin(what, 1 << 20)
        clock.seconds += 60
        progress.advance(1 << 19)
        progress.end()

    assert [
        f"{what}: 512.0 KiB of 1.0 MiB, 8.5 KiB/s, 1 min 0 s left" for what in ("restore", "read back")
    ] == capsys.readouterr().err.splitlines()


def test_more_than_was_expected_is_no_negative_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Totals are estimates: an image may grow data meanwhile."""
    clock = FakeClock()
    progress = LineProgress(clock)
    progress.begin("backup", 0)
    clock.seconds += 100
    progress.advance(1 << 20)

    assert ["backup: 1.0 MiB of 1.0 MiB, 10.2 KiB/s, 0.0 s left"] == (
        capsys.readouterr().err.splitlines()
    )


def test_the_choice_depends_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Captured stderr is no terminal; quiet wins."""
    assert isinstance(choose_progress(FakeClock(), quiet=False), LineProgress)
    assert isinstance(choose_progress(FakeClock(), quiet=True), NoProgress)
