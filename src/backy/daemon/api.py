"""The HTTP API: what `backy client`, monitoring and deployment tools talk to.

    app = Api(service, clock, tokens).application()

Routes and their answers stand in `openapi.py`. Every request needs `Authorization: Bearer TOKEN`;
tokens are compared in constant time, all of them, and never logged. Errors are JSON objects with one
member, `error`. Bodies are limited to 64 KiB, a request to 30 seconds, a connection to one request.

Limits: no TLS: put a proxy in front, or stay on loopback. What is no HTTP at all never comes here: it is
answered by aiohttp, in a line of text.
"""

import asyncio
import errno
import hmac
import json
import os
import re
import signal
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import quote

import msgspec
from aiohttp import web

from backy.daemon import metrics
from backy.daemon.connections import logger
from backy.daemon.openapi import DOCUMENT
from backy.daemon.service import Log, Service
from backy.domain import names
from backy.domain import tags as tag_rules
from backy.domain.revision import Revision
from backy.ground import locks
from backy.ground.clock import Clock
from backy.ground.errors import (
    BackyError,
    HistoryUnclear,
    JobMissing,
    JobUnscheduled,
    NameRefused,
    RevisionAmbiguous,
    RevisionGone,
    RevisionMissing,
    SpecError,
    StorageFailed,
    TagRefused,
    TagsDiffer,
)
from backy.operation.select import choose
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.repository import Job

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 64 << 10
MAX_SECONDS = 30.0
MATCH_SECONDS = 0.5
_TASK = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_STATUS: tuple[tuple[type[BackyError], int], ...] = (
    (JobMissing, 404),
    (NameRefused, 404),
    (RevisionMissing, 404),
    (RevisionGone, 404),
    (RevisionAmbiguous, 400),
    (SpecError, 400),
    (TagRefused, 400),
    (JobUnscheduled, 409),
    (HistoryUnclear, 409),
    (TagsDiffer, 412),
    (StorageFailed, 503),
)


class Api:
    """Handlers, one for each route."""

    def __init__(self, service: Service, clock: Clock, tokens: Mapping[str, str], log: Log) -> None:
        """`tokens` maps each token to its client's name."""
        self._service = service
        self._clock = clock
        self._tokens = dict(tokens)
        self._log = log

    def application(self) -> web.Application:
        """All routes behind the checks that every request passes."""
        app = web.Application(
            middlewares=[self._answer_in_json, self._authenticate],
            client_max_size=MAX_BODY,
            handler_args={"logger": logger(self._log)},
        )
        add = partial(app.router.add_route, expect_handler=_go_on)
        add("GET", "/v1/status", self.status)
        add("POST", "/v1/reload", self.reload)
        add("GET", "/v1/jobs", self.jobs)
        add("POST", "/v1/jobs/{name}/run", self.run)
        add("GET", "/v1/backups", self.backups)
        add("POST", "/v1/backups/{name}/purge", self.purge)
        add("POST", "/v1/backups/{name}/touch", self.touch)
        add("GET", "/v1/backups/{name}/revs", self.revisions)
        add("PUT", "/v1/backups/{name}/revs/{spec}/tags", self.set_tags)
        add("GET", "/metrics", self.metrics)
        add("GET", "/v1/openapi.json", self.openapi)
        return app

    # ..Checks...............................................................................

    @web.middleware
    async def _answer_in_json(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await self._answer(request, handler)
        answer.force_close()  # see `connections`
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await asyncio.wait_for(handler(request), MAX_SECONDS)
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return _refusal(error.status, error.reason, allow)
        except TimeoutError:
            return _refusal(408, "the request took too long")
        except BackyError as error:
            found = (status for kind, status in _STATUS if isinstance(error, kind))
            return _refusal(next(found, 500), error.message)
        except OSError as error:
            return _refusal(503, os.strerror(error.errno or errno.EIO))
        except Exception as error:  # noqa: BLE001 - a bug in one route is told, and harms no other
            self._log.error("internal error, please report it", path=_shown(request), error=repr(error))
            return _refusal(500, "internal error, please report it")

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        kind, _, token = given.partition(" ")
        client = None
        for known, name in self._tokens.items():
            # All of them, each in constant time: how long it takes tells nothing.
            if hmac.compare_digest(known.encode(), token.strip(" ").encode(errors="surrogatepass")):
                client = name
        if kind.lower() != "bearer" or client is None:
            return _refusal(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        if request.method != "GET":
            what = {"client": client, "method": request.method, "path": _shown(request)}
            if _TASK.fullmatch(task := request.headers.get("taskid", "")):
                what["task"] = task
            self._log.info("request", **what)
        return await handler(request)

    # ..The scheduler........................................................................

    async def status(self, request: web.Request) -> web.Response:
        """Entries of all jobs, or of those whose name matches `filter`."""
        pattern = request.query.get("filter", "")
        entries = [one._asdict() for one in self._service.status()]
        try:
            with _limited(MATCH_SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a pattern that a later Python may read otherwise
                wanted = re.compile(pattern)
                entries = [one for one in entries if wanted.search(one["job"])]
        except (re.error, OverflowError, RecursionError, TimeoutError):
            return _refusal(400, "the filter is no regular expression, or one that takes for ever")
        return _json(entries)

    async def reload(self, _request: web.Request) -> web.Response:
        """Read the configuration again."""
        try:
            self._service.reload()
        except BackyError as error:
            return _refusal(409, error.message)
        return web.Response(status=204)

    async def jobs(self, _request: web.Request) -> web.Response:
        """Configured jobs."""
        base = self._service.repository.base.path
        texts = {one.job: one.status for one in self._service.status()}
        return _json(
            [
                {
                    "name": name,
                    "path": f"{base}/{name}",
                    "status": texts[name],
                    "schedule": {tag: policy._asdict() for tag, policy in job.config.schedule.items()},
                }
                for name, job in sorted(self._service.jobs.items())
            ]
        )

    async def run(self, request: web.Request) -> web.Response:
        """Run a job now."""
        self._service.request(request.match_info["name"])
        return web.Response(status=202)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus' text."""
        disk = os.statvfs(self._service.repository.base.fd)
        store = ((disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_bavail * disk.f_frsize)
        body = metrics.render(self._service, self._clock.now(), store)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def openapi(self, _request: web.Request) -> web.Response:
        """The description of this API."""
        return _json(DOCUMENT)

    # ..Histories............................................................................

    async def backups(self, _request: web.Request) -> web.Response:
        """Names of directories with a history that are no configured job."""
        found = await asyncio.to_thread(self._service.repository.jobs)
        return _json([name for name in found if name not in self._service.jobs])

    async def purge(self, request: web.Request) -> web.Response:
        """Collect what the forgotten revisions of a job that is configured no longer have left."""
        name = request.match_info["name"]
        if name in self._service.jobs:
            return _refusal(403, "this job is configured here: its schedule decides what goes")
        with self._job(request):
            self._service.request_collection()
        return web.Response(status=202)

    async def touch(self, request: web.Request) -> web.Response:
        """Note that somebody still wants this directory."""
        with self._job(request) as job:
            os.utime(job.directory.fd)
        return web.Response(status=204)

    async def revisions(self, request: web.Request) -> web.Response:
        """A job's revisions, oldest first."""
        _flag(request, "only_clean")
        history = await asyncio.to_thread(self._history, request.match_info["name"])
        return _json([_entry(one) for one in history.revisions])

    async def set_tags(self, request: web.Request) -> web.Response:
        """Replace the tags of the revisions that a spec names, if they are what the caller saw."""
        name, spec = request.match_info["name"], request.match_info["spec"]
        if name in self._service.jobs:
            return _refusal(403, "this job is configured here: its schedule sets its tags")
        autoremove = _flag(request, "autoremove")
        wanted = _decode(await _body(request))
        await asyncio.to_thread(self._set_tags, name, spec, wanted, autoremove)
        return web.Response(status=204)

    def _set_tags(self, name: str, spec: str, wanted: "_TagEdit", autoremove: bool) -> None:
        with self._service.repository.job(name) as job:
            expected = set(wanted.old_tags)

            def change(revision: Revision) -> Revision:
                if set(revision.tags) != expected:
                    raise TagsDiffer(revision.uuid, wanted.old_tags, tuple(revision.tags))
                tags = tag_rules.edited(
                    revision.tags, tag_rules.Edit.SET, ",".join(wanted.new_tags), (), force=True
                )
                return revision.with_tags(tags)

            chosen = choose(histories.load(job.directory), spec, name)
            _check_free(job)
            for one in chosen:
                if autoremove and not wanted.new_tags:
                    histories.forget(job.directory, one.uuid, check=lambda found: _ignore(change(found)))
                else:
                    histories.edit(job.directory, one.uuid, change)

    def _history(self, name: str) -> histories.History:
        with self._service.repository.job(name) as job:
            return histories.load(job.directory)

    def _job(self, request: web.Request) -> Any:
        return self._service.repository.job(request.match_info["name"])


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """TimeoutError in the block after so long, also inside the matching of an evil pattern.

    Matching holds the interpreter, but looks for signals; only the main thread gets those.
    """

    def ring(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def _go_on(request: web.Request) -> web.Response | None:
    """For `Expect`: as aiohttp does, but a refusal is JSON here too."""
    if request.headers["Expect"].lower() != "100-continue":
        return _refusal(417, "nothing but 100-continue can be expected")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # so that aiohttp knows that the answer has not begun
    return None


def _flag(request: web.Request, name: str) -> bool:
    found = request.query.get(name, "0")
    if found not in ("0", "1"):
        raise web.HTTPBadRequest(reason=f"{name} is 0 or 1")
    return found == "1"


def _check_free(job: Job) -> None:
    """StorageFailed while someone else edits the history: a thread that waited would never end.

    Who takes it between this look and the edit lasts as long as one record takes to be written.
    """
    try:
        fd = locks.open_lock_file(job.directory, layout.HISTORY_LOCK)
    except OSError:
        return  # the edit will say why
    try:
        if not locks.try_exclusive_again(fd):
            raise StorageFailed("lock", job.directory.file_path(layout.HISTORY_LOCK), errno.EAGAIN)
    finally:
        os.close(fd)


class _TagEdit(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    old_tags: tuple[str, ...]
    new_tags: tuple[str, ...]


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.RequestPayloadError as error:
        raise web.HTTPBadRequest(reason="the body is not encoded as its headers say") from error


def _decode(body: bytes) -> _TagEdit:
    try:
        edit = msgspec.json.decode(body, type=_TagEdit)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(
            reason="the body must be an object with old_tags and new_tags"
        ) from error
    try:
        for tag in edit.new_tags:
            names.check_tag_name(tag)
    except NameRefused as error:
        raise web.HTTPBadRequest(reason="a tag has characters that are not allowed") from error
    return edit


def _entry(revision: Revision) -> dict[str, object]:
    return {
        "uuid": revision.uuid,
        "timestamp": revision.taken_at,
        "tags": list(revision.tags),
        "trust": revision.trust,
        "consistency": revision.consistency,
        "image_size": revision.image_size,
        "stats": revision.stats,
    }


def _ignore(_found: object) -> None:
    """The check only refuses."""


def _shown(request: web.Request) -> str:
    """The path for the log, where nothing that steers a terminal may stand."""
    return quote(request.path, safe="/:(),", errors="surrogatepass")


def _json(document: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, text=json.dumps({"error": why}), content_type="application/json", headers=headers
    )
