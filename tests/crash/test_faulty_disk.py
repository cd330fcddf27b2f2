"""T6: below a real file system, a disk that fails writes of data, or loses them and says nothing."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from crashsite import noise
from faultydisk import MARKER, FaultyDevice, faulty_device
from in_process import Outcome, backy

from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry
from backy.ground import durable, linux
from backy.ground.directory import Directory
from backy.ground.errors import ImageDamaged
from backy.repository.layout import chunk_path
from testsite import CHUNK, Site

pytestmark = [pytest.mark.proof("T6"), pytest.mark.root]

COUNT, MARKED = 12, 5
# Of the second revision's image: it is new in whole, with the marker in one chunk.
GOOD, BAD = noise(2, MARKED * CHUNK), MARKER + noise(3, CHUNK - len(MARKER))
REST = noise(4, (COUNT - MARKED - 1) * CHUNK)


class Faulty:
    """A repository on a disk that may fail, with one revision; the job's image lies elsewhere."""

    def __init__(self, device: FaultyDevice, folder: Path, images: Path) -> None:
        self.when = device.when
        self.site = Site(folder)
        self.image = images / "image.raw"
        self.image.write_bytes(noise(1, COUNT * CHUNK))
        self.site.add_job("faulty", self.image)
        self.first = self.site.backup(job="faulty")
        self.first_image = self.image.read_bytes()
        self.image.write_bytes(GOOD + BAD + REST)
        self.job = self.site.base / "faulty"

    def backy(self, *words: str) -> Outcome:
        """Run a command on the job."""
        return backy("-b", str(self.job), "-l", str(self.image.with_name("log")), *words)

    def backup(self) -> Outcome:
        """Back up, storing bytes as they are, so that the marker is in what is written."""
        return self.backy("backup", "daily", "--codec", "none")

    def chunk_names(self) -> set[str]:
        """Names of all chunks."""
        return {path.name for path in self.site.chunk_files()}

    def check_failed(self, done: Outcome) -> None:
        """One sentence, exit code 1, nothing half visible, and the first revision whole."""
        check_says_why(done)
        assert [self.first.uuid] == [one.uuid for one in self.site.history(job="faulty").revisions]
        assert [] == [path for path in self.job.iterdir() if path.suffix == ".pending"]
        assert [[], []] == [list((self.site.chunks / name).iterdir()) for name in ("tmp", "users")]
        assert self.first_image == self.site.restored(self.first, job="faulty")
        assert [] == self.site.verify(job="faulty").findings

    def check_next_backup(self) -> None:
        """It needs no help, restores bit for bit, and all of the job verifies.

        A write error that no syncfs was told yet is told to the next one (errseq_sample), so after a run
        that failed by write(2) or fsync(2) one more may fail, as cleanly: nobody can know whose it was.
        """
        done = self.backup()
        if done.code:
            self.check_failed(done)
            done = self.backup()
        assert 0 == done.code, done
        newest = self.site.history(job="faulty").revisions[-1]
        assert newest.uuid != self.first.uuid
        assert self.image.read_bytes() == self.site.restored(newest, job="faulty")
        assert self.first_image == self.site.restored(self.first, job="faulty")
        assert 0 == self.backy("verify").code


def check_says_why(done: Outcome) -> None:
    """One sentence with the reason, and exit code 1."""
    assert (1, 1) == (done.code, done.err.count("\n")), done
    assert done.err.startswith("backy: "), done
    assert done.err.endswith(": Input/output error.\n"), done


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def disk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FaultyDevice, Path]]:
    """A file system whose disk may fail."""
    parent = tmp_path_factory.mktemp("faulty")
    with faulty_device(parent, size=320 << 20) as device, device.mounted(request.param) as folder:
        yield device, folder


@pytest.fixture
def faulty(disk: tuple[FaultyDevice, Path], tmp_path: Path) -> Faulty:
    """A repository there."""
    device, folder = disk
    (folder / tmp_path.name).mkdir()
    with Directory.open(str(folder)) as opened, suppress(OSError):
        linux.syncfs(opened.fd)  # so that no error of the test before is told
    return Faulty(device, folder / tmp_path.name, tmp_path)


@pytest.mark.parametrize("past_the_cache", [True, False])
def test_a_chunk_whose_write_fails_is_never_published(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, past_the_cache: bool
) -> None:
    """Whether the write itself says so or syncfs for it; and the next backup finds a sound disk."""
    if not past_the_cache:  # as on a file system without O_DIRECT
        monkeypatch.setattr(durable, "_write_direct", lambda *_: False)
    before = faulty.chunk_names()

    with faulty.when("fail-writes"):
        done = faulty.backup()

        faulty.check_failed(done)
        assert chunk_id(BAD).hex() not in faulty.chunk_names()
        # One batch: what came with the failed write was not proven to be on the disk either.
        assert before == faulty.chunk_names()
        faulty.check_failed(faulty.backup())
    faulty.check_next_backup()


@pytest.mark.parametrize("disk", ["xfs"], indirect=True)  # btrfs keeps records among its metadata
def test_a_record_whose_write_fails_is_never_published(faulty: Faulty) -> None:
    """The chunks are there by then; fsync tells, and no revision is made of them."""
    marked = faulty.image.rename(faulty.image.with_name(f"{MARKER.decode()}.raw"))
    marked.write_bytes(GOOD + REST)  # no chunk holds the marker: the record does, in the image's path
    faulty.site.add_job("marked", marked)
    job, faulty.job = faulty.job, faulty.site.base / "marked"

    with faulty.when("fail-writes"):
        done = faulty.backup()

        check_says_why(done)
        assert " sync file in " in done.err
        assert [] == [
            path for path in faulty.job.iterdir() if path.suffix in {".rev", ".pending", ".map"}
        ]
    if faulty.backup().code:  # see check_next_backup
        assert 0 == faulty.backup().code
    (made,) = faulty.site.history(job="marked").revisions
    assert GOOD + REST == faulty.site.restored(made, job="marked")
    assert 0 == faulty.backy("verify").code
    faulty.job = job
    assert 0 == faulty.backy("verify").code


def test_a_lost_write_is_found(faulty: Faulty) -> None:
    """The disk says that all is well; verify reads it past the page cache and names the chunk, once."""
    lost = faulty.site.chunks / chunk_path(Entry(chunk_id(BAD)))
    with faulty.when("lose-writes"):
        assert (0, "") == faulty.backup()[::2]
    older, newer = faulty.site.history(job="faulty").revisions

    verified = faulty.backy("verify", "--no-quarantine")

    assert 1 == verified.code
    found = [line for line in verified.out.splitlines() if line.startswith("chunk ")]
    assert [True] == [lost.name in line and newer.uuid in line for line in found]
    assert faulty.first_image == faulty.site.restored(older, job="faulty")
    with pytest.raises(ImageDamaged):
        faulty.site.restored(newer, job="faulty")


@pytest.mark.parametrize(
    "disk", ["xfs"], indirect=True
)  # btrfs gives no bytes, and what it gives not stays
def test_the_next_backup_heals_a_lost_write(faulty: Faulty) -> None:
    """Once verify has moved the chunk aside, it is stored again, for both revisions."""
    with faulty.when("lose-writes"):
        assert (0, "") == faulty.backup()[::2]
    assert "1 chunk moved aside" in faulty.backy("verify").out

    faulty.check_next_backup()

    newer = faulty.site.history(job="faulty").revisions[1]
    assert GOOD + BAD + REST == faulty.site.restored(newer, job="faulty")
