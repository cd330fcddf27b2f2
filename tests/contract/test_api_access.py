"""Who may use the API: nobody without a token of the configuration, whatever is asked (T21).

The cases are made from the application's own table of routes, so a new route is covered by being there.

Limits: tokens have no roles; there is no read-only one to be tried.
"""

import asyncio
import base64
import hmac
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from daemonsite import (
    CLIENT_TOKEN,
    OTHER_TOKEN,
    TOKEN,
    Daemon,
    DaemonSite,
    Route,
    Said,
    exchange,
    local_token,
    routes,
    serving,
)

BODY = b'{"old_tags": ["daily"], "new_tags": ["manual:by-a-stranger"]}'


def refused_headers() -> Mapping[str, Mapping[str, str]]:
    """Credentials that are nearly right, and others."""
    basic = base64.b64encode(f"tests:{TOKEN}".encode()).decode()
    values = {
        "empty": "",
        "the token alone": TOKEN,
        "another scheme": f"Basic {TOKEN}",
        "basic": f"Basic {basic}",
        "a scheme that begins so": f"Bearers {TOKEN}",
        "no blank": f"Bearer{TOKEN}",
        "no token": "Bearer",
        "an empty token": "Bearer  ",
        "wrong": "Bearer token-of-nobody",
        "the client's name": "Bearer tests",
        "another one's token": f"Bearer {CLIENT_TOKEN}",
        "cut": f"Bearer {TOKEN[:-1]}",
        "longer": f"Bearer {TOKEN}x",
        "one character differs": f"Bearer {TOKEN[:-1]}z",
        "capitals": f"Bearer {TOKEN.upper()}",
        "twice": f"Bearer {TOKEN} {TOKEN}",
        "quoted": f'Bearer "{TOKEN}"',
        "two tokens": f"Bearer {TOKEN},{OTHER_TOKEN}",
        "beyond ASCII": f"Bearer {TOKEN}\xff",
        "beyond ASCII for ?": f"Bearer {OTHER_TOKEN}".replace("?", "\xff"),
        "as a parameter": f"Bearer token={TOKEN}",
    }
    return {
        "none": {},
        "cookie": {"Cookie": f"Authorization=Bearer {TOKEN}"},
        "another header": {"X-Authorization": f"Bearer {TOKEN}"},
        "of the proxy": {"Proxy-Authorization": f"Bearer {TOKEN}"},
        **{what: {"Authorization": value} for what, value in values.items()},
    }


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One scheduler for all tests here, none of which changes anything."""
    with DaemonSite(tmp_path_factory.mktemp("access")).running() as running:
        yield running


def job_of(route: Route) -> str:
    """A job on which the route would do something."""
    return "fresh" if "/jobs/" in route.path else "left"


@pytest.mark.parametrize("route", routes(), ids=" ".join)
def test_every_route_refuses_every_wrong_credential(daemon: Daemon, route: Route) -> None:
    """401, in JSON, naming the scheme; and nothing is done."""
    history = daemon.on.site.history(job="left")
    answers = {
        what: daemon.ask(route.method, route.at(job_of(route)), BODY, token=None, headers=headers)
        for what, headers in refused_headers().items()
    }

    assert {} == {what: one.status for what, one in answers.items() if one.status != 401}
    assert {"a valid bearer token is needed"} == {one.error for one in answers.values()}
    assert {"Bearer"} == {one.headers["WWW-Authenticate"] for one in answers.values()}
    assert history == daemon.on.site.history(job="left")
    assert [0] == [one["local_revs"] for one in daemon.ask("GET", "/v1/status?filter=fresh").document]
    assert not [line for line in daemon.lines if "run requested" in line]


@pytest.mark.parametrize("route", routes(), ids=" ".join)
def test_token_in_the_query_or_behind_a_wrong_one_is_none(daemon: Daemon, route: Route) -> None:
    """Where logs and proxies would see it, and where two programs may read different ones."""
    path = route.at(job_of(route))
    in_query = daemon.ask(route.method, f"{path}?token={TOKEN}&access_token={TOKEN}", token=None)
    second = daemon.send(
        f"{route.method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
        f"Authorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    )

    assert 401 == in_query.status
    assert second.startswith((b"HTTP/1.1 401 ", b"HTTP/1.0 400 "))


@pytest.mark.parametrize("route", [one for one in routes() if one.method == "GET"], ids=" ".join)
def test_every_configured_token_and_that_of_this_host_open_a_route(daemon: Daemon, route: Route) -> None:
    """The scheme's case does not matter, as HTTP has it."""
    tokens = (TOKEN, OTHER_TOKEN, local_token(daemon.on.site.base))
    found = [daemon.ask("GET", route.at("left"), token=token).status for token in tokens]
    small = daemon.ask("GET", route.at("left"), token=None, headers={"authorization": f"bearer {TOKEN}"})

    assert [200, 200, 200, 200] == [*found, small.status]


def test_what_there_is_shows_to_those_with_a_token_only(daemon: Daemon) -> None:
    """Without one, a path that is unknown looks like one that is known."""
    for path in ("/", "/v1", "/v1/nothing", "/v1/jobs/vm", "/v1/jobs/", "/v1//jobs", "/%2e%2e/etc"):
        assert (401, 404) == (daemon.ask("GET", path, token=None).status, daemon.ask("GET", path).status)
        assert daemon.ask("GET", path).error == "Not Found"


def test_a_wrong_method_is_told_with_the_right_ones(daemon: Daemon) -> None:
    """405 in JSON for every path and every method that has no route, and 401 without a token."""
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"}
    by_path: dict[str, set[str]] = {}
    for route in routes():
        by_path.setdefault(route.at("left"), set()).add(route.method)
    for path, allowed in by_path.items():
        for method in sorted(methods - allowed):
            answer = daemon.ask(method, path)
            assert (405, allowed) == (answer.status, set(answer.headers["Allow"].split(","))), method
            assert method == "HEAD" or answer.error == "Method Not Allowed"
            assert 401 == daemon.ask(method, path, token=None).status


def test_the_token_of_an_earlier_start_is_expired(tmp_path: Path) -> None:
    """`.api-token` is made anew each time."""
    site = DaemonSite(tmp_path)
    with site.running():
        before = local_token(site.site.base)
    with site.running() as daemon:
        assert before != local_token(site.site.base)
        assert 401 == daemon.ask("GET", "/v1/jobs", token=before).status


def test_all_tokens_are_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the whole of what was given, whether an earlier one was right or not."""
    site = DaemonSite(tmp_path)
    compare, seen = hmac.compare_digest, list[tuple[bytes, bytes]]()

    def noted(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return compare(one, other)

    async def statuses() -> list[bytes]:
        """The status line that each of the tokens gets."""
        async with serving(site, Said()):
            heads = [
                f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one}\r\n\r\n"
                for one in given
            ]
            return [(await exchange(site.port, head.encode())).split()[1] for head in heads]

    monkeypatch.setattr(hmac, "compare_digest", noted)
    given = (TOKEN, OTHER_TOKEN, "t")
    assert [b"200", b"200", b"401"] == asyncio.run(statuses())
    assert {(known.encode(), one.encode()) for known in (TOKEN, OTHER_TOKEN) for one in given} == set(
        seen
    )
    assert 6 == len(seen)
