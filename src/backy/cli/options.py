"""The global options, and what they lead to: the repository, the job, the log.

    with options.job() as (repository, job): …

Limits: nothing is written here, except that the log is opened for appending.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from backy.cli import edge
from backy.ground import locks
from backy.ground.clock import SystemClock
from backy.ground.errors import ConfigError, OptionRefused
from backy.repository import layout
from backy.repository.repository import Job, Place, Repository, locate

if TYPE_CHECKING:
    from backy.cli.log import Log
    from backy.domain.config import GlobalConfig
    from backy.domain.settings import Settings
    from backy.operation.progress import Progress


LOCK_SECONDS = 10.0


class Options(NamedTuple):
    """What was given before the command."""

    base: str | None = None
    job: str | None = None
    config: str | None = None
    log: str | None = None
    verbose: bool = False
    quiet: bool = False
    log_format: str = "text"

    def settings(self, *, lenient: bool = False) -> "Settings":
        """All of the configuration file, -c or the usual one; ConfigError if it is no table at all."""
        from backy.domain.settings import DEFAULT_FILE, parse_settings

        path = self.config or DEFAULT_FILE
        return parse_settings(_read(path), path, lenient=lenient)

    def global_config(self) -> "GlobalConfig":
        """The configuration of -c, or the defaults; ConfigError."""
        from backy.domain.config import GlobalConfig, parse_global

        if self.config is None:
            return GlobalConfig()
        return parse_global(_read(self.config), self.config)

    def base_path(self) -> str:
        """-b, else the configuration's base directory, else the current directory."""
        if self.base is not None:
            return self.base
        return self.global_config().base_dir if self.config is not None else "."

    def place(self) -> Place:
        """Repository and job, as far as they were named."""
        return locate(self.base_path(), self.job)

    @contextmanager
    def opened(self, *, whole: bool = True) -> Iterator[tuple[Repository, str | None]]:
        """The repository, `whole` or as far as it is there, and the name of the job if one was given."""
        place = self.place()
        with Repository.open(place.base, whole=whole) as repository:
            yield repository, place.job

    @contextmanager
    def opened_job(self, *, whole: bool = True) -> Iterator[tuple[Repository, Job]]:
        """The repository, as `opened`, and the job: the one that was named, or the only one there is."""
        with (
            self.opened(whole=whole) as (repository, name),
            # An empty name (-j "$UNSET") is refused, not taken for none.
            repository.job(only_job(repository) if name is None else name) as job,
        ):
            yield repository, job

    def progress(self) -> "Progress":
        """How to show progress here: a bar on a terminal, a line a minute otherwise, nothing with -q."""
        from backy.cli.progress import choose_progress

        return choose_progress(SystemClock(), quiet=self.quiet)

    def log_for(self, of: Job | Repository | None) -> "AbstractContextManager[Log]":
        """The log that -l names, or the job's or the repository's own."""
        from backy.cli import log

        own = None
        if of is not None:
            directory = of.base if isinstance(of, Repository) else of.directory
            own = directory.file_path(layout.LOG)
        asked_for = self.log is not None
        task = os.environ.get("BACKY_TASK_ID")
        return log.opened(
            self.log or own,
            asked_for=asked_for,
            verbose=self.verbose,
            json_lines=self.log_format == "json",
            fields={"task": task} if task else None,
        )

    def tell(self, line: str) -> None:
        """A closing line on stdout, unless quiet."""
        if not self.quiet:
            click.echo(edge.printable(line))


def _read(path: str) -> str:
    """A configuration file's text; ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            # Deployment tools hold it alone while they write (backy 2.5). One that hangs must neither
            # stop a scheduler that reloads nor keep `check` from saying anything.
            if not locks.wait_shared_for(file.fileno(), LOCK_SECONDS):
                held = f"another process has it locked for more than {LOCK_SECONDS:.0f} s"
                raise ConfigError(path, "", held)
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(path, "", f"it cannot be read: {why}") from error


def only_job(repository: Repository) -> str:
    """The repository's only job; OptionRefused where there are several or none."""
    jobs = repository.jobs()
    if len(jobs) == 1:
        return jobs[0]
    some = ", ".join(jobs[:10]) + ("…" if len(jobs) > 10 else "")
    why = f"say which of {some}" if jobs else "this repository has no job yet; 'backy init' makes one"
    raise OptionRefused("-j JOB", why)


pass_options = click.make_pass_decorator(Options)
