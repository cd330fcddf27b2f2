"""`backy clones`: show or delete the clones of image files."""

import click

from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json, table
from backy.ground.errors import OptionRefused
from backy.ground.units import format_size
from backy.operation.clones import FoundClone, remove, survey_clones

LIST, DELETE = "list", "delete"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("action", type=click.Choice([LIST, DELETE]), default=LIST)
@click.argument("name", required=False, metavar="JOB")
@pass_options
def command(options: Options, action: str, name: str | None, *, as_json: bool) -> None:
    """Show or delete the clones of image files.

    A clone of an image is kept for the next backup of its job. One whose job, image or revision is
    gone is left over, and takes space for nothing: 'delete' removes all of these, or with JOB every
    clone of that job, whose next backup reads everything then.

    \b
    Example:
      backy -b /srv/backy clones
      backy -b /srv/backy clones delete vm01
    """
    if as_json and action == DELETE:
        raise OptionRefused("--json", "only 'list' takes it")
    configured = None if options.config is None else options.settings().usable().jobs
    with options.opened() as (repository, job):
        wanted = name if name is not None else job
        found = [
            one
            for one in survey_clones(repository, configured)
            if wanted is None or one.clone.job == wanted
        ]
        if action == LIST:
            click.echo(json([_document(one) for one in found]) if as_json else _list(found))
            return
        with options.log_for(None) as log:
            gone = remove(repository, [one.clone for one in found if one.why or wanted is not None])
            for clone in gone:
                log.info("clone deleted", job=clone.job, path=clone.path)
    options.tell(f"{counted(len(gone), 'clone')} deleted")


def _document(one: FoundClone) -> dict[str, object]:
    return {**one.clone._asdict(), "why": one.why or None}


def _list(found: list[FoundClone]) -> str:
    if not found:
        return "no clones"
    rows = [
        [one.clone.job, format_size(one.clone.size), one.why or "needed", one.clone.path]
        for one in found
    ]
    return table(["Job", "Image", "State", "Clone"], rows, right=(1,))
