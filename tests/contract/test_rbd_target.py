"""What a restore to Ceph refuses, what it leaves behind when it fails, and how it goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from in_process import backy

from backy.domain.rbd_settings import RbdSettings
from backy.ground import failpoint
from backy.ground.ceph import CephFailed, connected
from backy.ground.errors import TargetFailed, TargetRefused
from backy.ground.linux import Buffer
from backy.ground.rbd import Pool, open_pool
from backy.target import rbd
from backy.target.rbd import KEY, Found, Mark, RbdTarget, refusal
from cephcluster import CephCluster
from testsite import Site

KIB, MIB = 1 << 10, 1 << 20
OBJECT = 4 * MIB
SPEC = "pool/vm"
MARK = Mark(content="a", done=0)


@pytest.fixture
def pool(ceph: CephCluster) -> Iterator[Pool]:
    """A pool of its own."""
    with ceph.pool() as one:
        yield one


def target(pool: Pool, *, overwrite: bool = False) -> RbdTarget:
    """The image `vm` as a target."""
    settings = RbdSettings(pool.name, "vm", conf=pool.cluster.access.conf)
    return RbdTarget(settings, overwrite=overwrite)


@pytest.fixture
def short_watches(ceph: CephCluster) -> Iterator[None]:
    """A client that has died counts for two seconds, not for thirty."""
    ceph.ask("config set", who="osd", name="osd_client_watch_timeout", value="2")
    yield
    ceph.restart_dead()
    ceph.ask("config rm", who="osd", name="osd_client_watch_timeout")


def filled(content: bytes) -> Buffer:
    """A buffer that holds this."""
    buffer = Buffer(len(content))
    buffer.fill(content)
    return buffer


def write(one: RbdTarget, content: bytes, offset: int) -> None:
    """Write bytes that belong there."""
    one.write(filled(content), offset, len(content))


def whole(pool: Pool, name: str = "vm") -> bytes:
    """All bytes of an image."""
    with pool.image(name) as image:
        buffer = Buffer(image.size)
        image.read(buffer, 0, image.size)
        return bytes(buffer.view[: image.size])


def make(pool: Pool, content: bytes, name: str = "vm") -> None:
    """An image with these bytes."""
    pool.create(name, len(content))
    with pool.image(name, read_only=False) as image:
        image.write(content, 0)


def mark_of(pool: Pool, name: str = "vm.partial") -> str | None:
    """What the metadata of an image says."""
    with pool.image(name) as image:
        return image.metadata(KEY)


# ..Names......................................................................................


@pytest.mark.parametrize(
    ("found", "overwrite", "why"),
    [
        (Found(False, False), False, ""),
        (Found(False, False), True, ""),
        (Found(True, False), True, ""),
        (Found(False, True, MARK), False, ""),
        (Found(False, True, MARK), True, ""),
        (Found(True, False), False, "it exists: --overwrite writes over it"),
        (Found(False, True), True, "pool/vm.partial is in the way, and no restore has made it"),
        (Found(True, True), True, "pool/vm.partial is in the way, and no restore has made it"),
        (Found(True, True, MARK), True, "pool/vm.partial is left from an interrupted restore"),
    ],
)
def test_nothing_is_overwritten_that_was_not_meant(found: Found, overwrite: bool, why: str) -> None:
    """Whatever lies under the two names."""
    said = refusal(found, SPEC, overwrite=overwrite)

    assert said.startswith(why)
    assert bool(why) is bool(said)


@pytest.mark.parametrize("old", [None, b"\xff" * OBJECT])
def test_image_has_its_name_only_when_it_is_whole(pool: Pool, old: bytes | None) -> None:
    """Until `finish` there is a partial one, which says what it is to be; afterwards no trace of it."""
    if old is not None:
        make(pool, old)
    one = target(pool, overwrite=old is not None)
    one.begin(OBJECT, "uuid/root")
    write(one, b"n" * KIB, 0)
    assert ["vm.partial"] == pool.names()
    assert {"content": "uuid/root", "done": 0} == json.loads(mark_of(pool) or "")
    one.zero(KIB, OBJECT - KIB)
    one.finish()
    one.close()

    assert (["vm"], None) == (pool.names(), mark_of(pool, "vm"))
    assert b"n" * KIB + bytes(OBJECT - KIB) == whole(pool)


def test_image_stays_itself_when_it_is_overwritten(pool: Pool) -> None:
    """Its id, its snapshots and what is in them."""
    make(pool, b"o" * OBJECT)
    with pool.image("vm", read_only=False) as image:
        ident = image.ident
        image.create_snapshot("mine")
    one = target(pool, overwrite=True)
    one.begin(2 * OBJECT)
    one.zero(0, 2 * OBJECT)
    one.finish()
    one.close()

    with pool.image("vm", "mine") as image:
        assert (ident, OBJECT) == (image.ident, image.size)
        buffer = Buffer(OBJECT)
        image.read(buffer, 0, OBJECT)
    assert b"o" * OBJECT == bytes(buffer.view)
    assert bytes(2 * OBJECT) == whole(pool)


def test_clone_is_overwritten_and_its_parent_is_not(ceph: CephCluster, pool: Pool) -> None:
    """Zeros hide what the parent has, also in parts of objects."""
    make(pool, b"p" * OBJECT * 2, "parent")
    ceph.run("rbd", "snap", "create", "--no-progress", f"{pool.name}/parent@base")
    ceph.run("rbd", "snap", "protect", f"{pool.name}/parent@base")
    ceph.run("rbd", "clone", f"{pool.name}/parent@base", f"{pool.name}/vm")
    one = target(pool, overwrite=True)
    one.begin(OBJECT * 2)
    write(one, b"n" * KIB + bytes(300 * KIB) + b"n", 0)
    one.zero(301 * KIB + 1, 2 * OBJECT - 301 * KIB - 1)
    one.finish()
    one.close()

    assert b"n" * KIB + bytes(300 * KIB) + b"n" == whole(pool)[: 301 * KIB + 1]
    assert not any(whole(pool)[301 * KIB + 1 :])
    assert b"p" * OBJECT * 2 == whole(pool, "parent")


@pytest.mark.parametrize("gap", [65 * KIB, 100_000, 3 * MIB + 17])
def test_zeros_of_any_length_replace_what_was_there(pool: Pool, gap: int) -> None:
    """Also where they fill no whole block of 64 KiB, which a discard would leave as they were."""
    make(pool, b"\xff" * 2 * OBJECT)
    content = b"n" * 5000 + bytes(gap) + b"n" * 7
    one = target(pool, overwrite=True)
    one.begin(2 * OBJECT)
    write(one, content, 0)
    one.zero(OBJECT - 1000, 2000)
    one.finish()
    one.close()
    found = whole(pool)

    assert content == found[: len(content)]
    assert bytes(2000) == found[OBJECT - 1000 : OBJECT + 1000]
    assert {0xFF} == set(found[OBJECT + 1000 :])


def test_new_image_has_no_objects_for_zeros(pool: Pool) -> None:
    """Neither for whole ones nor behind the data of one."""
    one = target(pool)
    one.begin(4 * OBJECT)
    write(one, b"n" * 4096 + bytes(OBJECT - 4096), 0)
    one.zero(OBJECT, 2 * OBJECT)
    write(one, bytes(OBJECT - 4096) + b"n" * 4096, 3 * OBJECT)
    one.finish()

    assert (False, True) == (one.is_hole(0, OBJECT), one.is_hole(OBJECT, 2 * OBJECT))
    one.close()
    with pool.image("vm") as image:
        found = image.pieces(0, image.size)
    assert [(0, 4096), (3 * OBJECT, OBJECT)] == [one[:2] for one in found]  # from an object's beginning


# ..Refusals...................................................................................


def test_image_that_somebody_writes_is_refused(ceph: CephCluster, pool: Pool) -> None:
    """With the address of who has it open; nothing has changed then."""
    make(pool, b"o" * OBJECT)
    one = target(pool, overwrite=True)
    with (
        connected(ceph.access()) as other,
        open_pool(other, pool.name) as seen,
        seen.image("vm", read_only=False),
        pytest.raises(TargetRefused, match=rf"is open in {other.instance} at 127\.0\.0\.1:.*: stop its"),
    ):
        one.begin(OBJECT)
    one.close()

    assert (["vm"], None) == (pool.names(), mark_of(pool, "vm"))
    assert b"o" * OBJECT == whole(pool)


def test_image_that_is_written_is_kept_from_others(ceph: CephCluster, pool: Pool) -> None:
    """The exclusive lock is held until the end."""
    one = target(pool)
    one.begin(OBJECT)
    with (
        connected(ceph.access()) as other,
        open_pool(other, pool.name) as seen,
        seen.image("vm.partial", read_only=False) as image,
        pytest.raises(CephFailed, match="read-only"),
    ):
        image.write(b"x", 0)
    one.finish()
    one.close()

    assert bytes(OBJECT) == whole(pool)


def test_second_restore_of_an_image_is_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one goes on."""
    monkeypatch.setattr(rbd, "_WATCH_SECONDS", 0.0)
    first, second = target(pool), target(pool)
    first.begin(OBJECT)
    with pytest.raises(TargetRefused, match="is open in client"):
        second.begin(OBJECT)
    second.close()
    write(first, b"n" * OBJECT, 0)
    first.finish()
    first.close()

    assert b"n" * OBJECT == whole(pool)


@pytest.mark.parametrize("again", [False, True])
def test_restore_that_waited_leaves_alone_what_was_finished_meanwhile(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """The image has its name by then, and perhaps somebody has begun anew; nothing is written."""
    first, second = target(pool), target(pool)
    first.begin(OBJECT, "first")
    write(first, b"a" * MIB, 0)

    def finish(_: float) -> None:
        if first._image is not None:
            first.finish()
            first.close()
            if again:
                pool.create("vm.partial", OBJECT)

    monkeypatch.setattr(time, "sleep", finish)
    with pytest.raises(TargetRefused) as caught:
        second.begin(2 * OBJECT, "second")
    second.close()
    with pool.image("vm") as image:
        named = image.size, image.metadata(KEY)
    assert "another restore has finished or replaced it meanwhile, so nothing was written" in str(
        caught.value
    )
    assert (OBJECT, None) == named
    assert b"a" * MIB + bytes(OBJECT - MIB) == whole(pool)
    assert again == ("vm.partial" in pool.names())


def test_image_that_came_to_the_partial_ones_name_is_not_renamed(pool: Pool) -> None:
    """Somebody has given ours another name, and its name to one of his."""
    one = target(pool)
    one.begin(OBJECT)
    pool.rename("vm.partial", "mine")
    pool.create("vm.partial", MIB)
    with pytest.raises(TargetFailed, match="is another image by now"):
        one.finish()
    one.close()
    assert ["mine", "vm.partial"] == sorted(pool.names())


def test_image_without_an_exclusive_lock_can_be_written(ceph: CephCluster, pool: Pool) -> None:
    """Old images, and those that several clients share."""
    make(pool, b"o" * OBJECT)
    features = ("fast-diff", "object-map", "exclusive-lock")
    ceph.run("rbd", "feature", "disable", f"{pool.name}/vm", *features)
    one = target(pool, overwrite=True)
    one.begin(OBJECT)
    one.zero(0, OBJECT)
    one.finish()
    one.close()

    assert bytes(OBJECT) == whole(pool)


def test_what_is_not_there_or_not_allowed_is_told(ceph: CephCluster, pool: Pool) -> None:
    """Pool, namespace, user, file: a sentence each, before anything is made."""
    said = []
    good = RbdSettings(pool.name, "vm", conf=str(ceph.conf))
    for settings in (
        good._replace(pool="ghost"),
        good._replace(namespace="ghost"),
        good._replace(user="ghost"),
        good._replace(conf="/nowhere/ceph.conf"),
    ):
        one = RbdTarget(settings, overwrite=False)
        with pytest.raises(TargetRefused) as caught:
            one.begin(OBJECT)
        one.close()
        said.append(caught.value.why)

    assert ["the cluster has no pool 'ghost'", f"pool {pool.name!r} has no namespace 'ghost'"] == said[
        :2
    ]
    assert "client.ghost" in said[2]
    assert "/nowhere/ceph.conf" in said[3]
    assert [] == pool.names()


def test_image_in_the_trash_is_not_overwritten(ceph: CephCluster, pool: Pool) -> None:
    """It may be just what somebody wants back; a new one of the name can be made."""
    make(pool, b"o" * OBJECT)
    ceph.run("rbd", "trash", "mv", f"{pool.name}/vm")
    one = target(pool, overwrite=True)
    with pytest.raises(TargetRefused, match="is in the trash: 'rbd trash restore' brings it back"):
        one.begin(OBJECT)
    one.close()
    one = target(pool)
    one.begin(OBJECT)
    one.finish()
    one.close()

    assert ["vm"] == pool.names()


# ..Going on...................................................................................


class Writes:
    """Counts writes, and fails at the one of a number."""

    def __init__(self, fails_at: int = 0) -> None:
        self.count = 0
        self._fails_at = fails_at

    def __call__(self, step: str) -> None:
        if step.startswith("write rbd:"):
            self.count += 1
            if self.count == self._fails_at:
                raise KeyboardInterrupt


CHUNK = 64 * KIB
CHUNKS = 60


@pytest.fixture
def rbd_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A job whose image has some holes, and progress that is noted often."""
    monkeypatch.setattr(rbd, "_STEP", 8 * CHUNK)
    monkeypatch.setattr(rbd, "_WATCH_SECONDS", 0.0)
    site = Site(tmp_path, chunk_size=CHUNK)
    draw = random.Random(1)
    chunks = [bytes(CHUNK) if number % 5 == 4 else draw.randbytes(CHUNK) for number in range(CHUNKS)]
    site.image.write_bytes(b"".join(chunks) + b"end")
    return site


DATA = 49  # chunks of the image that are not zero


def restore(site: Site, pool: Pool, *, overwrite: bool = False, fails_at: int = 0) -> int:
    """Restore the newest revision in this process; returns the number of writes."""
    failpoint.install(hook := Writes(fails_at))
    try:
        revision = site.history().revisions[-1]
        site.restore_to(revision, target(pool, overwrite=overwrite))
    finally:
        failpoint.install(None)
    return hook.count


@pytest.mark.parametrize("old", [None, b"\xff" * CHUNK * 70])
def test_interrupted_restore_goes_on(rbd_site: Site, pool: Pool, old: bytes | None) -> None:
    """Only what was not flushed is written, and the image is the revision's."""
    rbd_site.backup()
    if old is not None:
        make(pool, old)
    with pytest.raises(KeyboardInterrupt):
        restore(rbd_site, pool, overwrite=old is not None, fails_at=30)
    assert ["vm.partial"] == pool.names()
    done = json.loads(mark_of(pool) or "")["done"]
    count = restore(rbd_site, pool, overwrite=old is not None)

    assert 0 < done < len(rbd_site.image.read_bytes())
    assert 0 < count <= DATA - done // CHUNK * 4 // 5 + 1
    assert rbd_site.image.read_bytes() == whole(pool)
    assert (["vm"], None) == (pool.names(), mark_of(pool, "vm"))


def test_what_has_changed_meanwhile_is_written_again(rbd_site: Site, pool: Pool) -> None:
    """A partial image is believed nothing that it does not show."""
    rbd_site.backup()
    with pytest.raises(KeyboardInterrupt):
        restore(rbd_site, pool, fails_at=40)
    with pool.image("vm.partial", read_only=False) as image:
        image.write(b"\xff" * CHUNK, 0)
        image.write(b"\xff" * CHUNK, 4 * CHUNK)
    restore(rbd_site, pool)

    assert rbd_site.image.read_bytes() == whole(pool)


@pytest.mark.parametrize("size", [CHUNK * 30 + 5, CHUNK * 80])
def test_partial_image_of_another_revision_is_no_obstacle(rbd_site: Site, pool: Pool, size: int) -> None:
    """The operator has chosen another one: nothing of the first comes through, nor its size."""
    rbd_site.backup()
    with pytest.raises(KeyboardInterrupt):
        restore(rbd_site, pool, fails_at=30)
    rbd_site.image.write_bytes(bytes(CHUNK) + b"\1" * CHUNK)
    os.truncate(rbd_site.image, size)
    rbd_site.backup()
    restore(rbd_site, pool)

    assert rbd_site.image.read_bytes() == whole(pool)


def test_restore_is_read_back_from_the_cluster(rbd_site: Site, pool: Pool) -> None:
    """Holes included; also what was taken up from before."""
    revision = rbd_site.backup()
    with pytest.raises(KeyboardInterrupt):
        restore(rbd_site, pool, fails_at=30)

    assert [] == rbd_site.restore_to(revision, target(pool), read_back=True)


def _killed_process(ceph: CephCluster, site: Site, spec: str, fails_at: int) -> int:
    """Restore in a process that kills itself at a write; how it ended."""
    script = f"""
import os, signal, sys
from backy.cli.main import run
from backy.ground import failpoint
from backy.target import rbd
rbd._STEP = {8 * CHUNK}
left = [{fails_at}]
def hook(step):
    if step.startswith("write rbd:"):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
failpoint.install(hook)
sys.argv[1:] = ["-b", {str(site.job)!r}, "restore", "--ceph-conf", {str(ceph.conf)!r}, "rbd:{spec}"]
run()
"""
    return subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode


def test_killed_restore_goes_on(
    ceph: CephCluster, rbd_site: Site, pool: Pool, short_watches: None
) -> None:
    """After kill -9; the dead client's watch is waited for, and its lock is no obstacle."""
    rbd_site.backup()
    assert -signal.SIGKILL == _killed_process(ceph, rbd_site, f"{pool.name}/vm", 35)
    assert ["vm.partial"] == pool.names()
    done = rbd_site.cli("-q", "restore", "--ceph-conf", str(ceph.conf), f"rbd:{pool.name}/vm")

    assert (0, "") == (done.returncode, done.stderr)
    assert ["vm"] == pool.names()
    assert rbd_site.image.read_bytes() == whole(pool)


# ..Outages....................................................................................


def impatient(ceph: CephCluster, pool: str) -> RbdTarget:
    """A target that gives up after 2 s."""
    return RbdTarget(RbdSettings(pool, "vm", conf=str(ceph.impatient)), overwrite=False)


def at_write(number: int, act: Callable[[], object]) -> Callable[[str], None]:
    """A failpoint hook that does something before a write."""
    left = [number]

    def hook(step: str) -> None:
        if step.startswith("write rbd:"):
            left[0] -= 1
            if left[0] == 0:
                act()

    return hook


def test_cluster_that_dies_ends_the_restore(ceph: CephCluster, rbd_site: Site) -> None:
    """One error that says so, not a wait for ever; what goes on is another process (see the kills)."""
    name = ceph.new_pool()
    revision = rbd_site.backup()
    failpoint.install(at_write(20, ceph.kill_osd))
    with pytest.raises(TargetFailed, match=r"did not answer in time: .*; the same restore goes on"):
        rbd_site.restore_to(revision, impatient(ceph, name))
    failpoint.install(None)
    ceph.start_osd()


def test_full_pool_is_told(ceph: CephCluster, rbd_site: Site) -> None:
    """Ceph lets writers wait; the sentence says for what."""
    name = ceph.new_pool()
    revision = rbd_site.backup()
    with ceph.full(name) as fill:
        failpoint.install(at_write(20, fill))
        with pytest.raises(
            TargetFailed, match=rf"pool '{name}' is full: make space or raise its quota;"
        ):
            rbd_site.restore_to(revision, impatient(ceph, name))
        failpoint.install(None)


# ..The command................................................................................


def test_command_restores_to_an_image(ceph: CephCluster, rbd_site: Site, pool: Pool) -> None:
    """New, then refused, then overwritten; each said in one line."""
    rbd_site.backup()
    words = ("restore", "--ceph-conf", str(ceph.conf), "--ceph-user", "admin", f"rbd:{pool.name}/vm")
    done = [
        rbd_site.cli(*words),
        rbd_site.cli(*words),
        rbd_site.cli(words[0], "--overwrite", *words[1:]),
    ]

    assert [0, 1, 0] == [one.returncode for one in done]
    assert f"backy: target rbd:{pool.name}/vm: it exists: --overwrite writes over it" in done[1].stderr
    assert f" is in rbd:{pool.name}/vm: " in done[2].stdout
    assert rbd_site.image.read_bytes() == whole(pool)


def test_stream_can_be_imported(ceph: CephCluster, rbd_site: Site, pool: Pool) -> None:
    """`restore - | rbd import -`, as with backy 2.5."""
    rbd_site.backup()
    words = [sys.executable, "-m", "backy", "-b", str(rbd_site.job), "restore", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as one:
        ceph.run("rbd", "import", "--no-progress", "-", f"{pool.name}/vm", stdin=one.stdout)
    assert 0 == one.returncode

    assert rbd_site.image.read_bytes() == whole(pool)[: rbd_site.image.stat().st_size]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rbd:"], 1, "it must be POOL/IMAGE or POOL/NAMESPACE/IMAGE"),
        (["rbd:vm"], 1, "it must be POOL/IMAGE or POOL/NAMESPACE/IMAGE"),
        (["rbd:a/b/c/d"], 1, "it must be POOL/IMAGE or POOL/NAMESPACE/IMAGE"),
        (["rbd:a/b@c"], 1, "is no name in Ceph"),
        (["--ceph-user", "client.x", "rbd:a/b"], 1, "without 'client.'"),
        (["--overwrite", "/nowhere"], 2, "they go with rbd:POOL/IMAGE"),
        (["--ceph-user", "x", "-"], 2, "they go with rbd:POOL/IMAGE"),
    ],
)
def test_what_cannot_be_meant_is_refused(site: Site, words: list[str], code: int, said: str) -> None:
    """Before a cluster is asked."""
    site.backup()
    done = backy("-b", str(site.job), "restore", *words)

    assert (code, True) == (done.code, said in done.err), done.err
