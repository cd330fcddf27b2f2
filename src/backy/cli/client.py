"""`backy client WHAT`: ask the running scheduler."""

import click

from backy.cli.edge import printable
from backy.cli.options import Options, pass_options
from backy.cli.render import json, table
from backy.daemon.client import Client, Entry, find_token

_WHAT = ("jobs", "status", "run", "runall", "reload", "check")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("-c", "--config", metavar="FILE", help="As before the command (backy 2.5).")
@click.argument("what", type=click.Choice(_WHAT), metavar="WHAT")
@click.argument("argument", required=False, metavar="[JOB|REGEX]")
@pass_options
def command(
    options: Options, config: str | None, what: str, argument: str | None, *, as_json: bool
) -> None:
    """Ask the running scheduler.

    WHAT is jobs [REGEX], status, run JOB, runall, reload or check. The scheduler is found by `api` in
    the configuration; its token too, or in BASE/.api-token.

    \b
    Example:
      backy -c /etc/backy.conf client run vm01
    """
    if config is not None:
        options = options._replace(config=config)
    if argument is not None and what not in ("jobs", "run"):
        raise click.UsageError(f"{what} takes no argument")
    client = connect(options)
    if what == "jobs":
        entries = client.status(argument or "")
        click.echo(json(entries) if as_json else _table(entries))
    elif what == "status":
        _show_counts(client.status(), as_json=as_json)
    elif what == "run":
        if argument is None:
            raise click.UsageError("run needs the name of a job")
        client.run(argument)
        options.tell(f"job {argument!r} runs as soon as a worker is free")
    elif what == "runall":
        names = [entry["job"] for entry in client.status()]
        for name in names:
            client.run(name)
        options.tell(f"{len(names)} jobs run as workers become free")
    elif what == "reload":
        client.reload()
        options.tell("the scheduler has read its configuration again")
    else:
        _check(client.status(), as_json=as_json)


def connect(options: Options) -> Client:
    """The client of the configuration's scheduler."""
    settings = options.settings(lenient=True).usable()
    token = find_token(settings.api, options.base or settings.general.base_dir)
    return Client(settings.api.url, token)


def _table(entries: list[Entry]) -> str:
    head = ["Job", "SLA", "Overdue", "Status", "Last", "Tags", "Next", "Tags"]
    rows = [
        (
            one["job"],
            one["sla"],
            one["sla_overdue"],
            one["status"],
            one["last_time"],
            one["last_tags"],
            one["next_time"],
            one["next_tags"],
        )
        for one in entries
    ]
    return table(head, [[str(cell or "-") for cell in row] for row in rows])


def _show_counts(entries: list[Entry], *, as_json: bool) -> None:
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry["status"]] = counts.get(entry["status"], 0) + 1
    if as_json:
        click.echo(json(counts))
    else:
        click.echo(
            table(["Status", "Jobs"], [[k, str(n)] for k, n in sorted(counts.items())], right=(1,))
        )


def _check(entries: list[Entry], *, as_json: bool) -> None:
    """As `check`, by what the scheduler says."""
    late = [entry for entry in entries if entry["sla"] != "OK"]
    if as_json:
        click.echo(json(late))
    elif late:
        click.echo(f"CRITICAL: {len(late)} of {len(entries)} jobs out of SLA")
        for entry in late:
            click.echo(printable(f"{entry['job']}: {entry['sla']}, {entry['sla_overdue']} s old"))
    else:
        click.echo(f"OK: {len(entries)} jobs within SLA")
    if late:
        raise click.exceptions.Exit(2)
