"""The client's half of the API, for `backy client`, `reload` and `jobs`.

    Client("http://127.0.0.1:6023", token).get("/v1/status")

Limits: blocking, ten seconds to connect and for each piece of an answer, thirty for all of it, and
64 MiB. Whatever else may listen there gets the token, but cannot pass it on by a redirect.
"""

import json
import os
import time
from datetime import datetime
from http.client import HTTPException, HTTPResponse
from typing import TypedDict
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

import msgspec

from backy.daemon import local_token
from backy.domain.api_settings import ApiConfig
from backy.ground.errors import DaemonUnreachable

_SECONDS = 10.0
_SECONDS_IN_ALL = 30.0
_MAX_ANSWER = 64 << 20
_MAX_TOLD = 500
_DONE = (202, 204)
_STRANGER = "it does not answer as a scheduler"


class Entry(TypedDict):
    """What the scheduler says of a job."""

    job: str
    sla: str
    sla_overdue: int
    status: str
    last_time: datetime | None
    last_tags: str
    last_duration: float | None
    next_time: datetime | None
    next_tags: str
    manual_tags: str
    problem_reports: int
    unsynced_revs: int
    local_revs: int


class Client:
    """Asks one scheduler."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        # Not `build_opener`, whose proxies and redirects would take the token to others.
        self._opener = OpenerDirector()
        for handler in (HTTPHandler(), HTTPSHandler(), HTTPDefaultErrorHandler(), HTTPErrorProcessor()):
            self._opener.add_handler(handler)

    def status(self, pattern: str = "") -> list[Entry]:
        """Entries of the jobs whose name has a match; DaemonUnreachable."""
        query = urlencode({"filter": pattern}, errors="surrogateescape")
        _, body = self._ask("GET", f"/v1/status?{query}")
        try:
            return msgspec.convert(json.loads(body), list[Entry])
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise DaemonUnreachable(self.url, _STRANGER) from error

    def reload(self) -> None:
        """Have the configuration read again; DaemonUnreachable."""
        self._post("/v1/reload")

    def run(self, job: str) -> None:
        """Run a job now; DaemonUnreachable."""
        self._post(f"/v1/jobs/{quote(job, safe='', errors='surrogateescape')}/run")

    def _post(self, path: str) -> None:
        status, _ = self._ask("POST", path)
        if status not in _DONE:
            raise DaemonUnreachable(self.url, f"{_STRANGER} (HTTP status {status})")

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        request = Request(  # noqa: S310 - the configuration allows http and https only
            self.url + path, method=method, headers={"Authorization": f"Bearer {self._token}"}
        )
        try:
            answer = self._opener.open(request, timeout=_SECONDS)
            assert isinstance(answer, HTTPResponse)
            with answer:
                return answer.status, _read(answer)
        except HTTPError as error:
            with error:
                raise DaemonUnreachable(self.url, _told(error)) from error
        except URLError as error:
            reason = error.reason
            # Not by the number: those of name resolution and TLS are none of the system's.
            why = (isinstance(reason, OSError) and reason.strerror) or str(reason)
            raise DaemonUnreachable(self.url, f"{why}; start 'backy scheduler' there") from error
        except (OSError, HTTPException, ValueError) as error:
            # What it said may be anything, so only what went wrong with it is told.
            why = "timed out" if isinstance(error, TimeoutError) else type(error).__name__
            raise DaemonUnreachable(self.url, f"{_STRANGER} ({why})") from error


def _read(answer: HTTPResponse) -> bytes:
    """All of an answer; TimeoutError, ValueError if it is without end."""
    until = time.monotonic() + _SECONDS_IN_ALL
    parts, size = [], 0
    while piece := answer.read1(1 << 20):
        parts.append(piece)
        size += len(piece)
        if size > _MAX_ANSWER:
            raise ValueError
        if time.monotonic() > until:
            raise TimeoutError
    return b"".join(parts)


def find_token(config: ApiConfig, base: str) -> str:
    """The configured token, else the one that the scheduler left for this host; DaemonUnreachable."""
    if config.client_token is not None:
        return config.client_token
    try:
        return local_token.read(base)
    except OSError as error:
        why = os.strerror(error.errno or 0)
    except ValueError:
        why = "it is damaged"
    path = os.path.join(base, local_token.FILE)
    hint = f"no token: {path}: {why}; set api.cli-default.token, or start 'backy scheduler'"
    raise DaemonUnreachable(config.url, hint)


def _told(error: HTTPError) -> str:
    try:
        document = json.loads(error.read(64 << 10))
        return str(document["error"]).rstrip(".")[:_MAX_TOLD]
    except (ValueError, KeyError, TypeError, OSError, HTTPException, RecursionError):
        return f"HTTP status {error.code}"
