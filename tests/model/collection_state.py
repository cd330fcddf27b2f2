"""The model of collection: what there is, in how many pieces, and which rules hold.

One chunk X, unneeded at first; writers of one or two jobs that each make a revision with X in it; one
reader; one collector (two where the rule against it is dropped). A revision is a slot: its record's
state, a letter, and whether its map has its name.

    -0   nothing yet         p0 p1  pending        r1   committed
    f1   forgotten           x0     reaped         v1   committed, then removed by hand
    -1   a map without any record, although nobody removed one
    r0   a record without its map

    Rules()                        all of them
    replace(Rules(), one=False)    all but one

Limits: names of chunks may be lost at a power cut; maps and records are durable at their commit (the
power cut model beside this one proves that). The grace of a day is left out: it only makes purging
later.
"""

from dataclasses import dataclass
from typing import NamedTuple

# A writer, by what it has done.
IDLE, EARLY, REGISTERED, MISSED, STORED = "idle", "early", "registered", "missed", "stored"
REFERS, PENDING, MAPPED, ENDED, DEAD = "refers", "pending", "mapped", "ended", "dead"
# The collector, by what it does next.
BEGIN, SEE, REAP, MARK, PURGE = "begin", "see", "reap", "mark", "purge"
RESCUED, SYNCED, CONDEMN, MOVED, STOPPED = "rescued", "synced", "condemn", "moved", "stopped"
# A reader, by where it looked.
LOOKED_IN_STORE, LOOKED_IN_TRASH, MISSING = "store", "trash", "missing"
OPENED = "opened"

NOBODY = -1


@dataclass(frozen=True)
class Rules:
    """What keeps chunks alive (doc/design.md, "Collection"); each may be dropped.

    Two lose nothing when dropped: `registered_until_commit`, and `reaps`, which gives the space back.
    """

    one_collector: bool = True
    registers_first: bool = True
    registered_until_map_is_named: bool = True
    registered_until_commit: bool = True
    pins_parent: bool = True
    pins_own_map_before_its_name: bool = True
    forget_leaves_the_map: bool = True
    reap_respects_pins: bool = True
    reap_looks_again: bool = True
    reap_needs_a_note: bool = True
    reaps: bool = True
    marks_maps_without_record: bool = True
    mark_lists_jobs_anew: bool = True
    mark_begins_when_ripe: bool = True
    marks_die_with_their_run: bool = True
    purge_waits_for_census: bool = True
    census_after_last_rename: bool = True
    sealed_stays_closed: bool = True
    unsealed_gets_census_of_now: bool = True
    trash_is_no_hit: bool = True
    rescues_what_is_marked: bool = True
    rescue_is_synced: bool = True
    commit_syncs_all_names: bool = True
    pending_before_map: bool = True
    spares_pending_of_living: bool = True
    note_outlives_map: bool = True
    lost_map_stops: bool = True
    reader_looks_again: bool = True
    reader_pins: bool = True


@dataclass(frozen=True)
class Bounds:
    """How much may happen: one letter a writer, its job, and how often the rest."""

    jobs: str = "AA"
    forgets: int = 2
    cycles: int = 3
    collector_kills: int = 1
    power_cuts: int = 0
    removals_by_hand: int = 0
    readers: int = 0


class Writer(NamedTuple):
    """What it has done, and the slot of its parent."""

    at: str = IDLE
    parent: int = NOBODY


class Generation(NamedTuple):
    """A generation of the trash: its census as bits, -1 before the seal, and whether X is in it."""

    census: int
    holds: bool


class Collector(NamedTuple):
    """What it does next; slots to do (bits), or its generation; what it knows of X; ripe generations.

    `unlisted` are slots (bits) of jobs that it does not know of.
    """

    at: str = BEGIN
    todo: int = 0
    marked: bool = False
    ripe: int = 0
    census: int = 0
    plan: bool = False
    unlisted: int = 0


class Left(NamedTuple):
    """What may still happen."""

    forgets: int
    cycles: int
    collector_kills: int
    power_cuts: int
    removals: int


class State(NamedTuple):
    """Everything, at one moment. `unsynced` are the changes of names that a power cut may lose."""

    stored: bool
    trash: tuple[Generation | None, ...]
    slots: tuple[str, ...]
    writers: tuple[Writer, ...]
    collectors: tuple[Collector, ...]
    reader: tuple[str, int]
    left: Left
    unsynced: tuple[str, ...] = ()

    def with_writer(self, number: int, at: str, parent: int | None = None) -> "State":
        """One writer is further."""
        before = self.writers[number]
        after = Writer(at, before.parent if parent is None else parent)
        return self._replace(writers=(*self.writers[:number], after, *self.writers[number + 1 :]))

    def with_slot(self, number: int, what: str) -> "State":
        """One revision has another state."""
        return self._replace(slots=(*self.slots[:number], what, *self.slots[number + 1 :]))

    def with_generation(self, number: int, what: Generation | None) -> "State":
        """One generation is changed, added or removed."""
        return self._replace(trash=(*self.trash[:number], what, *self.trash[number + 1 :]))

    def with_collector(self, number: int, what: Collector) -> "State":
        """One collector is further."""
        return self._replace(
            collectors=(*self.collectors[:number], what, *self.collectors[number + 1 :])
        )

    def changed(self, name: str) -> "State":
        """A name was changed and is not durable yet; kept only where the power may be cut."""
        return self._replace(unsynced=(*self.unsynced, name)) if self.left.power_cuts else self

    @property
    def in_trash(self) -> bool:
        """Whether a reader finds X in the trash."""
        return any(one is not None and one.holds for one in self.trash)


def first_state(rules: Rules, bounds: Bounds) -> State:
    """X is in the store, and nobody needs it."""
    writers = len(bounds.jobs)
    return State(
        stored=True,
        trash=(),
        slots=("-0",) * writers,
        writers=(Writer(),) * writers,
        collectors=(Collector(),) * (1 if rules.one_collector else 2),
        reader=(IDLE, NOBODY) if bounds.readers else (ENDED, NOBODY),
        left=Left(
            bounds.forgets,
            bounds.cycles,
            bounds.collector_kills,
            bounds.power_cuts,
            bounds.removals_by_hand,
        ),
    )
