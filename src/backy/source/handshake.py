"""The handshake with a VM's host: it freezes the guest, makes the snapshot and lets the guest go on.

    handshake = Handshake(settings, owner, {"root": source}, Means(clock, time.sleep, connect))
    with handshake.around("vm01", uuid, disks) as bracket:
        bracket.freeze                                        Freeze.GUEST_FROZEN

In this order: look for requests that dead runs have left, and remove them; put our own; look for the
snapshot on every disk until it is there or the time is over; withdraw the request; look once more. Only
then is it settled which snapshot the backup is made from: the host's, or one of our own with another
name, since the host may still make its own later. That one is removed by a later run, as it has the UUID
of a revision of ours.

The host is asked for something better than we can have alone, so nothing that goes wrong with Consul
or the host keeps a backup from being made: it is crash-consistent then, and a warning says why, each
time. A failure to look at the disks is another matter, and is raised.

The protocol, for those who write the host's half: doc/operations.md.

Limits: a run that is killed leaves its request until the next one of the job, and hosts may freeze the
guest again for it. A run that fails after it asked in vain is forgotten by the next one, minutes later:
a host that is later still leaves its snapshot for good.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol
from uuid import uuid4

from backy.domain.freeze_request import Fate, RequestOwner, fate, parse, request
from backy.domain.handshake_settings import HandshakeSettings, find_address
from backy.domain.revision import Freeze
from backy.ground import failpoint
from backy.ground.clock import Clock
from backy.ground.errors import ConsulFailed
from backy.source.rbd_snapshots import names

# For how long backy 2.5 looks for a snapshot, and then a little.
_UNDATED_SECONDS = 95


class Awaited(Protocol):
    """A disk of which somebody else makes the snapshot."""

    @property
    def image(self) -> str:
        """What is backed up, as the host may know it."""
        ...

    def has_snapshot(self, name: str) -> bool:
        """Whether a snapshot of that name is there now; SourceError."""
        ...

    def settle(self, name: str, *, is_there: bool = False) -> None:
        """What the next `snapshot` is called. It is made, or taken if it is there, as it has to be."""
        ...


class Store(Protocol):
    """What is needed of Consul; each raises ConsulFailed."""

    def put(self, key: str, value: bytes) -> None:
        """Set a key."""

    def values(self, prefix: str) -> Mapping[str, bytes]:
        """All keys with a prefix."""

    def delete(self, key: str) -> None:
        """Remove a key, if it is there."""


class Means(NamedTuple):
    """The world: what time it is, how to wait (seconds), and how to come to Consul (ConsulFailed)."""

    clock: Clock
    sleep: Callable[[float], None]
    connect: Callable[[HandshakeSettings], Store]


def connect(settings: HandshakeSettings) -> Store:
    """The store of the configured agent, or of that which the environment names; ConsulFailed."""
    from backy.source.consul import Consul

    try:
        address = find_address(settings.address, os.environ)
    except ValueError as error:
        raise ConsulFailed("an unknown place", str(error)) from error
    ca = os.environ.get("CONSUL_CACERT") or None
    if ca is not None and not os.path.isfile(ca):
        raise ConsulFailed(str(address), "CONSUL_CACERT does not name a file of certificates")
    return Consul(address, settings.token, ca=ca)


class Bracket:
    """What came of it. The guest goes on by itself, so there is nothing to end."""

    def __init__(self, freeze: Freeze, warnings: Sequence[str]) -> None:
        self.freeze = freeze
        self._warnings = list(warnings)

    def end(self) -> str:
        """What the operator should know, the first time; "" if that is nothing."""
        told, self._warnings = self._warnings, []
        return "; ".join(told)


class Handshake(NamedTuple):
    """How the host of a job's VM is asked, and for which disks."""

    settings: HandshakeSettings
    owner: RequestOwner
    disks: Mapping[str, Awaited]
    means: Means

    def call_off(self) -> bool:
        """See `Quiesce.call_off`: a host makes a snapshot whenever it finds a request for one."""
        run = _Run(self, "")
        try:
            run.clean(self.means.connect(self.settings))
        except ConsulFailed:
            return False
        return not run.warnings

    @contextmanager
    def around(self, job: str, revision: str, disks: Mapping[str, object]) -> Iterator[Bracket]:
        """Ask, wait, and settle each disk's snapshot. SourceError where disks cannot be looked at."""
        by_host, fallback = names(revision)
        run = _Run(self, by_host)
        frozen = run.ask()
        for disk in self.disks.values():
            disk.settle(by_host if frozen else fallback, is_there=frozen)
        bracket = Bracket(Freeze.GUEST_FROZEN if frozen else Freeze.CRASH_CONSISTENT, run.warnings)
        try:
            yield bracket
        finally:
            if untold := bracket.end():
                print(f"warning: {untold}", file=sys.stderr)  # noqa: T201 - sources have no log


class _Run:
    """One asking."""

    def __init__(self, handshake: Handshake, name: str) -> None:
        self.warnings: list[str] = []
        self._settings, self._owner, self._disks, self._means = handshake
        self._name = name
        self._folder = f"{self._settings.prefix}/"
        self._undated: list[str] = []

    def ask(self) -> bool:
        """Whether all snapshots were made by the host; afterwards no request of ours is there."""
        try:
            store = self._means.connect(self._settings)
            self.clean(store)
            why = self._answer(store)
        except ConsulFailed as error:
            # One reason is enough.
            self.warnings.clear()
            why = _why(error)
        if why:
            self.warnings.insert(
                0,
                f"the guest of {self._settings.vm} was not frozen ({why}), so this backup is "
                "crash-consistent",
            )
        return not why

    def _answer(self, store: Store) -> str:
        """Ask, wait, withdraw: why there is no snapshot by the host, or "". ConsulFailed."""
        key = f"{self._folder}{uuid4()}"
        images = [disk.image for disk in self._disks.values()]
        clock = self._means.clock
        asked_at = clock.monotonic()
        value = request(self._settings.vm, self._name, self._owner, clock.now(), images)
        try:
            failpoint.reached(f"put {key}")
            store.put(key, value)
            late = self._waited_for()
        finally:
            # Also if putting it has failed: it may have come to Consul all the same.
            self._withdraw(store, [key])
        if late:
            # A host that begins now has not seen it; one that had begun may be done since we looked.
            late = self._missing()
        if not late or clock.monotonic() - asked_at >= _UNDATED_SECONDS:
            self._withdraw(store, self._undated)
        which = f" of {', '.join(late)}" if len(self._disks) > 1 else ""
        return f"its host made no snapshot{which} within {self._settings.timeout} s" if late else ""

    def clean(self, store: Store) -> None:
        """Remove requests of dead runs, so that no host freezes the guest for nobody."""
        try:
            found = store.values(self._folder)
        except ConsulFailed as error:
            self.warnings.append(f"requests of earlier runs were not looked for ({_why(error)})")
            return
        now = self._means.clock.now()
        fates = {
            key: fate(parse(value), self._settings.vm, self._owner, now) for key, value in found.items()
        }
        self._withdraw(store, [key for key, one in fates.items() if one is Fate.DEAD])
        self._undated = [key for key, one in fates.items() if one is Fate.UNDATED]

    def _waited_for(self) -> list[str]:
        """Wait until no disk misses its snapshot: those that do once the time is over."""
        clock = self._means.clock
        deadline = clock.monotonic() + self._settings.timeout
        while (missing := self._missing()) and (left := deadline - clock.monotonic()) > 0:
            self._means.sleep(min(self._settings.interval, left))
        return missing

    def _missing(self) -> list[str]:
        """The disks without the snapshot that was asked for."""
        return [disk for disk, one in self._disks.items() if not one.has_snapshot(self._name)]

    def _withdraw(self, store: Store, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                failpoint.reached(f"delete {key}")
                store.delete(key)
            except ConsulFailed as error:
                self.warnings.append(f"the request {key} could not be withdrawn ({_why(error)})")


def _why(error: ConsulFailed) -> str:
    return error.message.rstrip(".")
