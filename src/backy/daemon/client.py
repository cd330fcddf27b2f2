"""The client's half of the API, for `backy client`, `reload` and `jobs`.

    Client("http://127.0.0.1:6023", token).get("/v1/status")

Limits: blocking, ten seconds to connect and for each piece of an answer (backy 2.5's successor had 30).
"""

import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from backy.daemon.prepare import TOKEN
from backy.domain.settings import ApiConfig
from backy.ground.errors import DaemonUnreachable

_SECONDS = 10.0


class Client:
    """Asks one scheduler."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        # A proxy would get the token.
        self._opener = build_opener(ProxyHandler({}))

    def get(self, path: str, **query: str) -> Any:
        """The answer's document; DaemonUnreachable."""
        return self._ask("GET", path, query)

    def post(self, path: str) -> None:
        """Have something done; DaemonUnreachable."""
        self._ask("POST", path, {})

    def run(self, job: str) -> None:
        """Run a job now; DaemonUnreachable."""
        self.post(f"/v1/jobs/{quote(job, safe='')}/run")

    def _ask(self, method: str, path: str, query: Mapping[str, str]) -> Any:
        url = self.url + path + ("?" + urlencode(query) if query else "")
        request = Request(url, method=method, headers={"Authorization": f"Bearer {self._token}"})  # noqa: S310 - the configuration allows http and https only
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                body = answer.read()
            return json.loads(body) if body else None
        except HTTPError as error:
            raise DaemonUnreachable(self.url, _told(error)) from error
        except URLError as error:
            reason = error.reason
            why = (
                os.strerror(reason.errno)
                if isinstance(reason, OSError) and reason.errno
                else str(reason)
            )
            raise DaemonUnreachable(self.url, f"{why}; is 'backy scheduler' running?") from error
        except (OSError, HTTPException, ValueError) as error:
            raise DaemonUnreachable(self.url, f"it does not answer as a scheduler ({error})") from error


def find_token(config: ApiConfig, base: str) -> str:
    """The configured token, else the one that the scheduler left for this host; DaemonUnreachable."""
    if config.client_token is not None:
        return config.client_token
    path = os.path.join(base, TOKEN)
    try:
        with open(path, encoding="ascii") as file:
            return file.read(200).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        hint = f"no token: {path}: {why}; set api.cli-default.token, or start 'backy scheduler'"
        raise DaemonUnreachable(config.url, hint) from error


def _told(error: HTTPError) -> str:
    try:
        document = json.loads(error.read(64 << 10))
        return str(document["error"]).rstrip(".")
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP status {error.code}"
