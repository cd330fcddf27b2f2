"""What aiohttp lacks for connections: limits of their time and number, and a log without secrets.

    await loop.create_server(limited(runner.server), "127.0.0.1", 6023)
    watch = asyncio.create_task(close_slow(runner.server, clock))

The API answers one request on each connection, so one that is still there after `MAX_SECONDS` has
either sent no whole request or does not read its answer. Too many at once are closed as they come, so
that the descriptors which backups need are not all taken by clients.

Limits: looks for slow ones every five seconds.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from aiohttp import web

from backy.daemon.service import Log
from backy.ground.clock import Clock

MAX_SECONDS = 60.0
MAX_CONNECTIONS = 128
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


def limited(server: web.Server) -> Callable[[], asyncio.Protocol]:
    """What each connection begins with: it goes on to the server if there are not too many."""
    return lambda: _Door(server)


class _Door(asyncio.Protocol):
    """Decides once the connection is there: several may be made before the server knows of the first."""

    def __init__(self, server: web.Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        if len(self._server.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        handler = self._server()
        transport.set_protocol(handler)
        handler.connection_made(transport)


def logger(log: Log) -> logging.Logger:
    """Where aiohttp shall tell of requests that it could not read.

    Its own way is a traceback on stderr with what was sent, which may be a token.
    """
    made = logging.Logger(__name__, logging.WARNING)  # noqa: LOG001 - of one API, known to nobody else
    made.addHandler(_WithoutContent(log))
    return made


class _WithoutContent(logging.Handler):
    """Keeps the kind of the error only."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        kind = record.exc_info[0] if record.exc_info else None
        self._log.warning("request not understood", error=kind.__name__ if kind else record.msg)
