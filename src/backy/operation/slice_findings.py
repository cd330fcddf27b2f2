"""What a slice finds bad: moved aside at once, and told to everybody whom it hurts when that is due.

    found = SliceFindings(repository, clock)
    unproven = found.take(bad)            how many are still there and may be good
    found.settle()                        then `unsettled` says why somebody could not be told

Until all that was taken is settled, nobody may forget that it was met.

Limits: one thread; remembers all that one slice finds. All maps are read to settle it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from backy.domain.chunkmap import Entry
from backy.ground.clock import Clock
from backy.ground.errors import ChunkUnreadable, DamageError
from backy.ground.tries import Tries
from backy.operation.trust import FAILURES, distrust_denied, files_of, refresh_hurt, sentence, settle
from backy.operation.verify import blames_base, said_of
from backy.repository import damage, layout, quarantine
from backy.repository.damage import Needing
from backy.repository.repository import Repository


class BadChunk(NamedTuple):
    """A chunk file that did not prove to be good, and whether it was moved aside."""

    chunk: str
    why: str
    aside: bool


class SliceFindings:
    """What is bad; how many revisions are damaged by it; `failed`: why not all could be moved aside."""

    def __init__(self, repository: Repository, clock: Clock) -> None:
        self.bad: list[BadChunk] = []
        self.damaged = 0
        self.failed: str | None = None
        self.unsettled: str | None = None
        self.is_settled = True
        self._repository = repository
        self._chunks = repository.chunks
        self._clock = clock
        self._suspects: dict[Entry, None] = {}
        self._unproven: set[Entry] = set()
        self._denied: set[Entry] = set()

    def take(self, bad: Mapping[Entry, DamageError]) -> int:
        """Move aside what proves to be bad: how many are still there, and may be good.

        Those cannot be read, or were read wrong once. A delta on a bad base is lost with that, or a full
        chunk has taken its place.
        """
        size = self._repository.format.chunk_size
        tries = Tries(*FAILURES)
        unproven = set()
        for entry, error in bad.items():
            self.is_settled = False
            moved: list[str] = []
            for file in files_of(entry):
                self._suspects[file] = None
                with tries.one():
                    case = quarantine.set_aside(self._chunks, size, file)
                    moved += [case] if case is not None else []
            self.bad.append(BadChunk(layout.chunk_name(entry), said_of(entry, error), bool(moved)))
            if not blames_base(entry, error) and not self._is_gone(entry):
                unproven.add(entry)
                if isinstance(error, ChunkUnreadable) and error.blames_disk:
                    self._denied.add(entry)
        self._unproven |= unproven
        if tries.first is not None:
            self.failed = self.failed or sentence(self._repository, tries.first)
        return len(unproven)

    def settle(self) -> None:
        """Say whom it hurts, all that was taken and what a killed run left."""
        tries = Tries(*FAILURES)
        missing = [one for one in self._suspects if self._is_gone(one)]
        with tries.one():
            self.damaged = settle(self._repository, self._clock, "verify", missing).damaged
        found: list[Needing] = []
        with tries.one():
            # Those of the jobs that can be asked, also where another one cannot.
            found.extend(damage.needing(self._repository, self._unproven))
        with tries.one():
            refresh_hurt(self._repository, [one.hurt for one in found], failed=True)
        with tries.one():
            denied = [one.hurt for one in found if one.chunk in self._denied]
            distrust_denied(self._repository, {(one.job, one.revision) for one in denied})
        self.is_settled = tries.first is None
        self.unsettled = None if tries.first is None else sentence(self._repository, tries.first)

    def _is_gone(self, entry: Entry) -> bool:
        """Whether a file is known not to be in the store proper."""
        try:
            return not self._chunks.has(layout.chunk_path(entry))
        except OSError:
            return False
