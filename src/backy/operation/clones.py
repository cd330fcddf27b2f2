"""Clones of image files: which a repository has, which of them are left over, and how these go.

    for one in survey_clones(repository, settings.jobs):
        one.clone.path, one.why                  "" if it is needed

The next run of a job removes what the last ones left. What stays for ever is what has no next run, and
that pins the space of a whole image: clones of jobs that are not configured any more, or whose image is
gone. They are found where they may lie: in the directories of all images, and in the clone directories.

Limits: sees no clone in a directory that no job names any more.
"""

import os
from collections.abc import Container, Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple

from backy.domain.config import JobConfig, SourceConfig, SourcesConfig
from backy.domain.file_settings import FileSettings
from backy.domain.revision import SnapshotName
from backy.ground.errors import BackyError, JobMissing
from backy.repository import layout, users
from backy.repository.repository import Repository
from backy.source.base import Owner
from backy.source.clonefiles import Clone, clones_in, remove_clones
from backy.source.registry import file_settings

# The settings of a job's disks that are files, by disk.
_Disks = Mapping[str, FileSettings]


class FoundClone(NamedTuple):
    """A clone, and why it is left over, in words that follow its name; "" if it is needed."""

    clone: Clone
    why: str


def survey_clones(
    repository: Repository, configured: Mapping[str, JobConfig] | None
) -> list[FoundClone]:
    """All clones of a repository, by job and path.

    `configured` are the jobs of the host's configuration; without it those are configured that have
    their own in the repository. What cannot be read is passed over: others tell that.
    """
    sources = {name: _of(job.source) for name, job in (configured or {}).items()}
    own = _own_sources(repository, configured or {})
    found = _listed(repository, [*sources.values(), *own.values()])
    if configured is None:
        sources = own
    with suppress(OSError):
        busy = {writer.job for writer in users.living(repository.chunks)}
        judged = [FoundClone(one, _why(repository, one, sources, busy)) for one in found]
        # A backup that ended meanwhile has taken its own along.
        return [one for one in judged if os.path.lexists(one.clone.path)]
    return []


def remove(repository: Repository, clones: Iterable[Clone]) -> list[Clone]:
    """Remove clones while no backup of their jobs runs: those that are gone. JobBusy, StorageFailed."""
    gone = []
    for clone in clones:
        with ExitStack() as stack:
            with suppress(JobMissing):
                job = stack.enter_context(repository.job(clone.job))
                stack.enter_context(job.backing_up())
            owner = Owner(repository.format.repository, clone.job)
            name = SnapshotName(clone.revision, clone.disk)
            if remove_clones(owner, {name: os.path.dirname(clone.path)}):
                gone.append(clone)
    return gone


def _own_sources(repository: Repository, others: Container[str]) -> dict[str, _Disks]:
    """The sources of the repository's jobs besides `others`, whose settings can be read."""
    found = {}
    # Thousands of configurations take seconds to read, so only those that are not known yet are.
    for name in repository.jobs():
        if name in others:
            continue
        with suppress(BackyError, OSError), repository.job(name) as job:
            found[name] = _of(job.config().source)
    return found


def _of(source: SourceConfig | SourcesConfig) -> _Disks:
    found = {}
    for disk, one in source.disks.items():
        with suppress(BackyError):
            found[disk] = file_settings(one, "", disk)
    return found


def _listed(repository: Repository, sources: Iterable[_Disks]) -> list[Clone]:
    folders = {
        folder
        for disks in sources
        for one in disks.values()
        for folder in (one.clone_directory, os.path.dirname(os.path.realpath(one.filename)))
        if folder is not None
    }
    # Two spellings of one directory.
    folders = {os.path.realpath(folder) for folder in folders}
    found: list[Clone] = []
    for folder in folders:
        with suppress(OSError):
            found += clones_in(folder, repository.format.repository)
    return sorted(found)


def _why(repository: Repository, clone: Clone, sources: Mapping[str, _Disks], busy: set[str]) -> str:
    """Why a clone is left over, or ""."""
    disks = sources.get(clone.job)
    if not disks:
        return "its job is not configured"
    settings = disks.get(clone.disk)
    if settings is None:
        return "its disk is not configured"
    if not os.path.exists(settings.filename):
        return "its image is gone"
    if clone.job in busy or "" in busy:  # a writer whose note cannot be read may be its job's
        return ""
    with suppress(JobMissing), repository.job(clone.job) as job:
        if job.directory.has(f"{clone.revision}{layout.RECORD}"):
            return ""
    return "its revision is gone"
