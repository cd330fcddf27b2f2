"""`backy status`: list the revisions of a job, or the jobs of a repository."""

import sys
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import are, counted, json, local_time, table
from backy.domain.legacy import as_in_2_5
from backy.domain.revision import Consistency, Reading, Revision, Stats, Trust
from backy.ground.errors import JobMissing, StorageFailed
from backy.ground.units import format_duration, format_size
from backy.operation.select import choose
from backy.repository import history as histories
from backy.repository.history import History
from backy.repository.repository import Repository


@click.command()
@click.option("-r", "--revision", "spec", metavar="SPEC", help="Only these revisions.")
@click.option(
    "--stats", is_flag=True, help="What each backup read, found and stored, and how long it took."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--yaml", "as_yaml", is_flag=True, help="As YAML, in the terms of backy 2.5.")
@pass_options
def command(options: Options, spec: str | None, *, stats: bool, as_json: bool, as_yaml: bool) -> None:
    """List revisions, or the jobs of a repository.

    With a job (-b BASE/JOB, or -j) its revisions, oldest first; without, all jobs.

    \b
    Example:
      backy -b /srv/backy/vm01 status
      backy -b /srv/backy status --json
    """
    with options.opened(whole=False) as (repository, name):
        if name is None and spec is None:
            _show_jobs(repository, as_json=as_json, as_yaml=as_yaml)
            return
    with options.opened_job(whole=False) as (_, job):
        history = histories.load(job.directory)
        revisions = list(history.revisions) if spec is None else choose(history, spec, job.name)
        if as_json:
            click.echo(json(revisions))
        elif as_yaml:
            click.echo(_yaml([as_in_2_5(one) for one in revisions]))
        elif stats:
            click.echo("\n".join(_told(one) for one in revisions))
        else:
            click.echo(_revision_table(revisions))
        _warn(history, job.name)


def _yaml(document: object) -> str:
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False)).rstrip()


def _revision_table(revisions: list[Revision]) -> str:
    head = ["Date (local)", "Revision", "Image", "Read", "Stored", "Took", "Tags", "Remarks"]
    rows = [
        [
            local_time(one.taken_at),
            one.uuid,
            format_size(one.image_size),
            format_size(one.stats.bytes_read),
            format_size(one.stats.bytes_written),
            format_duration(one.stats.duration),
            ",".join(one.tags) or "-",
            _remarks(one),
        ]
        for one in revisions
    ]
    stored = sum(one.stats.bytes_written for one in revisions)
    closing = f"{counted(len(revisions), 'revision')}, {format_size(stored)} stored"
    return table(head, rows, right=(2, 3, 4, 5)) + "\n" + closing


def _told(revision: Revision) -> str:
    """What the record says of one backup, in a few lines."""
    lines = [
        f"{local_time(revision.taken_at)}  {revision.uuid}  {','.join(revision.tags) or '-'}",
        *_figures(revision.stats, "" if revision.disks else _scope(revision.reading)),
    ]
    for name, disk in (revision.disks or {}).items():
        size = next(one.image_size for one in revision.maps if one.disk == name)
        torn = ", torn" if disk.consistency is Consistency.TORN else ""
        lines.append(f"  disk {name}: {format_size(size)}{torn}")
        lines += [f"  {line}" for line in _figures(disk.stats, _scope(disk.reading))]
    return "\n".join([*lines, *([f"  {_remarks(revision)}"] if _remarks(revision) else [])])


def _scope(reading: Reading | None) -> str:
    """How much of an image was read, in words."""
    if reading is not None and reading.since is not None:
        return f"changes since {reading.since}; everything last by {reading.last_full}"
    return (
        f"all of that, because {reading.why}" if reading is not None and reading.why else "all of that"
    )


def _figures(stats: Stats, scope: str) -> list[str]:
    """What was read, found and stored, in lines."""
    audited = f", {format_size(stats.bytes_audited)} of them as an audit" if stats.bytes_audited else ""
    seconds = ", ".join(f"{name} {took:.2f} s" for name, took in stats.seconds.items())
    new = f"{format_size(stats.bytes_new)} in {counted(stats.chunks_new, 'chunk')}"
    deltas = counted(stats.chunks_delta, "delta")
    in_use = format_size(stats.bytes_scanned)
    known = f"{counted(stats.chunks_hit, 'chunk')} found, {stats.chunks_inherited} inherited"
    return [
        f"  read     {format_size(stats.bytes_read)}{audited}; {in_use} of the image may hold data",
        *([f"           {scope}"] if scope else []),
        f"  changed  {format_size(stats.bytes_changed)}",
        f"  new      {new}, of which {deltas}; stored as {format_size(stats.bytes_written)}",
        f"  known    {known}, {stats.chunks_zero} of {stats.chunks} are zeros",
        f"  took     {format_duration(stats.duration)}" + (f" ({seconds})" if seconds else ""),
    ]


def _remarks(revision: Revision) -> str:
    remarks = []
    if revision.trust is not Trust.TRUSTED:
        remarks.append(revision.trust.value)
    if revision.damaged:
        remarks.append(f"damaged: {format_size(revision.damaged)} lost")
    if revision.consistency is Consistency.TORN:
        remarks.append("torn: changed while it was read")
    if revision.freeze is not None:
        remarks.append(revision.freeze.value)
    return ", ".join(remarks)


class _JobSummary(NamedTuple):
    """A job's line in the overview."""

    job: str
    revisions: int
    latest: datetime | None
    image_size: int
    torn: int
    damaged: int
    unusable_records: int
    problem: str | None = None


def _summary(repository: Repository, name: str) -> _JobSummary:
    """What there is to say of a job, be it that it cannot be read; JobMissing."""
    try:
        with repository.job(name) as job:
            history = histories.load(job.directory)
    except StorageFailed as error:
        return _JobSummary(name, 0, None, 0, 0, 0, 0, error.message)
    newest = history.revisions[-1] if history.revisions else None
    return _JobSummary(
        name,
        len(history.revisions),
        newest.taken_at if newest else None,
        newest.image_size if newest else 0,
        sum(one.consistency is Consistency.TORN for one in history.revisions),
        sum(one.damaged > 0 for one in history.revisions),
        len(history.unreadable) + len(history.lost),
    )


def _show_jobs(repository: Repository, *, as_json: bool, as_yaml: bool) -> None:
    found = []
    for name in repository.directories():
        with suppress(JobMissing):  # gone meanwhile, or no job
            found.append(_summary(repository, name))
    if as_json or as_yaml:
        documents = [one._asdict() for one in found]
        click.echo(json(documents) if as_json else _yaml(documents))
    else:
        click.echo(_job_table(found))
    problems = [one.problem for one in found if one.problem is not None]
    for problem in problems:
        edge.say(f"warning: {problem}")
    if problems:
        sys.exit(1)


def _job_table(found: list[_JobSummary]) -> str:
    rows = []
    for one in found:
        problems = (
            (one.torn, "torn"),
            (one.damaged, "damaged"),
            (one.unusable_records, "records unusable"),
        )
        if one.problem is not None:
            rows.append([one.job, "-", "-", "-", "cannot be read"])
            continue
        rows.append(
            [
                one.job,
                str(one.revisions),
                local_time(one.latest) if one.latest else "never",
                format_size(one.image_size),
                ", ".join(f"{count} {word}" for count, word in problems if count),
            ]
        )
    return table(["Job", "Revisions", "Latest (local)", "Image", "Remarks"], rows, right=(1, 3))


def _warn(history: History, job: str) -> None:
    torn = sum(one.consistency is Consistency.TORN for one in history.revisions)
    if torn:
        which = f"{counted(torn, 'revision')} of {job!r} {are(torn)}"
        edge.say(f"warning: {which} torn: the image changed while it was read.")
    damaged = sum(one.damaged > 0 for one in history.revisions)
    if damaged:
        which = f"{counted(damaged, 'revision')} of {job!r} {are(damaged)}"
        edge.say(f"warning: {which} damaged: see 'backy reports'.")
    for unreadable in history.unreadable:
        edge.say(f"warning: {unreadable.error.message}")
    for uuid in history.lost:
        edge.say(
            f"warning: the record of revision {uuid} is gone; 'backy forget -r {uuid}' accepts that."
        )
