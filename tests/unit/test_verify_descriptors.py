"""Verify and what the process itself lacks: descriptors and memory say nothing of the store."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backy.domain.revision import Trust
from backy.ground.clock import SystemClock
from backy.ground.errors import StorageFailed
from backy.operation.progress import NoProgress
from backy.operation.slices import verify_slice
from backy.repository.repository import Repository
from testsite import CHUNK, Site, run_backy

JOBS = 30


@pytest.fixture
def many_jobs(site: Site) -> Site:
    """A repository of more jobs than the limit below leaves descriptors for."""
    for number in range(JOBS):
        image = site.folder / f"{number}.raw"
        image.write_bytes(bytes([number + 1]) * CHUNK)
        site.add_job(f"job{number}", image)
        site.backup(job=f"job{number}")
    return site


def with_descriptors(limit: int) -> Callable[[], None]:
    """What gives a new process so few."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def test_verify_of_more_jobs_than_descriptors_proves_them_all(many_jobs: Site) -> None:
    """Each job is opened where it is used, so their number costs nothing."""
    done = run_backy("-b", str(many_jobs.base), "verify", preexec_fn=with_descriptors(JOBS + 10))

    assert (0, "") == (done.returncode, done.stderr)
    assert f"{JOBS} revisions, {JOBS} chunks verified: no findings\n" == done.stdout
    trusts = {many_jobs.history(job=f"job{one}").revisions[0].trust for one in range(JOBS)}
    assert {Trust.VERIFIED} == trusts


def look_at_all(site: Site) -> None:
    """Decode and hash everything."""
    site.concluded()


def look_quickly(site: Site) -> None:
    """Only the checksums."""
    site.concluded(quick=True)


def walk(site: Site) -> None:
    """A slice that comes to the end of the store."""
    with Repository.open(str(site.base)) as repository:
        verify_slice(repository, SystemClock(), 3600, NoProgress())


def chunk_of(site: Site) -> Path:
    """The only chunk file."""
    (path,) = site.chunk_files()
    return path


def map_of(site: Site) -> Path:
    """The only map."""
    (path,) = site.job.glob("*.map")
    return path


def record_of(site: Site) -> Path:
    """The only record."""
    (path,) = site.job.glob("*.rev")
    return path


@contextmanager
def refused(path: Path, code: int) -> Iterator[None]:
    """The opening of a file fails with an error."""
    real = os.open

    def opened(name: Any, *arguments: Any, **named: Any) -> int:
        if os.path.basename(name) == path.name:
            raise OSError(code, os.strerror(code), name)
        return real(name, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        yield


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize(
    ("look", "of"),
    [
        (look_at_all, chunk_of),
        (look_quickly, chunk_of),
        (walk, chunk_of),
        (look_at_all, map_of),
        (look_at_all, record_of),
    ],
)
def test_what_the_process_lacks_is_no_finding_and_costs_no_mark(
    site: Site, look: Callable[[Site], None], of: Callable[[Site], Path], code: int
) -> None:
    """Nothing can be said of the store then: verify ends, and what was verified stays so."""
    site.image.write_bytes(b"a" * CHUNK)
    site.backup()
    site.concluded()

    with refused(of(site), code), pytest.raises(StorageFailed) as caught:
        look(site)

    assert code == caught.value.code
    assert [(Trust.VERIFIED, 0)] == [(one.trust, one.damaged) for one in site.history().revisions]
