"""Close connections that never come to the point: aiohttp has no time-out for a request's head.

    watch = asyncio.create_task(close_slow(runner.server, clock))

The API answers one request on each connection, so one that is still there after `MAX_SECONDS` has
either sent no whole request or does not read its answer.

Limits: looks every five seconds.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from aiohttp import web

from backy.ground.clock import Clock

MAX_SECONDS = 60.0
_PERIOD = 5.0


class Connection(Protocol):
    """What is needed of aiohttp's connections."""

    def force_close(self) -> None:
        """End it, whatever it is doing."""
        ...


Open = TypeVar("Open", bound=Connection)


async def close_slow(server: web.Server, clock: Clock) -> None:
    """Watch a server's connections until cancelled."""
    first_seen: Mapping[Connection, float] = {}
    while True:
        first_seen = close_old(server.connections, first_seen, clock.monotonic())
        await asyncio.sleep(_PERIOD)


def close_old(
    connections: Iterable[Open], first_seen: Mapping[Connection, float], now: float
) -> dict[Connection, float]:
    """Close what is too old; returns since when each of the others has been there."""
    remaining: dict[Connection, float] = {}
    for one in connections:
        since = first_seen.get(one, now)
        if now - since > MAX_SECONDS:
            one.force_close()
        else:
            remaining[one] = since
    return remaining
