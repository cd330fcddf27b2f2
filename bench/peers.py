"""The peers: borg, restic and benji, each with the options with which it does best on image files.

borg    fixed 4 MiB chunks, LZ4, no encryption, holes skipped; no files cache, so that an
        unchanged image is read
restic  as it comes; repository format 2, which compresses, where the version knows it; an image
        whose times have not changed is not read
benji   4 MiB blocks, zstd at its default level, SQLite, holes not written on restore
"""

import subprocess
from pathlib import Path

from measure import Command, run
from tool import Backy, Revision, Tool

BENJI_CONFIG = """\
configurationVersion: "1"
databaseEngine: "sqlite:///{folder}/repository/benji.sqlite"
defaultStorage: data
disallowRemoveWhenYounger: 0
storages:
  - name: data
    storageId: 1
    module: file
    configuration: {{path: "{folder}/repository/data", activeTransforms: [zstd]}}
transforms:
  - {{name: zstd, module: zstd, configuration: {{}}}}
ios:
  - {{name: file, module: file, configuration: {{}}}}
"""


class Borg(Tool):
    """One archive a backup."""

    name = "borg"

    def prepare(self) -> None:
        """Initialise a repository without encryption."""
        run(self.command("init", "--encryption", "none", self.repository), self.log)

    def backup(self, revision: Revision) -> Command:
        """Create an archive; the image is named relative to its folder."""
        options = ["--files-cache=disabled", "--sparse", "--compression=lz4"]
        options.append("--chunker-params=fixed,4194304")
        arguments = ("create", *options, self.archive(revision), revision.image.name)
        return self.command(*arguments, directory=revision.image.parent)

    def restore(self, revision: Revision, target: Path) -> Command:
        """Extract into the target folder, with holes."""
        return self.command("extract", "--sparse", self.archive(revision), directory=target)

    def verify(self) -> Command:
        """Check the repository, and decompress and hash all data."""
        return self.command("check", "--verify-data", self.repository)

    def archive(self, revision: Revision) -> str:
        """The name of the archive."""
        return f"{self.repository}::{revision.number}"


class Restic(Tool):
    """One snapshot a backup, tagged with its number."""

    name = "restic"

    def version(self) -> str:
        """Name and version; there is no option for it."""
        done = subprocess.run([self.program, "version"], capture_output=True, text=True, check=True)
        return " ".join(done.stdout.split()[:2])

    def prepare(self) -> None:
        """Initialise a repository, in the format that compresses if there is one."""
        (self.folder / "password").write_text("benchmark\n")
        self.sparse = ["--sparse"] if self.knows("restore", "--sparse") else []
        version = ["--repository-version", "2"] if self.knows("init", "--repository-version") else []
        run(self.command("init", *version), self.log)

    def knows(self, verb: str, option: str) -> bool:
        """Whether this version has an option."""
        done = subprocess.run([self.program, verb, "--help"], capture_output=True, text=True, check=True)
        return option in done.stdout

    def backup(self, revision: Revision) -> Command:
        """Back up; the image is named relative to its folder."""
        arguments = ("backup", "--tag", str(revision.number), revision.image.name)
        return self.command(*arguments, directory=revision.image.parent)

    def restore(self, revision: Revision, target: Path) -> Command:
        """Restore the snapshot with the tag, with holes where this version can."""
        which = ("--tag", str(revision.number), "latest")
        return self.command("restore", *self.sparse, "--target", target, *which)

    def verify(self) -> Command:
        """Check the repository and read all packs."""
        return self.command("check", "--read-data")

    def environment(self) -> dict[str, str]:
        """Repository, password and cache are told by the environment."""
        return super().environment() | {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD_FILE": str(self.folder / "password"),
            "RESTIC_CACHE_DIR": str(self.folder / "home" / "cache"),
        }


class Benji(Tool):
    """One version a backup, its uid made from the number."""

    name = "benji"

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__(program, folder)
        self.config.write_text(BENJI_CONFIG.format(folder=folder))

    def version(self) -> str:
        """Name and version; needs a configuration."""
        command = self.benji("--log-level", "ERROR", "-m", "version-info")
        done = subprocess.run(
            command.arguments, env=command.environment, capture_output=True, text=True, check=True
        )
        lines = [line for line in done.stdout.splitlines() if '"version":' in line]
        return "benji " + lines[0].split('"')[3]

    def prepare(self) -> None:
        """Make the database and the folder for the blocks."""
        (self.repository / "data").mkdir(parents=True)
        run(self.benji("database-init"), self.log)

    def backup(self, revision: Revision) -> Command:
        """Back up; an unchanged block is found by its hash."""
        return self.benji("backup", "--uid", self.uid(revision), f"file:{revision.image}", "vm")

    def restore(self, revision: Revision, target: Path) -> Command:
        """Restore to a new file, with holes."""
        url = f"file:{target / revision.image.name}"
        return self.benji("restore", "--sparse", self.uid(revision), url)

    def verify(self) -> Command:
        """Read, decompress and hash the blocks of all versions."""
        return self.benji("batch-deep-scrub")

    def uid(self, revision: Revision) -> str:
        """The uid of the version."""
        return f"v{revision.number}"

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "benji.yaml"

    def benji(self, *arguments: str | Path) -> Command:
        """A command with the configuration."""
        return self.command("-c", self.config, *arguments)


TOOLS: tuple[type[Tool], ...] = (Backy, Borg, Restic, Benji)
