"""T5: what was said to be made, removed or marked outlives a power cut at once after that.

The power cuts of test_power_cut_model fall into backups, edits and collections; here are the steps that
come by seldom: of a repository and its jobs, of marks, lists and cases.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from lossydisk import LossyDisk
from modelfaults import Killed, armed

from backy.daemon.prepare import prepare
from backy.domain.chunk import chunk_id
from backy.domain.chunkmap import Entry
from backy.domain.collection import Known
from backy.domain.config import JobConfig, SourceConfig, default_schedule
from backy.ground import durable
from backy.ground.directory import Directory
from backy.ground.errors import StorageFailed
from backy.repository import damage, layout, quarantine, remembered, reserve, trust
from backy.repository.repository import Repository, create, create_job
from damaging import chunk_file, spoil
from testsite import CHUNK, Site

pytestmark = pytest.mark.proof("T5")

JOB = JobConfig(SourceConfig("file", {"filename": "/nowhere"}), default_schedule())
PLAIN = b"plain".ljust(CHUNK, b".")


class Nothing(Random):
    """Not drawn: nothing lasts that was not synced."""

    def random(self) -> float:
        """Never below a half."""
        return 1.0


def test_a_repository_that_was_made_is_there(tmp_path: Path) -> None:
    """With all of its folders, in a folder that was made for it."""
    above = tmp_path / "above"
    above.mkdir()
    with LossyDisk(above) as disk:
        create(str(above / "base"), [], force=True, chunk_size=CHUNK, reserve_size=0)
        disk.cut(Nothing())

    with Repository.open(str(above / "base")) as repository:
        assert CHUNK == repository.format.chunk_size


def test_a_job_that_was_made_is_there(site: Site) -> None:
    """With its configuration."""
    with LossyDisk(site.base) as disk, Directory.open(str(site.base)) as base:
        create_job(base, "new", JOB)
        disk.cut(Nothing())

    with Repository.open(str(site.base)) as repository, repository.job("new") as job:
        assert JOB == job.config()


def test_a_configuration_that_the_scheduler_made_is_there(site: Site) -> None:
    """Of a job whose own was removed."""
    (site.job / "config").unlink()
    site.image.write_bytes(PLAIN)
    (site.job / "00000000-0000-4000-8000-000000000001.rev").touch()
    with LossyDisk(site.base) as disk, Repository.open(str(site.base)) as repository:
        assert {} == prepare(repository, {"vm": JOB})
        disk.cut(Nothing())

    assert (site.job / "config").exists()


@pytest.mark.parametrize("seed", range(8))
def test_a_reserve_is_whole_or_none(site: Site, seed: int) -> None:
    """One that is short would be kept, and give less than is needed when it is given up."""
    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        (site.chunks / "reserve").unlink(missing_ok=True)
        disk.notice(site.chunks / "reserve")
        reserve.make(chunks, 3 * CHUNK)
        durable.sync_directory(chunks)
        disk.cut(Random(seed))

    assert 3 * CHUNK == (site.chunks / "reserve").stat().st_size


def test_a_list_that_was_forgotten_on_a_full_disk_stays_so(site: Site) -> None:
    """It would name what the run removes then, and stop the next one."""
    failed: list[str] = []

    def fail(step: str) -> None:
        if step.startswith("create in") and not failed:
            failed.append(step)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        assert remembered.write_known(chunks, Known(jobs={"vm": ("old",)}))
        with armed(fail):
            assert not remembered.write_known(chunks, Known(jobs={}))
        disk.cut(Nothing())
        assert {} == remembered.read_known(chunks).jobs


def test_a_case_that_was_deleted_does_not_come_back(site: Site) -> None:
    """The operator was told that it is gone."""
    site.image.write_bytes(PLAIN)
    site.backup()
    spoil(chunk_file(site, PLAIN))
    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        assert quarantine.set_aside(chunks, CHUNK, Entry(chunk_id(PLAIN)))
        (case,) = quarantine.cases(chunks)
        quarantine.delete(chunks, case)
        disk.cut(Nothing())
        assert [] == quarantine.cases(chunks)


def test_a_mark_of_distrust_that_somebody_else_made_lasts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His name for it may not last yet when we go on with a record that relies on it."""
    real = durable.rename

    def overtaken(chunks: Directory, name: str, content: bytes) -> None:
        durable.publish(chunks, ".his", content)
        real(chunks, ".his", name)
        raise StorageFailed("link", name, errno.EEXIST)

    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "replace", overtaken)
            with trust.distrusting(chunks):
                disk.cut(Nothing())
        assert trust.is_distrusted(chunks)


def test_damage_that_is_found_to_have_healed_lasts_where_somebody_else_wrote_it(site: Site) -> None:
    """He was killed before his name for the record lasted, and nothing is left to be written."""
    site.image.write_bytes(PLAIN)
    revision = site.backup()
    path, content = chunk_file(site, PLAIN), chunk_file(site, PLAIN).read_bytes()
    path.unlink()
    with (
        LossyDisk(site.base) as disk,
        Directory.open(str(site.chunks)) as chunks,
        Directory.open(str(site.job)) as job,
    ):
        assert CHUNK == damage.refresh(chunks, job, revision.uuid).damaged
        path.write_bytes(content)
        disk.notice(path)
        with pytest.raises(Killed), armed(killing_behind_the_rename()):
            damage.refresh(chunks, job, revision.uuid)
        assert 0 == damage.refresh(chunks, job, revision.uuid).damaged
        disk.cut(Nothing())

    assert [0] == [one.damaged for one in site.history().revisions]


def killing_behind_the_rename() -> Callable[[str], None]:
    """Nothing happens any more after a record has its name."""
    renamed = False

    def hook(step: str) -> None:
        nonlocal renamed
        if renamed:
            raise Killed
        renamed = step.startswith("rename ")

    return hook


def test_what_lasts_here_is_only_what_was_synced(site: Site) -> None:
    """Or else the tests above prove nothing."""
    with LossyDisk(site.base) as disk, Directory.open(str(site.chunks)) as chunks:
        durable.publish(chunks, "loose", b"content")
        disk.cut(Nothing())

    assert not (site.chunks / "loose").exists()
    assert (site.chunks / layout.FORMAT).exists()
