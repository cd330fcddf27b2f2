"""`backy check-config`: for deployment tools, before a reload."""

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json


@click.command()
@click.option("--lenient", is_flag=True, help="Pass over keys that are not known.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("-c", "--config", metavar="FILE", help="As before the command (backy 2.5).")
@pass_options
def command(options: Options, config: str | None, *, lenient: bool, as_json: bool) -> None:
    """Tell all mistakes in a configuration file, one a line.

    Exit code 0 if there are none, 1 otherwise. Keys that only older versions knew are listed and are
    no mistakes.

    \b
    Example:
      backy -c /etc/backy.conf check-config
    """
    if config is not None:
        options = options._replace(config=config)
    settings = options.settings(lenient=lenient)
    if as_json:
        faults = [{"file": one.file, "key": one.key, "why": one.why} for one in settings.faults]
        click.echo(json({"jobs": len(settings.jobs), "mistakes": faults, "legacy": settings.legacy}))
        if faults:
            raise click.exceptions.Exit(1)
        return
    if len(settings.faults) > 1:
        click.echo(
            edge.printable(f"backy: {settings.file} has {len(settings.faults)} mistakes:"), err=True
        )
        for one in settings.faults:
            click.echo(edge.printable(f"{one.key}: {one.why}"), err=True)
        raise click.exceptions.Exit(1)
    settings.complete()
    for key in settings.legacy:
        options.tell(f"{key} has no effect")
    schedules = counted(len(settings.schedules), "schedule")
    options.tell(f"{settings.file}: {counted(len(settings.jobs), 'job')}, {schedules}, no mistakes")
