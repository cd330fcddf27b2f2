"""`backy gc`: give the space back of chunks that no revision needs any more."""

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json, local_time, table
from backy.ground.clock import SystemClock
from backy.ground.units import format_size
from backy.operation.collect import Collected, Plan, collect, plan_collection
from backy.operation.trash import Waiting
from backy.repository.garbage import Chunks


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--now", "waive_grace", is_flag=True, help="Do not keep what goes for another day.")
@click.option("--force", is_flag=True, help="Even if more than half of the store goes.")
@click.option(
    "--gone",
    multiple=True,
    metavar="NAME",
    help="A job or revision (UUID) that was removed on purpose; several times for several.",
)
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
@pass_options
def command(
    options: Options,
    *,
    dry_run: bool,
    waive_grace: bool,
    force: bool,
    gone: tuple[str, ...],
    as_json: bool,
) -> None:
    """Give back the space of chunks that no revision needs.

    Works beside every other command, on the whole repository. A chunk that nobody needs goes to the
    trash first, and leaves it a day later at the earliest. What cannot be read or has vanished
    without 'forget' stops it: then nothing is removed.

    \b
    Example:
      backy -b /srv/backy gc --dry-run
      backy -b /srv/backy gc --now
    """
    clock = SystemClock()
    with options.opened() as (repository, _), options.log_for(None if dry_run else repository) as log:
        if dry_run:
            plan = plan_collection(repository, clock, options.progress(), gone=gone)
            if as_json:
                click.echo(json(_document(plan)))
            else:
                _tell_plan(options, plan)
            return
        log.info("collection started", waive_grace=waive_grace, force=force, gone=list(gone))
        done = collect(
            repository, clock, options.progress(), waive_grace=waive_grace, force=force, gone=gone
        )
        log.info(
            "collection finished",
            condemned=done.condemned.files,
            purged=done.purged.files,
            bytes=done.purged.bytes,
        )
        for path in done.foreign[:10]:
            log.warning("file that is not a chunk was left alone", path=path)
        for why in done.refused[:10]:
            log.warning("file that the system refuses was left alone", error=why)
        if as_json:
            click.echo(json(_document(done)))
        else:
            _tell(options, done)


def _tell_plan(options: Options, plan: Plan) -> None:
    _tell_waiting(options, plan.waiting)
    _tell_left_alone(plan)
    trash = ""
    if plan.trash.files:
        size = format_size(plan.trash.bytes)
        trash = f", besides {counted(plan.trash.files, 'chunk')} in the trash ({size})"
    options.tell(
        f"{counted(plan.unneeded.files, 'chunk')} of {plan.total} would go: "
        f"{format_size(plan.unneeded.bytes)}{trash}"
    )


def _tell(options: Options, done: Collected) -> None:
    _tell_waiting(options, done.waiting)
    _tell_left_alone(done)
    options.tell(
        f"{counted(done.purged.files, 'chunk')} removed ({format_size(done.purged.bytes)}), "
        f"{counted(done.condemned.files, 'chunk')} put into the trash "
        f"({format_size(done.condemned.bytes)}), {done.left} left"
    )


def _tell_waiting(options: Options, waiting: tuple[Waiting, ...]) -> None:
    if not waiting or options.quiet:
        return
    rows = [
        [
            one.generation,
            local_time(one.sealed_at),
            local_time(one.ripe_at),
            ", ".join(
                f"{writer.job or '?'} (pid {writer.pid}, since {local_time(writer.since)})"
                for writer in one.writers
            )
            or "-",
        ]
        for one in waiting
    ]
    click.echo(table(["In the trash", "Since (local)", "Goes after", "Held by"], rows))


def _tell_left_alone(found: Plan | Collected) -> None:
    whys = [f"{path} is not a file of this store" for path in found.foreign]
    for some in (whys, [one.rstrip(".") for one in found.refused]):
        if some:
            more = f" (and {len(some) - 1} more)" if len(some) > 1 else ""
            edge.say(f"warning: {some[0]}: it was left alone{more}.")


def _document(found: Plan | Collected) -> dict[str, object]:
    """All fields by name, those of the records in it too."""
    waiting = [
        {**one._asdict(), "writers": [writer._asdict() for writer in one.writers]}
        for one in found.waiting
    ]
    counts = {
        name: value._asdict() for name, value in found._asdict().items() if isinstance(value, Chunks)
    }
    return {**found._asdict(), **counts, "waiting": waiting}
