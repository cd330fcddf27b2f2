"""`backy verify --slice`: running one, and telling what it did."""

import click

from backy.cli import edge
from backy.cli.options import Options
from backy.cli.render import counted, json, table
from backy.ground.clock import SystemClock
from backy.ground.errors import OptionRefused
from backy.ground.units import format_duration, parse_interval
from backy.operation.slices import Slice, verify_slice


def run_slice(options: Options, duration: str) -> Slice:
    """Go on with the walk for so long, and log it; OptionRefused, StorageFailed, OSError."""
    try:
        seconds = parse_interval(duration)
    except ValueError as error:
        raise OptionRefused("--slice", str(error)) from error
    with options.opened() as (repository, _), options.log_for(repository) as log:
        log.info("verify started", slice=duration)
        found = verify_slice(repository, SystemClock(), seconds, options.progress())
        log.info(
            "verify finished",
            slice=duration,
            chunks=found.chunks,
            bad=len(found.bad),
            whole=found.whole,
            failed=found.failed,
        )
        return found


def tell_slice(options: Options, found: Slice, *, as_json: bool) -> None:
    """What was found, how far the walk has come, and what could not be done."""
    if as_json:
        document = {
            **found._asdict(),
            "bad": [one._asdict() for one in found.bad],
            "slices_per_cycle": found.slices_per_cycle,
        }
        click.echo(json(document))
    elif found.bad:
        rows = [[one.chunk, "yes" if one.aside else "no", one.why] for one in found.bad]
        click.echo(table(["Chunk", "Aside", "Why"], rows))
    if not as_json:
        done = f"{counted(found.chunks, 'chunk')} verified, {len(found.bad)} bad: "
        if found.whole:
            since = (found.cycle.finished_at or found.cycle.started_at) - found.cycle.started_at
            took = format_duration(max(since.total_seconds(), 0.0))
            options.tell(f"{done}the whole store is verified now, begun {took} ago")
        elif found.failed is None:
            options.tell(
                f"{done}{found.share:.1%} of the store; one such slice a day takes "
                f"{counted(found.slices_per_cycle or 0, 'day')} for all of it"
            )
        else:
            options.tell(f"{done}{found.share:.1%} of the store")
        if found.damaged:
            options.tell(f"{counted(found.damaged, 'revision')} damaged: see 'backy reports'")
    if found.failed is not None:
        edge.say(f"warning: not everything could be done: {found.failed}")
