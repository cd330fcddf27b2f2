"""Every error that backy raises on purpose, in one tree.

An error has fields, so that callers act on its type and logs carry evidence; its `message` is one
sentence made from the fields that says what to do, and `exit_code` is what the process ends with.
Only the command line's edge (`backy.cli.edge`) turns an error into text and an exit code.
Findings of `verify` are results, not errors: see `backy.operation.verify`.
Nothing is generated but `__init__`: every command would wait for some fifty classes of it.

    BackyError                      1
    ├── UsageError                  2   the request itself is wrong
    │   ├── NameRefused                 a job or disk name outside the allowed letters
    │   ├── SpecError                   a revision spec that does not parse, with the position
    │   ├── OptionRefused               options that do not go together, or a value out of range
    │   └── CouldNotVerify              any other error that kept verify from looking
    ├── ConfigError                 1   file, key, reason
    ├── ConfigFaults                1   all of them, of one file
    ├── DaemonError
    │   ├── DaemonRunning           69  another scheduler has this base directory
    │   ├── DaemonUnreachable           the client finds none, or it refuses
    │   └── ListenRefused               the API cannot listen where it should
    ├── RepositoryError
    │   ├── NotARepository              no chunk store where one was named
    │   ├── RepositoryRefused           it cannot be made or used here
    │   ├── FormatUnknown               written by a newer (or an unknown) version
    │   ├── CollectorBusy               another collection runs
    │   ├── CollectionStopped           something that it does not understand: nothing was removed
    │   ├── CollectionTooMuch           more than half of the store at once
    │   ├── ReportMissing               no such case in the quarantine
    │   ├── ReportRefused               a case that is still needed, or not backy's alone
    │   └── StorageFailed               the system refused a read or write below the repository
    ├── JobError
    │   ├── JobMissing
    │   ├── JobExists
    │   ├── JobUnscheduled              the scheduler has no tags for it
    │   ├── JobBusy                     a second backup of the same job at the same time
    │   └── HistoryBusy                 somebody holds on to its records, so that nothing was marked
    ├── RevisionError
    │   ├── RevisionMissing             nothing matches the spec
    │   ├── RevisionAmbiguous           more than one does where one is needed
    │   ├── RevisionGone                forgotten while it was being used
    │   ├── HistoryUnclear              an unreadable record may be the one that was meant
    │   ├── TagRefused                  neither the schedule's nor manual:*
    │   └── TagsDiffer                  --expect did not hold
    ├── DamageError
    │   ├── RecordDamaged
    │   ├── SnapshotsDamaged            a job's list of the snapshots that are ours
    │   ├── MapDamaged
    │   │   └── MapUnreadable
    │   ├── ChunkMissing
    │   ├── ChunkDamaged
    │   ├── ChunkUnreadable             the system could not read it: no proof of damage
    │   ├── EncodingFault               a chunk that did not decode to what was encoded
    │   ├── ImageDamaged                the byte range that a restore cannot produce
    │   └── RevisionDamaged             a backup whose chunks went bad while it ran
    ├── SourceError
    │   ├── SourceRefused
    │   ├── SourceFailed                a read failed, with the offset
    │   └── ConsulFailed                the store through which guests' hosts are asked
    └── TargetError
        ├── TargetRefused
        ├── TargetFailed                a write failed, with the offset
        └── ReadBackDiffers             --read-back found other bytes
"""

import errno
import os
from dataclasses import dataclass
from typing import ClassVar


@dataclass(eq=False, repr=False, match_args=False)
class BackyError(Exception):
    """Root of the tree; never raised itself."""

    exit_code: ClassVar[int] = 1

    @property
    def message(self) -> str:
        """One sentence for the operator, built from the fields."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.message


def _sentence(text: str) -> str:
    """With its full stop, unless it ends in a question."""
    return text if text.endswith("?") else f"{text}."


# ..The request..............................................................................


class UsageError(BackyError):
    """The request itself is wrong; nothing was looked at."""

    exit_code: ClassVar[int] = 2


@dataclass(eq=False, repr=False, match_args=False)
class NameRefused(UsageError):
    """A name that could leave its directory or hide a file; `kind` says what it names."""

    kind: str
    name: str
    rule: str

    @property
    def message(self) -> str:
        return f"{self.name!r} is no {self.kind} name: {self.rule}."


@dataclass(eq=False, repr=False, match_args=False)
class SpecError(UsageError):
    """A revision spec that does not parse; `position` counts characters from 0."""

    spec: str
    position: int
    why: str

    @property
    def message(self) -> str:
        pointer = " " * self.position + "^"
        return (
            f"revision spec: {self.why}, at character {self.position + 1}:\n  {self.spec}\n  {pointer}"
        )


@dataclass(eq=False, repr=False, match_args=False)
class OptionRefused(UsageError):
    """An option or argument that cannot be meant; `why` says what to write instead."""

    option: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.option}: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class CouldNotVerify(UsageError):
    """What kept verify from running, under another exit code than its findings have."""

    cause: BackyError

    @property
    def message(self) -> str:
        return f"nothing was verified: {self.cause.message}"


@dataclass(eq=False, repr=False, match_args=False)
class ConfigError(BackyError):
    """A configuration file that cannot be used; `key` is a dotted path, empty for the file."""

    file: str
    key: str
    why: str

    @property
    def message(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return _sentence(f"{where}: {self.why}")


@dataclass(eq=False, repr=False, match_args=False)
class ConfigFaults(BackyError):
    """All that is wrong in one configuration file."""

    file: str
    faults: "tuple[ConfigError, ...]"

    @property
    def message(self) -> str:
        if len(self.faults) == 1:
            return self.faults[0].message
        listed = "; ".join(f"({n}) {one.key}: {one.why}" for n, one in enumerate(self.faults, 1))
        return _sentence(f"{self.file} has {len(self.faults)} mistakes: {listed}")


# ..The repository...........................................................................


class RepositoryError(BackyError):
    """The repository as a whole."""


@dataclass(eq=False, repr=False, match_args=False)
class NotARepository(RepositoryError):
    """No chunk store at `path`; `hint` says what is there or what to do."""

    path: str
    hint: str

    @property
    def message(self) -> str:
        return _sentence(f"{self.path} is not a backy repository: {self.hint}")


@dataclass(eq=False, repr=False, match_args=False)
class RepositoryRefused(RepositoryError):
    """A repository cannot be made or used at `path`."""

    path: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.path}: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class FormatUnknown(RepositoryError):
    """Something on disk has a format that this version does not know, so nothing is touched."""

    path: str
    found: str

    @property
    def message(self) -> str:
        return f"{self.path}: {self.found} is not known to this version of backy; use a newer one."


@dataclass(eq=False, repr=False, match_args=False)
class CollectorBusy(RepositoryError):
    """Another garbage collection of the same repository runs."""

    path: str

    @property
    def message(self) -> str:
        return f"{self.path}: another garbage collection is running; try again when it has ended."


@dataclass(eq=False, repr=False, match_args=False)
class CollectionStopped(RepositoryError):
    """Garbage collection met what it does not understand; `stops` are (where, why)."""

    stops: tuple[tuple[str, str], ...]

    @property
    def message(self) -> str:
        where, why = self.stops[0]
        why = why.removeprefix(f"{where}: ")  # damage names its file itself
        more = f" (and {len(self.stops) - 1} more)" if len(self.stops) > 1 else ""
        return (
            f"nothing was collected, because of {where}: {why.rstrip('.')}{more}; mount or repair it, "
            "give a revision up with 'backy forget', or name with 'backy gc --gone' what was removed on "
            "purpose."
        )


@dataclass(eq=False, repr=False, match_args=False)
class CollectionTooMuch(RepositoryError):
    """Most of the store would go at once; counts of chunk files."""

    unneeded: int
    total: int

    @property
    def message(self) -> str:
        return (
            f"nothing was condemned, because {self.unneeded} of the store's {self.total} chunks would "
            "go at once; make sure that all jobs are there, then use --force."
        )


@dataclass(eq=False, repr=False, match_args=False)
class ReportMissing(RepositoryError):
    """No case of the quarantine, or more than one, begins with that name."""

    case: str
    matches: int = 0

    @property
    def message(self) -> str:
        found = "several reports" if self.matches else "no report"
        return f"{self.case!r} names {found}; 'backy reports list' shows them."


@dataclass(eq=False, repr=False, match_args=False)
class ReportRefused(RepositoryError):
    """A case of the quarantine that may not go."""

    case: str
    why: str

    @property
    def message(self) -> str:
        return f"report {self.case} stays: {self.why}."


# What the system refuses for want of descriptors or memory, here or on the whole host: that passes, and
# says nothing of the file.
OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# How the kernel tells of a block that is bad or gone (blk_errors in its block/blk-core.c), and file
# systems of a checksum of theirs that does not match (EUCLEAN, EBADMSG: XFS, ext4; EIO: btrfs, ZFS).
OF_THE_DISK = (
    errno.EIO,
    errno.EUCLEAN,
    errno.EBADMSG,
    errno.ENODATA,
    errno.EILSEQ,
    errno.EREMOTEIO,
)


@dataclass(eq=False, repr=False, match_args=False)
class StorageFailed(RepositoryError):
    """The system refused `action` on `path`; `code` is the errno."""

    action: str
    path: str
    code: int

    @property
    def message(self) -> str:
        cures = {
            errno.ENOSPC: "the disk is full: free some space and run it again",
            errno.EDQUOT: "the disk quota is used up: raise it and run it again",
            errno.EROFS: "the file system is mounted read-only",
            errno.EACCES: "permission denied: run backy as the owner of the repository",
            errno.EPERM: "permission denied: run backy as the owner of the repository",
            errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
        }
        return f"{self.action} {self.path}: {cures.get(self.code, os.strerror(self.code))}."


# ..Jobs and revisions.......................................................................


class JobError(BackyError):
    """A job."""


@dataclass(eq=False, repr=False, match_args=False)
class JobMissing(JobError):
    """No such job; `hint` names the jobs there are, or the way to make one."""

    job: str
    hint: str

    @property
    def message(self) -> str:
        return f"there is no job {self.job!r}: {self.hint}."


@dataclass(eq=False, repr=False, match_args=False)
class JobExists(JobError):
    """`init` of a job that is there already."""

    job: str
    path: str

    @property
    def message(self) -> str:
        return f"job {self.job!r} exists already: edit {self.path} to change it."


@dataclass(eq=False, repr=False, match_args=False)
class JobUnscheduled(JobError):
    """A run of a job whose schedule is empty."""

    job: str

    @property
    def message(self) -> str:
        return (
            f"the schedule of job {self.job!r} is empty, so there are no tags to run it with: "
            "use 'backy backup -f TAGS'."
        )


@dataclass(eq=False, repr=False, match_args=False)
class JobBusy(JobError):
    """Another backup of this job is running."""

    job: str

    @property
    def message(self) -> str:
        return f"a backup of {self.job!r} is running already; nothing was done."


@dataclass(eq=False, repr=False, match_args=False)
class HistoryBusy(JobError):
    """An edit of a record is under way for longer than edits take: its process hangs or is stopped."""

    path: str

    @property
    def message(self) -> str:
        return f"{self.path} is held by an edit that does not end, so no revision could be marked."


class RevisionError(BackyError):
    """A choice of revisions."""


@dataclass(eq=False, repr=False, match_args=False)
class RevisionMissing(RevisionError):
    """No revision matches."""

    spec: str
    job: str

    @property
    def message(self) -> str:
        return f"no revision of {self.job!r} matches {self.spec!r}; 'backy status' lists them."


@dataclass(eq=False, repr=False, match_args=False)
class RevisionAmbiguous(RevisionError):
    """Several match where exactly one is needed."""

    spec: str
    matches: tuple[str, ...]

    @property
    def message(self) -> str:
        some = ", ".join(self.matches[:3]) + ("…" if len(self.matches) > 3 else "")
        return (
            f"{self.spec!r} matches {len(self.matches)} revisions ({some}): "
            "name one, for instance as last(…)."
        )


@dataclass(eq=False, repr=False, match_args=False)
class RevisionGone(RevisionError):
    """The revision was forgotten by someone else meanwhile."""

    uuid: str

    @property
    def message(self) -> str:
        return f"revision {self.uuid} has been forgotten meanwhile; nothing was changed."


@dataclass(eq=False, repr=False, match_args=False)
class HistoryUnclear(RevisionError):
    """A relative spec cannot be trusted while a record is unreadable."""

    spec: str
    records: tuple[str, ...]

    @property
    def message(self) -> str:
        return (
            f"{self.spec!r} may not be what you mean, since {', '.join(self.records)} cannot be used: "
            "name the revision by its full UUID, or forget the unusable one by its UUID."
        )


@dataclass(eq=False, repr=False, match_args=False)
class TagRefused(RevisionError):
    """A tag that is neither in the schedule nor an operator's."""

    tag: str
    allowed: tuple[str, ...]

    @property
    def message(self) -> str:
        return (
            f"tag {self.tag!r} is not in the job's schedule ({', '.join(self.allowed) or 'empty'}): "
            "use one of these, manual:NAME, or -f."
        )


@dataclass(eq=False, repr=False, match_args=False)
class TagsDiffer(RevisionError):
    """`tags --expect` found others; nothing was changed."""

    uuid: str
    expected: tuple[str, ...]
    found: tuple[str, ...]

    @property
    def message(self) -> str:
        return (
            f"revision {self.uuid} has the tags {', '.join(self.found) or '(none)'}, "
            f"not {', '.join(self.expected) or '(none)'}; nothing was changed."
        )


# ..Damage...................................................................................


class DamageError(BackyError):
    """Stored data is not what was stored."""


@dataclass(eq=False, repr=False, match_args=False)
class RecordDamaged(DamageError):
    """A revision record that cannot be read or whose checksum does not hold."""

    path: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.path}: the revision record is damaged: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class SnapshotsDamaged(DamageError):
    """A job's list of snapshots that cannot be read or whose checksum does not hold."""

    path: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.path}: the list of snapshots is damaged: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class MapDamaged(DamageError):
    """A chunk map that is missing, is not what it was, or does not belong to its record."""

    path: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.path}: the chunk map is damaged: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class MapUnreadable(MapDamaged):
    """The system failed to open or read a chunk map; its bytes may be fine."""

    @property
    def message(self) -> str:
        return f"{self.path}: the chunk map cannot be read: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class ChunkMissing(DamageError):
    """A chunk is in neither the store nor the trash."""

    chunk: str

    @property
    def message(self) -> str:
        return f"chunk {self.chunk} is missing."


@dataclass(eq=False, repr=False, match_args=False)
class ChunkDamaged(DamageError):
    """A chunk's file does not hold what its name promises."""

    chunk: str
    why: str

    @property
    def message(self) -> str:
        return f"chunk {self.chunk} is damaged: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class ChunkUnreadable(DamageError):
    """The system failed to read a chunk's file; `code` is the errno. Its bytes may be fine."""

    chunk: str
    code: int

    @property
    def blames_disk(self) -> bool:
        """Whether it is the disk that does not give the bytes, or a checksum below us that denies them.

        So rot shows on file systems with checksums of their own (btrfs, ZFS), and a bad sector on all.
        What is left is a want of descriptors, memory, rights or time, which passes.
        """
        return self.code in OF_THE_DISK

    @property
    def message(self) -> str:
        return f"chunk {self.chunk} cannot be read: {os.strerror(self.code)}."


@dataclass(eq=False, repr=False, match_args=False)
class EncodingFault(DamageError):
    """A freshly encoded chunk did not decode to its bytes: faulty memory, CPU or codec."""

    chunk: str
    codec: str

    @property
    def message(self) -> str:
        return (
            f"chunk {self.chunk} did not survive {self.codec}: it decodes to other bytes; nothing of "
            "this backup was kept. Check this machine's memory."
        )


@dataclass(eq=False, repr=False, match_args=False)
class ImageDamaged(DamageError):
    """A restore met a byte range that it cannot produce; offsets and lengths in bytes.

    `incomplete` is the target's path where a part of the image is in it now.
    """

    offset: int
    length: int
    why: str
    incomplete: str = ""

    @property
    def message(self) -> str:
        left = f"; target {self.incomplete} is incomplete" if self.incomplete else ""
        return (
            f"bytes {self.offset} to {self.offset + self.length - 1} cannot be restored: "
            f"{self.why.rstrip('.')}{left}; --keep-going restores the rest."
        )


@dataclass(eq=False, repr=False, match_args=False)
class RevisionDamaged(DamageError):
    """A new revision needs chunks that were found damaged while it was made; a number of bytes."""

    uuid: str
    damaged: int

    @property
    def message(self) -> str:
        return (
            f"revision {self.uuid} was made, but {self.damaged} bytes of it cannot be restored, since "
            "chunks were found damaged meanwhile and the source has changed; it is marked, make "
            "another one."
        )


# ..Both ends................................................................................


class SourceError(BackyError):
    """Where the image comes from."""


@dataclass(eq=False, repr=False, match_args=False)
class SourceRefused(SourceError):
    """The source cannot be backed up as it is."""

    path: str
    why: str

    @property
    def message(self) -> str:
        return f"source {self.path}: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class SourceFailed(SourceError):
    """A read failed or came short; `offset` in bytes."""

    path: str
    offset: int
    why: str

    @property
    def message(self) -> str:
        return (
            f"source {self.path}: reading at byte {self.offset} failed: {self.why}; "
            "no revision was made."
        )


@dataclass(eq=False, repr=False, match_args=False)
class ConsulFailed(SourceError):
    """Consul at `address` did not do what it was asked for; never holds a token."""

    address: str
    why: str

    @property
    def message(self) -> str:
        return f"Consul at {self.address}: {self.why}."


class TargetError(BackyError):
    """Where a restore goes."""


@dataclass(eq=False, repr=False, match_args=False)
class TargetRefused(TargetError):
    """The target cannot take this image; it was not touched."""

    path: str
    why: str

    @property
    def message(self) -> str:
        return f"target {self.path}: {self.why}; it was not touched."


@dataclass(eq=False, repr=False, match_args=False)
class TargetFailed(TargetError):
    """A write or read-back failed; the target is incomplete, or `kept` as it was before."""

    path: str
    offset: int
    why: str
    kept: bool = False

    @property
    def message(self) -> str:
        left = "as it was before" if self.kept else "incomplete"
        return f"target {self.path}: byte {self.offset}: {self.why}; it is {left}."


@dataclass(eq=False, repr=False, match_args=False)
class ReadBackDiffers(TargetError):
    """The target does not return what was written."""

    path: str
    offset: int
    length: int

    @property
    def message(self) -> str:
        return (
            f"target {self.path}: bytes {self.offset} to {self.offset + self.length - 1} read back "
            "differently from what was written; do not use it."
        )


# ..The scheduler............................................................................


class DaemonError(BackyError):
    """The scheduler as a whole."""


@dataclass(eq=False, repr=False, match_args=False)
class DaemonRunning(DaemonError):
    """Another scheduler holds the lock of this base directory."""

    base: str
    exit_code: ClassVar[int] = 69  # EX_UNAVAILABLE of sysexits.h, as backy 2.5

    @property
    def message(self) -> str:
        return f"another scheduler runs on {self.base}: 'systemctl stop backy' ends it."


@dataclass(eq=False, repr=False, match_args=False)
class DaemonUnreachable(DaemonError):
    """The API did not answer, or with a refusal."""

    url: str
    why: str

    @property
    def message(self) -> str:
        return f"the scheduler at {self.url}: {self.why}."


@dataclass(eq=False, repr=False, match_args=False)
class ListenRefused(DaemonError):
    """The API's address is taken or not ours."""

    address: str
    port: int
    why: str

    @property
    def message(self) -> str:
        return f"the API cannot listen on {self.address} port {self.port}: {self.why}."
