"""One interface for all tools that are compared, and backy behind it.

A tool is made for one round: it keeps all that it writes in a folder of its own, its home
directory, caches and configuration included. Its methods return the commands; running and measuring
them is the caller's business.
"""

import os
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from measure import Command, allocated_bytes, run


@dataclass(frozen=True)
class Revision:
    """A backup to make or to restore: of which image, and its number in the repository, from 1."""

    image: Path
    number: int


class Tool(ABC):
    """One tool with one repository. `folder` is empty at first and the tool's own."""

    name: ClassVar[str]

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.repository = folder / "repository"
        self.log = folder / "log"
        for path in (folder, folder / "home", folder / "tmp"):
            path.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def prepare(self) -> None:
        """Make the repository."""

    @abstractmethod
    def backup(self, revision: Revision) -> Command:
        """Store the revision's image under the revision's number."""

    @abstractmethod
    def restore(self, revision: Revision, target: Path) -> Command:
        """Restore to a file in the folder `target`, named as the image was."""

    @abstractmethod
    def verify(self) -> Command:
        """Read and check all data of the repository."""

    def stored_bytes(self) -> int:
        """What the repository takes on the disk."""
        return allocated_bytes(self.repository)

    def version(self) -> str:
        """Name and version."""
        done = subprocess.run(
            [self.program, "--version"],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip().splitlines()[0]

    def environment(self) -> dict[str, str]:
        """All of the environment that the tool sees."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
        }

    def command(self, *arguments: str | Path, directory: Path | None = None) -> Command:
        """A command of this tool; it runs in its folder where no other is given."""
        words = (str(self.program), *map(str, arguments))
        return Command(words, directory or self.folder, self.environment())


class Backy(Tool):
    """Its source has a fixed name: a symbolic link that points to the image of the day."""

    name = "backy"

    def prepare(self) -> None:
        """Initialise a job; its source is an empty file until the first backup."""
        self.source.touch()
        run(self.job("init", "file", self.source), self.log)

    def backup(self, revision: Revision) -> Command:
        """Point the source to the image, then a backup as the schedule would start it."""
        self.source.unlink()
        self.source.symlink_to(revision.image)
        return self.job("-q", "backup", "daily")

    def restore(self, revision: Revision, target: Path) -> Command:
        """Restore the newest revision."""
        return self.job("-q", "restore", target / revision.image.name)

    def verify(self) -> Command:
        """Verify all revisions; chunks that they share are read once."""
        return self.job("-q", "verify", "-r", "all")

    def status(self) -> Command:
        """List the revisions."""
        return self.job("status")

    def help(self) -> Command:
        """Show the help text."""
        return self.command("--help")

    def stored_bytes(self) -> int:
        """Without the reserve: 64 MiB for any repository, given up when the disk is full."""
        return super().stored_bytes() - allocated_bytes(self.repository / "chunks" / "reserve")

    @property
    def source(self) -> Path:
        """The fixed name of the image."""
        return self.folder / "current.raw"

    def job(self, *arguments: str | Path) -> Command:
        """A command for the one job of the repository."""
        return self.command("-b", self.repository / "vm", *arguments)
