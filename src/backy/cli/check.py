"""`backy check`: what monitoring calls."""

import os
from datetime import UTC, datetime, timedelta

import click

from backy.cli.edge import printable
from backy.cli.options import Options, pass_options
from backy.cli.render import are, counted, json
from backy.daemon.prepare import daemon_runs
from backy.domain.health import (
    Finding,
    HeldTrash,
    JobHealth,
    Report,
    State,
    assess,
    judge_collection,
    judge_last_collection,
    judge_store,
    unknown,
)
from backy.domain.settings import DEFAULT_FILE, Settings
from backy.domain.sla import FUTURE_TOLERANCE, Figures, judge, smallest_interval
from backy.ground.clock import SystemClock
from backy.ground.errors import BackyError
from backy.operation.clones import survey_clones
from backy.operation.survey import Surveyed, survey
from backy.operation.trash import look_into_trash
from backy.repository import quarantine, remembered, trust
from backy.repository.repository import Repository

_CAUGHT_FOR = timedelta(days=7)


class _Monitored(click.Command):
    """A command whose usage errors are UNKNOWN to monitoring, which takes click's 2 for CRITICAL."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            report = unknown(f"{error.format_message()} 'backy check --help' tells what there is.")
            click.echo(printable(report.line))
            raise click.exceptions.Exit(int(report.state)) from error


@click.command(cls=_Monitored)
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
@click.option("--lenient", is_flag=True, help="Pass over configuration keys that are not known.")
@click.option("-c", "--config", metavar="FILE", help="As before the command (backy 2.5).")
@pass_options
def command(options: Options, config: str | None, *, as_json: bool, lenient: bool) -> None:
    """Tell monitoring whether all jobs keep their service level.

    Prints one line for Nagios with performance data, details behind it. Reads the histories
    themselves, so it needs no running scheduler, and says if there is none. Exit codes: 0 OK,
    1 WARNING, 2 CRITICAL, 3 UNKNOWN.

    \b
    Example:
      backy -c /etc/backy.conf check
    """
    if config is not None:
        options = options._replace(config=config)
    try:
        report = _report(options, lenient=lenient)
    except BackyError as error:
        report = unknown(error.message)
    except Exception as error:  # noqa: BLE001 - monitoring must never take a bug for OK
        report = unknown(f"internal error, please report it ({type(error).__name__}: {error})")
    if as_json:
        click.echo(
            json(
                {
                    "state": report.state.name,
                    "line": report.line,
                    "findings": [_document(one) for one in report.findings],
                }
            )
        )
    else:
        click.echo(printable(report.line))
        for one in report.findings:
            where = f"{one.job}: " if one.job else ""
            click.echo(printable(f"{one.state.name} {where}{one.text}".replace("|", "/")))
    raise click.exceptions.Exit(int(report.state))


def _report(options: Options, *, lenient: bool) -> Report:
    settings = options.settings(lenient=lenient).usable()
    base = options.base or settings.general.base_dir
    now = SystemClock().now()
    changed = os.stat(options.config or DEFAULT_FILE).st_mtime
    alive = daemon_runs(base)
    with Repository.open(base) as repository:
        found = survey(repository, settings.jobs, now)
        store = _store(repository, now) + _leftovers(repository, settings)
        if alive:
            # Without one, it is told anyway, and whoever collects by hand does so when he likes.
            store += _late_collection(repository, settings, now)
    jobs = _jobs(settings, found, datetime.fromtimestamp(changed, UTC), now)
    mistakes = [f"{one.key}: {one.why}" for one in settings.faults]
    return assess(jobs, mistakes, store, daemon_alive=alive)


def _store(repository: Repository, now: datetime) -> list[Finding]:
    """What there is to tell about the repository as a whole."""
    outcome = remembered.read_outcome(repository.chunks)
    held = [
        HeldTrash(one.sealed_at, f"{writer.job or 'a writer'} (pid {writer.pid})")
        for one in look_into_trash(repository)
        for writer in one.writers
    ]
    stopped, refused = ((), ()) if outcome is None else (outcome.stopped, outcome.refused)
    collection = judge_collection(stopped, held, now, refused)
    unhealed = sum(one.is_open for one in quarantine.cases(repository.chunks))
    return collection + judge_store(unhealed, trust.read_cycle(repository.chunks), now)


def _late_collection(repository: Repository, settings: Settings, now: datetime) -> list[Finding]:
    outcome = remembered.read_outcome(repository.chunks)
    interval = timedelta(seconds=settings.general.gc_interval)
    return judge_last_collection(outcome.at if outcome is not None else None, interval, now)


def _leftovers(repository: Repository, settings: Settings) -> list[Finding]:
    """Clones that take the space of an image for nothing."""
    return [
        Finding(
            State.WARNING,
            one.clone.job,
            f"clone {one.clone.path} is left over, {one.why}: 'backy clones delete' removes it",
        )
        for one in survey_clones(repository, settings.jobs)
        if one.why
    ]


def _jobs(
    settings: Settings, found: dict[str, Surveyed], changed: datetime, now: datetime
) -> list[JobHealth]:
    """A job without a directory was configured when the file changed last."""
    return [
        JobHealth(
            name,
            judge(
                found[name].figures,
                smallest_interval(job.schedule),
                configured_at=found[name].configured_at or changed,
                now=now,
            ),
            never=found[name].figures.newest is None,
            problem=found[name].problem or _alarm(found[name].figures, now),
            warnings=_warnings(found[name], now),
        )
        for name, job in settings.jobs.items()
    ]


def _alarm(found: Figures, now: datetime) -> str | None:
    """What is as bad as no backup: it stays until the operator has settled it, or a week."""
    if found.caught is None or not (found.misled or now - found.caught < _CAUGHT_FOR):
        return None
    what = "the source called changed bytes unchanged"
    if not found.misled:
        return f"{what}, which was noticed before a revision relied on it"
    which = f"{counted(found.misled, 'revision')} {are(found.misled)} distrusted"
    return f"{what}, so {which}: see 'backy status', and then 'backy forget' or 'backy distrust --undo'"


def _warnings(found: Surveyed, now: datetime) -> tuple[str, ...]:
    figures = found.figures
    told = (
        (figures.unreadable, "record", "cannot be read: see 'backy status'"),
        (figures.lost, "record", f"{are(figures.lost)} gone: see 'backy status'"),
        (figures.damaged, "revision", f"{are(figures.damaged)} damaged: see 'backy status'"),
        (figures.future, "revision", f"{are(figures.future)} dated in the future: check the clock"),
    )
    warnings = tuple(f"{counted(number, noun)} {what}" for number, noun, what in told if number)
    if found.configured_at is not None and found.configured_at - now > FUTURE_TOLERANCE:
        # Without a backup it would be in time until then.
        warnings += ("it was set up in the future: check the clock",)
    return warnings


def _document(finding: Finding) -> dict[str, object]:
    return {"state": finding.state.name, "job": finding.job, "text": finding.text}
