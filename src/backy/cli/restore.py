"""`backy restore TARGET`: bring an image back."""

import os
import sys
from datetime import datetime

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json, local_time, table
from backy.domain.revision import Distrust, Revision
from backy.domain.sla import is_future
from backy.ground.clock import SystemClock
from backy.ground.errors import BackyError, OptionRefused, StorageFailed
from backy.ground.linux import keep_freed_memory
from backy.ground.units import format_duration, format_size
from backy.operation.restore import BadRange, restore
from backy.operation.select import choose_disk, choose_one
from backy.repository import history as histories
from backy.target.rbd import PREFIX
from backy.target.registry import STREAM, CephOptions, find_target


@click.command()
@click.option(
    "-r", "--revision", "spec", default="latest", metavar="SPEC", show_default=True, help="Which one."
)
@click.option("--disk", metavar="NAME", help="Which disk, of a revision that has several.")
@click.option("--keep-going", is_flag=True, help="Restore what can be, zeros elsewhere; exit code 1.")
@click.option("--bad-ranges", metavar="FILE", help="Where --keep-going writes its list, as JSON.")
@click.option("--read-back", is_flag=True, help="Re-read the target from the disk and compare.")
@click.option("--overwrite", is_flag=True, help="Write over an RBD image that exists.")
@click.option("--ceph-conf", metavar="FILE", help="Configuration of the cluster, for rbd:…")
@click.option("--ceph-user", metavar="NAME", help="Who writes there, without 'client.'.")
@click.argument("target")
@pass_options
def command(
    options: Options,
    spec: str,
    disk: str | None,
    bad_ranges: str | None,
    target: str,
    ceph_conf: str | None,
    ceph_user: str | None,
    *,
    keep_going: bool,
    read_back: bool,
    overwrite: bool,
) -> None:
    """Restore a revision to a file, device, RBD image or stdout.

    Of a revision of several disks, one at a time: --disk says which.

    TARGET is a file (new, or replaced when the restore has succeeded), a block device that is not in
    use, rbd:POOL/IMAGE or rbd:POOL/NAMESPACE/IMAGE for an image in Ceph, or - for standard output. Every
    chunk is checked on the way.

    \b
    Example:
      backy -b /srv/backy/vm01 restore -r 'last(tag:daily)' /dev/vg0/vm01
      backy -b /srv/backy/vm01 restore --overwrite rbd:rbd/vm01
      backy -b /srv/backy/vm01 restore - | ssh host 'cat > vm01.raw'
      backy -b /srv/backy/vm02 restore --disk root /dev/vg0/vm02-root
    """
    if read_back and target == STREAM:
        raise OptionRefused("--read-back", "standard output cannot be read back")
    if bad_ranges is not None:
        _check_list(bad_ranges, target, keep_going=keep_going)
    ceph = CephOptions(ceph_conf, ceph_user, overwrite)
    if ceph != CephOptions() and not target.startswith(PREFIX):
        raise OptionRefused("--overwrite, --ceph-conf, --ceph-user", f"they go with {PREFIX}POOL/IMAGE")
    keep_freed_memory()
    clock = SystemClock()
    started = clock.monotonic()
    with options.opened_job(whole=False) as (repository, job), options.log_for(job) as log:
        revision = choose_one(histories.load(job.directory), spec, job.name)
        chosen = choose_disk(revision, disk)
        name = chosen.disk if chosen else ""
        of_disk = {"disk": name} if name else {}
        _warn(revision, clock.now())
        log.info("restore started", job=job.name, revision=revision.uuid, target=target, **of_disk)
        try:
            bad = restore(
                repository,
                job,
                revision,
                find_target(target, sys.stdout.fileno(), ceph),
                options.progress(),
                keep_going=keep_going,
                read_back=read_back,
                disk=disk,
            )
        except BackyError as error:
            log.error("restore failed", job=job.name, revision=revision.uuid, error=error.message)
            raise
        log.info("restore finished", job=job.name, revision=revision.uuid, bad_ranges=len(bad))
    if target != STREAM:
        took = format_duration(clock.monotonic() - started)
        what = f"disk {name!r} of revision" if name else "revision"
        size = format_size(chosen.image_size if chosen else 0)
        options.tell(
            f"{what} {revision.uuid} of {local_time(revision.taken_at)} is in {target}: "
            f"{size} in {took}" + (", read back" if read_back else "")
        )
    if bad:
        _report(bad, bad_ranges)
        sys.exit(1)


def _check_list(file: str, target: str, *, keep_going: bool) -> None:
    """Refuse a list of bad ranges that cannot be written, or would replace the image; OptionRefused."""
    if not keep_going:
        raise OptionRefused("--bad-ranges", "it goes with --keep-going")
    if os.path.realpath(file) == os.path.realpath(target):
        raise OptionRefused("--bad-ranges", "it names the target, which is to hold the image")
    if not os.path.isdir(os.path.dirname(os.path.abspath(file))):
        raise OptionRefused("--bad-ranges", f"the directory of {file} does not exist")


def _warn(revision: Revision, now: datetime) -> None:
    """Say what speaks against a revision that can be restored all the same."""
    if revision.distrust is Distrust.SOURCE:
        edge.say(
            f"warning: revision {revision.uuid} is distrusted: what was read of its source may be "
            "wrong; an older one may be better."
        )
    if is_future(revision, now):
        edge.say(
            f"warning: revision {revision.uuid} is dated {local_time(revision.taken_at)}, which is "
            "in the future: it may be older than others; check the clock."
        )


def _report(bad: list[BadRange], file: str | None) -> None:
    lost = format_size(sum(one.length for one in bad))
    edge.say(f"{counted(len(bad), 'range')} ({lost}) could not be restored; the target has zeros there:")
    rows = [[str(one.offset), str(one.length), one.why] for one in bad]
    click.echo(table(["Offset", "Length", "Why"], rows, right=(0, 1)), err=True)
    if file is not None:
        try:
            with open(file, "w", encoding="utf-8") as out:
                out.write(json([one._asdict() for one in bad]) + "\n")
        except OSError as error:
            raise StorageFailed("write", file, error.errno or 0) from error
