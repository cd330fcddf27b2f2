"""`backy backup TAGS`: make a revision."""

import click
import msgspec

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import counted
from backy.domain import tags as tag_rules
from backy.domain.chunk import Codec, parse_codec
from backy.domain.revision import Consistency, Reading, Stats
from backy.ground.clock import SystemClock
from backy.ground.errors import BackyError, OptionRefused
from backy.ground.linux import keep_freed_memory
from backy.ground.units import format_duration, format_size
from backy.operation.backup import Coding, backup
from backy.source.base import Owner
from backy.source.registry import open_group


@click.command()
@click.option(
    "-f", "--force", is_flag=True, help="Allow tags outside the schedule; they go at the next expiry."
)
@click.option(
    "--codec", metavar="CODEC", help="lz4, none or zstd[:LEVEL] [default: the configuration's, or lz4]."
)
@click.option(
    "--delta",
    type=click.Choice(["auto", "off"]),
    help="Store changed chunks as their changed blocks [default: the configuration's, or auto].",
)
@click.argument("tags")
@pass_options
def command(options: Options, tags: str, codec: str | None, delta: str | None, *, force: bool) -> None:
    """Make a revision of the job's image.

    TAGS is a comma-separated list of tags of the job's schedule, or manual:NAME, which never expires.

    \b
    Example:
      backy -b /srv/backy/vm01 backup daily,manual:before-upgrade
    """
    keep_freed_memory()
    settings = options.global_config()
    if codec is not None:
        settings = settings._replace(codec=_parsed(codec))
    if delta is not None:
        settings = settings._replace(delta=delta == "auto")
    coding = Coding(settings.codec, settings.delta)
    with options.opened_job() as (repository, job), options.log_for(job) as log:
        config = job.config()
        wanted = tag_rules.allowed(tags, config.schedule, force)
        owner = Owner(repository.format.repository, job.name)
        group = open_group(config.source, job.config_path, owner)
        legacy = settings.legacy + config.legacy
        if legacy:
            log.warning("settings of older versions have no effect", keys=", ".join(legacy))
        log.info("backup started", job=job.name, tags=tags)

        def tell(what: str) -> None:
            log.warning(what, job=job.name)
            edge.say(f"note: {what.rstrip('.')}.")

        try:
            revision = backup(
                repository, job, group, wanted, coding, SystemClock(), options.progress(), tell
            )
        except BackyError as error:
            log.error("backup failed", job=job.name, error=error.message)
            raise
        for name, disk in (revision.disks or {}).items():
            log.info(
                "disk backed up",
                job=job.name,
                revision=revision.uuid,
                disk=name,
                consistency=disk.consistency.value,
                **_read(disk.reading),
                **msgspec.structs.asdict(disk.stats),
            )
        log.info(
            "backup finished",
            job=job.name,
            revision=revision.uuid,
            consistency=revision.consistency.value,
            **({"freeze": revision.freeze.value} if revision.freeze else {}),
            **({} if revision.disks else _read(revision.reading)),
            **msgspec.structs.asdict(revision.stats),
        )
    stats = revision.stats
    options.tell(
        f"revision {revision.uuid}: {format_size(stats.bytes_read)} read in "
        f"{format_duration(stats.duration)}, {_new_chunks(stats)}, "
        f"{format_size(stats.bytes_written)} stored"
    )
    if revision.consistency is Consistency.TORN:
        torn = [
            repr(name)
            for name, disk in (revision.disks or {}).items()
            if disk.consistency is Consistency.TORN
        ]
        of_disks = f" of {', '.join(torn)}" if torn else ""
        edge.say(
            f"warning: the image{of_disks} changed while it was read, so this revision is no single "
            "instant of it (torn); stop the machine or back up a snapshot."
        )


def _read(reading: Reading | None) -> dict[str, str | None]:
    """How much was read, for the log."""
    return {
        "since": reading.since if reading else None,
        "read_all_because": reading.why if reading and not reading.since else None,
    }


def _new_chunks(stats: Stats) -> str:
    deltas = f" ({stats.chunks_delta} as deltas)" if stats.chunks_delta else ""
    return f"{counted(stats.chunks_new, 'new chunk')}{deltas}"


def _parsed(codec: str) -> Codec:
    try:
        return parse_codec(codec)
    except ValueError as error:
        raise OptionRefused("--codec", str(error)) from error
