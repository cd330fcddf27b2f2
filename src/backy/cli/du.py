"""`backy du`: how much space only this or that revision takes."""

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import json, local_time, table
from backy.ground.units import format_size
from backy.operation.usage import Found, usage


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Bytes as JSON.")
@pass_options
def command(options: Options, *, as_json: bool) -> None:
    """Show how much space only this or that revision takes.

    Counts the chunks that no other revision needs, which is what forgetting this one alone would give
    back; and for each job what no other job needs. Shows one job's revisions, or the jobs.

    \b
    Example:
      backy -b /srv/backy du
      backy -b /srv/backy/vm01 du --json
    """
    with options.opened() as (repository, job):
        if job is not None:
            with repository.job(job):
                pass
        found = usage(repository, options.progress())
    for one in found.unreadable:
        edge.say(f"warning: {one} cannot be read: its chunks are not counted.")
    if as_json:
        click.echo(json(_document(found, job)))
    elif job is None:
        rows = [[one.job, str(one.revisions), format_size(one.alone)] for one in found.jobs]
        click.echo(table(["Job", "Revisions", "Alone"], rows, right=[1, 2]))
    else:
        rows = [
            [
                local_time(one.revision.taken_at),
                one.revision.uuid,
                format_size(one.revision.image_size),
                format_size(one.alone),
            ]
            for one in found.revisions
            if one.job == job
        ]
        click.echo(table(["Date (local)", "Revision", "Image", "Alone"], rows, right=[2, 3]))


def _document(found: Found, job: str | None) -> dict[str, object]:
    revisions = [
        {"job": one.job, "uuid": one.revision.uuid, "bytes_alone": one.alone}
        for one in found.revisions
        if job in (None, one.job)
    ]
    jobs = [
        {"job": one.job, "revisions": one.revisions, "bytes_alone": one.alone}
        for one in found.jobs
        if job in (None, one.job)
    ]
    return {"jobs": jobs, "revisions": revisions, "unreadable": found.unreadable}
