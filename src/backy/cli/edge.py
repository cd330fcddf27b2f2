"""The one edge where errors become a sentence on stderr and an exit code (doc/exit-codes.md).

Limits: nothing else in backy prints errors or exits.
"""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import click

from backy.ground.errors import BackyError

INTERRUPTED = 130
TERMINATED = 143
VERBOSE_FLAGS = ("-v", "--verbose")


def leave(command: Callable[[], object]) -> NoReturn:
    """Run, say what went wrong, and exit."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    try:
        command()
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BackyError as error:
        say(error.message)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted; nothing was left half done")
        sys.exit(INTERRUPTED)
    except _Terminated:
        say("terminated; nothing was left half done")
        sys.exit(TERMINATED)
    except Exception as error:  # noqa: BLE001 - the last edge: a bug is told in one sentence too
        _say_unexpected(error)
        sys.exit(1)
    sys.exit(0)


def say(message: str) -> None:
    """One message on stderr."""
    click.echo(f"backy: {message}", err=True)


def _say_unexpected(error: Exception) -> None:
    """What the system refused outside the places that know better, or a bug."""
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        say(f"{name}{os.strerror(error.errno or errno.EIO)}.")
    elif isinstance(error, MemoryError):
        say("there is not enough memory.")
    else:
        if any(flag in sys.argv for flag in VERBOSE_FLAGS):
            traceback.print_exception(error)
        say(f"internal error, please report it ({type(error).__name__}: {error}); -v shows where.")


class _Terminated(BaseException):
    """SIGTERM or SIGHUP: end like at Ctrl-C, so that what was begun is taken back."""


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated
