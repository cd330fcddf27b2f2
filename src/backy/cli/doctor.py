"""`backy doctor`: does this host have what its backups need?"""

from contextlib import suppress

import click

from backy.cli.edge import printable
from backy.cli.options import Options, pass_options
from backy.cli.render import json
from backy.domain.config import DEFAULT_BASE
from backy.domain.diagnosis import Finding, Verdict
from backy.domain.settings import DEFAULT_FILE
from backy.ground.clock import SystemClock
from backy.ground.errors import ConfigError, NotARepository
from backy.operation.doctor import Patient, examine
from backy.repository.repository import locate


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("-c", "--config", metavar="FILE", help="As before the command.")
@pass_options
def command(options: Options, config: str | None, *, as_json: bool) -> None:
    """Examine host, repository and sources, and say what to do.

    Changes nothing. One line a finding: ok, note (nothing has to be done), or wrong. With -b and
    without -c, the repository's own jobs are looked at; -j looks at one job. Exit code 0 if nothing is
    wrong, 1 otherwise.

    \b
    Example:
      backy -c /etc/backy.conf doctor
      backy -b /srv/backy -j vm01 doctor
    """
    if config is not None:
        options = options._replace(config=config)
    found = []
    for one in examine(_patient(options), SystemClock()):
        found.append(one)
        if not as_json and (one.verdict is Verdict.WRONG or not options.quiet):
            click.echo(printable(_line(one)))
    wrong = [one for one in found if one.verdict is Verdict.WRONG]
    if as_json:
        click.echo(json({"wrong": len(wrong), "findings": [_document(one) for one in found]}))
    if wrong:
        raise click.exceptions.Exit(1)


def _patient(options: Options) -> Patient:
    """Whom to examine; a configuration that cannot be read is a fault like others."""
    if options.config is None and options.base is not None:
        base, job = options.base, options.job
        with suppress(NotARepository):  # one of the things to find
            base, job = locate(base, job)
        return Patient(base, "", None, only=job)
    file = options.config or DEFAULT_FILE
    try:
        settings = options.settings()
    except ConfigError as error:
        return Patient(options.base or DEFAULT_BASE, file, {}, [error], options.job)
    base = options.base or settings.general.base_dir
    return Patient(base, file, settings.jobs, settings.faults, options.job)


def _line(one: Finding) -> str:
    return f"{one.verdict.value:<5}  {one.subject}: {one.text}"


def _document(one: Finding) -> dict[str, str]:
    return {"verdict": one.verdict.value, "subject": one.subject, "text": one.text}
