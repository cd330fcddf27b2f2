"""The one edge where errors become a sentence on stderr and an exit code (doc/exit-codes.md).

Limits: nothing else in backy prints errors or exits.
"""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import click

from backy.ground import linux
from backy.ground.errors import BackyError, SpecError

INTERRUPTED = 130
TERMINATED = 143
STDIN, STDOUT, STDERR = range(3)
# As long as the scheduler waits for the end of a child (see `daemon.workers`).
_LAST_SECONDS = 60
_VERBOSE = re.compile(r"-[a-z]*v[a-z]*|--verbose")


def leave(command: Callable[[], object]) -> NoReturn:
    """Run, say what went wrong, and exit; a number that the command returns is the exit code.

    That is how click hands on an `Exit`, unless it is to end the process itself.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    if STDOUT in _fill_standard_descriptors():
        say("standard output is closed: redirect it, to /dev/null if nobody reads it.")
        sys.exit(1)
    try:
        _end_with_scheduler()
        code = command()
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BackyError as error:
        # Only a spec's mistake is shown in a second and a third line.
        say(error.message, lines="\n" if isinstance(error, SpecError) else "")
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        sys.exit(INTERRUPTED)
    except _Terminated:
        say("terminated")
        sys.exit(TERMINATED)
    except Exception as error:  # noqa: BLE001 - the last edge: a bug is told in one sentence too
        _say_unexpected(error)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def say(message: str, *, lines: str = "") -> None:
    """One message on stderr; `lines` may be a line end that it means to have."""
    click.echo(f"backy: {printable(message, lines)}", err=True)


def printable(text: str, lines: str = "") -> str:
    """Text that may hold what others wrote, without the power to steer a terminal.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in lines else ascii(one)[1:-1] for one in text)


def _fill_standard_descriptors() -> list[int]:
    """Open those of 0, 1 and 2 that were closed; returns them.

    Or a file that is opened next would have such a number, and be written what is meant for people.
    """
    closed = []
    for number in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            closed.append(number)
    if STDERR in closed:
        sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115 - open to the end
    return closed


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
        if any(_VERBOSE.fullmatch(word) for word in sys.argv):
            traceback.print_exception(error)
        say(f"internal error, please report it ({type(error).__name__}: {error}); -v shows where.")


def _end_with_scheduler() -> None:
    """A child of the scheduler must not outlive it (see `daemon.workers`)."""
    parent = os.environ.get("BACKY_PARENT", "")
    if parent.isdigit() and not linux.end_with_parent(int(parent)):
        raise _Terminated


class _Terminated(BaseException):
    """SIGTERM or SIGHUP: end like at Ctrl-C, so that what was begun is taken back."""


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """A child of a scheduler that has gone has nobody to kill it if it hangs: then the kernel does.

    An exception may come anywhere, also within Python's import with its lock held, which is then never
    given back (CPython 3.11), so that a thread which imports waits for it for ever.
    """
    if "BACKY_PARENT" in os.environ:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LAST_SECONDS)
    raise _Terminated
