"""Doctor: look at the host, the repository and the jobs' sources, and say what to do.

    for finding in examine(Patient("/srv/backy", "/etc/backy.conf", jobs, faults), clock): …

Nothing is changed. Each check has a time limit: one that hangs, for instance on a file server that has
gone, becomes a finding itself, and the others go on.

Limits: what shows only when it is done, such as a slow disk, does not show here; `verify` proves
revisions, `check` tells late jobs.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import NamedTuple

from backy.domain import diagnosis
from backy.domain.config import JobConfig
from backy.domain.diagnosis import Finding, Verdict, fine, note, wrong
from backy.domain.group_settings import parse_group_settings
from backy.domain.handshake_settings import HandshakeSettings
from backy.ground import linux
from backy.ground.clock import Clock
from backy.ground.directory import Directory
from backy.ground.errors import BackyError, ConfigError, NotARepository
from backy.operation import doctor_ceph, doctor_consul, doctor_files
from backy.repository import layout
from backy.repository.repository import Repository, check_writable_here
from backy.source.registry import open_group

LIMIT = 30.0

# What says when the repository was last written, besides the jobs' directories.
_WRITTEN = (layout.FORMAT, layout.KNOWN, layout.COLLECTION, layout.VERIFIED)

Check = Callable[[], Sequence[Finding]]


class Patient(NamedTuple):
    """What is examined: base directory, configuration file ("" for none), its sound jobs and faults.

    `jobs` is None without a configuration: then the repository's own jobs are looked at.
    """

    base: str
    file: str
    jobs: Mapping[str, JobConfig] | None
    faults: Sequence[ConfigError] = ()
    only: str | None = None


def examine(patient: Patient, clock: Clock, limit: float = LIMIT) -> Iterator[Finding]:
    """All findings, as they are made; `limit` is the seconds that each check gets. Never raises."""
    yield from configuration(patient)
    checks: list[tuple[str, Check]] = [
        ("base directory", lambda: base_directory(patient.base)),
        ("repository", lambda: repository(patient)),
        ("free space", lambda: space(patient.base)),
        ("clock", lambda: [time_of_day(patient.base, clock)]),
    ]
    for subject, check in checks:
        yield from _bounded(subject, check, limit)
    jobs: dict[str, JobConfig] = {}
    problems: list[Finding] = []
    yield from _bounded("jobs", lambda: _find_jobs(patient, jobs, problems), limit)
    yield from problems
    disks, hosts = {}, {}
    for name, job in jobs.items():
        try:
            open_group(job.source, "its configuration", None)
            handshake = _handshake(job)
        except ConfigError as error:
            yield wrong(f"job {name}", error.message)
            continue
        for disk, source in job.source.disks.items():
            disks[f"{name}, disk {disk}" if disk else name] = source
        if handshake is not None:
            hosts[name] = handshake
    found = _bounded(doctor_ceph.SUBJECT, lambda: doctor_ceph.modules(disks.values()), limit)
    yield from found
    if all(one.verdict is Verdict.FINE for one in found):
        yield from doctor_ceph.images(disks)
    for name, source in disks.items():
        if source.type not in doctor_ceph.NEEDED_BY:
            yield from _bounded(f"job {name}", doctor_files.check(name, source), limit)
    if hosts:
        yield from _bounded("consul", lambda: list(doctor_consul.agents(hosts)), limit)


def _handshake(job: JobConfig) -> HandshakeSettings | None:
    types = [one.type for one in job.source.disks.values()]
    return parse_group_settings(job.source.settings, types).handshake


def configuration(patient: Patient) -> Iterator[Finding]:
    """What `check-config` says."""
    if patient.jobs is None:
        yield note("configuration", "no file is used, only what the jobs' own directories say")
        return
    for one in patient.faults:
        where = f"{patient.file}: {one.key}" if one.key else patient.file
        yield wrong("configuration", f"{where}: {one.why}")
    if not patient.faults:
        yield fine("configuration", f"{patient.file} has no mistakes")


def base_directory(base: str) -> list[Finding]:
    """Whether it is there, on a file system that keeps its promises, and whose it is."""
    subject = "base directory"
    try:
        with Directory.open(base) as directory:
            kind = linux.file_system(directory.fd)
            found = os.fstat(directory.fd)
            writable = os.access(base, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
            is_read_only = bool(os.fstatvfs(directory.fd).f_flag & os.ST_RDONLY)
            check_writable_here(directory)
    except OSError as error:
        why = f"{base}: {os.strerror(error.errno or 0)}: mount its disk, or correct base-dir"
        return [wrong(subject, why)]
    except BackyError as error:
        return [wrong(subject, error.message)]
    findings = [diagnosis.judge_mode(base, found.st_mode & 0o7777)]
    if is_read_only:
        findings += [wrong(subject, f"{base} is mounted read-only: look for the reason with dmesg")]
    elif not writable:
        owner = f"user {found.st_uid}"
        findings += [wrong(subject, f"{base} cannot be written: run backy as its owner ({owner})")]
    if kind not in linux.TRUSTED_FILE_SYSTEMS:
        trusted = ", ".join(linux.TRUSTED_FILE_SYSTEMS)
        why = f"{base} is on {kind}, whose locks and syncs are not known to hold: use one of {trusted}"
        return [*findings, wrong(subject, why)]
    return [*findings, fine(subject, f"{base} is on {kind}")]


def repository(patient: Patient) -> list[Finding]:
    """Whether there is a store of a format that this version knows."""
    subject = "repository"
    if not os.path.isdir(patient.base):
        return []  # told about the base directory
    try:
        with Repository.open(patient.base) as opened:
            form = opened.format
    except NotARepository as error:
        chunks = os.path.join(patient.base, layout.CHUNKS)
        if patient.jobs is not None and not os.path.lexists(chunks):
            return [note(subject, f"{patient.base} has none yet: the scheduler makes it when it starts")]
        return [wrong(subject, error.message)]
    except BackyError as error:
        return [wrong(subject, error.message)]
    size = form.chunk_size >> 10
    return [fine(subject, f"format {form.format}, chunks of {size} KiB, id {form.repository}")]


def space(base: str) -> list[Finding]:
    """Whether the next backups find room."""
    try:
        found = os.statvfs(base)
    except OSError:
        return []  # told about the base directory
    return [
        diagnosis.judge_space(
            base, free=found.f_bavail * found.f_frsize, total=found.f_blocks * found.f_frsize
        ),
        diagnosis.judge_inodes(base, free=found.f_favail, total=found.f_files),
    ]


def time_of_day(base: str, clock: Clock) -> Finding:
    """Whether the clock is behind what was written, and whether somebody keeps it right."""
    newest = None
    for name in _WRITTEN:
        try:
            written = os.stat(os.path.join(base, layout.CHUNKS, name)).st_mtime
        except OSError:
            continue
        newest = max(newest or 0.0, written)
    return diagnosis.judge_clock(
        clock.now(),
        None if newest is None else datetime.fromtimestamp(newest, UTC),
        is_synchronised=linux.clock_is_synchronised(),
    )


def _find_jobs(
    patient: Patient, jobs: dict[str, JobConfig], problems: list[Finding]
) -> Sequence[Finding]:
    """Fill in the jobs to be looked at, and what is wrong with the configurations of others."""
    if patient.jobs is not None:
        jobs.update(patient.jobs)
    else:
        try:
            with Repository.open(patient.base) as opened:
                for name in opened.jobs():
                    _own_config(opened, name, jobs, problems)
        except BackyError:
            return []  # told about the repository
    if patient.only is None:
        return [fine("jobs", f"there are {len(jobs)}")]
    for name in set(jobs) - {patient.only}:
        del jobs[name]
    problems[:] = [one for one in problems if one.subject == f"job {patient.only}"]
    if jobs or problems:
        return []
    return [wrong(f"job {patient.only}", "there is no such job: correct -j, or configure it")]


def _own_config(
    opened: Repository, name: str, jobs: dict[str, JobConfig], problems: list[Finding]
) -> None:
    try:
        with opened.job(name) as job:
            jobs[name] = job.config()
    except BackyError as error:
        problems.append(wrong(f"job {name}", error.message))


def _bounded(subject: str, check: Check, limit: float) -> Sequence[Finding]:
    """What a check finds; after so many seconds, that it does not end."""
    answers: SimpleQueue[Sequence[Finding]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put(check())
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            answers.put([wrong(subject, f"{name}{os.strerror(error.errno or 0)}: make it accessible")])
        except Exception as error:  # noqa: BLE001 - one check's bug does not hide what others find
            why = f"internal error, please report it ({type(error).__name__}: {error})"
            answers.put([wrong(subject, why)])

    threading.Thread(target=run, name=subject, daemon=True).start()
    try:
        return answers.get(timeout=limit)
    except Empty:
        why = f"no answer within {limit:.0f} s: look whether a disk or server that it uses hangs"
        return [wrong(subject, why)]
