"""Ceph: connections to clusters, through the distribution's modules `rados` and `rbd`.

    with connected(Access(user="backup")) as cluster:
        with open_pool(cluster, "rbd") as pool: …                              see `ground.rbd`

The only module that imports them, and only when it is used: who has no Ceph needs nothing of it.
They come with Debian's python3-rbd, for the Python of that distribution, and are no packages that a
virtual environment could install; `MISSING` says how it sees them.

Ceph waits for ever by default. So every call is awaited by `within`, for as long as the configuration
says (https://docs.ceph.com/en/latest/rados/configuration, `rados_osd_op_timeout`,
`rados_mon_op_timeout`, `client_mount_timeout`), or as we do. librados' own use of the first two is
switched off: with them, some processes on a busy machine crash or hang (seen with 16.2.15, see
doc/adr/0015-ceph.md), and a call that waits for an image's lock is outside of them anyway.

librbd's cache is switched off as well: nothing is read twice here, what is written has to be safe, and
it would take memory.

All errors are `CephFailed`, whose `why` is for the operator. It is no error of backy's: who asked knows
whether a source or a target has failed.

Limits: the configuration, the key and CEPH_ARGS are read as librados does it; a limit that the
configuration sets to 0 on purpose is taken for none.
"""

import ctypes
import errno
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import rados

_Result = TypeVar("_Result")

# Sentences for the operator, by errno.
Meanings = Mapping[int, str]

PACKAGE = "python3-rbd"
MISSING = (
    f"the Python modules rados and rbd are missing: install {PACKAGE}, and if backy runs in a virtual "
    "environment, make a directory with links to these two modules (of /usr/lib/python3/dist-packages) "
    f"and name it in a file {{}}/ceph.pth"
)

# Ceph's own values, which nobody has chosen, and ours in seconds.
_LIMITS = {
    "rados_osd_op_timeout": (0, 60),
    "rados_mon_op_timeout": (0, 30),
    "client_mount_timeout": (300, 30),
}
_CRASHING = ("rados_osd_op_timeout", "rados_mon_op_timeout")
# A call that changes an image consists of a few operations, of which each has its own limit.
_OPERATIONS = 3
# After an outage nobody waits for long to say good-bye.
_CLOSING_SECONDS = 2.0
# The first two since librbd's own words would stand between ours.
_OFF = ("log_to_stderr", "err_to_stderr", "rbd_cache")


class Access(NamedTuple):
    """How to reach a cluster; what is None is found as librados does.

    `conf` is the path of a configuration file, `user` a name without "client.".
    """

    conf: str | None = None
    user: str | None = None
    cluster: str | None = None

    @property
    def client(self) -> str:
        """The user as Ceph writes it."""
        return f"client.{self.user or 'admin'}"


class CephFailed(Exception):
    """Ceph refused or did not answer; `code` is the errno, 0 where there is none."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why

    @property
    def is_outage(self) -> bool:
        """Whether it may go by itself."""
        return self.code in (errno.ETIMEDOUT, errno.ESHUTDOWN, errno.ENOTCONN)


def modules() -> "tuple[ModuleType, ModuleType]":
    """The modules rados and rbd; CephFailed where Python has none of them."""
    try:
        import rados
        import rbd
    except ImportError as error:
        folder = next((one for one in sys.path if one.endswith("site-packages")), sys.prefix)
        raise CephFailed(0, MISSING.format(folder)) from error
    return rados, rbd


@contextmanager
def telling(what: str, meanings: Meanings | None = None) -> Iterator[None]:
    """Turn errors of both modules into CephFailed; `meanings` are sentences by errno."""
    rados, rbd = modules()
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        code = getattr(error, "errno", None) or 0
        general = {
            errno.ETIMEDOUT: f"the cluster did not answer in time: {what}",
            errno.ESHUTDOWN: f"the cluster has shut this client out (blocklisted): {what}",
            errno.ENOSPC: f"the pool or the cluster is full: {what}",
            errno.EDQUOT: f"the quota of the pool is used up: {what}",
        }
        words = os.strerror(code) if code else str(error)
        raise CephFailed(
            code, (meanings or {}).get(code) or general.get(code, f"{what}: {words}")
        ) from error


def within(seconds: float, what: str, work: Callable[[], _Result]) -> _Result:
    """The result of a call that may hang in librbd for ever; CephFailed after so many seconds.

    Then its thread is left behind, and what it works on must not be touched any more, nor closed.
    """
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((True, work()))
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is awaited
            answers.put((False, error))

    threading.Thread(target=run, name=what, daemon=True).start()
    try:
        is_done, found = answers.get(timeout=seconds)
    except queue.Empty:
        raise CephFailed(errno.ETIMEDOUT, f"the cluster did not answer in time: {what}") from None
    if is_done:
        result: _Result = found
        return result
    raise found


class Cluster:
    """A connection.

    `short` is the limit of one operation, such as a read, `limit` that of several (seconds). `instance`
    is how watchers of an image list it. `is_out`: something was not answered in time, so it is not worth
    while to ask for more.
    """

    def __init__(self, access: Access, raw: "rados.Rados", short: float) -> None:
        self.access = access
        self.raw = raw
        self.short = short
        self.limit = short * _OPERATIONS
        self.is_out = False
        self._is_stuck = False
        self.fsid = self.call("asking for the cluster's id", raw.get_fsid)
        self.instance = f"client.{self.call('asking for our id', raw.get_instance_id)}"

    def call(
        self,
        what: str,
        work: Callable[[], _Result],
        meanings: Meanings | None = None,
        limit: float | None = None,
    ) -> _Result:
        """A call that may hang; CephFailed after so many seconds, by default `limit`."""
        with telling(what, meanings):
            try:
                return within(self.limit if limit is None else limit, what, work)
            except CephFailed:
                self.is_out = self._is_stuck = True
                raise
            except BaseException as error:
                # A signal: the call goes on, and what it uses must not be closed under it.
                self._is_stuck = self._is_stuck or not isinstance(error, Exception)
                raise

    def close(self, what: str, work: Callable[[], None]) -> None:
        """Close a part of it; never fails, as there is nothing to be lost.

        Not where a call was left behind, which still uses it.
        """
        if self._is_stuck:
            # Nor ever by the garbage collector, which would wait in librbd, in whatever thread it runs.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(work))
            return
        with suppress(CephFailed):
            self.call(what, work, limit=_CLOSING_SECONDS if self.is_out else None)


@contextmanager
def connected(access: Access) -> Iterator[Cluster]:
    """A connection, ended at the end of the block; CephFailed."""
    rados, _ = modules()
    conf = access.conf
    unreadable = f"the configuration {conf or '(ceph.conf)'} of the cluster"
    meanings = {
        errno.ENOENT: f"{unreadable} does not exist",
        errno.EACCES: f"{unreadable} cannot be read: permission denied",
        errno.EINVAL: f"{unreadable} cannot be understood",
    }
    with telling(f"reading {unreadable}", meanings):
        raw = rados.Rados(rados_id=access.user, clustername=access.cluster, conffile=conf or "")
        limits = {name: _limit(raw, name) for name in _LIMITS}
        for name, seconds in limits.items():
            raw.conf_set(name, "0" if name in _CRASHING else str(seconds))
        for name in _OFF:
            raw.conf_set(name, "false")
    client, keyring = access.client, raw.conf_get("keyring") or ""
    meanings = {
        errno.ENOENT: f"there is no key of {client} in {keyring}",
        errno.EACCES: f"the cluster does not accept {client} with the key in {keyring}",
        errno.ETIMEDOUT: f"no monitor answered within {limits['client_mount_timeout']} s",
    }
    short = max(limits.values())
    with telling("connecting", meanings):
        within(short * _OPERATIONS, "connecting", partial(_connect, raw))
    cluster = Cluster(access, raw, short)
    try:
        yield cluster
    finally:
        cluster.close("disconnecting", raw.shutdown)


def _connect(raw: "rados.Rados") -> None:
    """Connect, or end all threads of it at once rather than whenever the garbage is collected."""
    try:
        raw.connect()
    except BaseException:
        raw.shutdown()
        raise


def _limit(raw: "rados.Rados", name: str) -> int:
    """Seconds: what the configuration says, unless that is only what Ceph says itself."""
    default, ours = _LIMITS[name]
    found = round(float(raw.conf_get(name) or 0))
    return ours if found in (0, default) else found
