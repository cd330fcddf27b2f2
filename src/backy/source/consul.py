"""The key/value store of a Consul agent: put, get, list, delete, each with a time limit.

    store = Consul(parse_address("localhost:8500"), token)
    store.put("snapshot/1", b"{}"); store.values("snapshot/"); store.delete("snapshot/1")

Made from `consulate`, held right through its own seam, the adapter through which it speaks HTTP
(doc/adr/0014-consulate.md). So the token goes into a header and never into a URL, answers are decoded,
whatever is no answer raises ConsulFailed, and keys are quoted.

The API: https://developer.hashicorp.com/consul/api-docs/kv

Limits: http and https; no Unix sockets. Proxies and ~/.netrc are passed over, since a token could go
there. A server that sends its headers a byte at a time is waited for longer than `timeout`. To load
this takes a tenth of a second, so only those that need it do.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypedDict
from urllib.parse import quote, urlsplit

import consulate
import msgspec
import requests

from backy.domain.handshake_settings import Address
from backy.ground.errors import ConsulFailed

TIMEOUT = 10.0
_MAX_ANSWER = 64 << 20
_PIECE = 1 << 16
_SHOWN = 80
_ACCEPTED = {"GET": (200, 404), "PUT": (200,), "DELETE": (200,)}


class Consul:
    """The store at an address. Thread-safe as far as one call at a time is."""

    def __init__(
        self, address: Address, token: str | None, *, timeout: float = TIMEOUT, ca: str | None = None
    ) -> None:
        self.address = address
        self._kv: _KeyValue = consulate.Consul(
            address.host,
            address.port,
            scheme=address.scheme,
            adapter=lambda: _Adapter(str(address), token, timeout, ca),
        ).kv

    def put(self, key: str, value: bytes) -> None:
        """Set a key, provided that nobody else changes it at the same time; ConsulFailed."""
        path = self._path(key)
        try:
            self._kv.set(path, value)
        except KeyError as error:
            raise ConsulFailed(str(self.address), f"{key!r} is being changed by another") from error

    def get(self, key: str) -> bytes | None:
        """A key's value; None if it does not exist. ConsulFailed."""
        row = self._kv.get_record(self._path(key))
        return None if row is None else row["Value"] or b""

    def values(self, prefix: str) -> dict[str, bytes]:
        """The values of all keys with a prefix, also of keys that cannot be asked for; ConsulFailed."""
        return {
            key: value or b"" for key, value in self._kv.find(self._path(prefix, prefix=True)).items()
        }

    def delete(self, key: str) -> None:
        """Remove a key, if it exists; ConsulFailed."""
        self._kv.delete(self._path(key))

    def _path(self, key: str, *, prefix: bool = False) -> str:
        """A key as it stands in a URL. What URLs cannot say without being rewritten is refused."""
        parts = (key.removesuffix("/") if prefix else key).split("/")
        if any(one in ("", ".", "..") for one in parts) or not key.isprintable():
            raise ConsulFailed(str(self.address), f"{key!r} is no key that can be asked for")
        return quote(key, safe="/")


class _Row(TypedDict):
    """A record of the API, as far as it is used here."""

    Key: str
    Value: bytes | None  # base64, which msgspec decodes
    ModifyIndex: int


class _KeyValue(Protocol):
    """What is used of consulate.api.KV."""

    def set(self, item: str, value: bytes) -> None:
        """GET, then PUT with `cas`; KeyError if that says no."""

    def get_record(self, item: str) -> _Row | None:
        """One row."""

    def find(self, prefix: str) -> Mapping[str, bytes | None]:
        """Values by key."""

    def delete(self, item: str) -> object:
        """Without a word if there is none."""


class _Response(NamedTuple):
    """What consulate reads of an answer."""

    status_code: int
    body: Any
    headers: Mapping[str, str]


class _Adapter:
    """consulate's way to HTTP, in the place of its own `Request`."""

    def __init__(self, address: str, token: str | None, timeout: float, ca: str | None) -> None:
        self._address = address
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False
        if ca is not None:
            self._session.verify = ca
        if token is not None:
            self._session.headers["X-Consul-Token"] = token

    def get(self, uri: str) -> _Response:
        status, content = self._exchange("GET", uri)
        if status == 404:
            return _Response(status, None, {})
        rows = self._decoded(content, list[_Row])
        if "recurse" in urlsplit(uri).query:
            return _Response(status, rows, {})
        if len(rows) != 1:
            raise ConsulFailed(self._address, "it does not answer as Consul does")
        return _Response(status, rows[0], {})

    def put(self, uri: str, data: bytes | None = None) -> _Response:
        status, content = self._exchange("PUT", uri, data)
        return _Response(status, self._decoded(content, bool), {})

    def delete(self, uri: str) -> _Response:
        status, content = self._exchange("DELETE", uri)
        return _Response(status, self._decoded(content, bool), {})

    def _decoded(self, content: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise ConsulFailed(self._address, "it does not answer as Consul does") from error

    def _exchange(self, method: str, uri: str, data: bytes | None = None) -> tuple[int, bytes]:
        """Status and content of an answer that there may be; ConsulFailed for all others."""
        deadline = time.monotonic() + self._timeout
        try:
            with self._session.request(
                method, uri, data=data, timeout=self._timeout, allow_redirects=False, stream=True
            ) as response:
                content = b"".join(self._pieces(response, deadline))
                status = response.status_code
        except requests.Timeout as error:
            raise ConsulFailed(self._address, self._late()) from error
        except (OSError, ValueError) as error:  # those of requests are OSErrors
            raise ConsulFailed(self._address, _reason(error)) from None
        finally:
            # Minutes pass between calls, in which the other end may drop an idle line.
            self._session.close()
        if status not in _ACCEPTED[method]:
            raise ConsulFailed(self._address, self._refusal(status, content))
        return status, content

    def _pieces(self, response: requests.Response, deadline: float) -> Iterator[bytes]:
        size = 0
        for piece in response.iter_content(_PIECE):
            size += len(piece)
            if size > _MAX_ANSWER:
                raise ConsulFailed(self._address, "its answer does not end")
            if time.monotonic() > deadline:
                raise ConsulFailed(self._address, self._late())
            yield piece

    def _late(self) -> str:
        return f"it does not answer within {self._timeout:g} s"

    def _refusal(self, status: int, content: bytes) -> str:
        if status == 403:
            has_token = "X-Consul-Token" in self._session.headers
            return "it refuses the token (403)" if has_token else "it wants a token (403)"
        said = "".join(one for one in content[:_SHOWN].decode(errors="replace") if one.isprintable())
        return f"it answers {status}" + (f" ({said.strip()})" if said.strip() else "")


def _reason(error: BaseException) -> str:
    """What the system says below an exception of requests, whose own text may hold headers."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return f"it cannot be reached ({below.strerror})"
        below = below.__cause__ or below.__context__
    return "the connection broke"
