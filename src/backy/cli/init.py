"""`backy init TYPE SOURCE`: create a job, and the repository where there is none."""

import os
import shlex

import click

from backy.cli.options import Options, pass_options
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import JobConfig, default_schedule
from backy.domain.names import check_job_name
from backy.ground.errors import JobExists, NotARepository, OptionRefused
from backy.repository import layout
from backy.repository.repository import Repository, create, create_job, locate
from backy.source import registry


@click.command()
@click.option(
    "--force", is_flag=True, help="Make a repository in a directory or file system that looks unfit."
)
@click.argument("kind", metavar="TYPE")
@click.argument("source")
@pass_options
def command(options: Options, kind: str, source: str, *, force: bool) -> None:
    """Create a job, and the repository where there is none.

    TYPE is `file`: SOURCE is a raw image file or a block device; or `rbd`: SOURCE is an image in Ceph,
    as POOL/IMAGE or POOL/NAMESPACE/IMAGE. The job is named by -b BASE/JOB, or
    by -b BASE -j JOB. A repository is made where BASE is missing, empty or holds only this job's
    directory; it sets 64 MiB aside, with which a full disk can be cleaned up.

    \b
    Example:
      backy -b /srv/backy/vm01 init file /srv/images/vm01.raw
      backy -b /srv/backy/vm02 init rbd rbd.hdd/vm02.root
    """
    config = JobConfig(registry.from_argument(kind, source, os.path.abspath(source)), default_schedule())
    group = registry.open_group(config.source, "init", None)
    with group.live():
        pass  # so a mistyped source shows now, not at night
    base, job = _place(options)
    check_job_name(job)
    try:
        found = locate(base, None)
        if found.job is not None:
            raise OptionRefused("-b", f"{base} is itself a job's directory in {found.base}")
    except NotARepository:
        path = os.path.join(base, job, layout.JOB_CONFIG)
        if os.path.lexists(path):  # or we would leave a repository and no job
            raise JobExists(job, path) from None
        create(base, [job], force=force)
    with Repository.open(base) as repository:
        create_job(repository.base, job, config)
    options.tell(
        f"job {job!r} in {base} backs up {group.disks[NO_DISK].image}; "
        f"next: backy -b {shlex.quote(f'{base}/{job}')} backup daily"
    )


def _place(options: Options) -> tuple[str, str]:
    """(repository, job) as the options mean them."""
    path = os.path.abspath(options.base_path())
    if options.job is not None:
        return path, options.job
    if options.base is None:
        raise OptionRefused("-b", "say where: -b BASE/JOB names the repository and the job")
    base, job = os.path.split(path)
    if not job:
        raise OptionRefused("-b", "a job cannot be the root directory: use -b BASE/JOB")
    return base, job
