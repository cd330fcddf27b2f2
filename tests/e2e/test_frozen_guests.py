"""Guests frozen by their host, on a real cluster: backups of the command line, and hosts of every kind.

Before it makes the snapshot a host of these tests writes FROZEN into the image, as a guest that writes
its caches, and RUNNING afterwards. So a backup of a frozen guest holds FROZEN.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backy.ground.linux import PAGE
from backy.ground.rbd import Pool
from cephcluster import CephCluster
from consulsite import ConsulSite
from fakeconsul import REFUSED, always, only
from testsite import Site, parsed
from vmhost import VmHost

FROZEN, RUNNING = b"frozen".ljust(PAGE, b"."), b"running".ljust(PAGE, b".")
SIZE = 8 << 20
TOKEN_KEY = "consul_acl_token"


class GuestSite:
    """A job whose image is the root disk of VM vm01 in a cluster."""

    def __init__(self, folder: Path, ceph: CephCluster, pool: Pool, consul: ConsulSite) -> None:
        folder.mkdir(exist_ok=True)
        self.site = Site(folder)
        self.pool = pool
        self.consul = consul
        self.settings: dict[str, Any] = {
            "type": "flyingcircus",
            "pool": pool.name,
            "image": "vm01.root",
            "conf": str(ceph.conf),
            "vm": "vm01",
            TOKEN_KEY: consul.token or "",
            "consul-address": consul.url,
            "consul-prefix": consul.prefix,
            "freeze-timeout": "60s",
        }
        self.configure()

    def configure(self, **changes: object) -> None:
        """Write the job's configuration; a dash for each underscore of what is changed."""
        self.settings |= {name.replace("_", "-"): value for name, value in changes.items()}
        schedule = {"daily": {"interval": "1d", "keep": 3}}
        config = self.site.job / "config"
        config.unlink(missing_ok=True)
        config.write_text(yaml.safe_dump({"source": self.settings, "schedule": schedule}))

    def configure_disks(self, *images: str) -> None:
        """Have several disks in the job's configuration, and what concerns all of them beside them."""
        own = ("type", "pool", "conf")
        sources = [
            {"disk": image.removeprefix("vm01."), "image": image}
            | {key: self.settings[key] for key in own}
            for image in images
        ]
        beside = {key: value for key, value in self.settings.items() if key not in (*own, "image")}
        document = {"sources": sources, **beside, "schedule": {"daily": {"interval": "1d", "keep": 3}}}
        config = self.site.job / "config"
        config.unlink()
        config.write_text(yaml.safe_dump(document))

    def write(self, content: bytes, image: str = "vm01.root") -> None:
        """The guest writes its first page."""
        with self.pool.image(image, read_only=False) as opened:
            opened.write(content, 0)

    def snapshots(self, image: str = "vm01.root") -> list[str]:
        """Names of the image's snapshots."""
        with self.pool.image(image) as opened:
            return [one.name for one in opened.snapshots()]

    def host(self, *images: str, broken: bool = False) -> VmHost:
        """A host on which it runs, and which makes snapshots of these images, or of the root disk."""
        disks = images or ("vm01.root",)

        def snapshot(_: str, name: str) -> None:
            if name in self.snapshots(disks[-1]):
                return
            for image in disks:
                self.write(FROZEN, image)
            for image in disks:
                with self.pool.image(image, read_only=False) as opened:
                    opened.create_snapshot(name)
            for image in disks:
                self.write(RUNNING, image)

        return VmHost(self.consul, {"vm01"}, snapshot, broken=broken)

    def backup(self, *, code: int = 0) -> str:
        """A backup; what it says."""
        done = self.site.cli("backup", "daily")
        assert code == done.returncode, done.stderr
        return done.stderr

    def newest(self) -> dict[str, Any]:
        """The newest revision, as `status` has it."""
        found = parsed(self.site.cli("status", "--json"))[-1]
        assert isinstance(found, dict)
        return found

    def first_page(self, *options: str) -> bytes:
        """The first page of the newest revision, or of a disk of it."""
        target = self.site.folder / "out.raw"
        target.unlink(missing_ok=True)
        assert 0 == self.site.cli("restore", *options, str(target)).returncode
        with target.open("rb") as file:
            return file.read(PAGE)


@pytest.fixture
def guest(tmp_path: Path, ceph: CephCluster, consul: ConsulSite) -> Iterator[GuestSite]:
    """VM vm01, whose image has a page that says that it runs."""
    with ceph.pool() as pool:
        pool.create("vm01.root", SIZE)
        site = GuestSite(tmp_path / "a", ceph, pool, consul)
        site.write(RUNNING)
        yield site


# ..Hosts of every kind............................................................................


def test_frozen_guest_is_backed_up_from_the_snapshot_of_its_host(guest: GuestSite) -> None:
    """Twice: the second compares with the host's first one, which goes then."""
    with guest.host().watching() as host:
        said = [guest.backup()]
        first = guest.newest()
        said.append(guest.backup())
    second = guest.newest()

    assert [False, False] == ["crash-consistent" in one for one in said]
    assert ["guest-frozen", "guest-frozen"] == [first["freeze"], second["freeze"]]
    assert [f"backy-{second['uuid']}"] == guest.snapshots()
    assert first["uuid"] == second["reading"]["since"]
    assert FROZEN == guest.first_page()
    assert ["freeze vm01", f"snapshot backy-{first['uuid']}", "thaw vm01"] == host.did[:3]
    assert {} == guest.consul.entries()


@pytest.mark.parametrize("broken", [None, True], ids=["no host", "a guest that does not freeze"])
def test_guest_that_is_not_frozen_is_backed_up_all_the_same(
    guest: GuestSite, *, broken: bool | None
) -> None:
    """Crash-consistent, with a warning, from a snapshot with another name."""
    guest.configure(freeze_timeout="1s")
    if broken:
        with guest.host(broken=True).watching():
            said = guest.backup()
    else:
        said = guest.backup()

    newest = guest.newest()
    assert "note: the guest of vm01 was not frozen (its host made no snapshot within 1 s)" in said
    assert "crash-consistent" == newest["freeze"]
    assert [f"backy-{newest['uuid']}-fallback"] == guest.snapshots()
    assert RUNNING == guest.first_page()
    assert {} == guest.consul.entries()


def test_host_that_answers_after_the_limit_collides_with_nobody(guest: GuestSite) -> None:
    """Its snapshot is taken for ours by the next run, and removed."""
    guest.configure(freeze_timeout="1s")
    guest.backup()
    late = f"backy-{guest.newest()['uuid']}"
    host = guest.host()
    host.answer("vm01", late)
    both = guest.snapshots()
    guest.configure(freeze_timeout="60s")
    with guest.host().watching():
        guest.backup()

    newest = guest.newest()
    assert [f"{late}-fallback", late] == both
    assert ("guest-frozen", [f"backy-{newest['uuid']}"]) == (newest["freeze"], guest.snapshots())
    assert late == f"backy-{newest['reading']['since']}"
    assert FROZEN == guest.first_page()


def test_two_jobs_for_one_vm_have_snapshots_of_their_own(
    guest: GuestSite, tmp_path: Path, ceph: CephCluster
) -> None:
    """Each asks for its own, at the same time, and neither removes the other's."""
    other = GuestSite(tmp_path / "b", ceph, guest.pool, guest.consul)
    with guest.host().watching():
        running = [started(one) for one in (guest, other)]
        codes = [one.wait(60) for one in running]

    found = [one.newest() for one in (guest, other)]
    assert [0, 0] == codes
    assert ["guest-frozen", "guest-frozen"] == [one["freeze"] for one in found]
    assert {f"backy-{one['uuid']}" for one in found} == set(guest.snapshots())
    assert {} == guest.consul.entries()


DISKS = ("vm01.root", "vm01.data")


def test_all_disks_of_a_frozen_guest_are_of_one_instant(guest: GuestSite) -> None:
    """A host that knows of several makes a snapshot of each, while the guest stands still."""
    guest.pool.create("vm01.data", SIZE)
    guest.configure_disks(*DISKS)
    with guest.host(*DISKS).watching() as host:
        guest.backup()
    newest = guest.newest()

    assert "guest-frozen" == newest["freeze"]
    assert {"root", "data"} == set(newest["disks"])
    assert [[f"backy-{newest['uuid']}"]] * 2 == [guest.snapshots(one) for one in DISKS]
    assert [f"snapshot backy-{newest['uuid']}"] == [one for one in host.did if "snapshot" in one]
    assert [FROZEN] * 2 == [guest.first_page("--disk", disk) for disk in ("root", "data")]


def test_disks_that_a_host_does_not_know_make_all_of_them_crash_consistent(guest: GuestSite) -> None:
    """Or they would be of two instants; what the host has made goes with a later run."""
    guest.pool.create("vm01.data", SIZE)
    guest.configure(freeze_timeout="5s")
    guest.configure_disks(*DISKS)
    with guest.host().watching():
        said = guest.backup()
        first = guest.newest()
        made = [guest.snapshots(one) for one in DISKS]
        guest.backup()
    second = guest.newest()

    name, other = f"backy-{first['uuid']}", f"backy-{second['uuid']}"
    assert "(its host made no snapshot of data within 5 s)" in said
    assert ["crash-consistent"] * 2 == [first["freeze"], second["freeze"]]
    assert [[name, f"{name}-fallback"], [f"{name}-fallback"]] == made
    assert [other, f"{other}-fallback"] == guest.snapshots("vm01.root")
    assert [f"{other}-fallback"] == guest.snapshots("vm01.data")


# ..The end in between.............................................................................


def started(guest: GuestSite) -> "subprocess.Popen[bytes]":
    """A backup that runs."""
    command = [sys.executable, "-m", "backy", "-b", str(guest.site.job), "backup", "daily"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def asked_by(guest: GuestSite) -> "tuple[subprocess.Popen[bytes], dict[str, Any]]":
    """A backup that waits for its host, and its request."""
    running = started(guest)
    seen = 1
    while not (entries := guest.consul.entries()):
        assert running.poll() is None
        query = f"recurse&wait=10s&index={seen}"
        seen = guest.consul.ask("GET", f"{guest.consul.prefix}/", query).seen
    ((value),) = entries.values()
    return running, json.loads(value)


def test_request_of_a_killed_run_is_removed_by_the_next(guest: GuestSite) -> None:
    """And so is the snapshot that the host has made for it."""
    running, request = asked_by(guest)
    running.kill()
    running.wait()
    left = guest.consul.entries()
    guest.host().look()
    of_the_dead = guest.snapshots()
    with guest.host().watching() as host:
        guest.backup()

    newest = guest.newest()
    assert 1 == len(left)
    assert [request["snapshot"]] == of_the_dead
    assert f"snapshot backy-{newest['uuid']}" in host.did
    assert [f"backy-{newest['uuid']}"] == guest.snapshots()
    assert {} == guest.consul.entries()


KILLED_AT = """
import os, signal, sys
from backy.ground import failpoint
def die(step, at=sys.argv.pop(1)):
    if step.startswith(at):
        os.kill(os.getpid(), signal.SIGKILL)
failpoint.install(die)
from backy.cli.main import run
run()
"""


@pytest.mark.parametrize("step", ["put ", "delete ", "rename "])
def test_nothing_of_a_run_that_was_killed_is_left_after_the_next(guest: GuestSite, step: str) -> None:
    """Before it asks, before it withdraws, and at the commit."""
    with guest.host().watching():
        command = [sys.executable, "-c", KILLED_AT, step, "-b", str(guest.site.job), "backup", "daily"]
        killed = subprocess.run(command, check=False, capture_output=True, timeout=60)
        guest.backup()

    newest = guest.newest()
    assert -signal.SIGKILL == killed.returncode
    assert ("guest-frozen", [f"backy-{newest['uuid']}"]) == (newest["freeze"], guest.snapshots())
    assert {} == guest.consul.entries()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_run_that_is_ended_withdraws_its_request(guest: GuestSite, ending: signal.Signals) -> None:
    """By the scheduler that stops, or by hand."""
    running, _ = asked_by(guest)
    os.kill(running.pid, ending)

    assert 0 != running.wait(30)
    assert {} == guest.consul.entries()


# ..Consul.........................................................................................


def test_consul_that_is_not_there_or_refuses_fails_no_backup(guest: GuestSite) -> None:
    """A warning says why, each time; and nowhere stands the token."""
    guest.consul.fake.fault = always(REFUSED)
    refused = guest.backup()
    guest.configure(consul_address="127.0.0.1:1")
    absent = guest.backup()

    assert "it refuses the token (403)), so this backup is crash-consistent" in refused
    assert "it cannot be reached (Connection refused)), so this backup is crash-consistent" in absent
    assert [f"backy-{guest.newest()['uuid']}-fallback"] == guest.snapshots()
    assert guest.consul.token
    told = [refused, absent, *told_everywhere(guest.site)]
    assert [] == [one for one in told if guest.consul.token in one]


def test_snapshot_for_a_request_that_stayed_in_consul_goes_at_last(guest: GuestSite) -> None:
    """Consul fails when requests should go; what a host makes for them afterwards is removed."""
    guest.configure(freeze_timeout="1s")
    guest.consul.fake.fault = only("DELETE", always(REFUSED))
    guest.backup()
    guest.consul.fake.fault = always(REFUSED)
    guest.backup()
    guest.consul.fake.fault = None
    left = guest.consul.entries()
    guest.host().look()
    late = guest.snapshots()
    guest.backup()
    assert (1, 2) == (len(left), len(late))
    assert ([f"backy-{guest.newest()['uuid']}-fallback"], {}) == (
        guest.snapshots(),
        guest.consul.entries(),
    )


def told_everywhere(site: Site) -> list[str]:
    """What commands and logs say of a job; its configuration, which holds the token, says most."""
    commands: list[tuple[str, ...]] = [
        ("status",),
        ("status", "--json"),
        ("status", "--yaml"),
        ("log",),
        ("log", "--json"),
        ("-v", "backup", "daily"),
    ]
    done = [site.cli(*words) for words in commands]
    logs = [path.read_text() for path in site.base.rglob("*.log")]
    assert logs
    return [one.stdout + one.stderr for one in done] + logs


def test_rbd_with_a_vm_and_a_token_asks_and_with_one_of_them_does_not(guest: GuestSite) -> None:
    """As the unreleased successor of 2.5 has it."""
    asks: Callable[[], bool] = lambda: bool(guest.consul.fake.asked)  # noqa: E731 - read twice
    guest.settings["type"] = "rbd"
    token = guest.settings.pop(TOKEN_KEY)
    guest.configure()
    guest.backup()
    without = (asks(), guest.newest().get("freeze"), guest.snapshots())
    guest.settings[TOKEN_KEY] = token
    guest.configure()
    with guest.host().watching():
        guest.backup()

    plain = parsed(guest.site.cli("status", "--json"))[0]
    assert (False, None, [f"backy-{plain['uuid']}"]) == without
    assert "guest-frozen" == guest.newest()["freeze"]
