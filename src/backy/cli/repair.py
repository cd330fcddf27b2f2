"""`backy repair`: fill damaged revisions from the live source."""

import click

from backy.cli.options import Options, pass_options
from backy.cli.render import byte_range, counted, json, table
from backy.ground.clock import SystemClock
from backy.ground.errors import BackyError, OptionRefused
from backy.operation.repair import Repaired, repair
from backy.source.base import Owner
from backy.source.registry import open_group


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
@click.argument("name", required=False, metavar="JOB")
@pass_options
def command(options: Options, name: str | None, *, as_json: bool) -> None:
    """Fill damaged revisions from the live source.

    Reads the damaged ranges of all revisions of JOB, the newest first, from its source. Where that
    still has the content, which a chunk's id proves, the chunk is stored anew. Of revisions that are
    distrusted because of the store it reads all chunks, and replaces those that the disk does not
    give. Exit code 0: nothing is damaged any more, 1: something is.

    \b
    Example:
      backy -b /srv/backy repair vm01
    """
    if name is not None:
        if options.job not in (None, name):
            why = f"it says {options.job!r}, and the argument {name!r}: give one of them"
            raise OptionRefused("-j", why)
        options = options._replace(job=name)
    settings = options.global_config()
    with options.opened_job() as (repository, job), options.log_for(job) as log:
        owner = Owner(repository.format.repository, job.name)
        group = open_group(job.config().source, job.config_path, owner)
        log.info("repair started", job=job.name)
        try:
            done = repair(repository, job, group, settings.codec, SystemClock(), options.progress())
        except BackyError as error:
            log.error("repair failed", job=job.name, error=error.message)
            raise
        log.info("repair finished", job=job.name, chunks=done.chunks, left=len(done.left))
    if as_json:
        click.echo(json(_document(done)))
    else:
        _tell(options, done)
    if done.left:
        raise click.exceptions.Exit(1)


def _tell(options: Options, done: Repaired) -> None:
    if done.left:
        rows = [
            [one.revision, byte_range(lost.disk, lost.offset, lost.length)]
            for one in done.left
            for lost in one.ranges
        ]
        click.echo(table(["Revision", "Still lost (offset+length)"], rows))
    distrusted = f"{counted(done.distrusted, 'distrusted revision')}, " if done.distrusted else ""
    options.tell(
        f"{counted(done.damaged, 'damaged revision')}, {distrusted}"
        f"{counted(done.chunks, 'chunk')} stored anew, "
        f"{counted(len(done.left), 'revision')} still damaged"
    )


def _document(done: Repaired) -> dict[str, object]:
    left = [
        {"revision": one.revision, "ranges": [lost._asdict() for lost in one.ranges]}
        for one in done.left
    ]
    return {**done._asdict(), "left": left}
