"""Make the disk agree with the configuration: the repository, the jobs' directories and settings.

    problems = prepare(repository, settings.jobs)

A job's directory is made if it is missing and its `config` rewritten if it differs; nothing is ever
removed, so a job that left the configuration keeps its revisions.

Limits: the base directory itself is never made: one that is missing is a disk that is not mounted.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from backy.daemon import local_token
from backy.domain import config
from backy.domain.config import JobConfig
from backy.ground import durable, locks
from backy.ground.directory import Directory
from backy.ground.errors import (
    BackyError,
    ConfigError,
    DaemonRunning,
    JobMissing,
    NotARepository,
    StorageFailed,
)
from backy.repository import layout
from backy.repository.repository import Repository, create, create_job

LOCK = ".lock"
# What backy 2.5 leaves beside the jobs.
_OLDER_FILES = (".lock", "status", "backy.log", local_token.FILE)


@contextmanager
def only_daemon(base: str) -> Iterator[None]:
    """Be the one scheduler of this base directory; DaemonRunning, NotARepository."""
    try:
        directory = Directory.open(base)
    except OSError as error:
        raise NotARepository(base, f"{os.strerror(error.errno or 0)}; is its disk mounted?") from error
    with directory:
        try:
            fd = locks.open_lock_file(directory, LOCK)
        except OSError as error:
            raise StorageFailed("open", directory.file_path(LOCK), error.errno or 0) from error
        try:
            if not locks.try_exclusive_again(fd):
                raise DaemonRunning(base)
            yield
        finally:
            os.close(fd)


def daemon_runs(base: str) -> bool:
    """Whether a scheduler holds the lock of this base directory; writes nothing."""
    try:
        with Directory.open(base) as directory:
            fd = directory.open_file(LOCK)
    except OSError:
        return False
    try:
        return locks.is_held(fd)
    finally:
        os.close(fd)


def open_repository(base: str, jobs: Mapping[str, JobConfig]) -> Repository:
    """The repository, made where the directory holds nothing but jobs; BackyError."""
    try:
        return Repository.open(base)
    except NotARepository:
        if os.path.lexists(os.path.join(base, layout.CHUNKS, layout.FORMAT)):
            raise
    create(base, [*jobs, *_OLDER_FILES])
    return Repository.open(base)


def prepare(repository: Repository, jobs: Mapping[str, JobConfig]) -> dict[str, str]:
    """Make what is missing; returns what is wrong with single jobs."""
    problems = {}
    for name, job in jobs.items():
        try:
            _prepare_job(repository, name, job)
        except BackyError as error:
            problems[name] = error.message
    return problems


def _prepare_job(repository: Repository, name: str, job: JobConfig) -> None:
    try:
        with repository.job(name) as opened:
            if _is_current(opened.config_path, job):
                return
            directory = opened.directory
            text = config.render_job(job).encode()
            if directory.has(layout.JOB_CONFIG):
                durable.replace(directory, layout.JOB_CONFIG, text)
            else:
                durable.publish(directory, layout.JOB_CONFIG, text, mode=0o640)
            durable.sync_directory(directory)
    except JobMissing:
        create_job(repository.base, name, job)


def _is_current(path: str, job: JobConfig) -> bool:
    # As bytes: reading YAML of 10,000 jobs takes seconds, and what differs is written anew anyway.
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20) == config.render_job(job).encode()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return False
        raise ConfigError(path, "", f"it cannot be read: {os.strerror(error.errno or 0)}") from error
