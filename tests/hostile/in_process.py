"""The command line within the test's process: a hundred times faster, for the many cases.

    done = backy("-b", str(site.job), "status")
    done.code, done.out, done.err

It goes through the same edge as the installed command, so what is not one of backy's own errors is
an internal error here too, and fails the test.
"""

import signal
import sys
import tempfile
import time
from typing import NamedTuple

from backy.cli import edge
from backy.cli.main import cli

# RELIABILITY's bound for hostile input, generous for a busy machine.
PATIENCE = 5.0


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def backy(*words: str) -> Outcome:
    """Run a command; never an internal error, and never for long."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP)]
    stdout, stderr = sys.stdout, sys.stderr
    began = time.monotonic()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as err,
    ):
        sys.stdout, sys.stderr = out, err
        try:
            edge.leave(lambda: cli(list(words), standalone_mode=False))
        except SystemExit as done:
            code = done.code
        finally:
            sys.stdout, sys.stderr = stdout, stderr
            for number, handler in handlers:
                signal.signal(number, handler)
        took = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        outcome = Outcome(code if isinstance(code, int) else 0, out.read(), err.read())
    assert "internal error" not in outcome.err, outcome.err
    assert "Traceback" not in outcome.err, outcome.err
    assert took < PATIENCE, (words, took)
    return outcome
