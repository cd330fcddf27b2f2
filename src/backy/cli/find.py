"""`backy find` (`rev-parse`): what a revision spec names."""

import click

from backy.cli.options import Options, pass_options
from backy.cli.render import json
from backy.operation.select import choose
from backy.repository import history as histories


@click.command()
@click.option(
    "-r", "--revision", "spec", default="all", metavar="SPEC", show_default=True, help="Which ones."
)
@click.option("--uuid", is_flag=True, expose_value=False, help="Print UUIDs (the default).")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
@pass_options
def command(options: Options, spec: str, *, as_json: bool) -> None:
    """Print the UUIDs of the revisions that a spec names.

    A spec is a number (0 is the newest), a UUID or its beginning, a tag, or an expression:
    'last(tag:daily)', '2026-11-01..', 'all & not(trust:distrusted)'.

    \b
    Example:
      backy -b /srv/backy/vm01 find -r 'tag:daily & 2026-11-01..'
    """
    with options.opened_job(whole=False) as (_, job):
        found = choose(histories.load(job.directory), spec, job.name)
        click.echo(json(found) if as_json else "\n".join(one.uuid for one in found))
