"""Doctor, for Consul: whether the agents answer through which VM hosts are asked to freeze guests.

    for finding in agents({"vm01": HandshakeSettings("vm01", "token")}): …

Limits: a host that does not answer requests shows in the revisions, as `crash-consistent`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from backy.domain.diagnosis import Finding, fine, wrong
from backy.domain.handshake_settings import Address, HandshakeSettings
from backy.ground.errors import ConsulFailed
from backy.source.handshake import connect


class _Asked(NamedTuple):
    """What makes a difference between jobs, and whether the token is accepted."""

    address: Address | None
    prefix: str
    token: str | None


def agents(jobs: Mapping[str, HandshakeSettings]) -> Iterator[Finding]:
    """One finding for each agent, prefix and token; each call has Consul's time limit."""
    seen: dict[_Asked, list[str]] = {}
    for name, settings in jobs.items():
        asked = _Asked(settings.address, settings.prefix, settings.token)
        seen.setdefault(asked, []).append(name)
    for names in seen.values():
        subject = f"consul of {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        settings = jobs[names[0]]
        try:
            waiting = len(connect(settings).values(f"{settings.prefix}/"))
        except ConsulFailed as error:
            cure = "backups go on without a frozen guest until it answers and accepts 'consul_acl_token'"
            yield wrong(subject, f"{error.message.rstrip('.')}: {cure}")
        else:
            yield fine(subject, f"it answers, {waiting} keys are below {settings.prefix}/")
