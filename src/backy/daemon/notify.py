"""Tell systemd how the service is: ready, reloading, stopping, alive (sd_notify(3)).

    notifier = Notifier.of_environment(os.environ); notifier.send("READY=1")

Limits: datagram sockets named by path or in the abstract name space; without NOTIFY_SOCKET it does
nothing.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple


class Notifier(NamedTuple):
    """Where to send, and every how many seconds the watchdog wants to hear of us (None: never)."""

    address: str | None = None
    interval: float | None = None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> "Notifier":
        """As systemd describes it in NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        micros = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        number = int(micros) if re.fullmatch("[0-9]{1,18}", micros) else 0
        interval = number / 2e6 if number and ours else None
        return cls(environment.get("NOTIFY_SOCKET") or None, interval)

    def send(self, *assignments: str) -> None:
        """Send `NAME=value` lines; a service manager that is gone is nobody's failure."""
        if self.address is None:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(assignments).encode(), address)

    def reloading(self) -> None:
        """A reload begins; `READY=1` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
