"""A real Ceph cluster of one monitor and one OSD on this machine, for the tests of one process.

    def test_it(ceph: CephCluster) -> None:
        with ceph.pool() as pool: …            a pool of its own for the test
        ceph.kill_osd(); ceph.start_osd()

With keys (cephx), on the loopback interface, in a folder of its own, without a manager. Its daemons end
with the process that started them, even if that is killed; so start them in the main thread. Each
worker of pytest-xdist has its own, since tests kill it.

The settings are what makes it quick: its own defaults take 4 s to start, 5 s to trim a snapshot and 15 s
to notice an outage.

Limits: for Python 3.11 of Debian's packages; skips the test, with the reason, where they are missing.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from backy.ground.ceph import Access, connected
from backy.ground.rbd import Pool, open_pool

_DAEMONS = ("ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "setpriv")
_MODULES = Path("/usr/lib/python3/dist-packages")
_SIZE = 20 << 30
_PATIENCE = 60.0

_CONF = """
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:127.0.0.1:{port}/0]
ms_bind_ipv6 = false
ms_bind_msgr1 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_port_min = {first}
ms_bind_port_max = {last}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}/run
crash_dir = {folder}/crash
pid_file =
admin_socket =
log_file = {folder}/log/$name.log
log_to_stderr = false
mon_cluster_log_to_file = false
# Clients notice within a second or two that a daemon is back.
ms_initial_backoff = 0.05
ms_max_backoff = 1
mon_client_hunt_interval = 1
objecter_tick_interval = 1
objecter_timeout = 2
# One copy on one machine.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 4000
mon_data_avail_crit = 0
rbd_default_features = 61
[mon]
mon_data = {folder}/mon
paxos_propose_interval = 0.01
paxos_min_wait = 0.005
[osd]
osd_data = {folder}/osd
osd_objectstore = bluestore
osd_memory_target = 1073741824
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
bluestore_block_size = {size}
bluestore_block_create = true
bluestore_fsck_on_mount = false
bluestore_fsck_on_mkfs = false
# Each close of a device waits for one poll, and there are a dozen in a start.
bdev_aio_poll_ms = 20
osd_class_update_on_start = false
# The disk may call itself rotational, which is a reason for long pauses.
osd_snap_trim_sleep = 0.001
osd_delete_sleep = 0.001
bluestore_prefer_deferred_size = 32768
# Who was killed is forgotten, with the locks that it held, after this, and not after 30 s.
osd_client_watch_timeout = 4
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 2
[client]
log_file =
"""

_SHORT_LIMITS = """
rados_osd_op_timeout = 2
rados_mon_op_timeout = 2
client_mount_timeout = 2
"""


class CephCluster:
    """A cluster that runs. `conf` is its configuration; with `impatient`, it gives up after 2 s."""

    _numbers: ClassVar[Iterator[int]] = iter(range(1_000_000))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "ceph.conf"
        self.impatient = folder / "impatient.conf"
        self.modules = folder / "modules"
        self.fsid = str(uuid4())
        self._monitor: subprocess.Popen[bytes] | None = None
        self._osd: subprocess.Popen[bytes] | None = None
        self._port = _free_ports(20)
        for name in ("mon", "osd", "log", "run", "crash", "modules"):
            (folder / name).mkdir()
        for module in ("rados", "rbd"):
            for file in _MODULES.glob(f"{module}.cpython-*.so"):
                (self.modules / file.name).symlink_to(file)

    def access(self, *, impatient: bool = False, user: str | None = None) -> Access:
        """How to reach it."""
        return Access(conf=str(self.impatient if impatient else self.conf), user=user)

    @contextmanager
    def pool(self, name: str | None = None, namespace: str = "") -> Iterator[Pool]:
        """An open pool; without a name, a new one."""
        found = name or self.new_pool()
        with connected(self.access()) as cluster, open_pool(cluster, found, namespace) as pool:
            yield pool

    def new_pool(self) -> str:
        """Make a pool that no other test has; its name."""
        import rbd

        name = f"pool{next(self._numbers)}"
        self.ask("osd pool create", pool=name, pg_num=8, size=1, yes_i_really_mean_it=True)
        with connected(self.access()) as cluster, open_pool(cluster, name) as pool:
            rbd.RBD().pool_init(pool.raw, True)  # returns once the pool can be used
        return name

    @cached_property
    def shared_pool(self) -> str:
        """A pool for images of other names than all other tests use, since a new one takes a while."""
        return self.new_pool()

    def new_image(self) -> str:
        """A name that no other test has."""
        return f"image{next(self._numbers)}"

    def ask(self, prefix: str, **words: Any) -> Any:
        """A command to the monitor, and what it answers."""
        with connected(self.access()) as cluster:
            command = json.dumps({"prefix": prefix, "format": "json", **words})
            code, found, why = cluster.raw.mon_command(command, b"")
        assert code == 0, f"{prefix}: {why}"
        return json.loads(found) if found.strip() else None

    def run(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
        """A program of Ceph, such as `rbd`, with this cluster's configuration."""
        command = [words[0], "--conf", str(self.conf), *words[1:]]
        return subprocess.run(command, check=True, capture_output=True, timeout=120, **options)

    @contextmanager
    def full(self, pool: str) -> Iterator[Callable[[], None]]:
        """Yields what makes a pool full, as the OSD sees it; after the block there is space again.

        Without a manager quotas mean nothing, but an OSD tells how full it is at each of its heartbeats.
        """
        self.ask("config set", who="osd", name="osd_heartbeat_interval", value="1")

        def is_full() -> bool:
            found = self.ask("osd dump")["pools"]
            return any(
                "full" in one["flags_names"].split(",") for one in found if one["pool_name"] == pool
            )

        def wait(*, full: bool) -> None:
            assert self._osd is not None
            _wait_for(lambda: is_full() is full, self._osd, f"the pool is full: {full}")

        def fill() -> None:
            for kind, ratio in (("nearfull", 1e-6), ("backfillfull", 2e-6), ("full", 3e-6)):
                self.ask(f"osd set-{kind}-ratio", ratio=ratio)
            wait(full=True)

        try:
            yield fill
        finally:
            for kind, ratio in (("full", 0.95), ("backfillfull", 0.9), ("nearfull", 0.85)):
                self.ask(f"osd set-{kind}-ratio", ratio=ratio)
            wait(full=False)
            self.ask("config rm", who="osd", name="osd_heartbeat_interval")

    # ..Its life................................................................................

    def create(self) -> None:
        """Make both stores, and start."""
        names = {"fsid": self.fsid, "folder": self.folder, "size": _SIZE}
        ports = {"port": self._port, "first": self._port + 1, "last": self._port + 19}
        content = _CONF.format(**names, **ports)
        self.conf.write_text(content)
        self.impatient.write_text(content + _SHORT_LIMITS)
        keyring = str(self.folder / "keyring")
        _call("ceph-authtool", "--create-keyring", keyring)
        for user, caps in {
            "mon.": ["--cap", "mon", "allow *"],
            "client.admin": ["--cap", "mon", "allow *", "--cap", "osd", "allow *"],
            "osd.0": ["--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"],
        }.items():
            _call("ceph-authtool", keyring, "--gen-key", "--name", user, *caps)
        monitors = str(self.folder / "monitors")
        address = ["--addv", "a", f"[v2:127.0.0.1:{self._port}/0]", "--set-min-mon-release", "16"]
        _call("monmaptool", "--create", "--fsid", self.fsid, *address, "--enable-all-features", monitors)
        conf = ["--conf", str(self.conf)]
        _call("ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", monitors, "--keyring", keyring)
        self.start_monitor()
        uuid = str(uuid4())
        self.ask("osd new", uuid=uuid, id=0)
        _call("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", uuid)
        self.start_osd()

    def start_monitor(self) -> None:
        """Start the monitor, and wait until it listens."""
        self._monitor = self._started("ceph-mon", "a")
        _wait_for(lambda: _listens(self._port), self._monitor, "the monitor listens")

    def start_osd(self) -> None:
        """Start the OSD, and wait until it serves."""
        if self._osd is not None:
            # Otherwise it counts as being at its old address for a while, and clients ask there.
            self.ask("osd down", ids=["0"])
        self._osd = self._started("ceph-osd", "0")
        _wait_for(self._is_osd_up, self._osd, "the OSD is up")

    def kill_monitor(self) -> None:
        """As a power cut."""
        _kill(self._monitor)

    def kill_osd(self) -> None:
        """As a power cut."""
        _kill(self._osd)

    def restart_dead(self) -> None:
        """Start again what a test has killed."""
        if self._monitor is not None and self._monitor.poll() is not None:
            self.start_monitor()
        if self._osd is not None and self._osd.poll() is not None:
            self.start_osd()

    def stop(self) -> None:
        """End both."""
        _kill(self._osd)
        _kill(self._monitor)

    def _started(self, program: str, ident: str) -> "subprocess.Popen[bytes]":
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            program,
            "--conf",
            str(self.conf),
            "-i",
            ident,
            "-f",
        ]
        with (self.folder / "log" / f"{program}.out").open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _is_osd_up(self) -> bool:
        found = self.ask("osd dump")["osds"]
        return bool(found and found[0]["up"] and found[0]["in"])


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    if process is not None:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=_PATIENCE)


def _wait_for(is_so: Any, process: "subprocess.Popen[bytes]", what: str) -> None:
    ends = time.monotonic() + _PATIENCE
    while not is_so():
        assert process.poll() is None, f"{process.args!r} has ended before {what}"
        assert time.monotonic() < ends, f"not in time: {what}"
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has; below those that the kernel gives away."""
    for _ in range(100):
        first = random.SystemRandom().randrange(20_000, 32_000, count)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    for program in _DAEMONS:
        if shutil.which(program) is None:
            return f"needs {program}"
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-"
    for module in ("rados", "rbd"):
        if not list(_MODULES.glob(f"{module}.{tag}*.so")):
            return f"needs python3-{module} for this Python"
    return ""


@contextmanager
def running(folder: Path) -> Iterator[CephCluster]:
    """A cluster in a folder, which goes at the end; this process and its children see the modules."""
    if why := missing():
        pytest.skip(why)
    cluster = CephCluster(folder)
    before = os.environ.get("PYTHONPATH")
    try:
        sys.path.append(str(cluster.modules))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(cluster.modules)]))
        cluster.create()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
