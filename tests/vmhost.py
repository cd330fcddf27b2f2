"""A VM's host in the tests: it answers requests in Consul as real ones do, or fails to.

    host = VmHost(site, {"vm01"}, snapshot=lambda vm, name: cluster.make(vm, name))
    host.look()                                    once
    with host.watching(): …                        a thread that waits for changes, as others do

For each request of a VM of its own it freezes the guest, makes the snapshot and lets the guest go on;
what it did stands in `did`. It passes over empty values, garbage, and other hosts' VMs; a snapshot that
is there is fine. If the guest cannot be frozen (`broken`), it makes no snapshot.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from consulsite import ConsulSite


class VmHost:
    """A host with its VMs; `snapshot` makes one, by the VM's and the snapshot's name."""

    def __init__(
        self,
        site: ConsulSite,
        vms: set[str],
        snapshot: Callable[[str, str], None],
        *,
        broken: bool = False,
    ) -> None:
        self.site = site
        self.vms = vms
        self.did: list[str] = []
        self.broken = broken
        self._snapshot = snapshot
        self._index = 1
        self._handled: set[tuple[str, int]] = set()
        self._ends = threading.Event()

    def look(self, *, wait: str = "") -> None:
        """Handle what is there now, or what is there after the next change."""
        query = f"recurse&index={self._index}&wait={wait}" if wait else "recurse"
        said = self.site.ask("GET", f"{self.site.prefix}/", query)
        self._index = max(said.seen, 1) if said.seen >= self._index else 1
        for record in said.document if said.status == 200 else []:
            self._handle(record)

    def _handle(self, record: dict[str, Any]) -> None:
        if (record["Key"], record["ModifyIndex"]) in self._handled:
            return
        self._handled.add((record["Key"], record["ModifyIndex"]))
        try:
            wanted = json.loads(base64.b64decode(record["Value"] or ""))
            vm, name = wanted["vm"], wanted["snapshot"]
        except (ValueError, TypeError, KeyError):
            return
        if vm not in self.vms:
            return
        self.answer(vm, name)

    def answer(self, vm: str, name: str) -> None:
        """Do what a request asks for."""
        if self.broken:
            self.did.append(f"could not freeze {vm}")
            return
        self.did.append(f"freeze {vm}")
        try:
            self._snapshot(vm, name)
            self.did.append(f"snapshot {name}")
        finally:
            self.did.append(f"thaw {vm}")

    @contextmanager
    def watching(self) -> Iterator["VmHost"]:
        """A thread that handles each change, until the end of the block."""

        def watch() -> None:
            while not self._ends.is_set():
                self.look(wait="200ms")

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            thread.join()
