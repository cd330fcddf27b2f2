"""`backy reload` (`reload-daemon`): have the running scheduler read its configuration again."""

import click

from backy.cli.client import connect
from backy.cli.options import Options, pass_options


@click.command()
@click.option("-c", "--config", metavar="FILE", help="As before the command (backy 2.5).")
@pass_options
def command(options: Options, config: str | None) -> None:
    """Have the running scheduler read its configuration again.

    A file with a mistake is refused and told, and the scheduler keeps what it has. A signal
    (SIGHUP) does the same, with the outcome in the scheduler's log.

    \b
    Example:
      backy -c /etc/backy.conf reload
    """
    if config is not None:
        options = options._replace(config=config)
    connect(options).reload()
    options.tell("the scheduler has read its configuration again")
