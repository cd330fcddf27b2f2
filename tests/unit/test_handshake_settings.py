"""Settings of the handshake: what is taken, what is refused, and that no message shows the token."""

import pytest

from backy.domain.handshake_settings import (
    Address,
    HandshakeSettings,
    find_address,
    parse_address,
    parse_handshake,
    wrong_handshake_settings,
)
from backy.domain.setting import WrongSetting


def test_vm_alone_means_the_defaults_of_2_5() -> None:
    """A local agent, keys below snapshot/, and 90 seconds."""
    expected = HandshakeSettings("vm01", None, None, "snapshot", 90, 1)

    assert expected == parse_handshake({"vm": "vm01", "pool": "rbd"})


def test_all_settings_are_taken() -> None:
    """Intervals as everywhere; the address as a text."""
    settings = {
        "vm": "vm01",
        "consul_acl_token": "5ec2e7",
        "consul-address": "https://[::1]:8501",
        "consul-prefix": "backup/freeze",
        "freeze-timeout": "2m",
        "freeze-interval": 5,
    }

    expected = HandshakeSettings(
        "vm01", "5ec2e7", Address("[::1]", 8501, "https"), "backup/freeze", 120, 5
    )
    assert expected == parse_handshake(settings)


def test_empty_token_is_none() -> None:
    """As templates write it where there is none."""
    assert None is parse_handshake({"vm": "vm01", "consul_acl_token": ""}).token


WRONG: dict[str, list[object]] = {
    "vm": ["", 7, "a\nb", "x" * 201],
    "consul_acl_token": [7, "5ec2e7 ", "5ec2e7\n", "5ec2e7ü"],
    "consul-address": [
        "",
        8500,
        "host:port",
        "host:0",
        "unix:///x",
        "http://h/path",
        "http://u@h",
        "h\n",
    ],
    "consul-prefix": ["", "/a", "a/", "a//b", "a/../b", "a b", "ä", 7, "x" * 201],
    "freeze-timeout": ["0", "31m", "soon", True],
    "freeze-interval": ["0", "31m", "1d12h"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, one) for key, all_of in WRONG.items() for one in all_of]
)
def test_what_cannot_be_meant_is_told_with_its_key(key: str, value: object) -> None:
    """By both readers, and without the token."""
    with pytest.raises(WrongSetting) as caught:
        parse_handshake({"vm": "vm01", key: value})
    (found,) = wrong_handshake_settings({key: value})

    assert [key, key] == [caught.value.key, found.key]
    assert "5ec2e7" not in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    """A missing vm is somebody else's to tell."""
    found = wrong_handshake_settings({key: values[0] for key, values in WRONG.items()})

    assert list(WRONG) == [one.key for one in found]
    assert [] == wrong_handshake_settings({"pool": "rbd"})


def test_settings_show_no_token() -> None:
    """Where a traceback or a report of tests prints them."""
    assert "5ec2e7" not in repr(parse_handshake({"vm": "vm01", "consul_acl_token": "5ec2e7"}))


ADDRESSES = {
    "consul": Address("consul", 8500),
    "consul:8501": Address("consul", 8501),
    "http://consul:8501/": Address("consul", 8501),
    "https://consul.example.com": Address("consul.example.com", 8500, "https"),
    "[fd00::1]:8500": Address("[fd00::1]", 8500),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_address_is_a_host_with_a_port_or_a_url(text: str) -> None:
    """And is shown so that it can be written again."""
    assert ADDRESSES[text] == parse_address(text)
    assert ADDRESSES[text] == parse_address(str(ADDRESSES[text]))


ENVIRONMENTS: list[tuple[dict[str, str], Address]] = [
    ({}, Address("localhost", 8500)),
    ({"CONSUL_HOST": "h"}, Address("h", 8500)),
    ({"CONSUL_PORT": "1"}, Address("localhost", 1)),
    ({"CONSUL_HOST": "h", "CONSUL_PORT": "1", "CONSUL_HTTP_ADDR": ""}, Address("h", 1)),
    ({"CONSUL_HOST": "h", "CONSUL_HTTP_ADDR": "i:2"}, Address("i", 2)),
    ({"CONSUL_HTTP_ADDR": "https://i:2"}, Address("i", 2, "https")),
]


@pytest.mark.parametrize(("environment", "expected"), ENVIRONMENTS)
def test_address_of_the_environment_holds_where_none_is_configured(
    environment: dict[str, str], expected: Address
) -> None:
    """CONSUL_HTTP_ADDR before CONSUL_HOST and CONSUL_PORT; a configured one before all."""
    assert expected == find_address(None, environment)
    assert Address("mine", 7) == find_address(Address("mine", 7), environment)


@pytest.mark.parametrize("name", ["CONSUL_HTTP_ADDR", "CONSUL_PORT"])
def test_variable_that_is_no_address_is_named(name: str) -> None:
    """So that it can be found."""
    with pytest.raises(ValueError, match=name):
        find_address(None, {name: "unix:///run/consul.sock"})
