"""Progress on stderr: a bar on a terminal, elsewhere one line a minute for logs and cron.

    backup: 12.0 GiB of 40.0 GiB, 310.5 MiB/s, 1 min 32 s left

Limits: nothing is printed for work that ends within the first minute.
"""

import os
import sys
import threading

import click

from backy.ground.clock import Clock
from backy.ground.units import format_duration, format_size
from backy.operation.progress import NoProgress, Progress

INTERVAL = 60.0
_NO_CURSOR = ("dumb", "unknown")  # terminals on which a bar cannot be redrawn


class LineProgress:
    """See `Progress`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._what = self._unit = ""
        self._total = self._done = 0
        self._began = self._told = 0.0

    def begin(self, what: str, total: int, unit: str = "") -> None:
        """See `Progress.begin`."""
        self._unit = unit
        self._what, self._total, self._done = what, total, 0
        self._began = self._told = self._clock.monotonic()

    def advance(self, length: int) -> None:
        """See `Progress.advance`."""
        now = self._clock.monotonic()
        with self._lock:
            self._done += length
            if now - self._told < INTERVAL:
                return
            self._told = now
            done = self._done
        rate = done / (now - self._began)
        left = max(self._total - done, 0) / rate if rate else 0.0
        click.echo(
            f"{self._what}: {self._counted(done)} of {self._counted(max(self._total, done))}, "
            f"{self._counted(rate)}/s, {format_duration(left)} left",
            err=True,
        )

    def _counted(self, amount: float) -> str:
        return f"{amount:.0f} {self._unit}" if self._unit else format_size(amount)

    def end(self) -> None:
        """See `Progress.end`."""


def choose_progress(clock: Clock, *, quiet: bool) -> Progress:
    """What suits stderr; rich is loaded only for a terminal."""
    if quiet:
        return NoProgress()
    if sys.stderr.isatty() and os.environ.get("TERM") not in _NO_CURSOR:
        from backy.cli.bar_progress import BarProgress

        return BarProgress()
    return LineProgress(clock)
