"""The command `backy`: global options, and commands that are imported when they are called.

    backy -b /srv/backy/vm01 backup daily

Importing only what runs keeps `backy --help` and `backy status` fast; so the commands' one-line
helps stand here, and a test compares them with the commands' own.
"""

import importlib
from typing import NamedTuple

import click

from backy.cli import edge
from backy.cli.options import Options


class Listed(NamedTuple):
    """A command's module and the line that the overview shows."""

    module: str
    line: str


COMMANDS = {
    "init": Listed("init", "Create a job, and the repository where there is none."),
    "backup": Listed("backup", "Make a revision of the job's image."),
    "status": Listed("status", "List revisions, or the jobs of a repository."),
    "restore": Listed("restore", "Restore a revision to a file, device, RBD image or stdout."),
    "verify": Listed("verify", "Prove that revisions can be restored."),
    "distrust": Listed("distrust", "Say that revisions are not to be believed."),
    "repair": Listed("repair", "Fill damaged revisions from the live source."),
    "reports": Listed("reports", "Show or delete reports of damaged chunks."),
    "clones": Listed("clones", "Show or delete the clones of image files."),
    "find": Listed("find", "Print the UUIDs of the revisions that a spec names."),
    "forget": Listed("forget", "Remove revisions from the history."),
    "tags": Listed("tags", "Set, add or remove tags of revisions."),
    "expire": Listed("expire", "Remove revisions that the schedule no longer keeps."),
    "gc": Listed("gc", "Give back the space of chunks that no revision needs."),
    "du": Listed("du", "Show how much space only this or that revision takes."),
    "scheduler": Listed("scheduler", "Run the scheduler, which backs up all configured jobs."),
    "check": Listed("check", "Tell monitoring whether all jobs keep their service level."),
    "check-config": Listed("check_config", "Tell all mistakes in a configuration file, one a line."),
    "doctor": Listed("doctor", "Examine host, repository and sources, and say what to do."),
    "jobs": Listed("jobs", "List configured jobs with service level, last and next run."),
    "client": Listed("client", "Ask the running scheduler."),
    "reload": Listed("reload", "Have the running scheduler read its configuration again."),
}
ALIASES = {
    "log": "status",
    "rev-parse": "find",
    "rm": "forget",
    "purge": "gc",
    "show-jobs": "jobs",
    "reload-daemon": "reload",
}
# Commands of other versions that are two words here.
TWO_WORDS = {f"reports-{action}": ("reports", action) for action in ("list", "show", "delete")}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        listed = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if listed is None:
            return None
        command = importlib.import_module(f"backy.cli.{listed.module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        args = [*TWO_WORDS.get(args[0], args[:1]), *args[1:]]
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], [*COMMANDS, *ALIASES], n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.line) for name, listed in COMMANDS.items()])
        with formatter.section("Other names"):
            formatter.write_dl([(alias, f"same as {name}") for alias, name in ALIASES.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.option(
    "-b", "--base", metavar="DIR", help="The repository, or a job's directory in it [default: .]."
)
@click.option("-j", "--job", metavar="JOB", help="The job, where -b names the repository.")
@click.option(
    "-c", "--config", metavar="FILE", help="Configuration with the base directory and the codec."
)
@click.option("-l", "--log", metavar="FILE", help="Where to log to [default: backy.log of the job].")
@click.option(
    "-v", "--verbose", is_flag=True, help="Show log messages and the place of internal errors."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no closing line; errors only.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or JSON lines for collectors.",
)
@click.version_option(package_name="backy", prog_name="backy")
@click.pass_context
def cli(
    ctx: click.Context,
    base: str | None,
    job: str | None,
    config: str | None,
    log: str | None,
    *,
    verbose: bool,
    quiet: bool,
    log_format: str,
) -> None:
    """Block-device backup for virtual machines.

    \b
    Example, from nothing to a restored image:
      backy -b /srv/backy/vm01 init file /srv/images/vm01.raw
      backy -b /srv/backy/vm01 backup daily
      backy -b /srv/backy/vm01 status
      backy -b /srv/backy/vm01 restore /srv/images/vm01-restored.raw
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    ctx.obj = Options(
        base=base,
        job=job,
        config=config,
        log=log,
        verbose=verbose,
        quiet=quiet,
        log_format=log_format,
    )


def run() -> None:
    """Entry point of the installed command."""
    edge.leave(lambda: cli(standalone_mode=False))
