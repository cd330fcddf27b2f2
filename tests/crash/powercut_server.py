"""The fork server of crashrunner with changes to backy; a script, never imported by backy.

    python powercut_server.py CHANGE…         then as `crashrunner.py serve`

MUTANTS of T4 each leave syncs out or do something in the wrong order, and power cuts have to tell.
LAZY is none of them: it is a system without direct I/O, and a kernel that leaves new chunks in the page
cache until they are synced, as it may.

Limits: changes what is looked up at run time only, in the server and so in all of its forks. Syncs of
garbage collection are not among the mutants: the file systems here bring names to the disk in the order
of the calls, so only a disk that does not (tests/model) can tell that they are missing.
"""

import sys
from collections.abc import Callable
from typing import Any

import crashrunner

from backy.ground import durable, linux
from backy.repository import history
from backy.repository.chunks import ChunkWriter

LAZY = "lazy"


def leave_out(owner: Any, name: str, *callers: str) -> None:
    """Do not sync where these functions ask for it; nowhere, if none is named."""
    real: Callable[..., None] = getattr(owner, name)

    def sync(*arguments: object) -> None:
        if callers and sys._getframe(1).f_code.co_qualname not in callers:
            real(*arguments)

    setattr(owner, name, sync)


def no_sync_at_all() -> None:
    """As backy would be without durable's four syncs."""
    leave_out(durable, "sync_directory")
    leave_out(durable, "sync_all")
    leave_out(durable.UnnamedFile, "sync")
    leave_out(durable.Batch, "sync")


def chunks_named_unsynced() -> None:
    """Without the syncfs before the links."""
    leave_out(durable.Batch, "sync", "ChunkWriter._publish")


def chunks_named_too_early() -> None:
    """With links and syncfs in the wrong order."""

    def publish(writer: ChunkWriter, batch: Any) -> None:
        with writer._sync_lock:
            batch.files.link_into((path[3:], writer._chunks, path) for path in batch.paths)
            batch.files.sync()
            batch.files.close()
        with writer._lock:
            writer._batches.discard(batch)
            writer._unnamed.difference_update(batch.paths)

    setattr(ChunkWriter, "_publish", publish)  # noqa: B010 - mypy refuses to assign a method


def names_unsynced() -> None:
    """Without the syncfs that makes names last, also those that other writers gave a moment ago."""
    leave_out(durable.Batch, "sync", "ChunkWriter.finish")


def map_unsynced() -> None:
    """Without the fsync of a map."""
    leave_out(durable.UnnamedFile, "sync", "MapWriter.seal")


def record_unsynced() -> None:
    """Without the fsync of a record."""
    leave_out(durable.UnnamedFile, "sync", "publish")


def commit_unsynced() -> None:
    """Without the three syncs of the job's directory."""
    leave_out(durable, "sync_directory", "commit")


def commit_too_early() -> None:
    """With the record before the last chunks."""
    finish, commit = ChunkWriter.finish, history.commit
    late: list[ChunkWriter] = []

    def not_yet(writer: ChunkWriter) -> None:
        late.append(writer)

    def commit_first(*arguments: Any) -> None:
        commit(*arguments)
        finish(late.pop())

    setattr(ChunkWriter, "finish", not_yet)  # noqa: B010 - as above
    vars(history)["commit"] = commit_first


def forget_unsynced() -> None:
    """Without the sync after a revision was forgotten."""
    leave_out(durable, "sync_directory", "forget")


def edit_unsynced() -> None:
    """Without the sync after a record was replaced."""
    leave_out(durable, "sync_directory", "replace")


MUTANTS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        no_sync_at_all,
        chunks_named_unsynced,
        chunks_named_too_early,
        names_unsynced,
        map_unsynced,
        record_unsynced,
        commit_unsynced,
        commit_too_early,
        forget_unsynced,
        edit_unsynced,
    )
}


def change(name: str) -> None:
    """Apply a mutant, or LAZY."""
    if name == LAZY:
        vars(durable)["_write_direct"] = lambda *_: False
        vars(linux)["start_writeback"] = lambda *_: None
    else:
        MUTANTS[name]()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        change(argument)
    crashrunner.serve()
