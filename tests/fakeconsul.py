"""A stand-in for the key/value store of a Consul agent, for machines where no Consul is to be had.

    with serving() as consul:
        requests.put(f"{consul.url}/v1/kv/snapshot/1", data=b"{}")
        consul.values()                                        {"snapshot/1": b"{}"}

It follows what Consul documents of /v1/kv (https://developer.hashicorp.com/consul/api-docs/kv, and
api-docs/features/blocking for `index` and `wait`), and its agent where that is silent: status codes and
texts, `404` without a body, lists that an access rule empties. The contract suite
(tests/contract/test_consul_store.py) holds both to that: with BACKY_TEST_CONSUL=http://HOST:PORT, and
BACKY_TEST_CONSUL_TOKEN if it needs one, it and the tests of the client run against a real agent.

`fault` makes the next answers bad: slow, garbage, refused, or none at all.

Limits: one datacenter; no sessions, so no locks (LockIndex stays 0); one token, which may do everything.
"""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

MAX_VALUE = 512 * 1024
_ROOT = "/v1/kv/"
_WAIT = re.compile(r"([0-9]+)(ms|s|m)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_LONGEST = 600.0
_USUAL = "5m"
_METHODS = ("GET", "PUT", "DELETE")
_SAFE_KEY = re.compile(r"[A-Za-z0-9,\-_./]*")


class Asked(NamedTuple):
    """A request that came in: its line as access logs have it, and its headers by small letters."""

    method: str
    target: str
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """What goes back; the line is dropped without a word if `body` is None. Status 0: the body alone."""

    status: int
    body: bytes | None = b""
    headers: Mapping[str, str] = {}


class _Entry(NamedTuple):
    value: bytes
    flags: int
    created: int
    modified: int


Fault = Callable[[Asked], Answer | None]
"""What to answer instead, or None to let a request through. It may take its time."""


class FakeConsul:
    """The store and what was asked of it."""

    def __init__(self, token: str | None = None, *, strict_keys: bool = False) -> None:
        self.token = token
        self.strict_keys = strict_keys
        self.asked: list[Asked] = []
        self.fault: Fault | None = None
        self.url = ""
        self.closing = threading.Event()
        self._entries: dict[str, _Entry] = {}
        self._graves: dict[str, int] = {}
        self._index = 10
        self._changed = threading.Condition()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return urlsplit(self.url).netloc

    def values(self, prefix: str = "") -> dict[str, bytes]:
        """All that is stored under a prefix."""
        with self._changed:
            return {key: one.value for key, one in self._entries.items() if key.startswith(prefix)}

    def put(self, key: str, value: bytes) -> None:
        """Store as somebody else would."""
        with self._changed:
            self._put(key, value, 0)

    def answer(self, asked: Asked, body: bytes) -> Answer:
        """What Consul would answer."""
        url = urlsplit(asked.target)
        query = {name: values[0] for name, values in parse_qs(url.query, True).items()}
        try:
            if not url.path.startswith(_ROOT):
                raise _InsteadError(404, "")
            allowed = self._is_allowed(asked, query)
            key = unquote(url.path[len(_ROOT) :])
            if self.strict_keys and (not _SAFE_KEY.fullmatch(key) or "../" in key):
                raise _InsteadError(400, "key contains invalid character")
            if asked.method == "GET":
                return self._read(key, query, allowed=allowed)
            self._check_change(asked.method, key, query, len(body))
            if not allowed:
                raise _InsteadError(403, f"Permission denied: lacks permission 'key:write' on {key!r}")
        except _InsteadError as instead:
            return instead.answer
        with self._changed:
            if asked.method == "PUT":
                return _json(self._put(key, body, int(query.get("flags", 0)), query.get("cas")))
            return _json(self._delete(key, query.get("cas"), recurse="recurse" in query))

    def _is_allowed(self, asked: Asked, query: Mapping[str, str]) -> bool:
        """Whether it has the token; one that is unknown may not even be used."""
        found = self._token_of(asked, query)
        if self.token is not None and found not in (None, self.token):
            raise _InsteadError(403, "ACL not found")
        return self.token is None or found == self.token

    def _check_change(self, method: str, key: str, query: Mapping[str, str], size: int) -> None:
        """The agent's own checks, before it asks whether one may."""
        if method not in _METHODS:
            raise _InsteadError(405, "method not allowed")
        if not key and (method == "PUT" or "recurse" not in query):
            raise _InsteadError(400, "Missing key name")
        clash = ("cas", "acquire", "release") if method == "PUT" else ("recurse", "cas")
        if sum(one in query for one in clash) > 1:
            raise _InsteadError(400, f"Conflicting flags: {', '.join(clash)}\n")
        if not all(query.get(one, "0").isdecimal() for one in ("cas", "flags")):
            raise _InsteadError(500, "invalid syntax")
        if method == "PUT" and size > MAX_VALUE:
            raise _InsteadError(
                413, f"Request body({size} bytes) too large, max size: {MAX_VALUE} bytes."
            )

    def _token_of(self, asked: Asked, query: Mapping[str, str]) -> str | None:
        """Consul's order: the parameter, its own header, the usual one."""
        scheme, _, bearer = asked.headers.get("authorization", "").partition(" ")
        found = query.get("token") or asked.headers.get("x-consul-token")
        return found or (bearer if scheme == "Bearer" else None) or None

    def _read(self, key: str, query: Mapping[str, str], *, allowed: bool) -> Answer:
        is_list = "recurse" in query or "keys" in query
        if not key and not is_list:
            raise _InsteadError(400, "Missing key name")
        if not allowed and not is_list:
            raise _InsteadError(403, f"Permission denied: lacks permission 'key:read' on {key!r}")
        seen, wait = _blocking(query)
        with self._changed:
            if seen:
                self._changed.wait_for(
                    lambda: self.closing.is_set() or self._index_of(key, is_list=is_list) > seen, wait
                )
            index = {"X-Consul-Index": str(self._index_of(key, is_list=is_list))}
            if is_list:
                found = sorted(one for one in self._entries if one.startswith(key) and allowed)
            else:
                found = [key] if key in self._entries else []
            if not found and (key or "keys" not in query):
                return Answer(404, b"", index)
            if "keys" in query:
                return _json(_cut(found, len(key), query.get("separator", "")), index)
            if "raw" in query and not is_list:
                raw = {"Content-Type": "text/plain", "X-Content-Type-Options": "nosniff"}
                return Answer(200, self._entries[key].value, {**index, **raw})
            return _json([self._record(one) for one in found], index)

    def _record(self, key: str) -> dict[str, object]:
        one = self._entries[key]
        return {
            "LockIndex": 0,
            "Key": key,
            "Flags": one.flags,
            "Value": base64.b64encode(one.value).decode() if one.value else None,
            "CreateIndex": one.created,
            "ModifyIndex": one.modified,
        }

    def _index_of(self, key: str, *, is_list: bool) -> int:
        """The last change of what is asked for; of everything, where there is no such thing."""
        indexes = [
            index
            for one, index in [
                *((a, b.modified) for a, b in self._entries.items()),
                *self._graves.items(),
            ]
            if (one.startswith(key) if is_list else one == key and one in self._entries)
        ]
        return max(indexes, default=self._index)

    def _put(self, key: str, value: bytes, flags: int, cas: str | None = None) -> bool:
        old = self._entries.get(key)
        if cas is not None and int(cas) != (old.modified if old else 0):
            return False
        self._index += 1
        self._entries[key] = _Entry(value, flags, old.created if old else self._index, self._index)
        self._graves.pop(key, None)
        self._changed.notify_all()
        return True

    def _delete(self, key: str, cas: str | None, *, recurse: bool) -> bool:
        old = self._entries.get(key)
        if cas is not None and old is not None and int(cas) != old.modified:
            return False
        doomed = [one for one in self._entries if (one.startswith(key) if recurse else one == key)]
        if doomed:
            self._index += 1
        for one in doomed:
            del self._entries[one]
            self._graves[one] = self._index
        self._changed.notify_all()
        return True

    def close(self) -> None:
        """Let those that wait go on."""
        self.closing.set()
        with self._changed:
            self._changed.notify_all()


class _InsteadError(Exception):
    """The answer to what is not done."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.answer = Answer(status, said.encode())


def _blocking(query: Mapping[str, str]) -> tuple[int, float]:
    """The index that is known, 0 for none, and for how many seconds to wait for another."""
    if not query.get("index", "0").isdecimal():
        raise _InsteadError(400, "Invalid index")
    match = _WAIT.fullmatch(query.get("wait", _USUAL))
    if match is None:
        raise _InsteadError(400, "Invalid wait time")
    return int(query.get("index", 0)), min(int(match[1]) * _UNITS[match[2]], _LONGEST)


def _cut(keys: list[str], start: int, separator: str) -> list[str]:
    """Keys up to the first separator behind the prefix."""
    if not separator:
        return keys
    found: dict[str, None] = {}
    for key in keys:
        at = key.find(separator, start)
        found[key if at < 0 else key[: at + len(separator)]] = None
    return list(found)


def _json(value: object, headers: Mapping[str, str] | None = None) -> Answer:
    kind = {"Content-Type": "application/json"}
    return Answer(200, json.dumps(value).encode(), {**(headers or {}), **kind})


@contextmanager
def serving(token: str | None = None, *, strict_keys: bool = False) -> Iterator[FakeConsul]:
    """A store on a free port of this host, until the end of the block.

    With `token` nothing else may read or write. `strict_keys`: as releases of 2025 on, which refuse keys
    with other than letters, digits and `,-_./`.
    """
    consul = FakeConsul(token, strict_keys=strict_keys)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _do(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            asked = Asked(self.command, self.path, headers)
            consul.asked.append(asked)
            instead = consul.fault(asked) if consul.fault is not None else None
            answer = consul.answer(asked, body) if instead is None else instead
            if answer.body is None:
                self.close_connection = True
                return
            if not answer.status:
                self.close_connection = True
                self.wfile.write(answer.body)
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if not {"Content-Length", "Transfer-Encoding"} & set(answer.headers):
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_PUT = do_DELETE = do_POST = _do  # noqa: N815 - the base class's names

    with _Server(("127.0.0.1", 0), Handler) as server:
        consul.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield consul
        finally:
            consul.close()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    """One that does not wait for lines that clients hold open, nor tells of those that they cut."""

    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that goes away is its own business."""


# ..Faults.........................................................................................


def always(answer: Answer) -> Fault:
    """The same answer to whatever is asked."""
    return lambda _: answer


def only(method: str, fault: Fault) -> Fault:
    """A fault for one method; others go through."""
    return lambda asked: fault(asked) if asked.method == method else None


def silent(consul: FakeConsul) -> Fault:
    """No answer as long as the server lives."""

    def fault(_: Asked) -> Answer | None:
        consul.closing.wait()
        return Answer(500, None)

    return fault


GARBAGE = Answer(200, b"<html>It works!</html>", {"Content-Type": "text/html"})
REFUSED = Answer(403, b"Permission denied")
BROKEN = Answer(500, b"No cluster leader")
DROPPED = Answer(500, None)
NO_HTTP = Answer(0, b"\x00\xffSSH-2.0-OpenSSH\r\n\r\n")
SHORT = Answer(200, b'[{"Key": "sn', {"Content-Length": "4096", "Connection": "close"})
