"""What vanished has to be explained before anything is collected: revisions that went without `forget`.

    stops, known = since_last_run(repository, files, now, gone)       known: what to remember from now on
    stops, missing = since_inventory(repository, files, present, now, gone)

An empty mount point, or a job's folder that is gone, looks like revisions that nobody needs any more;
what they need must not go for that.

Limits: decides (`domain.collection`) and puts into words; the caller refuses to go on.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from backy.domain import collection as decisions
from backy.domain.collection import Known, Vanished
from backy.repository import layout, remembered
from backy.repository.marking import JobFiles, Stop
from backy.repository.repository import Repository


def since_last_run(
    repository: Repository, files: dict[str, JobFiles], now: datetime, gone: Collection[str]
) -> tuple[list[Stop], Known | None]:
    """What vanished since the last run, and what to remember now; None where that is not known."""
    try:
        before = remembered.read_known(repository.chunks)
    except ValueError as error:
        path = repository.chunks.file_path(layout.KNOWN)
        return [
            Stop(
                path,
                f"the list of known revisions is damaged ({error}); remove it once all jobs are there",
            )
        ], None
    present = {name: found.present for name, found in files.items()}
    missing = decisions.vanished(before, present, now, gone)
    return _told(repository, missing), decisions.still_known(committed(files), missing)


def since_inventory(
    repository: Repository,
    files: dict[str, JobFiles],
    present: Mapping[str, Collection[str]],
    now: datetime,
    gone: Collection[str],
) -> tuple[list[Stop], list[Vanished]]:
    """What the inventory saw and is not `present` any more, though nothing of it was reaped.

    A disk that is unmounted in between leaves an empty directory, which needs no chunk.
    """
    missing = decisions.vanished(Known(jobs=committed(files)), present, now, gone)
    return _told(repository, missing), missing


def committed(files: dict[str, JobFiles]) -> dict[str, tuple[str, ...]]:
    """The committed revisions of each job, as `Known` has them."""
    return {name: tuple(found.committed) for name, found in files.items()}


def _told(repository: Repository, missing: list[Vanished]) -> list[Stop]:
    stops = []
    for one in missing:
        where = repository.base.file_path(one.job)
        if one.since is None:
            why = f"{len(one.uuids)} of its revisions went without 'forget', the first is {one.uuids[0]}"
        else:
            why = f"the job's directory is gone, and with it revisions ({len(one.uuids)})"
        stops.append(Stop(where, why))
    return stops
