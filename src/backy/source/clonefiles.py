"""Clones as files: how they are called, which there are, and how they go.

    >>> owner = Owner("0b6c2f0e-93a5-4a55-9a39-3b6b2ba51b35", "vm01")
    >>> name = clone_name(owner, "11111111-1111-4111-8111-111111111111")
    >>> name
    '.backy-0b6c2f0e-93a5-4a55-9a39-3b6b2ba51b35-vm01-11111111-1111-4111-8111-111111111111'
    >>> parse_name(name) == (owner, "11111111-1111-4111-8111-111111111111")
    True

The name says whose a clone is, so several repositories and hosts may back up images of one directory:
nobody removes what does not carry its own repository's id.

Limits: no link is followed, and only regular files of exactly such a name are touched.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from backy.domain.names import check_job_name
from backy.ground.directory import Directory
from backy.ground.errors import NameRefused
from backy.source.base import Owner

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = re.compile(rf"\.backy-({_UUID})-(.+)-({_UUID})", re.ASCII)


class Clone(NamedTuple):
    """A clone of a repository: the job and revision that it was made for, and the image's bytes."""

    job: str
    revision: str
    path: str
    size: int


def clone_name(owner: Owner, revision: str) -> str:
    """The name of the clone that a revision is read from; ValueError if no clone can have it."""
    name = f".backy-{owner.repository}-{owner.job}-{revision}"
    if parse_name(name) != (owner, revision):
        raise ValueError(f"{name!r} is no clone's name")
    return name


def parse_name(name: str) -> tuple[Owner, str] | None:
    """Owner and revision of a clone, or None for what is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return Owner(match[1], check_job_name(match[2])), match[3]
    except NameRefused:
        return None


def clones_in(path: str, repository: str) -> Iterator[Clone]:
    """The clones of a repository in a directory; OSError where it cannot be read."""
    with Directory.open(path) as directory:
        for name, is_directory in directory.scan():
            parsed = None if is_directory else parse_name(name)
            if parsed is None or parsed[0].repository != repository:
                continue
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield Clone(parsed[0].job, parsed[1], directory.file_path(name), found.st_size)


def remove_clones(owner: Owner, snapshots: Mapping[str, str]) -> set[str]:
    """Remove clones, given by revision and directory: the revisions whose clones are gone for good."""
    gone = set()
    for revision, place in snapshots.items():
        try:
            name = clone_name(owner, revision)
        except ValueError:
            name = ""
        if not name or not place:
            gone.add(revision)  # there never was one
            continue
        with suppress(OSError):
            # A directory that is missing may be a file system that is not mounted now.
            with Directory.open(place) as directory:
                _remove(directory, name)
            gone.add(revision)
    return gone


def _remove(directory: Directory, name: str) -> None:
    """Remove a clone and make that last; what is no regular file is none, and stays. OSError."""
    try:
        found = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            return
        os.unlink(name, dir_fd=directory.fd)
    except FileNotFoundError:
        return
    os.fsync(directory.fd)
