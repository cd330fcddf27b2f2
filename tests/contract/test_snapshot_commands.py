"""The operator's commands around a snapshot: what runs when, and what becomes of those that fail."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loopdisk import Disk

from backy.domain.chunkmap import NO_DISK
from backy.domain.config import SourceConfig
from backy.domain.revision import View
from backy.ground.errors import SourceRefused
from backy.source.commands import Commands
from backy.source.file import Cloning, FileSource
from backy.source.group import Group
from backy.source.registry import open_group
from cloning import OWNER, SIZE, ImageSite, revision, whole


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A file in which commands note that they ran."""
    path = tmp_path / "notes"
    path.touch()
    return path


def noting(notes: Path, word: str, then: str = "true") -> str:
    """A command line that notes a word."""
    return f"echo {word} >> {notes}; {then}"


def alone(source: FileSource, commands: Commands) -> Group:
    """A job of one image with commands around it."""
    return Group({NO_DISK: source}, commands, OWNER.job)


def in_place(tmp_path: Path, notes: Path, pre: str = "true", post: str = "true") -> Group:
    """An image that is never cloned, with commands that note `pre` and `post`."""
    (tmp_path / "image").write_bytes(b"x" * SIZE)
    commands = Commands(noting(notes, "pre", pre), noting(notes, "post", post), 60)
    return alone(FileSource(str(tmp_path / "image"), Cloning(OWNER, wanted=False)), commands)


def test_commands_run_before_and_after_the_reads(tmp_path: Path, notes: Path) -> None:
    """What is read in place may be what the first command made, so the other waits for the last read."""
    with in_place(tmp_path, notes).snapshot(revision(1)) as snapshots:
        whole(snapshots.disks[NO_DISK])
        assert "pre\n" == notes.read_text()

    assert "pre\npost\n" == notes.read_text()


@pytest.mark.root
def test_second_command_runs_once_the_clone_is_made(image_site: ImageSite, notes: Path) -> None:
    """A frozen guest goes on while its clone is read, and is told to only once."""
    commands = Commands(noting(notes, "pre"), noting(notes, "post"))
    source = alone(FileSource(str(image_site.path), Cloning(OWNER)), commands)
    with source.snapshot(revision(1)) as snapshots:
        assert View.CLONE is snapshots.disks[NO_DISK].identity.view
        assert "pre\npost\n" == notes.read_text()

    assert "pre\npost\n" == notes.read_text()


@pytest.mark.root
def test_second_command_runs_once_the_clone_has_failed(image_site: ImageSite, notes: Path) -> None:
    """No guest stays frozen because a directory is missing."""
    commands = Commands(noting(notes, "pre"), noting(notes, "post"))
    source = alone(FileSource(str(image_site.path), Cloning(OWNER, "/nowhere")), commands)
    with source.snapshot(revision(1)) as snapshots:
        assert View.IN_PLACE is snapshots.disks[NO_DISK].identity.view
        assert "pre\npost\n" == notes.read_text()


@pytest.mark.root
def test_where_nothing_can_be_cloned_the_second_command_waits(
    file_systems: Callable[[str], Disk], tmp_path: Path, notes: Path
) -> None:
    """On ext4 the image may be a snapshot of the operator's own making."""
    folder = file_systems("ext4").folder / tmp_path.name
    folder.mkdir()
    site = ImageSite(folder)
    commands = Commands(noting(notes, "pre"), noting(notes, "post"))
    with alone(FileSource(str(site.path), Cloning(OWNER)), commands).snapshot(revision(1)) as snapshots:
        assert snapshots.disks[NO_DISK].remark
        assert "pre\n" == notes.read_text()

    assert "pre\npost\n" == notes.read_text()


def test_image_may_be_made_by_the_first_command(tmp_path: Path, notes: Path) -> None:
    """Such as a snapshot of LVM, which the second one removes."""
    image = tmp_path / "image"
    commands = Commands(f'printf made > "$BACKY_SOURCE"; echo pre >> {notes}', 'rm "$BACKY_SOURCE"')
    source = alone(FileSource(str(image), Cloning(OWNER)), commands)
    with source.snapshot(revision(1)) as snapshots:
        assert b"made" == whole(snapshots.disks[NO_DISK])

    assert not image.exists()


def test_commands_know_what_they_are_for(tmp_path: Path, notes: Path) -> None:
    """Job, revision and image stand in the environment of both."""
    (tmp_path / "image").write_bytes(b"x")
    line = f'echo "$BACKY_JOB $BACKY_REVISION $BACKY_SOURCE" >> {notes}'
    source = alone(
        FileSource(str(tmp_path / "image"), Cloning(OWNER, wanted=False)), Commands(line, line)
    )
    with source.snapshot(revision(1)):
        pass

    assert f"{OWNER.job} {revision(1)} {tmp_path}/image\n" * 2 == notes.read_text()


def test_first_command_that_fails_ends_the_backup(tmp_path: Path, notes: Path) -> None:
    """Nothing is read, the reason is told, and the second one still runs."""
    source = in_place(tmp_path, notes, pre="echo no such guest >&2; exit 7")
    with (
        pytest.raises(
            SourceRefused,
            match=r"the pre-snapshot command ended with code 7 \(no such guest\), so nothing was backed",
        ),
        source.snapshot(revision(1)),
    ):
        pass

    assert "pre\npost\n" == notes.read_text()


def test_command_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path, notes: Path) -> None:
    """The whole process group goes, the second command runs, and nobody waits any longer."""
    (tmp_path / "image").write_bytes(b"x")
    pre = f"sleep 1000 & echo $! > {tmp_path}/pid; wait"
    commands = Commands(pre, noting(notes, "post"), 1)
    source = alone(FileSource(str(tmp_path / "image"), Cloning(OWNER)), commands)
    with (
        pytest.raises(SourceRefused, match="pre-snapshot command took longer than 1 s and was killed"),
        source.snapshot(revision(1)),
    ):
        pass

    assert "post\n" == notes.read_text()
    assert is_gone(int((tmp_path / "pid").read_text()))


def is_gone(pid: int) -> bool:
    """Whether a process ends within two seconds, or is only waiting to be reaped."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path: Path, notes: Path) -> None:
    """A process in the background that has our pipe does not hold the backup up."""
    source = in_place(tmp_path, notes, pre="sleep 30 & echo $! > pid".replace("pid", f"{tmp_path}/pid"))
    begin = time.monotonic()
    with source.snapshot(revision(1)):
        assert time.monotonic() - begin < 20
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_command_may_say_a_lot(tmp_path: Path, notes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It never waits for us; the end of what it says is shown, fit for a terminal."""
    pre = r"i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; printf 'last\033[2J\n'"
    with in_place(tmp_path, notes, pre=pre).snapshot(revision(1)):
        pass

    shown = capfd.readouterr().err.splitlines()
    assert len(shown) < 500
    assert "pre-snapshot: last?[2J" == shown[-1]


def test_command_finds_nothing_on_its_input(tmp_path: Path, notes: Path) -> None:
    """It cannot wait for a terminal."""
    with in_place(tmp_path, notes, pre="cat").snapshot(revision(1)):
        pass

    assert "pre\npost\n" == notes.read_text()


@pytest.mark.root
def test_second_command_that_fails_after_a_clone_is_a_warning(image_site: ImageSite) -> None:
    """The clone is good; that the guest may still be frozen has to be known."""
    source = alone(FileSource(str(image_site.path), Cloning(OWNER)), Commands(None, "kill -9 $$"))
    with source.snapshot(revision(1)) as snapshots:
        assert ["the post-snapshot command was ended by signal 9"] == list(snapshots.warnings)


def test_second_command_that_fails_at_the_end_is_shown(
    tmp_path: Path, notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The revision is committed by then, so it stays, and the failure stands in the log."""
    with in_place(tmp_path, notes, post="exit 3").snapshot(revision(1)):
        pass

    assert "warning: the post-snapshot command ended with code 3\n" == capfd.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_second_command_runs_after_an_error(
    tmp_path: Path, notes: Path, error: type[BaseException]
) -> None:
    """Whatever ends the backup."""
    with pytest.raises(error), in_place(tmp_path, notes).snapshot(revision(1)):
        raise error

    assert "pre\npost\n" == notes.read_text()


def test_second_command_runs_when_the_image_is_missing(tmp_path: Path, notes: Path) -> None:
    """The first one has run, though nothing could be opened after it."""
    commands = Commands(noting(notes, "pre"), noting(notes, "post"))
    source = alone(FileSource(str(tmp_path / "none"), Cloning(OWNER)), commands)
    with pytest.raises(SourceRefused, match="does not exist"), source.snapshot(revision(1)):
        pass

    assert "pre\npost\n" == notes.read_text()


PROGRAM = """
import signal, sys
from backy.source.base import Owner
from backy.source.commands import Commands
from backy.source.file import Cloning, FileSource
from backy.source.group import Group
def ended(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, ended)
image, pre, post, owner, job, revision = sys.argv[1:]
group = Group({"": FileSource(image, Cloning(Owner(owner, job)))}, Commands(pre, post), job)
with group.snapshot(revision):
    signal.pause()
"""


@pytest.mark.parametrize("when", ["during the first command", "during the reads"])
def test_second_command_runs_after_sigterm(tmp_path: Path, notes: Path, when: str) -> None:
    """A backup that is ended leaves no guest frozen, and no command running."""
    (tmp_path / "image").write_bytes(b"x")
    os.mkfifo(tmp_path / "ready")
    waits = "sleep 1000" if when == "during the first command" else "true"
    pre = f"echo $$ > {tmp_path}/pid; echo > {tmp_path}/ready; {waits}"
    words = [
        str(tmp_path / "image"),
        pre,
        noting(notes, "post"),
        OWNER.repository,
        OWNER.job,
        revision(1),
    ]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.DEVNULL)
    (tmp_path / "ready").read_bytes()
    if when == "during the reads":
        assert is_gone(int((tmp_path / "pid").read_text()))
    process.terminate()

    assert process.wait(30) != 0
    assert "post\n" == notes.read_text()
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("ended", [False, True])
def test_second_command_runs_to_its_end_whatever_the_signal(
    tmp_path: Path, notes: Path, number: signal.Signals, *, ended: bool
) -> None:
    """A guest that is about to go on does so, also if what the command says is heard by nobody."""
    (tmp_path / "image").write_bytes(b"x")
    os.mkfifo(tmp_path / "ready")
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)
    post = f"echo $$ > {tmp_path}/pid; echo > {tmp_path}/ready; read x < {tmp_path}/go"
    post += f"; echo thawed; echo post >> {notes}"
    program = PROGRAM if ended else PROGRAM.replace("signal.pause()", "pass")
    pre = "kill -TERM $PPID; sleep 1000" if ended else "true"
    words = [str(tmp_path / "image"), pre, post, OWNER.repository, OWNER.job, revision(1)]
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.DEVNULL)
    (tmp_path / "ready").read_bytes()
    process.send_signal(number)
    if number is signal.SIGKILL:
        process.wait(30)
    os.write(go, b"go\n")
    assert process.wait(30) != 0
    assert is_gone(int((tmp_path / "pid").read_text()))
    os.close(go)  # what lies in it is lost with its last user
    assert "post\n" == notes.read_text()


def test_commands_come_from_the_configuration(tmp_path: Path, notes: Path) -> None:
    """The keys of a job's source are what is run."""
    (tmp_path / "image").write_bytes(b"x")
    settings: dict[str, str | int | bool] = {
        "filename": str(tmp_path / "image"),
        "clone": False,
        "pre-snapshot": noting(notes, "pre"),
        "post-snapshot": noting(notes, "post"),
        "snapshot-timeout": "5s",
    }
    with open_group(SourceConfig("file", settings), "config", OWNER).snapshot(revision(1)):
        pass

    assert "pre\npost\n" == notes.read_text()


def test_looking_at_an_image_that_is_there_runs_nothing(tmp_path: Path, notes: Path) -> None:
    """`init` and `repair` freeze nobody."""
    with in_place(tmp_path, notes).live():
        pass

    assert "" == notes.read_text()


def test_looking_at_an_image_that_the_first_command_makes_runs_both(tmp_path: Path, notes: Path) -> None:
    """A snapshot of LVM is there only between them; it gets a name as in a backup."""
    image = tmp_path / "image"
    group = in_place(tmp_path, notes, f"echo $BACKY_REVISION > {image}", f"rm {image}")
    image.unlink()
    with group.live() as snapshots:
        assert "pre\n" == notes.read_text()
        assert 37 == len(whole(snapshots[NO_DISK]))

    assert "pre\npost\n" == notes.read_text()


def test_looking_at_an_image_that_no_command_makes_is_refused(tmp_path: Path, notes: Path) -> None:
    """With the reason, after the second command has run; without a first command none runs."""
    group = in_place(tmp_path, notes)
    (tmp_path / "image").unlink()
    with pytest.raises(SourceRefused, match="image: it does not exist"), group.live():
        pass
    assert "pre\npost\n" == notes.read_text()

    alone_then = Commands(post=noting(notes, "again"))
    with (
        pytest.raises(SourceRefused, match="image: it does not exist"),
        alone(FileSource(str(tmp_path / "image")), alone_then).live(),
    ):
        pass
    assert "pre\npost\n" == notes.read_text()
