"""Survey: read the histories of many jobs, for the scheduler and for monitoring.

    survey(repository, ["vm01", "vm02"], clock.now())["vm01"].figures.newest

Only figures are kept of each history, since 10,000 jobs have 300,000 records. Many jobs are read by
several processes: reading is Python's work, and threads would take turns.

Limits: a job that cannot be read has `problem` set; nothing here raises for it.
"""

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import NamedTuple

from backy.domain.sla import Figures, figures
from backy.ground.errors import BackyError, JobMissing
from backy.repository import history as histories
from backy.repository import layout
from backy.repository.repository import Job, Repository

_MANY = 500
_PORTION = 100


class Surveyed(NamedTuple):
    """A job's figures; `configured_at` is when its directory was set up, None where there is none."""

    figures: Figures = Figures()
    configured_at: datetime | None = None
    problem: str | None = None


def survey(
    repository: Repository, names: Collection[str], now: datetime, processes: int | None = None
) -> dict[str, Surveyed]:
    """Figures of the named jobs."""
    wanted = list(names)
    processes = processes or min(os.cpu_count() or 1, 8)
    if len(wanted) < _MANY or processes == 1:
        return {name: survey_job(repository, name, now) for name in wanted}
    portions = [wanted[at : at + _PORTION] for at in range(0, len(wanted), _PORTION)]
    base = repository.base.path
    found: dict[str, Surveyed] = {}
    # Forked: nothing has threads yet where this is called, and a fresh interpreter costs more.
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        for portion in pool.map(_survey_portion, [(base, one, now) for one in portions]):
            found.update(portion)
    return found


def survey_job(repository: Repository, name: str, now: datetime) -> Surveyed:
    """Figures of one job."""
    try:
        with repository.job(name) as job:
            history = histories.load(job.directory)
            found = figures(
                history.revisions, now, unreadable=len(history.unreadable), lost=len(history.lost)
            )
            return Surveyed(found, _configured_at(job))
    except JobMissing:
        return Surveyed()
    except BackyError as error:
        return Surveyed(problem=error.message)
    except OSError as error:
        return Surveyed(problem=f"{name}: {os.strerror(error.errno or 0)}.")


def _survey_portion(work: tuple[str, Sequence[str], datetime]) -> dict[str, Surveyed]:
    base, names, now = work
    with Repository.open(base) as repository:
        return {name: survey_job(repository, name, now) for name in names}


def _configured_at(job: Job) -> datetime | None:
    # The lock file is made with the job and never written; a directory of 2.5 has only its settings.
    for name in (layout.HISTORY_LOCK, layout.JOB_CONFIG):
        try:
            found = os.stat(name, dir_fd=job.directory.fd, follow_symlinks=False)
        except OSError:
            continue
        return datetime.fromtimestamp(found.st_mtime, UTC)
    return None
