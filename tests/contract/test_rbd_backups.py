"""Backups of an image in Ceph, from its snapshot to the bytes that are restored, whatever goes wrong."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backy.domain.config import JobConfig, SourceConfig, default_schedule, render_job
from backy.domain.extents import Extent, cut
from backy.domain.revision import Distrust, Revision, Trust
from backy.ground.directory import Directory
from backy.ground.errors import SourceFailed, SourceRefused
from backy.ground.linux import PAGE, Buffer
from backy.ground.rbd import Image, Piece
from backy.repository.repository import create_job
from backy.source.rbd import RbdSource
from cephcluster import CephCluster
from cloning import revision
from rbdsite import OBJECT, RbdSite
from tally import Tally
from testsite import Site

CHUNK = 64 << 10


@pytest.fixture
def image(ceph: CephCluster) -> Iterator[RbdSite]:
    """An image with some data."""
    site = RbdSite(ceph)
    site.write(PAGE, random.Random(1).randbytes(OBJECT))
    site.write(3 * OBJECT, b"x" * OBJECT)
    yield site
    site.close()


@pytest.fixture
def repository(tmp_path: Path, image: RbdSite) -> Site:
    """A repository whose job `rbd` backs it up."""
    site = Site(tmp_path, chunk_size=CHUNK)
    add_job(site, image)
    return site


def add_job(site: Site, image: RbdSite, **settings: str | bool) -> None:
    """The job `rbd`, of the image."""
    with Directory.open(str(site.base)) as base:
        create_job(base, "rbd", JobConfig(image.config(**settings), default_schedule()))


def back_up(site: Site, image: RbdSite, source: RbdSource | None = None) -> Revision:
    """Back up in this process."""
    return site.backup(job="rbd", source=source or image.source)


def command(site: Site) -> list[str]:
    """The command line of a backup of the job."""
    return [sys.executable, "-m", "backy", "-b", str(site.base / "rbd"), "backup", "daily"]


def kept(one: Revision) -> str:
    """The name of the snapshot that a revision has left."""
    return f"backy-{one.uuid}"


# ..What is right...............................................................................


def test_changes_are_backed_up_and_restored(repository: Site, image: RbdSite) -> None:
    """The first backup reads what exists, the next what has changed; each restores bit for bit."""
    first = back_up(repository, image)
    before = bytes(image.content)
    image.write(OBJECT // 2, b"y" * 100)
    image.discard(3 * OBJECT, OBJECT)
    second = back_up(repository, image)

    assert before == repository.restored(first, job="rbd")
    assert bytes(image.content) == repository.restored(second, job="rbd")
    assert [kept(second)] == image.snapshots()
    assert first.reading is not None
    assert second.reading is not None
    assert (None, first.uuid) == (first.reading.since, second.reading.since)
    assert second.stats.bytes_changed - second.stats.bytes_audited <= OBJECT + PAGE


def test_an_image_that_was_rolled_back_is_backed_up_as_it_is(repository: Site, image: RbdSite) -> None:
    """Somebody goes back to a snapshot of his that is older than ours: only that is read, and all."""
    before = bytes(image.content)
    with image.pool.image(image.name, read_only=False) as opened:
        for name in ("first", "second"):
            opened.create_snapshot(name)
        image.write(OBJECT // 2, b"y" * 100)
        image.write(3 * OBJECT, b"y" * OBJECT)
        first = back_up(repository, image)
        changed = bytes(image.content)
        opened._raw.rollback_to_snap("second")
    second = back_up(repository, image)
    assert changed == repository.restored(first, job="rbd")
    assert before == repository.restored(second, job="rbd")
    assert second.reading is not None
    assert first.uuid == second.reading.since


def test_the_command_line_backs_up_an_image(repository: Site, image: RbdSite) -> None:
    """From the configuration to the revision, with commands around the snapshot."""
    out = repository.folder / "commands"
    line = f'echo "$BACKY_SOURCE" >> {out}'
    (repository.base / "rbd" / "config").unlink()
    config = image.config(**{"pre-snapshot": line, "post-snapshot": line})
    (repository.base / "rbd").rename(repository.base / "old")
    with Directory.open(str(repository.base)) as base:
        create_job(base, "rbd", JobConfig(config, default_schedule()))
    done = subprocess.run(command(repository), check=False, capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)
    assert f"{image.source.image}\n" * 2 == out.read_text()
    newest = repository.history(job="rbd").revisions[-1]
    assert bytes(image.content) == repository.restored(newest, job="rbd")


def test_snapshots_of_strangers_stay(repository: Site, image: RbdSite) -> None:
    """Of others nothing is removed, not even what is called as ours are."""
    strangers = ["mine", f"backy-{revision(7)}", f"backy-{revision(8)}-fallback"]
    with image.pool.image(image.name, read_only=False) as opened:
        for name in strangers:
            opened.create_snapshot(name)
    newest = [back_up(repository, image) for _ in range(3)][-1]
    assert sorted([*strangers, kept(newest)]) == sorted(image.snapshots())


def test_full_always_leaves_no_snapshot(repository: Site, image: RbdSite) -> None:
    """Not even that of a revision of before it was set."""
    first = back_up(repository, image)
    assert [kept(first)] == image.snapshots()
    back_up(repository, image, RbdSource(image.settings_of(**{"full-always": True})))
    assert [] == image.snapshots()


def test_a_job_that_backs_up_a_file_by_now_leaves_no_snapshot(
    repository: Site, image: RbdSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What its source of another type has left goes, where Ceph's own configuration finds the cluster.

    Until then it is told, since nobody else knows.
    """
    back_up(repository, image)
    (tmp_path / "image").write_bytes(b"x")
    config = JobConfig(SourceConfig("file", {"filename": str(tmp_path / "image")}), default_schedule())
    (repository.base / "rbd" / "config").write_text(render_job(config))
    monkeypatch.setenv("CEPH_CONF", "/none")
    before = subprocess.run(command(repository), check=True, capture_output=True, text=True)
    left = image.snapshots()
    monkeypatch.setenv("CEPH_CONF", str(image.ceph.conf))
    after = subprocess.run(command(repository), check=True, capture_output=True, text=True)
    assert 1 == len(left)
    assert "snapshots that this job has made elsewhere (rbd:" in before.stderr
    assert ("", []) == (after.stderr, image.snapshots())


def test_a_snapshot_with_clones_goes_as_soon_as_it_can(repository: Site, image: RbdSite) -> None:
    """What is protected stays and is tried again; a backup does not fail for it."""
    first = back_up(repository, image)
    spec = f"{image.pool.spec(image.name)}@{kept(first)}"
    image.rbd("snap", "protect", spec)
    second = back_up(repository, image)
    assert sorted([kept(first), kept(second)]) == sorted(image.snapshots())
    image.rbd("snap", "unprotect", spec)
    third = back_up(repository, image)
    assert [kept(third)] == image.snapshots()


def test_a_host_that_comes_late_leaves_nothing(repository: Site, image: RbdSite) -> None:
    """A snapshot that a host makes beside the fallback goes with the revision's own."""
    image.source.settle(f"backy-{revision(1)}-fallback")
    with image.source.snapshot(revision(1)) as snapshot:
        snapshot.keep()
    assert [f"backy-{revision(1)}-fallback"] == image.snapshots()
    assert not image.source.has_snapshot(f"backy-{revision(1)}")
    with image.pool.image(image.name, read_only=False) as opened:
        opened.create_snapshot(f"backy-{revision(1)}")
    assert image.source.has_snapshot(f"backy-{revision(1)}")
    assert 2 == len(image.snapshots())
    assert 1 == len(image.prune(1))
    assert [] == image.snapshots()


def test_a_snapshot_of_the_host_that_is_gone_is_not_made_anew(image: RbdSite) -> None:
    """One of ours would pass for the host's, as if the guest had been frozen."""
    image.source.settle(f"backy-{revision(1)}", is_there=True)
    with (
        pytest.raises(SourceRefused, match="that the VM's host has made is gone"),
        image.source.snapshot(revision(1)),
    ):
        pass
    assert [] == image.snapshots()
    with image.source.snapshot(revision(2)):
        assert [f"backy-{revision(2)}"] == image.snapshots()


@pytest.mark.torture(weight=0.5, whole=True)
@pytest.mark.proof("T16")
def test_encrypted_images_are_bytes(repository: Site, image: RbdSite, tally: Tally) -> None:
    """What the header of an encrypted image says is backed up as it stands there; with changes."""
    back_up(repository, image)
    (repository.folder / "passphrase").write_text("secret")
    spec, secret = image.pool.spec(image.name), str(repository.folder / "passphrase")
    image.rbd("encryption", "format", "--cipher-alg", "aes-128", spec, "luks1", secret)
    restored = repository.restored(back_up(repository, image), job="rbd")
    tally.count(1)
    assert b"LUKS\xba\xbe" == restored[:6]
    assert image.rbd("export", spec, "-") == restored


def test_an_image_that_changed_its_size_is_read_as_a_whole(repository: Site, image: RbdSite) -> None:
    """After a resize nothing is believed, and what was cut off is gone."""
    back_up(repository, image)
    image.resize(2 * OBJECT + PAGE)
    second = back_up(repository, image)
    image.resize(5 * OBJECT)
    third = back_up(repository, image)
    assert bytes(image.content[: 2 * OBJECT + PAGE]) == repository.restored(second, job="rbd")
    assert bytes(image.content) == repository.restored(third, job="rbd")
    assert third.reading is not None
    assert "the size of the image has changed" == third.reading.why


def test_two_repositories_back_up_one_image(tmp_path: Path, image: RbdSite, ceph: CephCluster) -> None:
    """At the same time, as processes: neither takes the other's snapshot, and both are incremental."""
    sites = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        site = Site(tmp_path / name, chunk_size=CHUNK)
        add_job(site, image)
        sites.append(site)
    for round_ in range(3):
        image.write(round_ * 5 * PAGE, b"z" * PAGE)
        running = [subprocess.Popen(command(site), stderr=subprocess.PIPE) for site in sites]
        ended = [(process.communicate()[1], process.returncode) for process in running]
        assert [(b"", 0)] * 2 == ended
    newest = [site.history(job="rbd").revisions[-1] for site in sites]
    assert sorted(kept(one) for one in newest) == sorted(image.snapshots())
    for site, one in zip(sites, newest, strict=True):
        assert bytes(image.content) == site.restored(one, job="rbd")
        assert one.reading is not None
        assert one.reading.runs == 2


# A small process begins it, since a process counts what the one that began it held then.
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""


def test_a_full_backup_stays_well_below_200_mib(tmp_path: Path, ceph: CephCluster, tally: Tally) -> None:
    """However much of the image is data, and with chunks of 4 MiB in all threads."""
    site, image = Site(tmp_path, chunk_size=OBJECT), RbdSite(ceph, size=64 * OBJECT)
    noise = random.Random(1).randbytes(OBJECT - 8)
    for number in range(64):
        image.write(number * OBJECT, noise + number.to_bytes(8))
    add_job(site, image)
    image.close()
    words = [sys.executable, "-c", _PEAK, *command(site)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    peak = int(done.stdout.split()[-1])
    tally.tell(1, f"rbd: the peak of a full backup is {peak} MiB")
    assert peak < 170
    assert 64 == site.history(job="rbd").revisions[-1].stats.chunks_new


# ..What is refused.............................................................................


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pool": "none"}, "source none/IMAGE: the cluster has no pool 'none'."),
        ({"image": "none"}, "source POOL/none: there is no POOL/none."),
        ({"namespace": "none"}, "source POOL/none/IMAGE: pool 'POOL' has no namespace 'none'."),
        (
            {"user": "none"},
            "source POOL/IMAGE: the cluster does not accept client.none with the key in KEYRING.",
        ),
        (
            {"conf": "/none"},
            "source POOL/IMAGE: the configuration /none of the cluster does not exist.",
        ),
    ],
)
def test_what_is_not_there_is_one_sentence(
    image: RbdSite, settings: dict[str, str], expected: str
) -> None:
    """No such pool, image, namespace, user or configuration; also for those who only look."""
    source = RbdSource(image.settings_of(**settings))
    names = {"POOL": image.pool.name, "IMAGE": image.name}
    names["KEYRING"] = str(image.ceph.folder / "keyring")
    for word, name in names.items():
        expected = expected.replace(word, name)
    for opening in (source.snapshot(revision(1)), source.live()):
        with pytest.raises(SourceRefused) as caught, opening:
            pass
        assert expected == caught.value.message


def test_a_removed_image_is_refused_and_a_new_one_is_read_as_a_whole(
    repository: Site, image: RbdSite
) -> None:
    """Between two runs the image went, and later another one got its name."""
    back_up(repository, image)
    with image.pool.image(image.name, read_only=False) as opened:
        opened.remove_snapshot(image.snapshots()[0])
    image.rbd("rm", image.pool.spec(image.name))
    with pytest.raises(SourceRefused, match="there is no "):
        back_up(repository, image, RbdSource(image.settings))
    image.pool.create(image.name, 2 * OBJECT)
    image.content = bytearray(2 * OBJECT)
    image.write(0, b"new")
    newest = back_up(repository, image, RbdSource(image.settings))
    assert bytes(image.content) == repository.restored(newest, job="rbd")
    assert [kept(newest)] == image.snapshots()


def test_an_image_that_is_replaced_after_its_place_was_noted_is_refused(
    ceph: CephCluster, image: RbdSite
) -> None:
    """Another image under the name gets no snapshot, which would be in no list, and is not read."""
    assert image.source.place
    image.rbd("mv", image.pool.spec(image.name), image.pool.spec(ceph.new_image()))
    image.pool.create(image.name, OBJECT)
    with pytest.raises(SourceRefused, match="is another image than a moment ago"):
        image.source.has_snapshot("backy-any")
    with (
        pytest.raises(SourceRefused, match="is another image than a moment ago"),
        image.source.snapshot(revision(1)),
    ):
        pass
    assert [] == image.snapshots()


def test_a_snapshot_that_is_removed_during_the_run_makes_no_revision(
    repository: Site, image: RbdSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects of a removed snapshot may read as zeros, so nothing of it is believed."""

    def sabotage() -> None:
        with image.pool.image(image.name, read_only=False) as opened:
            for one in opened.snapshots():
                opened.remove_snapshot(one.name)

    at_read(monkeypatch, 5, sabotage)
    with pytest.raises(SourceRefused, match="was removed while it was read, so no revision was made"):
        back_up(repository, image)
    assert () == tuple(repository.history(job="rbd").revisions)


def at_read(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Have something happen before the N-th read of any image."""
    real, lock, count = Image.read, threading.Lock(), iter(range(1, 1 << 30))

    def read(self: Image, buffer: Buffer, offset: int, length: int, start: int = 0) -> None:
        with lock:
            if next(count) == number:
                action()
        real(self, buffer, offset, length, start)

    monkeypatch.setattr(Image, "read", read)


# ..Outages.....................................................................................


@pytest.mark.proof("T14")
def test_an_osd_that_comes_back_in_time_is_a_pause(
    repository: Site, image: RbdSite, ceph: CephCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 in the middle of a backup, and a start within the limit: the revision is whole."""
    killed = threading.Event()

    def kill() -> None:
        ceph.kill_osd()
        killed.set()

    at_read(monkeypatch, 7, kill)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(back_up, repository, image)
        assert killed.wait(60)
        ceph.start_osd()
        made = running.result(60)
    assert bytes(image.content) == repository.restored(made, job="rbd")


@pytest.mark.proof("T14")
def test_an_osd_that_stays_away_is_one_error(
    repository: Site, image: RbdSite, ceph: CephCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit there is one error and no revision; the next run cleans up and succeeds."""
    back_up(repository, image)
    image.write(0, b"y" * OBJECT)
    at_read(monkeypatch, 7, ceph.kill_osd)
    impatient = RbdSource(image.settings_of(conf=str(ceph.impatient)))
    began = time.monotonic()
    with pytest.raises(SourceFailed, match="the cluster did not answer in time"):
        back_up(repository, image, impatient)
    passed = time.monotonic() - began
    ceph.start_osd()
    left = len(image.snapshots())
    newest = back_up(repository, image)

    assert passed < 20
    assert left == 2
    assert bytes(image.content) == repository.restored(newest, job="rbd")
    assert [kept(newest)] == image.snapshots()


@pytest.mark.proof("T14")
@pytest.mark.parametrize(
    ("dead", "expected"),
    [("monitor", "no monitor answered within 2 s."), ("osd", "the cluster did not answer in time: ")],
)
def test_a_cluster_that_is_dead_at_the_start_is_one_sentence(
    tmp_path: Path, image: RbdSite, ceph: CephCluster, dead: str, expected: str
) -> None:
    """The command ends by itself, soon, with a sentence and no word by Ceph's libraries."""
    site = Site(tmp_path, chunk_size=CHUNK)
    add_job(site, image, conf=str(ceph.impatient))
    (ceph.kill_monitor if dead == "monitor" else ceph.kill_osd)()
    began = time.monotonic()
    done = subprocess.run(command(site), check=False, capture_output=True, text=True, timeout=60)
    passed = time.monotonic() - began
    assert 1 == done.returncode
    assert expected in done.stderr
    assert 1 == done.stderr.count("\n")
    assert passed < 20


@pytest.mark.proof("T1")
def test_a_backup_that_is_killed_leaves_no_snapshot_after_the_next(
    repository: Site, image: RbdSite, tally: Tally
) -> None:
    """Kill -9 at random moments: the next run removes what was left, and all revisions restore."""
    kill_some(repository, image, tally, 8, {}, seed=1)


@pytest.mark.torture(weight=8)
@pytest.mark.proof("T1")
def test_a_backup_that_is_killed_often_leaves_no_snapshot_after_the_next(
    repository: Site, image: RbdSite, tally: Tally
) -> None:
    """The same, many times."""
    tally.count(0, planned=20 * 20)
    contents: dict[str, bytes] = {}
    for seed in tally.seeds(range(2, 22)):
        kill_some(repository, image, tally, 20, contents, seed=seed)


def kill_some(
    repository: Site, image: RbdSite, tally: Tally, times: int, contents: dict[str, bytes], *, seed: int
) -> None:
    """Kill backups, then make one, and look at all that is left; `contents` by revision so far."""
    draw = random.Random(seed)
    newest = back_up(repository, image)
    contents[newest.uuid] = bytes(image.content)
    for _ in range(times):
        image.write(draw.randrange(3 * OBJECT // PAGE) * PAGE, draw.randbytes(PAGE))
        process = subprocess.Popen(command(repository), stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.2, 0.9))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for one in repository.history(job="rbd").revisions:
            contents.setdefault(one.uuid, bytes(image.content))
    newest = back_up(repository, image)
    contents[newest.uuid] = bytes(image.content)
    tally.count(times, seed=seed)

    assert [kept(newest)] == image.snapshots()
    for one in repository.history(job="rbd").revisions:
        assert contents[one.uuid] == repository.restored(one, job="rbd")


# ..Lies........................................................................................


@pytest.mark.proof("T16")
def test_an_object_map_that_hides_a_change_is_found(
    repository: Site, image: RbdSite, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong answer of Ceph is found by the audit within 30 runs, and then everything is read anew.

    As in its issue 61616: an object that was written after a snapshot is not told as changed.
    """
    back_up(repository, image)
    hidden = range(3 * OBJECT + 5 * CHUNK, 3 * OBJECT + 6 * CHUNK)
    _hide(monkeypatch, hidden)
    image.write(hidden.start, b"unseen")
    runs = 0
    while True:
        image.write(0, f"{runs}".encode())
        newest = back_up(repository, image)
        runs += 1
        assert newest.reading is not None
        if newest.reading.audit_failed:
            break
        assert runs < 30
    tally.tell(1, f"rbd: a change that Ceph hid was found after {runs} backups")

    assert bytes(image.content) == repository.restored(newest, job="rbd")
    earlier = repository.history(job="rbd").revisions[1:-1]
    assert [(Trust.DISTRUSTED, Distrust.SOURCE)] * (runs - 1) == [
        (one.trust, one.distrust) for one in earlier
    ]


def _hide(monkeypatch: pytest.MonkeyPatch, hidden: range) -> None:
    """Have Ceph's answers about changes leave out a range of bytes."""
    real = Image.pieces

    def pieces(
        self: Image,
        offset: int,
        length: int,
        since: str | None = None,
        *,
        whole_objects: bool = False,
    ) -> list[Piece]:
        found = real(self, offset, length, since, whole_objects=whole_objects)
        if since is None:
            return found
        told = []
        for piece in found:
            one = [Extent(piece.offset, piece.length)]
            before, behind = cut(one, 0, hidden.start), cut(one, hidden.stop, 1 << 62)
            told += [Piece(*part, piece.exists) for part in (*before, *behind)]
        return told

    monkeypatch.setattr(Image, "pieces", pieces)
