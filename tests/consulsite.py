"""Keys of one test in a Consul: in the stand-in (fakeconsul), or in a real agent.

    with consul_site() as site:
        site.ask("PUT", site.key("a"), body=b"1").document       True
        site.store().values(site.prefix + "/")                   {"…/a": b"1"}

The real one is used where BACKY_TEST_CONSUL names it (http://HOST:PORT), with the token of
BACKY_TEST_CONSUL_TOKEN if that is set. Each test has a prefix of its own, which is emptied at its end.

Limits: what only a stand-in can do, such as being slow, asks for `fake`, which skips with a real one.
"""

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest

from backy.domain.handshake_settings import parse_address
from backy.source.consul import Consul
from fakeconsul import FakeConsul, serving

TOKEN = "5ec2e7-of-the-tests"
_PATIENCE = 30.0


class Said(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def seen(self) -> int:
        """X-Consul-Index."""
        return int(self.headers["X-Consul-Index"])


class ConsulSite:
    """Where the store is, and how to speak to it past the client that is tested."""

    def __init__(self, url: str, token: str | None, stand_in: FakeConsul | None) -> None:
        self.url = url
        self.token = token
        self.prefix = f"backy-tests-{uuid4()}"
        self._stand_in = stand_in

    @property
    def fake(self) -> FakeConsul:
        """The stand-in itself."""
        if self._stand_in is None:
            pytest.skip("only a stand-in can be made to do this")
        return self._stand_in

    def key(self, name: str) -> str:
        """A key of this test."""
        return f"{self.prefix}/{name}"

    def store(self, token: str | None = "", timeout: float = 10.0) -> Consul:
        """The client; with another token than the right one if that is given."""
        return Consul(parse_address(self.url), self.token if token == "" else token, timeout=timeout)

    def ask(
        self,
        method: str,
        key: str,
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Said:
        """A request as the documentation has it, with the token unless headers are given."""
        return exchange(self.url, self.token, method, key, query, body, headers)

    def entries(self) -> dict[str, bytes]:
        """All keys of this test and their raw values, the prefix taken off."""
        listed = self.ask("GET", f"{self.prefix}/", "keys")
        keys = listed.document if listed.status == 200 else []
        return {key.removeprefix(f"{self.prefix}/"): self.ask("GET", key, "raw").body for key in keys}


def exchange(
    url: str,
    token: str | None,
    method: str,
    key: str,
    query: str = "",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Said:
    """One request to a store."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_PATIENCE)
    usual = {} if token is None else {"X-Consul-Token": token}
    try:
        path = f"/v1/kv/{quote(key, safe='/')}" + (f"?{query}" if query else "")
        connection.request(method, path, body, dict(usual if headers is None else headers))
        answer = connection.getresponse()
        return Said(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


@contextmanager
def consul_site(*, strict_keys: bool = False) -> Iterator[ConsulSite]:
    """A site in the real one if there is one, otherwise in a stand-in that wants a token."""
    if url := os.environ.get("BACKY_TEST_CONSUL"):
        site = ConsulSite(url, os.environ.get("BACKY_TEST_CONSUL_TOKEN"), None)
        try:
            yield site
        finally:
            site.ask("DELETE", site.prefix, "recurse")
        return
    with serving(TOKEN, strict_keys=strict_keys) as consul:
        yield ConsulSite(consul.url, TOKEN, consul)
