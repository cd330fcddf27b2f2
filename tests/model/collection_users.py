"""The model of collection: writers, a reader, `forget`, and what happens to all of them.

    writer_steps(state, rules, jobs)      register, look, store, publish; killed anywhere
    reader_steps(state, rules)            store, trash, store again
    other_steps(state, rules)             forget, removal by hand, a power cut

Limits: writers of a job follow each other (`.backup`), in the order of their numbers; a writer of
another job begins after the first, since the jobs are alike.
"""

from collections.abc import Iterator

from collection_state import (
    DEAD,
    EARLY,
    ENDED,
    IDLE,
    LOOKED_IN_STORE,
    LOOKED_IN_TRASH,
    MAPPED,
    MISSED,
    MISSING,
    NOBODY,
    OPENED,
    PENDING,
    REFERS,
    REGISTERED,
    STORED,
    Collector,
    Generation,
    Rules,
    State,
    Writer,
)

Steps = Iterator[tuple[str, State]]

_LIVING = frozenset((EARLY, REGISTERED, MISSED, STORED, REFERS, PENDING, MAPPED))
_REGISTERED = frozenset((REGISTERED, MISSED, STORED, REFERS, PENDING, MAPPED))


def is_living(writer: Writer) -> bool:
    """Whether it runs."""
    return writer.at in _LIVING


def census(state: State, rules: Rules) -> int:
    """The registered writers, as bits."""
    counted = _REGISTERED
    if not rules.registered_until_commit:
        counted -= {MAPPED}
    if not rules.registered_until_map_is_named:
        counted -= {MAPPED, PENDING}
    return sum(1 << number for number, one in enumerate(state.writers) if one.at in counted)


def is_pinned(state: State, rules: Rules, slot: int) -> bool:
    """Whether a slot's map is locked by somebody."""
    if rules.reader_pins and state.reader[1] == slot and state.reader[0] not in (ENDED, MISSING):
        return True
    for number, one in enumerate(state.writers):
        if one.at in _LIVING:
            if rules.pins_parent and one.parent == slot:
                return True
            if rules.pins_own_map_before_its_name and number == slot:
                return True
    return False


def writer_steps(state: State, rules: Rules, jobs: str) -> Steps:
    """What any writer may do next."""
    for number, writer in enumerate(state.writers):
        if writer.at == IDLE:
            if _may_begin(state, jobs, number):
                if rules.registers_first:
                    yield f"writer {number} registers", state.with_writer(number, REGISTERED)
                else:
                    yield from _looks(state, rules, jobs, number, EARLY)
        elif writer.at in _LIVING:
            yield from _goes_on(state, rules, jobs, number, writer.at)
            yield f"writer {number} is killed", state.with_writer(number, DEAD, NOBODY)


def _may_begin(state: State, jobs: str, number: int) -> bool:
    if number and state.writers[0].at == IDLE:
        return False
    return not any(
        jobs[other] == jobs[number] and state.writers[other].at not in (ENDED, DEAD)
        for other in range(number)
    )


def _looks(state: State, rules: Rules, jobs: str, number: int, then: str) -> Steps:
    """A hit in the store or in the parent's map; a miss, if the writer registered before."""
    if state.stored:
        yield f"writer {number} finds X in the store", state.with_writer(number, then)
    elif state.in_trash and not rules.trash_is_no_hit:
        yield f"writer {number} finds X in the trash", state.with_writer(number, then)
    elif then != EARLY:
        yield f"writer {number} misses X", state.with_writer(number, MISSED)
    for slot in range(number):
        if jobs[slot] == jobs[number] and state.slots[slot] == "r1":
            yield (
                f"writer {number} inherits X from revision {slot}",
                state.with_writer(number, then, slot),
            )


def _goes_on(state: State, rules: Rules, jobs: str, number: int, at: str) -> Steps:
    if at == REGISTERED:
        yield from _looks(state, rules, jobs, number, REFERS)
    elif at == EARLY:
        yield f"writer {number} registers", state.with_writer(number, REFERS)
    elif at == MISSED:
        after = state.with_writer(number, REFERS if rules.commit_syncs_all_names else STORED)
        if not state.stored:
            after = after._replace(stored=True).changed("store")
        yield f"writer {number} stores X", after
    elif at == STORED:
        # Without the sync of all names each writer makes its own durable, and leaves others' alone.
        yield f"writer {number} syncs its own names", _synced(state.with_writer(number, REFERS))
    elif at == REFERS:
        yield from _names_the_pending_record(state, rules, number)
    elif at == PENDING:
        record = state.slots[number][0]
        after = state.with_writer(number, MAPPED).with_slot(number, f"{record}1")
        yield f"writer {number} names its map", after
    elif at == MAPPED:
        yield from _commits(state, rules, number)


def _names_the_pending_record(state: State, rules: Rules, number: int) -> Steps:
    after = state.with_writer(number, PENDING)
    if rules.commit_syncs_all_names:
        after = _synced(after)
    if rules.pending_before_map:
        after = after.with_slot(number, "p0")
        yield f"writer {number} syncs, and names its pending record", after
    else:
        yield f"writer {number} syncs", after


def _commits(state: State, rules: Rules, number: int) -> Steps:
    slot = state.slots[number]
    if slot[0] == "p" or not rules.pending_before_map:
        after = state.with_writer(number, ENDED, NOBODY).with_slot(number, f"r{slot[1]}")
        yield f"writer {number} commits and ends", after
    else:
        after = state.with_writer(number, DEAD, NOBODY)
        yield f"writer {number} finds its pending record gone, and fails", after


def _synced(state: State) -> State:
    return state._replace(unsynced=()) if state.unsynced else state


def reader_steps(state: State, rules: Rules) -> Steps:
    """A restore of one revision: store, trash, store again."""
    at, slot = state.reader
    if at == IDLE:
        for number, what in enumerate(state.slots):
            if what == "r1":
                label = f"a restore opens the map of revision {number}"
                yield label, state._replace(reader=(OPENED, number))
        return
    if at in (ENDED, MISSING):
        return
    found = state._replace(reader=(ENDED, slot))
    missing = state._replace(reader=(MISSING, slot))
    if at == OPENED:
        after = found if state.stored else state._replace(reader=(LOOKED_IN_STORE, slot))
        yield "the restore looks for X in the store", after
    elif at == LOOKED_IN_STORE:
        after = state._replace(reader=(LOOKED_IN_TRASH, slot))
        if state.in_trash:
            after = found
        elif not rules.reader_looks_again:
            after = missing
        yield "the restore looks for X in the trash", after
    elif at == LOOKED_IN_TRASH:
        yield "the restore looks in the store again", found if state.stored else missing


def other_steps(state: State, rules: Rules) -> Steps:
    """Forgetting, a removal by hand, and a power cut."""
    left = state.left
    for number, slot in enumerate(state.slots):
        if slot == "r1" and left.forgets:
            after = state.with_slot(number, "f1" if rules.forget_leaves_the_map else "x0")
            after = after._replace(left=left._replace(forgets=left.forgets - 1))
            yield f"revision {number} is forgotten", after
        if slot == "r1" and left.removals:
            after = state.with_slot(number, "v1")
            after = after._replace(left=left._replace(removals=left.removals - 1))
            yield f"the record of revision {number} is removed by hand", after
    if left.power_cuts and state.unsynced:
        yield from _power_cuts(state)


def _power_cuts(state: State) -> Steps:
    """Any part of what was not synced is lost, newest first undone; all processes are dead."""
    for lost in range(1 << len(state.unsynced)):
        after = state
        for number in reversed(range(len(state.unsynced))):
            if lost >> number & 1:
                after = _undone(after, state.unsynced[number])
        gone = [what for number, what in enumerate(state.unsynced) if lost >> number & 1]
        writers = tuple(Writer(DEAD) if is_living(one) else one for one in state.writers)
        yield (
            f"power cut, lost are {gone}",
            after._replace(
                writers=writers,
                collectors=(Collector(),) * len(state.collectors),
                reader=(ENDED, NOBODY),
                left=state.left._replace(power_cuts=state.left.power_cuts - 1),
                unsynced=(),
            ),
        )


def _undone(state: State, change: str) -> State:
    """The state without one change of a name."""
    what, _, where = change.partition(" ")
    if what == "store":
        return state._replace(stored=False)
    number = int(where)
    found = state.trash[number]
    if what == "move":
        state = state._replace(stored=True)
        return state if found is None else state.with_generation(number, found._replace(holds=False))
    census_then = 0 if found is None else found.census
    return state.with_generation(number, Generation(census_then, holds=True))
