"""From a configuration to a running daemon: locks, repository, API and service, in this order.

    run(settings, load, SystemClock(), log)

A full disk does not keep the scheduler from starting, since its collection makes room there.

Limits: blocks until the daemon is stopped; must be called in the main thread, which gets the signals.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress

from aiohttp import web

from backy.daemon import local_token
from backy.daemon.api import Api
from backy.daemon.connections import close_slow, limited
from backy.daemon.notify import Notifier
from backy.daemon.prepare import only_daemon, open_repository
from backy.daemon.service import Log, Service
from backy.domain.api_settings import ApiConfig
from backy.domain.settings import Settings
from backy.ground.clock import Clock
from backy.ground.errors import ListenRefused, StorageFailed
from backy.repository.repository import Repository

LOCAL_CLIENT = "this host"


def run(
    settings: Settings,
    load: Callable[[], Settings],
    clock: Clock,
    log: Log,
    options: Sequence[str] = (),
) -> None:
    """Be the daemon; DaemonRunning, ListenRefused and what opening the repository raises.

    `options` are those that all children get before their command.
    """
    base = settings.general.base_dir
    # Histories are read before the loop takes signals: a reload that is asked for meanwhile, which would
    # end the process, is done when it runs.
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: early.append(number))
    with only_daemon(base), open_repository(base, settings.jobs) as repository:
        os.chdir(base)
        notifier = Notifier.of_environment(os.environ)
        service = Service(settings, load, repository, clock, log, notifier, options)
        asyncio.run(_serve(service, settings.api, repository, clock, log, early))


async def _serve(
    service: Service,
    config: ApiConfig,
    repository: Repository,
    clock: Clock,
    log: Log,
    early: Sequence[int],
) -> None:
    tokens = {**config.tokens, **_local_tokens(repository, log)}
    async with AsyncExitStack() as stack:
        app = Api(service, clock, tokens, log).application()
        # Access is logged by the API itself, for requests that change something.
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        watch = asyncio.create_task(close_slow(runner.server, clock))
        stack.callback(watch.cancel)
        loop = asyncio.get_running_loop()
        for address in config.addresses:
            try:
                listener = await loop.create_server(limited(runner.server), address, config.port)
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                raise ListenRefused(address, config.port, why) from error
            stack.callback(listener.close)
        # Called behind the first steps of `run`, which takes the signals over.
        loop.call_soon(lambda: service.hang_up() if early else None)
        await service.run()


def _local_tokens(repository: Repository, log: Log) -> dict[str, str]:
    """The token of clients on this host; where it cannot be renewed, that of the last start, if any."""
    try:
        return {local_token.renew(repository.base): LOCAL_CLIENT}
    except StorageFailed as error:
        log.error("the token of this host was not renewed", error=error.message)
    with suppress(OSError, ValueError):
        return {local_token.read(repository.base.path): LOCAL_CLIENT}
    return {}
