"""The sections `api` and `peers` of `/etc/backy.conf`: where the scheduler listens, and who may ask.

    >>> reader = SectionReader("backy.conf", lenient=False)
    >>> read_api(reader, {"api": {"addrs": "::1", "port": 7000}}).url
    'http://[::1]:7000'

Tokens are secrets: no message holds one.

Limits: pure; peers are accepted and not used yet.
"""

import ipaddress
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from backy.domain.section_reader import SectionReader
from backy.domain.strict_yaml import shown, text
from backy.ground.errors import ConfigError

DEFAULT_ADDRESSES = ("127.0.0.1",)
DEFAULT_PORT = 6023
_MIN_TOKEN = 8

API_KEYS = ("addrs", "port", "tokens", "cli-default")
CLIENT_KEYS = ("url", "token")
PEER_KEYS = ("url", "token")


class ApiConfig(NamedTuple):
    """Where the scheduler listens; `tokens` maps each token to its client's name."""

    addresses: tuple[str, ...] = DEFAULT_ADDRESSES
    port: int = DEFAULT_PORT
    tokens: Mapping[str, str] = {}
    client_url: str | None = None
    client_token: str | None = None

    @property
    def url(self) -> str:
        """Where `backy client` finds the scheduler, unless told otherwise."""
        if self.client_url is not None:
            return self.client_url
        first = self.addresses[0]
        return f"http://[{first}]:{self.port}" if ":" in first else f"http://{first}:{self.port}"


class PeerConfig(NamedTuple):
    """Another server of the same jobs; accepted and not used yet."""

    url: str
    token: str


def read_api(reader: SectionReader, document: Mapping[str, object]) -> ApiConfig:
    """The `api` section."""
    section = reader.table(document, "api", "api", API_KEYS)
    client = reader.table(section, "cli-default", "api.cli-default", CLIENT_KEYS)
    file = reader.file
    tokens: dict[str, str] = {}
    found = section.get("tokens")
    listed = found if isinstance(found, dict) else reader.table(section, "tokens", "api.tokens")
    for token, name in listed.items():
        # A token is a secret: no message may hold it.
        client_name = reader.value(partial(text, name, file, "api.tokens"), "")
        if not isinstance(token, str):
            why = "a token that is a number needs quotes"
            reader.faults.append(ConfigError(file, "api.tokens", why))
        elif len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable():
            why = f"a token must have at least {_MIN_TOKEN} printable ASCII characters"
            reader.faults.append(ConfigError(file, "api.tokens", why))
        elif client_name:
            tokens[token] = client_name
    api = ApiConfig(
        reader.value(lambda: _addresses(section.get("addrs"), file), DEFAULT_ADDRESSES),
        reader.value(lambda: _port(section.get("port", DEFAULT_PORT), file), DEFAULT_PORT),
        tokens,
        reader.value(lambda: _url(client.get("url"), file, "api.cli-default.url"), None),
        reader.value(lambda: _secret(client.get("token"), file, "api.cli-default.token"), None),
    )
    if not tokens and not all(ipaddress.ip_address(one).is_loopback for one in api.addresses):
        why = "listening beyond this host needs at least one token"
        reader.faults.append(ConfigError(file, "api.tokens", why))
    return api


def read_peers(reader: SectionReader, document: Mapping[str, object]) -> Mapping[str, PeerConfig]:
    """The `peers` section."""
    peers = {}
    for name in reader.table(document, "peers", "peers"):
        key = f"peers.{name}"
        section = reader.table(reader.table(document, "peers", "peers"), name, key, PEER_KEYS)
        url = reader.value(partial(_url, section.get("url"), reader.file, f"{key}.url"), None)
        token = reader.value(partial(_secret, section.get("token"), reader.file, f"{key}.token"), None)
        if url is None or token is None:
            reader.faults.append(ConfigError(reader.file, key, "it needs a url and a token"))
        else:
            peers[name] = PeerConfig(url, token)
    return peers


def _addresses(found: object, file: str) -> tuple[str, ...]:
    if found is None:
        return DEFAULT_ADDRESSES
    names = [one.strip() for one in text(found, file, "api.addrs").split(",") if one.strip()]
    for name in names:
        try:
            ipaddress.ip_address(name)
        except ValueError as error:
            why = f"{shown(name)} is not an IP address"
            raise ConfigError(file, "api.addrs", why) from error
    return tuple(names) or DEFAULT_ADDRESSES


def _port(found: object, file: str) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= 65535:
        raise ConfigError(file, "api.port", f"{shown(found)} is not a port: 0 to 65535")
    return found


def _url(found: object, file: str, key: str) -> str | None:
    if found is None:
        return None
    url = text(found, file, key)
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(file, key, "it must be a URL such as http://127.0.0.1:6023")
    return url.rstrip("/")


def _secret(found: object, file: str, key: str) -> str | None:
    if found is None:
        return None
    if not isinstance(found, str) or not found or not found.isascii() or not found.isprintable():
        raise ConfigError(file, key, "it must be a token of printable ASCII characters")
    return found
