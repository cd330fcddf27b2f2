"""The token of this host, in BASE/.api-token: who may read the repository may use its scheduler.

    token = renew(repository.base)      the scheduler, at each start
    token = read("/srv/backy")          a client, which needs no configuration then

Limits: mode 0600, so it is for the owner of the repository.
"""

import os
import secrets

from backy.ground import durable
from backy.ground.directory import Directory

FILE = ".api-token"
_MAX_LENGTH = 200


def renew(base: Directory) -> str:
    """A fresh token, in place of the one of the last start; StorageFailed."""
    token = secrets.token_urlsafe(32)
    durable.replace(base, FILE, token.encode(), mode=0o600)
    return token


def read(base: str) -> str:
    """The token that is there; OSError, or ValueError where it is none."""
    with open(os.path.join(base, FILE), encoding="ascii", errors="surrogateescape") as file:
        token = file.read(_MAX_LENGTH).strip()
    if not token or not token.isprintable():
        raise ValueError
    return token
