"""The settings of the handshake with a VM's host through Consul: what operators write, as a record.

    >>> found = parse_handshake({"vm": "vm01", "freeze-timeout": "2m"})
    >>> found.vm, found.timeout, found.prefix
    ('vm01', 120, 'snapshot')

The names `vm` and `consul_acl_token` are those of backy 2.5.

Limits: pure; no message holds the token.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from backy.domain import rbd_settings
from backy.domain.setting import WrongSetting, setting
from backy.domain.strict_yaml import shown
from backy.ground.units import parse_interval

# Types of sources: one that always asks, and all whose snapshots a host can make.
ALWAYS = "flyingcircus"
TYPES = (*rbd_settings.TYPES, ALWAYS)
VM, TOKEN = "vm", "consul_acl_token"
ADDRESS, PREFIX = "consul-address", "consul-prefix"
TIMEOUT, INTERVAL = "freeze-timeout", "freeze-interval"
KEYS = (VM, TOKEN, ADDRESS, PREFIX, TIMEOUT, INTERVAL)

DEFAULT_HOST, DEFAULT_PORT = "localhost", 8500
DEFAULT_PREFIX = "snapshot"
DEFAULT_TIMEOUT = 90  # as backy 2.5
DEFAULT_INTERVAL = 1
# Other repositories take a request for dead that is an hour old.
_MAX_TIMEOUT = 1800
_MAX_NAME = 200
# What every release of Consul takes in a key.
_KEY = re.compile(r"[A-Za-z0-9,_-][A-Za-z0-9,_.-]*(/[A-Za-z0-9,_-][A-Za-z0-9,_.-]*)*")


class Address(NamedTuple):
    """Where a Consul agent listens; shown as HOST:PORT, or as a URL where that is not all."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    scheme: str = "http"

    def __str__(self) -> str:
        place = f"{self.host}:{self.port}"
        return place if self.scheme == "http" else f"{self.scheme}://{place}"


class HandshakeSettings(NamedTuple):
    """Which VM's host is asked, and how; seconds.

    `address` is None for what the environment says (`find_address`). Keys are PREFIX/UUID. The host may
    take `timeout` seconds, and is looked after every `interval` seconds.
    """

    vm: str
    token: str | None = None
    address: Address | None = None
    prefix: str = DEFAULT_PREFIX
    timeout: int = DEFAULT_TIMEOUT
    interval: int = DEFAULT_INTERVAL

    def __repr__(self) -> str:
        return f"HandshakeSettings({self.vm!r})"  # tracebacks and test reports hold no token


def parse_handshake(settings: Mapping[str, object]) -> HandshakeSettings:
    """The settings, `vm` among them; keys of others are passed over. WrongSetting."""
    return HandshakeSettings(
        setting(settings, VM, _vm, None),
        setting(settings, TOKEN, _token, ""),
        setting(settings, ADDRESS, _address, None) if ADDRESS in settings else None,
        setting(settings, PREFIX, _prefix, DEFAULT_PREFIX),
        setting(settings, TIMEOUT, _seconds, DEFAULT_TIMEOUT),
        setting(settings, INTERVAL, _seconds, DEFAULT_INTERVAL),
    )


def is_wanted(types: Collection[str], settings: Mapping[str, object]) -> bool:
    """Whether a host is asked for sources of these types: for ALWAYS, others with VM and token."""
    return ALWAYS in types or bool(settings.get(VM) and settings.get(TOKEN))


def wrong_handshake_settings(settings: Mapping[str, object]) -> list[WrongSetting]:
    """All that are wrong, for those who tell every mistake at once; a missing name is not told."""
    found = []
    for key in KEYS:
        try:
            parse_handshake({VM: "vm", key: settings[key]} if key in settings else {VM: "vm"})
        except WrongSetting as error:
            found.append(error)
    return found


def parse_address(text: str) -> Address:
    """HOST, HOST:PORT, or one of them as an http or https URL; ValueError."""
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    rest = host is None or url.path.strip("/") or url.query or url.fragment or "@" in url.netloc
    if rest or not host or url.scheme not in ("http", "https") or port == 0 or not text.isprintable():
        raise ValueError("it must be HOST:PORT or a URL such as https://consul.example.com:8501")
    return Address(f"[{host}]" if ":" in host else host, port or DEFAULT_PORT, url.scheme)


def find_address(configured: Address | None, environment: Mapping[str, str]) -> Address:
    """The configured address, otherwise that of the environment; ValueError, with the variable.

    The variables are Consul's own CONSUL_HTTP_ADDR, and CONSUL_HOST and CONSUL_PORT.
    """
    if configured is not None:
        return configured
    if text := environment.get("CONSUL_HTTP_ADDR"):
        return _of_variable("CONSUL_HTTP_ADDR", text)
    host = environment.get("CONSUL_HOST") or DEFAULT_HOST
    port = environment.get("CONSUL_PORT") or str(DEFAULT_PORT)
    return _of_variable("CONSUL_HOST and CONSUL_PORT", f"{host}:{port}")


def _of_variable(name: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"{name}: {shown(text)} is no address: {error}") from error


def _vm(found: object) -> str:
    if not isinstance(found, str) or not found or not found.isprintable() or len(found) > _MAX_NAME:
        raise ValueError("it must be the VM's name, as its host knows it")
    return found


def _token(found: object) -> str | None:
    if not isinstance(found, str) or not all("!" <= one <= "~" for one in found):
        raise ValueError("it must be a token of printable ASCII characters without blanks")
    return found or None


def _address(found: object) -> Address:
    return parse_address(found if isinstance(found, str) else "")


def _prefix(found: object) -> str:
    if not isinstance(found, str) or not _KEY.fullmatch(found) or len(found) > _MAX_NAME:
        raise ValueError(f"{shown(found)} is no key: use letters, digits and , - _ . between slashes")
    return found


def _seconds(found: object) -> int:
    seconds = parse_interval(str(found))
    if isinstance(found, bool) or seconds > _MAX_TIMEOUT:
        raise ValueError("it must be an interval of at most 30m")
    return seconds
