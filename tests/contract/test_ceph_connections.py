"""What the ground says of a real cluster: bytes, extents, snapshots, and every way to fail."""

import base64
import errno
import random
import sys
import threading
import time
from contextlib import AbstractContextManager

import pytest

from backy.ground import ceph as ground
from backy.ground.ceph import Access, CephFailed, connected, within
from backy.ground.linux import Buffer
from backy.ground.manyreads import Part
from backy.ground.rbd import Piece, Pool, open_pool
from cephcluster import CephCluster

MIB = 1 << 20
OBJECT = 4 * MIB


def read(pool: Pool, name: str, offset: int, length: int, snapshot: str | None = None) -> bytes:
    """Bytes of an image."""
    buffer = Buffer(length)
    with pool.image(name, snapshot) as image:
        image.read(buffer, offset, length)
    return bytes(buffer.view[:length])


def refusal(opening: AbstractContextManager[object]) -> str:
    """Why something cannot be opened."""
    with pytest.raises(CephFailed) as caught, opening:
        pass
    return caught.value.why


def test_what_was_written_is_read(ceph: CephCluster) -> None:
    """An image that was made, written, discarded and resized has the bytes that it should have."""
    with ceph.pool() as pool:
        pool.create("vm", 8 * MIB)
        with pool.image("vm", read_only=False) as image:
            image.write(b"a" * MIB, OBJECT - MIB // 2)
            image.discard(OBJECT, OBJECT)
            image.resize(6 * MIB)
            image.flush()
            assert 6 * MIB == image.size
        assert b"\0" * 4096 + b"a" * (MIB // 2) == read(
            pool, "vm", OBJECT - MIB // 2 - 4096, MIB // 2 + 4096
        )
        assert bytes(2 * MIB) == read(pool, "vm", OBJECT, 2 * MIB)
        assert ["vm"] == pool.names()


def test_a_long_range_is_read_where_it_belongs(ceph: CephCluster) -> None:
    """From anywhere to anywhere in the buffer; what goes beyond the image's end is no answer."""
    content = random.Random(6).randbytes(3 * MIB + 4096)
    with ceph.pool() as pool:
        pool.create("vm", len(content))
        with pool.image("vm", read_only=False) as image:
            image.write(content, 0)
            buffer = Buffer(4 * MIB)
            image.read(buffer, 4096, 3 * MIB, 8192)
            assert content[4096:] == bytes(buffer.view[8192 : 8192 + 3 * MIB])
            for offset in (8192, 2 * MIB + 4096):
                with pytest.raises(CephFailed):
                    image.read(buffer, offset, len(content) - offset + 1)


def test_many_parts_are_read_at_once(ceph: CephCluster) -> None:
    """Each where it belongs in the buffer; what lies behind the image's end is no answer."""
    content = random.Random(5).randbytes(MIB)
    with ceph.pool() as pool:
        pool.create("vm", MIB)
        with pool.image("vm", read_only=False) as image:
            image.write(content, 0)
            buffer = Buffer(MIB)
            offsets = range(0, MIB, 3 * 4096)
            parts = [Part(at, 4096, number * 4096) for number, at in enumerate(offsets)]

            image.read_parts(buffer, parts)

            wanted = b"".join(content[at : at + 4096] for at in offsets)
            assert wanted == bytes(buffer.view[: len(wanted)])
            with pytest.raises(CephFailed):
                image.read_parts(buffer, [*parts, Part(MIB, 4096, 0)])


def test_snapshots_and_what_has_changed_since(ceph: CephCluster) -> None:
    """A snapshot keeps its bytes; what was written or discarded since is told, and only that."""
    with ceph.pool() as pool:
        pool.create("vm", 4 * OBJECT)
        with pool.image("vm", read_only=False) as image:
            image.write(b"a" * 8192, 0)
            image.write(b"b" * OBJECT, OBJECT)
            image.create_snapshot("one")
            image.write(b"c" * 4096, 2 * OBJECT + 4096)
            image.discard(OBJECT, OBJECT)
            image.create_snapshot("two")
            assert ["one", "two"] == [one.name for one in image.snapshots()]
        with pool.image("vm", "two") as image:
            assert (True, False) == (image.has_fast_diff, image.is_map_invalid)
            assert [Piece(OBJECT, OBJECT, False), Piece(2 * OBJECT, OBJECT, True)] == image.pieces(
                0, image.size, "one", whole_objects=True
            )
            assert [Piece(0, 8192, True), Piece(2 * OBJECT, 8192, True)] == image.pieces(0, image.size)
        assert b"b" * 4096 == read(pool, "vm", OBJECT, 4096, "one")
        assert bytes(4096) == read(pool, "vm", OBJECT, 4096, "two")
        with pool.image("vm", read_only=False) as image:
            image.remove_snapshot("one")
            assert ["two"] == [one.name for one in image.snapshots()]


def test_who_uses_an_image_is_told(ceph: CephCluster) -> None:
    """A writer watches the image and locks it; a reader does neither."""
    with ceph.pool() as pool:
        pool.create("vm", OBJECT)
        with pool.image("vm") as image:
            assert ([], []) == (image.watchers(), image.lockers())
        with pool.image("vm", read_only=False) as writer:
            writer.write(b"a", 0)
            writer.flush()
            with pool.image("vm") as image:
                assert [one.name for one in image.lockers()] == [one.name for one in image.watchers()]
                assert 1 == len(image.watchers())


def test_a_namespace_is_a_place_of_its_own(ceph: CephCluster) -> None:
    """Images of a namespace are not those of the pool."""
    import rbd

    with ceph.pool() as pool:
        rbd.RBD().namespace_create(pool.raw, "tenant")
        with open_pool(pool.cluster, pool.name, "tenant") as tenant:
            tenant.create("vm", OBJECT)
            assert f"{pool.name}/tenant/vm" == tenant.spec("vm")
            assert ["vm"] == tenant.names()
        assert [] == pool.names()
        assert "has no namespace 'other'" in refusal(open_pool(pool.cluster, pool.name, "other"))


# ..Refusals....................................................................................


def test_what_is_not_there_is_named(ceph: CephCluster) -> None:
    """No such configuration, user, pool, image or snapshot: each has its own sentence."""
    said = refusal(connected(Access(conf="/nowhere.conf")))
    assert "the configuration /nowhere.conf of the cluster does not exist" == said
    with ceph.pool() as pool:
        assert "the cluster has no pool 'none'" == refusal(open_pool(pool.cluster, "none"))
        pool.create("vm", OBJECT)
        assert f"there is no {pool.name}/none" == refusal(pool.image("none"))
        assert f"there is no {pool.name}/vm@none" == refusal(pool.image("vm", "none"))


def test_an_image_in_the_trash_is_said_to_be_there(ceph: CephCluster) -> None:
    """An image that was thrown away is not just missing."""
    import rbd

    with ceph.pool() as pool:
        pool.create("vm", OBJECT)
        rbd.RBD().trash_move(pool.raw, "vm")
        assert f"{pool.name}/vm is in the trash: 'rbd trash restore' brings it back" == refusal(
            pool.image("vm")
        )


def test_what_exists_already_is_not_made_again(ceph: CephCluster) -> None:
    """A second image or snapshot of the same name is refused."""
    with ceph.pool() as pool:
        pool.create("vm", OBJECT)
        with pytest.raises(CephFailed, match=r"there is an image .* already"):
            pool.create("vm", OBJECT)
        with pool.image("vm", read_only=False) as image:
            image.create_snapshot("one")
            with pytest.raises(CephFailed, match="has a snapshot 'one' already"):
                image.create_snapshot("one")
        with pool.image("vm") as image, pytest.raises(CephFailed, match="is read-only"):
            image.write(b"a", 0)


def test_a_protected_snapshot_stays(ceph: CephCluster) -> None:
    """What has or may have clones cannot be removed, and the code says so."""
    with ceph.pool() as pool:
        pool.create("vm", OBJECT)
        with pool.image("vm", read_only=False) as image:
            image.create_snapshot("one")
            ceph.run("rbd", "snap", "protect", f"{pool.name}/vm@one")
            with pytest.raises(CephFailed, match="is protected or has clones") as caught:
                image.remove_snapshot("one")
        assert errno.EBUSY == caught.value.code


def test_a_wrong_key_and_missing_capabilities_are_told_apart(ceph: CephCluster) -> None:
    """Who has no or another key is not let in; who may not use a pool is told what it takes."""
    pool = ceph.new_pool()
    good = ceph.run("ceph", "auth", "get-or-create", "client.poor", "mon", "profile rbd").stdout
    keyring, conf = ceph.folder / "poor.keyring", ceph.folder / "poor.conf"
    conf.write_text(ceph.impatient.read_text().replace("/keyring", "/poor.keyring"))
    access = Access(conf=str(conf), user="poor")
    assert f"there is no key of client.poor in {keyring}" == refusal(connected(access))
    keyring.write_text(f"[client.poor]\nkey = {_other_key()}\n")
    said = f"the cluster does not accept client.poor with the key in {keyring}"
    assert said == refusal(connected(access))
    keyring.write_bytes(good)
    assert said.replace("poor ", "rich ") == refusal(connected(access._replace(user="rich")))
    needs = rf"it needs the capabilities .* osd 'profile rbd pool={pool}'"
    with (
        connected(access) as cluster,
        open_pool(cluster, pool) as opened,
        pytest.raises(CephFailed, match=needs),
    ):
        opened.names()


def _other_key() -> str:
    """A key as Ceph writes it, which it has never given to anybody."""
    return base64.b64encode(b"\1\0" + bytes(8) + b"\x10\0" + b"k" * 16).decode()


# ..Outages.....................................................................................


def test_a_dead_monitor_is_given_up(ceph: CephCluster) -> None:
    """Nobody answers: one error after the limit, not a wait for ever."""
    ceph.kill_monitor()
    assert "no monitor answered within 2 s" == refusal(connected(ceph.access(impatient=True)))


def test_a_dead_osd_is_given_up(ceph: CephCluster) -> None:
    """Reads fail after their limit, and changes after theirs, though librbd would wait for ever."""
    name = ceph.new_pool()
    began = time.monotonic()
    with connected(ceph.access(impatient=True)) as cluster, open_pool(cluster, name) as pool:
        pool.create("vm", OBJECT)
        with pool.image("vm") as reader, pool.image("vm", read_only=False) as writer:
            reader.read(Buffer(4096), 0, 4096)
            ceph.kill_osd()
            with pytest.raises(CephFailed, match="did not answer in time: reading") as caught:
                reader.read(Buffer(4096), 0, 4096)
            assert caught.value.is_outage
            with pytest.raises(CephFailed, match="did not answer in time: making a snapshot"):
                writer.create_snapshot("one")
    assert time.monotonic() - began < 30


def test_an_open_image_survives_a_restart(ceph: CephCluster) -> None:
    """An OSD that comes back within the limit is only a pause."""
    with ceph.pool() as pool:
        pool.create("vm", OBJECT)
        with pool.image("vm", read_only=False) as image:
            image.write(b"a" * 4096, 0)
            image.flush()
        with pool.image("vm") as image:
            ceph.kill_osd()
            ceph.start_osd()
            buffer = Buffer(4096)
            image.read(buffer, 0, 4096)
    assert b"a" * 4096 == bytes(buffer.view)


# ..Without a cluster...........................................................................


def test_a_call_that_hangs_is_left_behind() -> None:
    """The result of a call, its error, or after the limit an error that is an outage."""
    assert 7 == within(5, "adding", lambda: 3 + 4)
    with pytest.raises(ZeroDivisionError):
        within(5, "dividing", lambda: 1 // 0)
    event = threading.Event()
    with pytest.raises(CephFailed, match="did not answer in time: waiting") as caught:
        within(0.01, "waiting", event.wait)
    event.set()
    assert caught.value.is_outage


def test_nothing_is_closed_under_a_call_that_a_signal_cut_short(ceph: CephCluster) -> None:
    """The call goes on in its thread; closing what it uses would wait for it, or crash."""

    def end() -> None:
        raise KeyboardInterrupt

    closed: list[str] = []
    with connected(ceph.access()) as cluster:
        cluster.close("before", lambda: closed.append("before"))
        with pytest.raises(KeyboardInterrupt):
            cluster.call("waiting", end)
        cluster.close("after", lambda: closed.append("after"))

    assert ["before"] == closed


def test_missing_modules_are_named_with_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks the modules reads which package it takes, and how a virtual environment sees it."""
    monkeypatch.setitem(sys.modules, "rados", None)
    with pytest.raises(CephFailed, match=r"install python3-rbd.*ceph\.pth") as caught:
        ground.modules()
    assert 0 == caught.value.code
