"""What `backy doctor` finds: one line each, and the judgements that need no disk.

    >>> judge_space("/srv/backy", free=1 << 30, total=1 << 40).verdict
    <Verdict.WRONG: 'wrong'>

A finding is a fact and, unless it is fine, what to do about it, in one sentence. NOTE is what may be
meant: it never makes the examination fail.

Limits: pure; `operation.doctor` looks.
"""

import enum
from datetime import datetime, timedelta
from typing import NamedTuple

from backy.ground.units import format_duration, format_size

_SHORT_SHARE = 0.02
_SCARCE_SHARE = 0.10
_SHORT_BYTES = 2 << 30
_OTHERS_MAY_WRITE = 0o022
_OTHERS_MAY_LOOK = 0o055
# Clocks of file servers differ by so much without harm.
_CLOCK_TOLERANCE = timedelta(minutes=5)


class Verdict(enum.Enum):
    """How a check ended; the value is shown."""

    FINE = "ok"
    NOTE = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """What was looked at, and what is the matter with it: a sentence without its full stop."""

    verdict: Verdict
    subject: str
    text: str


def fine(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(Verdict.FINE, subject, text)


def note(subject: str, text: str) -> Finding:
    """Worth knowing."""
    return Finding(Verdict.NOTE, subject, text)


def wrong(subject: str, text: str) -> Finding:
    """Backups, restores or their safety suffer."""
    return Finding(Verdict.WRONG, subject, text.rstrip("."))


def judge_space(path: str, *, free: int, total: int) -> Finding:
    """Bytes that are free for backy on the repository's file system, and all of its bytes."""
    subject = "free space"
    text = f"{format_size(free)} of {format_size(total)} are free in {path}"
    if free < max(total * _SHORT_SHARE, min(_SHORT_BYTES, total * _SCARCE_SHARE)):
        cure = "make it larger, or give space back with 'backy expire' and 'backy gc'"
        return wrong(subject, f"{text}, and backups fail on a full disk: {cure}")
    if free < total * _SCARCE_SHARE:
        return note(subject, f"{text}: 'backy du' tells what takes it")
    return fine(subject, text)


def judge_inodes(path: str, *, free: int, total: int) -> Finding:
    """Files that can still be made there; a total of 0 means that there is no limit."""
    subject = "free inodes"
    if not total:
        return fine(subject, f"the file system of {path} has no limit of files")
    text = f"{free} of {total} inodes are free in {path}"
    if free < total * _SHORT_SHARE:
        why = "a chunk is a file, so backups will fail"
        return wrong(subject, f"{text}, and {why}: move the repository to XFS, or run 'backy gc'")
    if free < total * _SCARCE_SHARE:
        return note(subject, f"{text}: keep an eye on it, since a chunk is a file")
    return fine(subject, text)


def judge_mode(path: str, mode: int) -> Finding:
    """Who besides its owner may enter the base directory (permission bits)."""
    subject = "access"
    text = f"{path} has mode {mode:04o}"
    if mode & _OTHERS_MAY_WRITE:
        return wrong(subject, f"{text}, so others may change backups: 'chmod go-rwx {path}' ends that")
    if mode & _OTHERS_MAY_LOOK:
        return note(subject, f"{text}, so others see what is backed up: 'chmod go-rwx {path}' ends that")
    return fine(subject, text)


def judge_clock(now: datetime, newest: datetime | None, *, is_synchronised: bool) -> Finding:
    """Whether time can be right: not before what was `newest` written in the repository."""
    subject = "clock"
    text = f"it is {now:%Y-%m-%d %H:%M:%S} UTC"
    cure = "set the clock, by chrony or systemd-timesyncd"
    if newest is not None and newest - now > _CLOCK_TOLERANCE:
        behind = format_duration((newest - now).total_seconds())
        why = f"{text}, which is {behind} before the repository was written"
        return wrong(subject, f"{why}: {cure}, before schedules and expiry go by it")
    if not is_synchronised:
        return note(
            subject, f"{text}, and nothing keeps the clock right: run chrony or systemd-timesyncd"
        )
    return fine(subject, f"{text}, and the clock is kept right")
