"""`backy distrust`: say that revisions are not to be believed, or that they are again."""

from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import counted
from backy.domain.revision import Distrust, Revision
from backy.ground.errors import OptionRefused, RevisionGone
from backy.operation.select import choose, unclear_records
from backy.repository import history as histories
from backy.repository import trust


@click.command()
@click.option("-r", "--revision", "spec", metavar="SPEC", help="Which ones.")
@click.option("-f", "--from", "first", metavar="DATE", help="From this day on (YYYY-MM-DD).")
@click.option("-u", "--until", "last", metavar="DATE", help="Up to the end of this day.")
@click.option(
    "--reason",
    type=click.Choice([one.value for one in Distrust]),
    default=Distrust.SOURCE.value,
    show_default=True,
    help="What is to blame; 'store' is cleared by verify.",
)
@click.option("--undo", is_flag=True, help="Believe them again.")
@pass_options
def command(
    options: Options,
    spec: str | None,
    first: str | None,
    last: str | None,
    reason: str,
    *,
    undo: bool,
) -> None:
    """Say that revisions are not to be believed.

    They can be restored as before, but do not count for retention and service level, and no backup
    leans on them. Without -r, --from and --until: all revisions of the job.

    \b
    Example:
      backy -b /srv/backy/vm01 distrust -r latest
      backy -b /srv/backy/vm01 distrust --from 2026-11-01 --until 2026-11-03 --reason store
    """
    if spec is not None and (first is not None or last is not None):
        raise OptionRefused("-r", "it does not go with --from and --until")
    begin, end = _day("--from", first), _day("--until", last)
    if end is not None:
        end += timedelta(days=1)
    with options.opened_job() as (repository, job), options.log_for(job) as log:
        history = histories.load(job.directory)
        # Without a spec it is said of each by itself, so a record that cannot be read hides no other.
        found = history.revisions if spec is None else choose(history, spec, job.name)
        chosen = [one for one in found if _is_within(one, begin, end)]
        if undo:
            done = _each(chosen, lambda uuid: trust.trust(job.directory, uuid))
            trust.forget_distrust(repository)
        elif Distrust(reason) is Distrust.STORE:
            with trust.distrusting(repository.chunks):
                done = _each(chosen, lambda uuid: trust.distrust(job.directory, uuid, Distrust.STORE))
        else:
            done = _each(chosen, lambda uuid: trust.distrust(job.directory, uuid, Distrust.SOURCE))
        what = "trusted again" if undo else "distrusted"
        for uuid in done:
            log.info("trust edited", job=job.name, revision=uuid, now=what)
        for record in unclear_records(history):
            edge.say(f"warning: {record} cannot be read, and is left as it is: see 'backy status'.")
        options.tell(f"{counted(len(done), 'revision')} {what}")


def _each(chosen: list[Revision], edit: Callable[[str], Revision]) -> list[str]:
    """Edit all but those that are forgotten meanwhile; returns the UUIDs of those edited."""
    done = []
    for one in chosen:
        with suppress(RevisionGone):
            edit(one.uuid)
            done.append(one.uuid)
    return done


def _day(option: str, text: str | None) -> datetime | None:
    """The begin of a day in the zone of the host."""
    if text is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time()).astimezone()
    except (ValueError, OverflowError) as error:
        raise OptionRefused(option, f"{text!r} is not a day written as YYYY-MM-DD") from error


def _is_within(revision: Revision, begin: datetime | None, end: datetime | None) -> bool:
    return (begin is None or begin <= revision.taken_at) and (end is None or revision.taken_at < end)
