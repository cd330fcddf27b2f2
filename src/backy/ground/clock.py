"""The only reader of wall time, so that every rule about time can be tested with another clock.

    >>> SystemClock().now().tzinfo
    datetime.timezone.utc

Limits: `now` may jump in either direction when the host's clock is set; measure durations with
`monotonic`, which never does.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the time is."""

    def now(self) -> datetime:
        """The present instant, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed instant, for durations."""
        ...


class SystemClock:
    """The host's clock."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()
