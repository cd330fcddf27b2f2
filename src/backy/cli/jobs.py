"""`backy jobs` (`show-jobs`): configured jobs, from their histories."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json, local_time, table
from backy.daemon import jobs as rules
from backy.daemon.jobs import ScheduledJob, Status
from backy.daemon.prepare import daemon_runs
from backy.domain.config import JobConfig
from backy.domain.schedule import next_slot
from backy.ground.clock import SystemClock
from backy.ground.errors import BackyError
from backy.ground.units import format_duration
from backy.operation.survey import survey
from backy.repository.repository import Repository

_HOURS = 24


@click.command()
@click.option("--forecast", is_flag=True, help="Show the load that the schedules make in the next day.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--lenient", is_flag=True, help="Pass over configuration keys that are not known.")
@click.option("-c", "--config", metavar="FILE", help="As before the command (backy 2.5).")
@pass_options
def command(
    options: Options, config: str | None, *, forecast: bool, as_json: bool, lenient: bool
) -> None:
    """List configured jobs with service level, last and next run.

    With --forecast: how many jobs start in each hour, and how many workers they keep busy, by the
    duration of their last backups.

    \b
    Example:
      backy -c /etc/backy.conf jobs --forecast
    """
    if config is not None:
        options = options._replace(config=config)
    settings = options.settings(lenient=lenient).usable()
    if settings.faults:
        mistakes = counted(len(settings.faults), "mistake")
        edge.say(f"warning: {settings.file} has {mistakes} and jobs may be left out: see check-config.")
    base = options.base or settings.general.base_dir
    now = SystemClock().now()
    with Repository.open(base) as repository:
        found = survey(repository, settings.jobs, now)
        names = list(settings.jobs)
        jobs = [
            rules.planned(rules.new_job(name, settings.jobs[name], now), found[name], now)
            for name in names
        ]
        if forecast:
            _show_forecast(_forecast(jobs, now), as_json=as_json)
            return
        alive = daemon_runs(base)
        entries = [rules.status(job, now, _state(repository, job, alive=alive)) for job in jobs]
    click.echo(json([one._asdict() for one in entries]) if as_json else jobs_table(entries))


def _state(repository: Repository, job: ScheduledJob, *, alive: bool) -> str:
    if job.problem is not None:
        return "cannot be read"
    try:
        with repository.job(job.name) as opened:
            if opened.is_backing_up():
                return "running"
    except BackyError:
        return "not set up yet"
    return "waiting for deadline" if alive else "no scheduler runs"


def jobs_table(entries: Sequence[Status]) -> str:
    """A line for each job, with times of this host's zone."""
    rows = [
        [
            one.job,
            one.sla,
            format_duration(one.sla_overdue) if one.sla_overdue else "-",
            one.status,
            local_time(one.last_time) if one.last_time else "never",
            one.last_tags or "-",
            local_time(one.next_time) if one.next_time else "-",
            one.next_tags or "-",
        ]
        for one in entries
    ]
    head = ["Job", "SLA", "Overdue", "Status", "Last (local)", "Tags", "Next (local)", "Tags"]
    return table(head, rows)


class _Hour(NamedTuple):
    """An hour of the forecast; `busy` is in workers."""

    begin: datetime
    starts: int
    busy: float


def _forecast(jobs: list[ScheduledJob], now: datetime) -> list[_Hour]:
    starts: Counter[int] = Counter()
    seconds: Counter[int] = Counter()
    begin = now.replace(minute=0, second=0, microsecond=0)
    for job in jobs:
        for at in _runs(job, now, begin + timedelta(hours=_HOURS)):
            hour = int((at - begin).total_seconds() // 3600)
            starts[hour] += 1
            left = max(round(job.figures.duration), 1)
            offset = (at - begin).total_seconds() % 3600
            while left > 0 and hour < _HOURS:
                part = min(left, 3600 - offset)
                seconds[hour] += round(part)
                left, hour, offset = round(left - part), hour + 1, 0.0
    return [
        _Hour(begin + timedelta(hours=hour), starts[hour], round(seconds[hour] / 3600, 3))
        for hour in range(_HOURS)
    ]


def _runs(job: ScheduledJob, now: datetime, until: datetime) -> list[datetime]:
    """When the job starts until then: its next run, and every slot of its tags behind that."""
    config: JobConfig = job.config
    if not config.schedule or job.run.at >= until:
        return []
    at, found = job.run.at, [max(job.run.at, now)]
    while True:
        at = min(next_slot(max(at, now), one.interval, job.moved) for one in config.schedule.values())
        if at >= until:
            return found
        found.append(at)


def _show_forecast(hours: list[_Hour], *, as_json: bool) -> None:
    if as_json:
        click.echo(json([one._asdict() for one in hours]))
        return
    rows = [[local_time(one.begin), str(one.starts), f"{one.busy:.2f}"] for one in hours]
    click.echo(table(["Hour (local)", "Starts", "Workers busy"], rows, right=(1, 2)))
