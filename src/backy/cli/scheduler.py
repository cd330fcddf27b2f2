"""`backy scheduler`: the daemon."""

import os

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.domain.settings import DEFAULT_FILE
from backy.ground.clock import SystemClock
from backy.ground.errors import BackyError


@click.command()
@click.option("--lenient", is_flag=True, help="Pass over configuration keys that are not known.")
@click.option("-c", "--config", metavar="FILE", help="As before the command (backy 2.5).")
@pass_options
def command(options: Options, config: str | None, *, lenient: bool) -> None:
    """Run the scheduler, which backs up all configured jobs.

    It stays in the foreground, reloads on SIGHUP, and ends itself and its children on SIGTERM. A job
    with a mistake in its configuration is told and left out; the others run.

    \b
    Example:
      backy -c /etc/backy.conf -l /var/log/backy.log scheduler
    """
    from backy.daemon.run import run

    if config is not None:
        options = options._replace(config=config)
    # As absolute paths: the daemon works in the base directory and opens both again.
    options = options._replace(config=os.path.abspath(options.config or DEFAULT_FILE))
    if options.log is None:
        options = options._replace(verbose=True)
    else:
        options = options._replace(log=os.path.abspath(options.log))
    settings = options.settings(lenient=lenient).usable()
    if options.base is not None:
        settings = settings._replace(general=settings.general._replace(base_dir=options.base))
    with options.log_for(None) as log:
        try:
            run(
                settings,
                lambda: options.settings(lenient=lenient),
                SystemClock(),
                log,
                # So that a collector reads the children's logs as well.
                ("--log-format", options.log_format),
            )
        except BackyError as error:
            log.error("scheduler not started", error=edge.printable(error.message))
            raise
