"""The model of deltas: one content Y in all the forms that two jobs give it, and its collection.

Job 1 has a revision with the full chunk B1, job 2 one with B2. The next revision of each has Y in
that place, stored as Y.B1, as Y.B2 or in full. A third job, without a base, may follow. A file may rot:
verify moves it aside, and who backs up from then on stores in full.

    explore(Rules(), Bounds())                                  no fault
    explore(replace(Rules(), marks_base=False), Bounds())       a loss, and the way to it

A bit stands for a file: 1 Y, 2 Y.B1, 4 Y.B2, 8 B1, 16 B2.

After a base has gone and Y has healed, a follower comes: its parent is job 1's revision, whose map says
Y.B1 and which is read as Y. Its content Z may lie there as Z.B1 (64), from a revision of before, and is
stored anew as Z.Y (32) otherwise.

Limits: one generation at a time; reaping is one step, as are rescue and sync, since the model of
collection takes those apart. A revision is `r`, `f` and so on as there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from breadth_first import Outcome, search

FULL = 1
NEWCOMER = 2
FOLLOWER = 3
ON_FULL, ON_BASE = 32, 64
BASE_OF = {2: 8, 4: 16, ON_FULL: 1, ON_BASE: 8}
DELTAS, BASES, NEXT = 6, 24, 96
ALL = FULL | DELTAS | BASES | NEXT
NAMES = {1: "Y", 2: "Y.B1", 4: "Y.B2", 8: "B1", 16: "B2", ON_FULL: "Z.Y", ON_BASE: "Z.B1"}
NO_GENERATION, UNSEALED = -2, -1
IDLE, LOOKS, MISSED, REFERS, MAPPED, ENDED, DEAD = (
    "idle", "looks", "missed", "refers", "mapped", "ended", "dead",
)  # fmt: skip
_LIVING = frozenset((LOOKS, MISSED, REFERS, MAPPED))
BEGIN, REAP, MARK, PURGE, CONDEMN = "begin", "reap", "mark", "purge", "condemn"

LOST = "a revision has lost a chunk"
UNHEALED = "a backup has stored the content anew, and a revision still lacks it"
BASELESS = "a delta lies in the store, and its base is nowhere"

Steps = Iterator[tuple[str, "State"]]


@dataclass(frozen=True)
class Rules:
    """What keeps deltas readable; each may be dropped."""

    names_hold_the_base: bool = True
    publishes_without_replacing: bool = True
    hits_own_base_only: bool = True
    replaces_by_full: bool = True
    reader_falls_back: bool = True
    marks_full: bool = True
    marks_base: bool = True
    condemns_deltas_first: bool = True
    hits_with_the_base_only: bool = True


@dataclass(frozen=True)
class Bounds:
    """How often what may happen; whether marks are kept by id (as they are) or by file.

    `baseless`: a delta without its base is a fault also where no revision needs it.
    `prepared`: job 1 has made its revision with Y.B1 already, and "killed": job 2 was killed after it
    had stored Y.B2; or "rotten": Y.B1 was moved aside since; or
    "healed": B1 was, and Y was stored in full; then the follower comes, too.
    """

    forgets: int = 2
    cycles: int = 2
    collector_kills: int = 0
    rots: int = 0
    marks_by_id: bool = True
    baseless: bool = False
    newcomer: bool = False
    prepared: str = ""


class Writer(NamedTuple):
    """What it has done, whether it pins its parent, the file its map names, whether after the rot."""

    at: str = IDLE
    pins: bool = False
    entry: int = 0
    warned: bool = False


class Collector(NamedTuple):
    """What it does next; maps to look at (bits); files marked (bits); whether the trash is ripe."""

    at: str = BEGIN
    todo: int = 0
    marks: int = 0
    ripe: bool = False


class State(NamedTuple):
    """Files in the store and in the trash, revisions (two old, two new), writers, collector."""

    stored: int
    trash: int
    census: int
    slots: str
    writers: tuple[Writer, ...]
    collector: Collector
    rotten: int
    forgets: int
    cycles: int
    kills: int

    def with_writer(self, number: int, what: Writer) -> "State":
        """One writer is further."""
        return self._replace(writers=(*self.writers[:number], what, *self.writers[number + 1 :]))

    def with_slot(self, number: int, what: str) -> "State":
        """One revision has another state."""
        return self._replace(slots=self.slots[:number] + what + self.slots[number + 1 :])


def explore(rules: Rules, bounds: Bounds) -> Outcome:
    """All that can happen, or the shortest way to a fault."""
    writers = 4 if bounds.prepared == "healed" else 3 if bounds.newcomer else 2
    first = State(
        BASES, 0, NO_GENERATION, "rr" + "-" * writers, (Writer(),) * writers, Collector(), 0,
        bounds.forgets, bounds.cycles, bounds.collector_kills,
    )  # fmt: skip
    if bounds.prepared:
        first = first.with_writer(0, Writer(ENDED, entry=2)).with_slot(2, "r")
    if bounds.prepared == "killed":
        first = first.with_writer(1, Writer(DEAD, entry=4))._replace(stored=BASES | DELTAS)
    elif bounds.prepared == "rotten":
        first = first._replace(rotten=2)
    elif bounds.prepared == "healed":
        first = first.with_writer(NEWCOMER, Writer(DEAD)).with_writer(1, Writer(DEAD))
        first = first._replace(rotten=8, stored=FULL | 2 | 16 | ON_BASE)

    def steps(state: State) -> Steps:
        for number in range(writers):
            yield from _writer(state, rules, number)
        yield from _collector(state, rules, bounds)
        yield from _others(state, bounds)

    return search(first, steps, lambda state: _fault_of(state, rules, bounds))


def _fault_of(state: State, rules: Rules, bounds: Bounds) -> str:
    there = state.stored | state.trash
    healed = any(one.at == ENDED and one.warned for one in state.writers)
    for slot, what in enumerate(state.slots):
        if what != "r" or _is_readable(state, rules, there, slot):
            continue
        if not _is_hurt_by_rot(state, slot):
            return LOST
        if healed and slot > 1:
            return UNHEALED
    if bounds.baseless and not state.rotten:
        for delta, base in BASE_OF.items():
            if state.stored & delta and not there & base:
                return BASELESS
    return ""


def _is_readable(state: State, rules: Rules, there: int, slot: int) -> bool:
    if slot < 2:
        return bool(there & (8 << slot))
    entry = state.writers[slot - 2].entry
    if entry & NEXT:
        return bool(there & entry and there & BASE_OF[entry])
    if there & FULL and (entry == FULL or rules.reader_falls_back):
        return True
    files = there & (entry if rules.names_hold_the_base else DELTAS)
    return entry != FULL and any(files & delta and there & BASE_OF[delta] for delta in (2, 4))


def _is_hurt_by_rot(state: State, slot: int) -> bool:
    if slot < 2:
        return state.rotten == 8 << slot
    entry = state.writers[slot - 2].entry
    return state.rotten != 0 and state.rotten in (entry, BASE_OF.get(entry))


# ..Writers....................................................................................


def _writer(state: State, rules: Rules, number: int) -> Steps:
    one = state.writers[number]
    who = f"writer {number + 1}"
    own_base = 8 << number
    if number == FOLLOWER and one.at in (IDLE, LOOKS, MISSED):
        yield from _follower(state, rules, one)
    elif one.at == IDLE:
        if number == NEWCOMER and any(other.at not in (ENDED, DEAD) for other in state.writers[:2]):
            return
        pins = number != NEWCOMER and state.slots[number] == "r" and state.rotten != own_base
        begun = Writer(LOOKS, pins, warned=bool(state.rotten))
        what = f"pins its parent with B{number + 1}" if pins else "finds no parent"
        yield f"{who} registers, {what}", state.with_writer(number, begun)
    elif one.at == LOOKS:
        hit = _hit(state, rules, number)
        label = f"hits {NAMES[hit]}" if hit else "misses Y"
        after = one._replace(at=REFERS if hit else MISSED, entry=hit)
        yield f"{who} {label}", state.with_writer(number, after)
    elif one.at == MISSED:
        delta = one.pins and not (one.warned and rules.replaces_by_full)
        entry = (2 << number) if delta else FULL
        stored = state.with_writer(number, one._replace(at=REFERS, entry=entry))
        yield f"{who} stores {NAMES[entry]}", stored._replace(stored=_published(state, rules, entry))
    elif one.at == REFERS:
        mapped = state.with_writer(number, one._replace(at=MAPPED)).with_slot(number + 2, "m")
        yield f"{who} names its map", mapped
    elif one.at == MAPPED:
        ended = state.with_writer(number, one._replace(at=ENDED, pins=False))
        yield f"{who} commits and ends", ended.with_slot(number + 2, "r")
    if one.at in _LIVING:
        yield f"{who} is killed", state.with_writer(number, one._replace(at=DEAD, pins=False))


def _follower(state: State, rules: Rules, one: Writer) -> Steps:
    """Until it refers to a file; what it stores in full is none of ours, so then it ends here."""
    there = state.stored | state.trash
    if one.at == IDLE:
        if state.slots[2] == "r":
            begun = Writer(LOOKS, pins=True, warned=bool(state.rotten))
            yield "the follower registers, pins revision 2", state.with_writer(FOLLOWER, begun)
        return
    if one.at == LOOKS:
        is_whole = state.stored & 8 or not rules.hits_with_the_base_only
        hit = ON_BASE if state.stored & ON_BASE and is_whole else 0
        after = one._replace(at=REFERS if hit else MISSED, entry=hit)
        yield f"the follower {'hits Z.B1' if hit else 'misses Z'}", state.with_writer(FOLLOWER, after)
    elif there & FULL or (there & 2 and there & 8):
        # A reader looks into the trash, too.
        entry = ON_BASE if there & 2 and there & 8 else ON_FULL
        stored = state.with_writer(FOLLOWER, one._replace(at=REFERS, entry=entry))
        after_it = stored._replace(stored=state.stored | entry)
        yield f"the follower stores {NAMES[entry]}", after_it
    else:
        yield "the follower stores Z", state.with_writer(FOLLOWER, Writer(DEAD))


def _hit(state: State, rules: Rules, number: int) -> int:
    """The file that an entry may name without storing anything; 0 if none."""
    one = state.writers[number]
    if state.stored & FULL:
        return FULL
    if one.warned and rules.replaces_by_full:
        return 0
    own = 2 << number if number != NEWCOMER else 0
    if one.pins and state.stored & (own if rules.names_hold_the_base else DELTAS):
        return own
    others = state.stored & (DELTAS - own)
    return 0 if rules.hits_own_base_only else others & -others


def _published(state: State, rules: Rules, entry: int) -> int:
    taken = state.stored & DELTAS if entry & DELTAS and not rules.names_hold_the_base else 0
    if taken and rules.publishes_without_replacing:
        return state.stored
    return state.stored & ~taken | entry


# ..The collector..............................................................................


def _collector(state: State, rules: Rules, bounds: Bounds) -> Steps:
    one = state.collector
    if one.at == BEGIN:
        if state.cycles:
            yield from _begin(state)
        return
    if one.at == REAP:
        slots = "".join(
            "x" if what in "fm" and not _is_pinned(state, slot) else what
            for slot, what in enumerate(state.slots)
        )
        then = one._replace(at=MARK, todo=(1 << len(slots)) - 1)
        yield "the collector reaps", state._replace(slots=slots, collector=then)
    elif one.at == MARK:
        yield from _mark(state, rules, bounds)
    elif one.at == PURGE:
        yield from _purge(state, rules)
    elif one.at == CONDEMN:
        yield from _condemn(state, rules)
    if state.kills:
        after = state._replace(collector=Collector(), kills=state.kills - 1)
        yield "the collector is killed", after


def _begin(state: State) -> Steps:
    census = _census(state)
    if state.census == UNSEALED:
        yield f"the collector seals what was left, census {census}", state._replace(census=census)
        return
    ripe = state.census >= 0 and not state.census & census
    then = Collector(REAP, ripe=ripe)
    label = f"the collector begins, the trash is {'ripe' if ripe else 'not ripe'}"
    yield label, state._replace(collector=then, cycles=state.cycles - 1)


def _census(state: State) -> int:
    return sum(1 << number for number, one in enumerate(state.writers) if one.at in _LIVING)


def _is_pinned(state: State, slot: int) -> bool:
    if slot < 2:
        return state.writers[slot].pins
    follows = slot == 2 and len(state.writers) > FOLLOWER and state.writers[FOLLOWER].pins
    return follows or state.writers[slot - 2].at in _LIVING


def _mark(state: State, rules: Rules, bounds: Bounds) -> Steps:
    one = state.collector
    for slot, what in enumerate(state.slots):
        if not one.todo >> slot & 1:
            continue
        needs = _needs(state, rules, bounds, slot) if what in "rmf" else 0
        then = one._replace(todo=one.todo & ~(1 << slot), marks=one.marks | needs)
        if not then.todo:
            then = then._replace(at=PURGE if one.ripe else CONDEMN, todo=0)
        label = f"the collector marks by revision {slot}: {_names(needs)}"
        yield label, state._replace(collector=then)


def _needs(state: State, rules: Rules, bounds: Bounds, slot: int) -> int:
    if slot < 2:
        return 8 << slot
    entry = state.writers[slot - 2].entry
    needs = entry
    if entry & NEXT:
        needs |= BASE_OF[entry] if rules.marks_base else 0
        if not bounds.marks_by_id:
            return needs
        return needs | NEXT | (FULL | DELTAS if needs & FULL else 0)
    if entry & DELTAS:
        needs |= FULL if rules.marks_full else 0
        needs |= BASE_OF[entry] if rules.marks_base else 0
        needs |= 0 if rules.names_hold_the_base else DELTAS
    return needs | FULL | DELTAS if bounds.marks_by_id else needs


def _purge(state: State, rules: Rules) -> Steps:
    one = state.collector
    if not state.trash:
        then = state._replace(census=NO_GENERATION, collector=one._replace(at=CONDEMN))
        yield "the collector removes the generation", then
        return
    file = state.trash & -state.trash
    after = state._replace(trash=state.trash - file)
    if one.marks & file:
        taken = state.stored & (file if rules.names_hold_the_base or file & ~DELTAS else DELTAS)
        stored = state.stored if taken else state.stored | file
        yield f"the collector links {NAMES[file]} back", after._replace(stored=stored)
    else:
        yield f"the collector purges {NAMES[file]}", after


def _condemn(state: State, rules: Rules) -> Steps:
    """Two passes, of which `todo` counts the second."""
    one = state.collector
    unmarked = state.stored & ~one.marks
    first = DELTAS | NEXT if rules.condemns_deltas_first else FULL | BASES
    files = unmarked & (first if not one.todo else ALL - first)
    if state.census >= 0 or not unmarked:
        done = state._replace(collector=Collector())
        if state.census == UNSEALED:
            census = _census(state)
            done = done._replace(census=census)
            yield f"the collector seals the generation, census {census}", done
        else:
            yield "the collector ends", done
    elif files:
        file = files & -files
        moved = state._replace(stored=state.stored - file, trash=state.trash | file, census=UNSEALED)
        yield f"the collector condemns {NAMES[file]}", moved
    else:
        turned = state._replace(collector=one._replace(todo=1))
        if one.todo:
            # What came into the store meanwhile is the next run's.
            done = state._replace(collector=Collector())
            if state.census == UNSEALED:
                done = done._replace(census=_census(state))
            yield "the collector ends, and seals what it condemned", done
        else:
            yield "the collector goes on with its second pass", turned


def _others(state: State, bounds: Bounds) -> Steps:
    if state.forgets:
        for slot, what in enumerate(state.slots):
            if what == "r":
                after = state.with_slot(slot, "f")._replace(forgets=state.forgets - 1)
                yield f"revision {slot} is forgotten", after
    if bounds.rots and not state.rotten:
        for file, name in NAMES.items():
            if state.stored & file and file != FULL:
                after = state._replace(stored=state.stored - file, rotten=file)
                yield f"{name} rots, and verify moves it aside", after


def _names(files: int) -> list[str]:
    return [name for file, name in NAMES.items() if files & file]
