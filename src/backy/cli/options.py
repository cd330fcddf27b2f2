"""The global options, and what they lead to: the repository, the job, the log.

    with options.job() as (repository, job): …

Limits: nothing is written here, except that the log is opened for appending.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from backy.cli import edge
from backy.ground.clock import SystemClock
from backy.ground.errors import ConfigError, OptionRefused
from backy.repository import layout
from backy.repository.repository import Job, Place, Repository, locate

if TYPE_CHECKING:
    from backy.cli.log import Log
    from backy.domain.config import GlobalConfig
    from backy.operation.progress import Progress


class Options(NamedTuple):
    """What was given before the command."""

    base: str | None = None
    job: str | None = None
    config: str | None = None
    log: str | None = None
    verbose: bool = False
    quiet: bool = False

    def global_config(self) -> "GlobalConfig":
        """The configuration of -c, or the defaults; ConfigError."""
        from backy.domain.config import GlobalConfig, parse_global

        if self.config is None:
            return GlobalConfig()
        try:
            with open(self.config, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(self.config, "", f"it cannot be read: {why}") from error
        return parse_global(text, self.config)

    def base_path(self) -> str:
        """-b, else the configuration's base directory, else the current directory."""
        if self.base is not None:
            return self.base
        return self.global_config().base_dir if self.config is not None else "."

    def place(self) -> Place:
        """Repository and job, as far as they were named."""
        return locate(self.base_path(), self.job)

    @contextmanager
    def opened(self) -> Iterator[tuple[Repository, str | None]]:
        """The repository, and the name of the job if one was given."""
        place = self.place()
        with Repository.open(place.base) as repository:
            yield repository, place.job

    @contextmanager
    def opened_job(self) -> Iterator[tuple[Repository, Job]]:
        """The repository and the job: the one that was named, or the only one there is."""
        with (
            self.opened() as (repository, name),
            # An empty name (-j "$UNSET") is refused, not taken for none.
            repository.job(only_job(repository) if name is None else name) as job,
        ):
            yield repository, job

    def progress(self) -> "Progress":
        """How to show progress here: a bar on a terminal, a line a minute otherwise, nothing with -q."""
        from backy.cli.progress import choose_progress

        return choose_progress(SystemClock(), quiet=self.quiet)

    def log_for(self, job: Job | None) -> "AbstractContextManager[Log]":
        """The log that -l names, or the job's own."""
        from backy.cli import log

        own = None if job is None else job.directory.file_path(layout.JOB_LOG)
        asked_for = self.log is not None
        return log.opened(self.log or own, asked_for=asked_for, verbose=self.verbose)

    def tell(self, line: str) -> None:
        """A closing line on stdout, unless quiet."""
        if not self.quiet:
            click.echo(edge.printable(line))


def only_job(repository: Repository) -> str:
    """The repository's only job; OptionRefused where there are several or none."""
    jobs = repository.jobs()
    if len(jobs) == 1:
        return jobs[0]
    some = ", ".join(jobs[:10]) + ("…" if len(jobs) > 10 else "")
    why = f"say which of {some}" if jobs else "this repository has no job yet; 'backy init' makes one"
    raise OptionRefused("-j JOB", why)


pass_options = click.make_pass_decorator(Options)
