"""`backy forget` (`rm`): take revisions out of the history."""

import click

from backy.cli.options import Options, pass_options
from backy.ground.errors import OptionRefused
from backy.operation.select import choose_to_forget
from backy.repository import history as histories


@click.command()
@click.option("-r", "--revision", "spec", required=True, metavar="SPEC", help="Which ones.")
@click.option("--yes", is_flag=True, help="Forget them even if they are several.")
@pass_options
def command(options: Options, spec: str, *, yes: bool) -> None:
    """Remove revisions from the history.

    Their chunks stay until garbage collection finds nobody else using them. An unreadable record is
    forgotten by its full UUID.

    \b
    Example:
      backy -b /srv/backy/vm01 forget -r 'first(tag:daily)'
    """
    with options.opened_job() as (_, job), options.log_for(job) as log:
        uuids = choose_to_forget(histories.load(job.directory), spec, job.name)
        if len(uuids) > 1 and not yes:
            raise OptionRefused(
                "-r", f"{spec!r} matches {len(uuids)} revisions: add --yes to forget them all"
            )
        for uuid in uuids:
            histories.forget(job.directory, uuid)
            log.info("revision forgotten", job=job.name, revision=uuid)
            options.tell(f"forgot revision {uuid}")
