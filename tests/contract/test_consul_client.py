"""The client of Consul's store: what it asks, what it returns, and its one error for all the rest."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.handshake_settings import Address
from backy.ground.errors import ConsulFailed
from backy.source.consul import Consul
from consulsite import TOKEN, ConsulSite, consul_site
from fakeconsul import (
    BROKEN,
    DROPPED,
    GARBAGE,
    NO_HTTP,
    REFUSED,
    SHORT,
    Answer,
    FakeConsul,
    Fault,
    always,
    only,
    serving,
    silent,
)
from strategies import repeatable

GZIP = {"Content-Encoding": "gzip"}
CHUNKED = {"Transfer-Encoding": "chunked", "Connection": "close"}
VALUES = [b"{}", b'{"vm": "vm01"}', b"[1]", b"17", b"null", b"text", b"\xff\x00", b""]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_value_comes_back_as_the_bytes_that_were_put(consul: ConsulSite, value: bytes) -> None:
    """Whatever it looks like; alone, in a list, and after it was replaced."""
    store, key = consul.store(), consul.key("a")

    store.put(key, b"before")
    store.put(key, value)

    assert value == store.get(key)
    assert {key: value} == store.values(f"{consul.prefix}/")


def test_missing_key_is_none_and_a_missing_prefix_is_empty(consul: ConsulSite) -> None:
    """Neither is an error, nor is deleting what is not there."""
    store = consul.store()
    store.delete(consul.key("none"))

    assert None is store.get(consul.key("none"))
    assert {} == store.values(f"{consul.prefix}/")


def test_keys_beside_the_prefix_are_not_listed(consul: ConsulSite) -> None:
    """The slash at its end counts."""
    store = consul.store()
    for key in (consul.key("a"), f"{consul.prefix}x"):
        store.put(key, b"1")

    found = store.values(f"{consul.prefix}/")
    store.delete(consul.key("a"))
    store.delete(f"{consul.prefix}x")

    assert {consul.key("a"): b"1"} == found
    assert {} == store.values(consul.prefix)


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%2Fb", "a&token=x", "ä"])
def test_keys_of_odd_letters_are_quoted(name: str) -> None:
    """Nothing of a key becomes the URL's."""
    with consul_site() as site:
        store, key = site.store(), site.key(name)
        site.fake.put(key, b"0")  # newer releases refuse such keys
        store.put(key, b"1")
        found = store.values(f"{site.prefix}/")
        store.delete(key)

        assert {key: b"1"} == found
        assert {} == site.entries()


@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/../b", "a/.", "a/", "a\nb", "\ud800"])
def test_keys_that_a_url_would_change_are_refused_before_anything_is_asked(key: str) -> None:
    """With ConsulFailed, as if Consul had."""
    with serving() as consul:
        store = Consul(Address("127.0.0.1", 1), None)
        calls: list[Callable[[], object]] = [
            lambda: store.put(key, b"1"),
            lambda: store.get(key),
            lambda: store.delete(key),
        ]
        for call in calls:
            with pytest.raises(ConsulFailed, match="is no key that can be asked for"):
                call()

        assert [] == consul.asked


def test_token_goes_into_a_header_and_never_into_a_url(consul: ConsulSite) -> None:
    """For each kind of request."""
    store, key = consul.store(), consul.key("a")
    store.put(key, b"1")
    store.get(key)
    store.values(f"{consul.prefix}/")
    store.delete(key)

    asked = consul.fake.asked
    assert {"GET", "PUT", "DELETE"} == {one.method for one in asked}
    assert {TOKEN} == {one.headers.get("x-consul-token") for one in asked}
    assert [] == [one.target for one in asked if "token" in one.target or TOKEN in one.target]


def test_put_that_loses_against_another_is_an_error(consul: ConsulSite) -> None:
    """The other's value stays."""
    store, key = consul.store(), consul.key("a")
    consul.fake.fault = only("PUT", always(Answer(200, b"false")))

    with pytest.raises(ConsulFailed, match="is being changed by another"):
        store.put(key, b"1")


FAULTS: dict[str, tuple[Callable[[FakeConsul], Fault], str]] = {
    "garbage": (lambda _: always(GARBAGE), "it does not answer as Consul does"),
    "other JSON": (lambda _: always(Answer(200, b'{"a": 1}')), "it does not answer as Consul does"),
    "records that are none": (
        lambda _: always(Answer(200, b"[{}]")),
        "it does not answer as Consul does",
    ),
    "403": (lambda _: always(REFUSED), "it refuses the token (403)"),
    "500": (lambda _: always(BROKEN), "it answers 500 (No cluster leader)"),
    "500 for terminals": (lambda _: always(Answer(500, b"\x1b[31mred\n")), "it answers 500 ([31mred)"),
    "elsewhere": (
        lambda _: always(Answer(302, b"", {"Location": "http://127.0.0.1:1/"})),
        "it answers 302",
    ),
    "no answer": (lambda _: always(DROPPED), "the connection broke"),
    "half an answer": (lambda _: always(SHORT), "the connection broke"),
    "no HTTP": (lambda _: always(NO_HTTP), "the connection broke"),
    "no gzip": (lambda _: always(Answer(200, b"no gzip", GZIP)), "the connection broke"),
    "no chunks": (lambda _: always(Answer(200, b"zz\r\n", CHUNKED)), "the connection broke"),
    "silence": (silent, "it does not answer within 0.2 s"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("call", ["put", "get", "values", "delete"])
def test_whatever_is_no_answer_is_one_error_with_its_reason(name: str, call: str) -> None:
    """For each call, within its time, and without the token in it."""
    fault, why = FAULTS[name]
    with serving(TOKEN) as consul:
        consul.fault = fault(consul)
        host, port = consul.address.split(":")
        store = Consul(Address(host, int(port)), TOKEN, timeout=0.2)
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: store.put("snapshot/a", b"1"),
            "get": lambda: store.get("snapshot/a"),
            "values": lambda: store.values("snapshot/"),
            "delete": lambda: store.delete("snapshot/a"),
        }
        with pytest.raises(ConsulFailed) as caught:
            calls[call]()

        assert f"Consul at {consul.address}: {why}." == str(caught.value)
        assert TOKEN not in repr(caught.value)


ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(["Key", "Value", "ModifyIndex", "Flags", "Session"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=8), st.booleans()),
    ),
    max_size=3,
)
BODIES = st.one_of(st.binary(max_size=200), ROWS.map(lambda rows: json.dumps(rows).encode()))


@repeatable(60)
@given(body=BODIES)
def test_any_body_is_either_understood_or_the_one_error(body: bytes) -> None:
    """Nothing that a server says ends in a traceback, or in a value of another type."""
    with serving() as consul:
        consul.fault = always(Answer(200, body))
        host, port = consul.address.split(":")
        store = Consul(Address(host, int(port)), None)
        try:
            found = store.values("snapshot/")
            one = store.get("snapshot/a")
        except ConsulFailed:
            return

        assert all(isinstance(key, str) and isinstance(value, bytes) for key, value in found.items())
        assert one in found.values()


def test_no_token_where_one_is_wanted_is_said(consul: ConsulSite) -> None:
    """403 without a token is another mistake than a wrong one."""
    consul.fake.put(consul.key("a"), b"1")

    with pytest.raises(ConsulFailed, match=r"it wants a token \(403\)"):
        consul.store(token=None).get(consul.key("a"))
    with pytest.raises(ConsulFailed, match=r"it refuses the token \(403\)"):
        consul.store(token="another").values(f"{consul.prefix}/")


def test_value_beyond_the_limit_is_an_error(consul: ConsulSite) -> None:
    """413 is not passed over."""
    with pytest.raises(ConsulFailed, match="it answers 413"):
        consul.store().put(consul.key("a"), bytes(512 * 1024 + 1))


def test_nobody_at_the_address_is_an_error_with_the_systems_reason() -> None:
    """A port where nobody listens, and a name that nobody has."""
    with serving() as consul:
        port = int(consul.address.split(":")[1])

    with pytest.raises(ConsulFailed, match=r"it cannot be reached \(Connection refused\)"):
        Consul(Address("127.0.0.1", port), None).values("snapshot/")
    with pytest.raises(ConsulFailed, match="it cannot be reached"):
        Consul(Address("name.invalid"), None).values("snapshot/")


def test_answer_that_does_not_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an answer may be is bounded, so that a wrong server does not fill our memory."""
    monkeypatch.setattr("backy.source.consul._MAX_ANSWER", 1000)
    with serving() as consul:
        consul.fault = always(Answer(200, bytes(2000)))
        host, port = consul.address.split(":")

        with pytest.raises(ConsulFailed, match="its answer does not end"):
            Consul(Address(host, int(port)), None).values("snapshot/")


def test_proxies_of_the_environment_get_no_token(
    consul: ConsulSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go to the agent itself."""
    with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        consul.store().put(consul.key("a"), b"1")

        assert [] == proxy.asked


def test_command_line_starts_without_it() -> None:
    """It takes longer to load than all the rest."""
    lines = "import sys, backy.cli.main, backy.cli.backup; print('requests' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)

    assert "False\n" == found.stdout
