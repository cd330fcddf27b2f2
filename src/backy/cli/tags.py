"""`backy tags`: set, add or remove tags of revisions."""

import click

from backy.cli.options import Options, pass_options
from backy.domain import tags as tag_rules
from backy.domain.revision import Revision
from backy.domain.tags import Edit
from backy.ground.errors import TagsDiffer
from backy.operation.select import choose
from backy.repository import history as histories


@click.command()
@click.option("-r", "--revision", "spec", required=True, metavar="SPEC", help="Which ones.")
@click.option(
    "--expect",
    metavar="TAGS",
    help="Do nothing to a revision that has other tags than these; exit code 1.",
)
@click.option("--autoremove", is_flag=True, help="Forget revisions that have no tag left.")
@click.option(
    "-f", "--force", is_flag=True, help="Allow tags outside the schedule; they go at the next expiry."
)
@click.argument("action", type=click.Choice([edit.value for edit in Edit]))
@click.argument("tags")
@pass_options
def command(
    options: Options,
    spec: str,
    expect: str | None,
    action: str,
    tags: str,
    *,
    autoremove: bool,
    force: bool,
) -> None:
    """Set, add or remove tags of revisions.

    TAGS is a comma-separated list ('' for none) of tags of the job's schedule, or manual:NAME.

    \b
    Example:
      backy -b /srv/backy/vm01 tags add -r latest manual:before-upgrade
      backy -b /srv/backy/vm01 tags set -r 0 --expect daily daily,weekly
    """
    with options.opened_job() as (_, job), options.log_for(job) as log:
        schedule = job.config().schedule

        def change(revision: Revision) -> Revision:
            if expect is not None and set(tag_rules.split(expect)) != set(revision.tags):
                wanted = tuple(tag_rules.split(expect))
                raise TagsDiffer(revision.uuid, wanted, tuple(revision.tags))
            after = tag_rules.edited(revision.tags, Edit(action), tags, schedule, force)
            return revision.with_tags(after)

        chosen = choose(histories.load(job.directory), spec, job.name)
        for one in chosen:
            change(one)  # so that a refusal of any leaves all as they are
        for one in chosen:
            revision = histories.edit(job.directory, one.uuid, change)
            log.info("tags edited", job=job.name, revision=one.uuid, tags=",".join(revision.tags))
            options.tell(f"revision {one.uuid}: {','.join(revision.tags) or '(no tags)'}")
            if autoremove and not revision.tags:
                histories.forget(job.directory, one.uuid)
                log.info("revision forgotten", job=job.name, revision=one.uuid)
                options.tell(f"forgot revision {one.uuid}")
