"""The model of quarantine: one chunk X rots, verify moves it aside, and two jobs need it.

Revision 0 of one job is there from the start and has X; writer 1, and writer 2 if wanted, make one
more each, of other jobs. Beside them collection condemns and purges, and anybody may be killed.

    explore(Rules(), Bounds())                                          no fault
    explore(replace(Rules(), looks_after_its_commit=False), Bounds())   a fault, and the way to it

X is `g`ood, `b`ad or `-`, in the store, in the trash and in the case of the quarantine. A revision is
`-` nothing yet, `m` a map without a committed record, `r` committed, `d` committed and marked as
damaged, `f` forgotten, `x` reaped.

Limits: X rots once; one generation and one case at a time; reaping is one step, as are rescue and sync,
since the model of collection takes those apart. A backup that is killed behind its commit is settled
by the next verify, which is not in the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from breadth_first import Outcome, search

GOOD, BAD, NONE = "g", "b", "-"
NO_GENERATION, UNSEALED = -2, -1
# A writer, by what it has done.
IDLE, REGISTERED, MISSED, REFERS, MAPPED = "idle", "registered", "missed", "refers", "mapped"
COMMITTED, ENDED, DEAD = "committed", "ended", "dead"
# Verify and the collector, by what they do next.
PROVE, LIST_FIRST, MOVE, HASH, LIST = "prove", "list first", "move", "hash", "list"
BEGIN, REAP, MARK, PURGE, CONDEMN = "begin", "reap", "mark", "purge", "condemn"

UNMARKED = "a chunk was moved aside, and a revision that needs it is not marked as damaged"
WRONGED = "a good chunk stays in the quarantine"
UNHEALED = "a chunk was stored anew, and a revision that needs it has lost it again"

Steps = Iterator[tuple[str, "State"]]


@dataclass(frozen=True)
class Rules:
    """What keeps a removal by verify from being a loss that nobody is told of; each may be dropped.

    `case_voids_trash`: a copy in the trash counts as there only while no case has the chunk.
    """

    moves_before_it_lists: bool = True
    looks_after_its_commit: bool = True
    hashes_again_where_it_lies: bool = True
    rescues_without_replacing: bool = True
    case_voids_trash: bool = True
    keeps_good_where_bad_took_its_name: bool = True


@dataclass(frozen=True)
class Bounds:
    """How often what may happen."""

    writers: int = 1
    forgets: int = 1
    cycles: int = 2
    verifies: int = 1
    kills: int = 1


class Writer(NamedTuple):
    """What it has done, and whether it looked into the quarantine before its commit."""

    at: str = IDLE
    looked: bool = False


class Collector(NamedTuple):
    """What it does next; maps to look at (bits); whether X is marked; whether the trash is ripe."""

    at: str = BEGIN
    todo: int = 0
    marked: bool = False
    ripe: bool = False


class Verify(NamedTuple):
    """What it does next; maps to look at (bits); revisions that it will mark, where listed first."""

    at: str = ENDED
    todo: int = 0
    hurt: int = 0


class Left(NamedTuple):
    """What may still happen."""

    forgets: int
    cycles: int
    verifies: int
    kills: int


class State(NamedTuple):
    """X in its three places, revisions, processes; whether it rotted, and was stored anew after that."""

    store: str
    trash: str
    case: str
    census: int
    slots: str
    writers: tuple[Writer, ...]
    collector: Collector
    verify: Verify
    rotten: bool
    healed: bool
    left: Left

    def has_copy(self, *, case_voids_trash: bool = False) -> bool:
        """Whether X, good or bad, is in the store, or in the trash as far as that counts."""
        in_trash = self.trash != NONE and not (case_voids_trash and self.case != NONE)
        return self.store != NONE or in_trash

    def with_writer(self, number: int, at: str, *, looked: bool | None = None) -> "State":
        """One writer is further; they are numbered as their revisions, from 1."""
        before = self.writers[number - 1]
        after = Writer(at, before.looked if looked is None else looked)
        return self._replace(writers=(*self.writers[: number - 1], after, *self.writers[number:]))

    @property
    def all_slots(self) -> int:
        """All revisions, as bits."""
        return (1 << len(self.slots)) - 1

    def with_slot(self, number: int, what: str) -> "State":
        """One revision has another state."""
        return self._replace(slots=self.slots[:number] + what + self.slots[number + 1 :])

    def stored_anew(self) -> "State":
        """A writer publishes X, never replacing what is there."""
        if self.store != NONE:
            return self
        return self._replace(store=GOOD, healed=self.rotten)


def explore(rules: Rules, bounds: Bounds) -> Outcome:
    """All that can happen, or the shortest way to a fault."""
    left = Left(bounds.forgets, bounds.cycles, bounds.verifies, bounds.kills)
    first = State(
        GOOD, NONE, NONE, NO_GENERATION, "r" + "-" * bounds.writers, (Writer(),) * bounds.writers,
        Collector(), Verify(), rotten=False, healed=False, left=left,
    )  # fmt: skip

    def steps(state: State) -> Steps:
        for number in range(1, bounds.writers + 1):
            yield from _writer(state, rules, number)
        yield from _verify(state, rules)
        yield from _collector(state, rules)
        yield from _others(state)

    return search(first, steps, fault_of)


def fault_of(state: State) -> str:
    """What is wrong with a state; "" if nothing is."""
    reported = (True, *(one.at == ENDED for one in state.writers))
    needed = [what for what, done in zip(state.slots, reported, strict=True) if done]
    copies = state.store + state.trash + state.case
    if state.healed and "r" in needed and GOOD not in copies:
        return UNHEALED
    if state.verify.at == ENDED and state.case == GOOD:
        return WRONGED
    if state.verify.at == ENDED and "r" in needed and not state.has_copy():
        return UNMARKED
    return ""


# ..Writers....................................................................................


def _writer(state: State, rules: Rules, number: int) -> Steps:
    at, looked = state.writers[number - 1]
    who = f"writer {number}"
    if at == IDLE:
        if number == 1 or state.writers[number - 2].at != IDLE:
            yield f"{who} registers", state.with_writer(number, REGISTERED)
        return
    if at == REGISTERED:
        hit = state.store != NONE
        label = f"{who} hits X, unread" if hit else f"{who} misses X"
        yield label, state.with_writer(number, REFERS if hit else MISSED)
    elif at == MISSED:
        yield f"{who} stores X", state.with_writer(number, REFERS).stored_anew()
    elif at == REFERS:
        yield f"{who} names its map", state.with_writer(number, MAPPED).with_slot(number, "m")
    elif at == MAPPED:
        if rules.looks_after_its_commit or looked:
            then = COMMITTED if rules.looks_after_its_commit else ENDED
            yield f"{who} commits", state.with_writer(number, then).with_slot(number, "r")
        else:
            yield from _looks(state, rules, number, MAPPED)
    elif at == COMMITTED:
        yield from _looks(state, rules, number, ENDED)
    if at not in (ENDED, DEAD) and state.left.kills:
        dead = state.with_writer(number, DEAD)
        yield f"{who} is killed", _one_kill_less(dead)


def _looks(state: State, rules: Rules, number: int, then: str) -> Steps:
    """Look whether X was moved aside: heal it, or mark the own revision where the source changed."""
    who = f"writer {number}"
    after = state.with_writer(number, then, looked=True)
    if state.has_copy(case_voids_trash=rules.case_voids_trash) or state.slots[number] not in "rm":
        yield f"{who} finds nothing missing", after
        return
    yield f"{who} heals X", after.stored_anew()
    if state.slots[number] == "r":
        yield f"{who} marks its revision", after.with_slot(number, "d")


# ..Verify.....................................................................................


def _verify(state: State, rules: Rules) -> Steps:
    one = state.verify
    for label, after in _verify_steps(state, rules, one):
        yield f"verify {label}", after


def _verify_steps(state: State, rules: Rules, one: Verify) -> Steps:
    if one.at == ENDED:
        if state.left.verifies and state.case == NONE:
            left = state.left._replace(verifies=state.left.verifies - 1)
            yield "begins", state._replace(verify=Verify(PROVE), left=left)
    elif one.at == PROVE:
        if state.store == BAD:
            then = Verify(MOVE) if rules.moves_before_it_lists else Verify(LIST_FIRST, state.all_slots)
            yield "finds that X is bad", state._replace(verify=then)
        else:
            yield "finds nothing", state._replace(verify=Verify())
    elif one.at == MOVE:
        if rules.hashes_again_where_it_lies:
            then = Verify(HASH, 0, one.hurt)
        else:
            then = _after_move(state, rules, one)
        moved = state._replace(store=NONE, case=state.store, verify=then)
        yield f"moves X aside, which is {state.store}", moved
    elif one.at == HASH:
        yield from _hash(state, rules, one)
    elif one.at in (LIST, LIST_FIRST):
        yield from _list(state, rules, one)


def _after_move(state: State, rules: Rules, one: Verify) -> Verify:
    if rules.moves_before_it_lists:
        return Verify(LIST, state.all_slots)
    return Verify(LIST, one.hurt, one.hurt) if one.hurt else Verify()


def _hash(state: State, rules: Rules, one: Verify) -> Steps:
    then = _after_move(state, rules, one)
    after = state._replace(verify=then)
    if state.case == GOOD:
        over = state.store == NONE or (state.store == BAD and rules.keeps_good_where_bad_took_its_name)
        back = after._replace(store=GOOD if over else state.store, case=NONE)
        yield "finds that what it moved is good, and links it back", back
    else:
        yield "finds that what it moved is bad", after


def _list(state: State, rules: Rules, one: Verify) -> Steps:
    for slot, what in enumerate(state.slots):
        if not one.todo >> slot & 1:
            continue
        todo = one.todo & ~(1 << slot)
        after = state
        hurt = one.hurt
        if one.at == LIST_FIRST:
            hurt |= (what == "r") << slot
            label = f"lists revision {slot}"
        elif what == "r" and not state.has_copy(case_voids_trash=rules.case_voids_trash):
            after = state.with_slot(slot, "d")
            label = f"marks revision {slot}"
        else:
            label = f"passes over revision {slot}"
        then = one._replace(todo=todo, hurt=hurt)
        if not todo:
            then = Verify(MOVE, 0, hurt) if one.at == LIST_FIRST else Verify()
        yield label, after._replace(verify=then)


# ..The collector..............................................................................


def _collector(state: State, rules: Rules) -> Steps:
    one = state.collector
    for label, after in _collector_steps(state, rules, one):
        yield f"the collector {label}", after
    if one.at != BEGIN and state.left.kills:
        yield "the collector is killed", _one_kill_less(state._replace(collector=Collector()))


def _collector_steps(state: State, rules: Rules, one: Collector) -> Steps:
    if one.at == BEGIN:
        if state.census == UNSEALED:
            yield "seals what was left", state._replace(census=_census(state))
        elif state.left.cycles:
            ripe = state.census >= 0 and not state.census & _census(state)
            left = state.left._replace(cycles=state.left.cycles - 1)
            yield "begins", state._replace(collector=Collector(REAP, ripe=ripe), left=left)
    elif one.at == REAP:
        slots = "".join(
            "x" if what == "f" or (what == "m" and state.writers[slot - 1].at == DEAD) else what
            for slot, what in enumerate(state.slots)
        )
        yield "reaps", state._replace(slots=slots, collector=one._replace(at=MARK, todo=state.all_slots))
    elif one.at == MARK:
        yield from _mark(state, one)
    elif one.at == PURGE:
        yield _purge(state, rules, one)
    elif one.marked or state.store == NONE or state.census != NO_GENERATION:
        yield "ends", state._replace(collector=Collector(), census=_sealed(state))
    else:
        yield "condemns X", state._replace(store=NONE, trash=state.store, census=UNSEALED)


def _mark(state: State, one: Collector) -> Steps:
    for slot, what in enumerate(state.slots):
        if one.todo >> slot & 1:
            todo = one.todo & ~(1 << slot)
            then = one._replace(todo=todo, marked=one.marked or what in "mrdf")
            if not todo:
                then = then._replace(at=PURGE if one.ripe else CONDEMN)
            yield f"marks by map {slot}", state._replace(collector=then)


def _purge(state: State, rules: Rules, one: Collector) -> tuple[str, State]:
    then = one._replace(at=CONDEMN)
    after = state._replace(trash=NONE, census=NO_GENERATION, collector=then)
    if one.marked and state.trash != NONE:
        free = state.store == NONE or not rules.rescues_without_replacing
        return "links X back", after._replace(store=state.trash if free else state.store)
    return "purges the trash", after


def _sealed(state: State) -> int:
    return _census(state) if state.census == UNSEALED else state.census


def _census(state: State) -> int:
    return sum(
        1 << number for number, one in enumerate(state.writers) if one.at not in (IDLE, ENDED, DEAD)
    )


def _others(state: State) -> Steps:
    if state.store == GOOD and not state.rotten:
        yield "X rots in the store", state._replace(store=BAD, rotten=True)
    if state.left.forgets:
        for slot, what in enumerate(state.slots):
            if what in "rd":
                left = state.left._replace(forgets=state.left.forgets - 1)
                yield f"revision {slot} is forgotten", state.with_slot(slot, "f")._replace(left=left)


def _one_kill_less(state: State) -> State:
    return state._replace(left=state.left._replace(kills=state.left.kills - 1))
