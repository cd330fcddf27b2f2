"""Doing the same work on many pieces with threads, in bounded memory.

Threads use every core because the heavy calls (read, hash, compress, write) release the GIL. Each
thread makes its own worker, with its own buffers, and takes the next piece when it is ready; so
pieces are taken in order, as many are in flight as there are threads, and reading of one overlaps
with the compression of another without a queue.

    >>> seen = []
    >>> run([1, 2, 3], lambda: seen.append, threads=2); sorted(seen)
    [1, 2, 3]

Limits: the first error stops the run, after the pieces in flight, and is raised here. An interrupt
(Ctrl-C) does the same.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Piece = TypeVar("Piece")

# More than cores, so that some wait for the disk while others compute. A thread takes up to 20 MiB,
# and all of backy stays below 200.
THREADS = min((os.cpu_count() or 1) + 4, 7)


def run(
    pieces: Iterable[Piece],
    make_worker: Callable[[], Callable[[Piece], object]],
    threads: int | None = None,
) -> None:
    """Give every piece, in order, to some thread's worker; returns when all are done."""
    shared = _Shared(iter(pieces))

    def work() -> None:
        try:
            worker = make_worker()
            while (item := shared.take()) is not None:
                worker(item[0])
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            shared.fail(error)

    workers = [threading.Thread(target=work, name=f"worker-{n}") for n in range(threads or THREADS)]
    try:
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
    except BaseException as error:
        shared.fail(error)
        for thread in workers:
            if thread.ident is not None:
                thread.join()
        raise
    if shared.error is not None:
        raise shared.error


class _Shared(Generic[Piece]):
    """The pieces that are left, and the first error."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def take(self) -> tuple[Piece] | None:
        """The next piece; None when there is none or the run has failed."""
        with self._lock:
            if self.error is not None:
                return None
            for piece in self._pieces:
                return (piece,)
            return None

    def fail(self, error: BaseException) -> None:
        with self._lock:
            if self.error is None:
                self.error = error
