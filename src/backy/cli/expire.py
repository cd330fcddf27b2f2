"""`backy expire`: carry out, or show, what the schedule's retention asks for."""

from functools import partial

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json, local_time, table
from backy.domain.retention import Fate, Verdict, plan_expiry
from backy.ground.clock import SystemClock
from backy.operation.expire import execute_expiry
from backy.repository import history as histories


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan, with a reason for each revision.")
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON.")
@click.option(
    "--apply-orphaned-tags",
    is_flag=True,
    help="Let tags go that came from a schedule and are in it no longer.",
)
@pass_options
def command(options: Options, *, dry_run: bool, as_json: bool, apply_orphaned_tags: bool) -> None:
    """Remove revisions that the schedule no longer keeps.

    The scheduler does this after each backup. A tag that was renamed in the schedule or left it keeps
    its revisions until --apply-orphaned-tags says otherwise.

    \b
    Example:
      backy -b /srv/backy/vm01 expire --dry-run
    """
    with options.opened_job() as (_, job), options.log_for(job) as log:
        schedule = job.config().schedule
        history = histories.load(job.directory)
        now = SystemClock().now()
        planner = partial(plan_expiry, schedule=schedule, now=now, apply_orphaned=apply_orphaned_tags)
        plan = planner(history.revisions)
        refused = [one for one in plan if one.fate is Fate.REFUSED]
        if as_json:
            click.echo(json([one._asdict() for one in plan]))
        elif dry_run:
            click.echo(_table(plan))
        if not dry_run:
            removed = execute_expiry(job, plan, planner)
            for uuid in removed:
                log.info("revision expired", job=job.name, revision=uuid)
            if not as_json:
                options.tell(f"removed {counted(len(removed), 'revision')} of {len(plan)}")
        for one in refused:
            log.warning("revision dated in the future", job=job.name, revision=one.uuid)
            edge.say(
                f"warning: revision {one.uuid} is dated {local_time(one.taken_at)}, which is in the "
                "future: it is neither counted nor removed; check the clock."
            )


def _table(plan: tuple[Verdict, ...]) -> str:
    rows = [
        [
            local_time(one.taken_at),
            one.uuid,
            one.fate.value,
            ",".join(one.lost) or "-",
            "; ".join(one.reasons),
        ]
        for one in plan
    ]
    gone = sum(one.fate is Fate.REMOVE for one in plan)
    closing = f"{counted(len(plan), 'revision')}, {gone} to remove"
    return table(["Date (local)", "Revision", "Fate", "Loses", "Why"], rows) + "\n" + closing
