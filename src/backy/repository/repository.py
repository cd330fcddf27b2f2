"""A repository: one chunk store and the jobs beside it.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/backups"
    >>> create(path, ["vm01"], chunk_size=4096, reserve_size=0)
    >>> with Repository.open(path) as repository:
    ...     repository.format.chunk_size, repository.jobs()
    (4096, [])

`Repository.open` only reads, so it works on a read-only mount; `locate` finds base and job in what an
operator gives as -b.

Limits: a job is a directory with a valid name that holds a configuration or a record.
"""

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import NamedTuple, Self
from uuid import uuid4

from backy.domain import config
from backy.domain.chunkmap import MAX_CHUNK
from backy.domain.config import JobConfig
from backy.domain.names import check_job_name
from backy.ground import durable, linux, locks
from backy.ground.directory import Directory
from backy.ground.errors import (
    CollectorBusy,
    ConfigError,
    JobBusy,
    JobExists,
    JobMissing,
    NameRefused,
    NotARepository,
    OptionRefused,
    RepositoryRefused,
    StorageFailed,
)
from backy.repository import layout, reserve
from backy.repository.chunks import check_fanout

_MAX_FORMAT = 64 << 10
_MAX_CONFIG = 1 << 20
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_NO_FILE = (errno.EINVAL, errno.EFBIG)  # see Directory.read


class Place(NamedTuple):
    """Where a command works: the repository's path and, if it names one, the job."""

    base: str
    job: str | None


class Job:
    """One job's directory, open."""

    def __init__(self, name: str, directory: Directory) -> None:
        self.name = name
        self.directory = directory

    @property
    def config_path(self) -> str:
        """Path of its configuration, for messages."""
        return self.directory.file_path(layout.JOB_CONFIG)

    def config(self) -> JobConfig:
        """Source and schedule; ConfigError."""
        try:
            text = self.directory.read(layout.JOB_CONFIG, _MAX_CONFIG).decode()
        except (OSError, UnicodeDecodeError) as error:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(self.config_path, "", f"it cannot be read: {why}") from error
        return config.parse_job(text, self.config_path)

    def is_backing_up(self) -> bool:
        """Whether a backup runs now; writes nothing."""
        try:
            fd = self.directory.open_file(layout.BACKUP_LOCK)
        except OSError:
            return False
        try:
            return locks.is_held(fd)
        finally:
            os.close(fd)

    @contextmanager
    def backing_up(self) -> Iterator[None]:
        """Be the only backup of this job for the duration of the block; JobBusy."""
        fd = _open_lock(self.directory, layout.BACKUP_LOCK)
        try:
            if not locks.try_exclusive_again(fd):
                raise JobBusy(self.name)
            yield
        finally:
            os.close(fd)


@contextmanager
def collecting(chunks: Directory) -> Iterator[None]:
    """Be the only collector for the duration of the block; CollectorBusy."""
    fd = _open_lock(chunks, layout.COLLECTOR_LOCK)
    try:
        if not locks.try_exclusive(fd):
            raise CollectorBusy(chunks.path)
        yield
    finally:
        os.close(fd)


class Repository:
    """An open repository whose format this version knows."""

    def __init__(self, base: Directory, chunks: Directory) -> None:
        """`open` is the way to get one."""
        self.base = base
        self.chunks = chunks
        self.format = self.read_format()

    @classmethod
    def open(cls, path: str, *, whole: bool = True) -> "Repository":
        """Open by path; NotARepository, FormatUnknown, RepositoryRefused, StorageFailed.

        Writes nothing. Who only reads needs no `whole` store: empty folders may be missing.
        """
        try:
            base = Directory.open(path)
        except OSError as error:
            _told(error, path)
            raise NotARepository(path, os.strerror(error.errno or 0)) from error
        try:
            chunks = base.enter(layout.CHUNKS)
        except OSError as error:
            base.close()
            _told(error, base.file_path(layout.CHUNKS))
            hint = "it has no 'chunks' directory; 'backy init' makes one"
            raise NotARepository(path, hint) from error
        try:
            repository = cls(base, chunks)
            check_fanout(chunks, whole=whole)
        except BaseException:
            chunks.close()
            base.close()
            raise
        return repository

    def read_format(self) -> layout.StoreFormat:
        """The store's format as it is on disk now."""
        path = self.chunks.file_path(layout.FORMAT)
        try:
            content = self.chunks.read(layout.FORMAT, _MAX_FORMAT)
        except FileNotFoundError as error:
            hint = "'chunks/format' is missing"
            if self.chunks.has(layout.OLD_STORE):
                hint = "its chunks were written by backy 2.5, whose store this version does not use"
            raise NotARepository(self.base.path, hint) from error
        except OSError as error:
            if error.errno not in _NO_FILE:
                _told(error, path)
            raise NotARepository(path, os.strerror(error.errno or 0)) from error
        return layout.parse_format(content, path)

    def jobs(self) -> list[str]:
        """Names of all jobs, sorted; StorageFailed where one cannot be looked into."""
        found = []
        for name in self.directories():
            with suppress(JobMissing), self._entered(name):  # gone meanwhile, or no job
                found.append(name)
        return found

    def directories(self) -> list[str]:
        """Names of all directories that may be a job's, with or without one in it; sorted.

        For those who go on where one cannot be looked into: `job` says of each what it is.
        """
        return sorted(
            name for name, is_directory in self.base.scan() if is_directory and is_job_name(name)
        )

    @contextmanager
    def job(self, name: str) -> Iterator[Job]:
        """An existing job, open; JobMissing, NameRefused, StorageFailed."""
        check_job_name(name)
        with ExitStack() as stack:
            try:
                directory = stack.enter_context(self._entered(name))
            except JobMissing as error:
                raise JobMissing(name, self._job_hint()) from error
            yield Job(name, directory)

    @contextmanager
    def _entered(self, name: str) -> Iterator[Directory]:
        """A job's directory, open; JobMissing, StorageFailed."""
        try:
            directory = self.base.enter(name)
        except OSError as error:
            _told(error, self.base.file_path(name))
            raise JobMissing(name, "") from error
        with directory:
            try:
                is_job = _is_job(directory)
            except OSError as error:  # it may be listed and not entered
                raise StorageFailed("open", directory.path, error.errno or errno.EIO) from error
            if not is_job:
                raise JobMissing(name, "")
            yield directory

    def _job_hint(self) -> str:
        jobs = []
        for name in self.directories():
            with suppress(JobMissing, StorageFailed), self._entered(name):
                jobs.append(name)
        listed = ", ".join(jobs[:10]) + ("…" if len(jobs) > 10 else "")
        return f"there are {listed}" if jobs else "'backy init' makes one"

    def close(self) -> None:
        """Close the descriptors."""
        self.chunks.close()
        self.base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def locate(path: str, job: str | None) -> Place:
    """Base and job for -b `path` and -j `job`: BASE where chunks/format lies in it, else its parent.

    NotARepository where it lies in neither.
    """
    path = os.path.abspath(path)
    parent, name = os.path.split(path)
    if _has_store(path):
        return Place(path, job)
    if name and _has_store(parent):
        if job is not None and job != name:
            raise OptionRefused(
                "-j", f"{path} is a job's directory itself, so {job!r} cannot go with it"
            )
        return Place(parent, name)
    hint = "there is no chunks/format in it or beside it; 'backy init' makes a repository"
    if os.path.exists(os.path.join(path, layout.CHUNKS, layout.OLD_STORE)):
        hint = "its chunks were written by backy 2.5, whose store this version does not use"
    raise NotARepository(path, hint)


def _has_store(path: str) -> bool:
    try:
        os.lstat(os.path.join(path, layout.CHUNKS, layout.FORMAT))
    except OSError as error:
        # Somebody else's repository is not one that 'backy init' should make.
        _told(error, path)
        return False
    except ValueError:
        return False
    return True


def _told(error: OSError, path: str) -> None:
    """Raise StorageFailed, unless the error says that nothing of the kind is there."""
    if error.errno not in _NOT_THERE:
        raise StorageFailed("open", path, error.errno or errno.EIO) from error


def create(
    path: str,
    harmless: Collection[str],
    *,
    force: bool = False,
    chunk_size: int = MAX_CHUNK,
    reserve_size: int = layout.RESERVE_SIZE,
) -> None:
    """Make a repository where `path` is missing or holds nothing but the `harmless` names.

    `force` allows other contents and file systems that are not trusted. The format file comes last:
    without it there is no repository, and a creation that was cut short can be repeated. Raises
    RepositoryRefused, StorageFailed.
    """
    parent, name = os.path.split(os.path.abspath(path))
    try:
        if not os.path.isdir(path):
            with Directory.open(parent) as above:
                durable.make_directory(above, name)
                durable.sync_directory(above)
        base = Directory.open(path)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        if error.errno == errno.ENOENT:
            why = f"{parent} does not exist: if that is no mistake in the path, make it first"
        raise RepositoryRefused(path, why) from error
    with base:
        if not force:
            _check_place(base, harmless)
        durable.make_directory(base, layout.CHUNKS)
        with base.enter(layout.CHUNKS) as chunks:
            if chunks.has(layout.FORMAT):
                raise RepositoryRefused(path, "it is a repository already")
            folders = (layout.TEMPORARY, layout.USERS, layout.TRASH, layout.QUARANTINE)
            for folder in (*layout.FANOUT, *folders):
                durable.make_directory(chunks, folder)
            if not chunks.has(layout.RESERVE):
                reserve.make(chunks, reserve_size)
            os.close(_open_lock(chunks, layout.COLLECTOR_LOCK))
            durable.sync_directory(chunks)
            durable.sync_directory(base)
            found = layout.StoreFormat(chunk_size=chunk_size, repository=str(uuid4()))
            durable.publish(chunks, layout.FORMAT, layout.serialise_format(found))
            durable.sync_directory(chunks)


def create_job(base: Directory, name: str, job: JobConfig) -> None:
    """Make a job's directory and configuration; JobExists, NameRefused, StorageFailed."""
    check_job_name(name)
    durable.make_directory(base, name)
    with base.enter(name) as directory:
        # On a full disk nothing that lets space go may need a new file.
        for lock in (layout.HISTORY_LOCK, layout.BACKUP_LOCK):
            os.close(_open_lock(directory, lock))
        try:
            text = config.render_job(job).encode()
            durable.publish(directory, layout.JOB_CONFIG, text, mode=0o640)
        except StorageFailed as error:
            if error.code != errno.EEXIST:
                raise
            raise JobExists(name, directory.file_path(layout.JOB_CONFIG)) from error
        durable.sync_directory(directory)
    durable.sync_directory(base)


def check_writable_here(directory: Directory) -> None:
    """Refuse a kernel on which a lost write would not be told: RepositoryRefused."""
    if not linux.errors_are_told():
        raise RepositoryRefused(
            directory.path, "writing needs Linux 5.8 or later, which tells lost writes"
        )


def _check_place(base: Directory, harmless: Collection[str]) -> None:
    kind = linux.file_system(base.fd)
    if kind not in linux.TRUSTED_FILE_SYSTEMS:
        trusted = ", ".join(linux.TRUSTED_FILE_SYSTEMS)
        why = f"{kind} is none of the file systems whose locks and syncs are known to hold ({trusted})"
        raise RepositoryRefused(base.path, f"{why}; --force uses it all the same")
    others = set(base.names()) - {*harmless, "lost+found"}
    if layout.CHUNKS in others and not _has_store(base.path):
        with suppress(OSError), base.enter(layout.CHUNKS) as chunks:
            if not chunks.has(layout.OLD_STORE):
                others.discard(layout.CHUNKS)
    if others:
        some = ", ".join(sorted(others)[:3])
        why = f"it is not empty ({some}…), so it may be meant for something else"
        raise RepositoryRefused(base.path, f"{why}; --force makes a repository there all the same")


def _open_lock(directory: Directory, name: str) -> int:
    try:
        return locks.open_lock_file(directory, name)
    except OSError as error:
        raise StorageFailed("open", directory.file_path(name), error.errno or errno.EIO) from error


def is_job_name(name: str) -> bool:
    """Whether a directory of that name may be a job's."""
    try:
        check_job_name(name)
    except NameRefused:
        return False
    return True


def _is_job(directory: Directory) -> bool:
    if directory.has(layout.JOB_CONFIG):
        return True
    return any(layout.parse_record_name(name) for name in directory.names())
