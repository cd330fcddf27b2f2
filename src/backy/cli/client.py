"""`backy client WHAT`: ask the running scheduler."""

from typing import NoReturn

import click

from backy.cli import edge
from backy.cli.jobs import jobs_table
from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json, table
from backy.daemon.client import Client, Entry, find_token
from backy.daemon.jobs import Status
from backy.domain.health import State, unknown
from backy.ground.errors import BackyError
from backy.ground.units import format_duration

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
    if what == "check":
        _check(options, as_json=as_json)
    client = connect(options)
    if what == "jobs":
        entries = client.status(argument or "")
        click.echo(json(entries) if as_json else jobs_table([Status(**one) for one in entries]))
    elif what == "status":
        _show_counts(client.status(), as_json=as_json)
    elif what == "run":
        if argument is None:
            raise click.UsageError("run needs the name of a job")
        client.run(argument)
        options.tell(f"job {argument!r} runs as soon as a worker is free")
    elif what == "runall":
        entries = client.status()
        # Without a next run its schedule is empty, and there are no tags to run it with.
        names = [entry["job"] for entry in entries if entry["next_time"] is not None]
        for name in names:
            client.run(name)
        without = len(entries) - len(names)
        left_out = f"; {without} without a schedule left out" if without else ""
        options.tell(f"{counted(len(names), 'job')} to run as workers become free{left_out}")
    else:
        client.reload()
        options.tell("the scheduler has read its configuration again")


def connect(options: Options) -> Client:
    """The client of the configuration's scheduler."""
    settings = options.settings(lenient=True).usable()
    token = find_token(settings.api, options.base or settings.general.base_dir)
    return Client(settings.api.url, token)


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


def _check(options: Options, *, as_json: bool) -> NoReturn:
    """As `check`, by what the scheduler says."""
    try:
        entries = connect(options).status()
    except BackyError as error:
        report = unknown(error.message)
        if as_json:
            edge.say(report.line)
        else:
            click.echo(edge.printable(report.line))
        raise click.exceptions.Exit(int(report.state)) from error
    late = [entry for entry in entries if entry["sla"] != "OK"]
    state = State.CRITICAL if late else State.OK
    if as_json:
        click.echo(json(late))
        raise click.exceptions.Exit(int(state))
    all_jobs = counted(len(entries), "job")
    verdict = f"{len(late)} of {all_jobs} out of SLA" if late else f"{all_jobs} within SLA"
    click.echo(f"{state.name}: {verdict} | jobs={len(entries)} late={len(late)}")
    for entry in late:
        age = format_duration(entry["sla_overdue"])
        click.echo(edge.printable(f"{state.name} {entry['job']}: {entry['sla']}, {age} old"))
    raise click.exceptions.Exit(int(state))
