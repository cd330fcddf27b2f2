"""Clones as files: how they are called, which there are, and how they go.

    >>> owner = Owner("0b6c2f0e-93a5-4a55-9a39-3b6b2ba51b35", "vm01")
    >>> name = clone_name(owner, "11111111-1111-4111-8111-111111111111")
    >>> name
    '.backy-0b6c2f0e-93a5-4a55-9a39-3b6b2ba51b35-vm01-11111111-1111-4111-8111-111111111111'
    >>> parse_name(name) == (owner, "11111111-1111-4111-8111-111111111111")
    True
    >>> clone_name(owner._replace(disk="root"), "11111111-1111-4111-8111-111111111111")[-14:]
    '111111111.root'

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

from backy.domain.chunkmap import NO_DISK
from backy.domain.names import check_disk_name, check_job_name
from backy.domain.revision import SnapshotName
from backy.ground.directory import Directory
from backy.ground.errors import NameRefused
from backy.source.base import Owner

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = re.compile(rf"\.backy-({_UUID})-(.+)-({_UUID})(?:\.([^.]+))?", re.ASCII)


class Clone(NamedTuple):
    """A clone of a repository: what it was made for, and the image's bytes."""

    job: str
    revision: str
    path: str
    size: int
    disk: str = NO_DISK


def clone_name(owner: Owner, revision: str) -> str:
    """The name of the clone that a revision is read from; ValueError if no clone can have it."""
    name = f".backy-{owner.repository}-{owner.job}-{revision}"
    name += f".{owner.disk}" if owner.disk != NO_DISK else ""
    if parse_name(name) != (owner, revision):
        raise ValueError(f"{name!r} is no clone's name")
    return name


def parse_name(name: str) -> tuple[Owner, str] | None:
    """Owner and revision of a clone, or None for what is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        disk = NO_DISK if match[4] is None else check_disk_name(match[4])
        return Owner(match[1], check_job_name(match[2]), disk), match[3]
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
                    owner, revision = parsed
                    path = directory.file_path(name)
                    yield Clone(owner.job, revision, path, found.st_size, owner.disk)


def remove_clones(owner: Owner, snapshots: Mapping[SnapshotName, str]) -> set[SnapshotName]:
    """Remove clones, given by their directories: which of them are gone for good.

    Of the owner only repository and job count. What is in no directory is no clone, and stays.
    """
    gone = set()
    for snapshot, place in snapshots.items():
        if place and not place.startswith("/"):
            continue
        try:
            name = clone_name(owner._replace(disk=snapshot.disk), snapshot.revision)
        except ValueError:
            name = ""
        if not name or not place:
            gone.add(snapshot)  # there never was one
            continue
        with suppress(OSError):
            # A directory that is missing may be a file system that is not mounted now.
            with Directory.open(place) as directory:
                _remove(directory, name)
            gone.add(snapshot)
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
