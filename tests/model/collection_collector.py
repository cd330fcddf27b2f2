"""The model of collection: the collector, step by step, and its death.

A run is cut into cycles, of which any number may follow each other at once:

    seal what a killed run left; read the seals: which generations are ripe?
    reap; mark
    purge what is ripe by these marks; condemn by them, and seal

A real run (`operation/collect.py`) is one or two of these cycles.

Limits: what a run writes down for the next (`known`) and the reserve are left out.
"""

from collection_state import (
    BEGIN,
    CONDEMN,
    MARK,
    MOVED,
    PURGE,
    REAP,
    RESCUED,
    SEE,
    STOPPED,
    SYNCED,
    Collector,
    Generation,
    Rules,
    State,
)
from collection_users import Steps, census, is_living, is_pinned

_UNSEALED = -1
_UNLISTED = -1


def collector_steps(state: State, rules: Rules, jobs: str) -> Steps:
    """What any collector may do next, or that it is killed."""
    for number, one in enumerate(state.collectors):
        who = "the collector" if len(state.collectors) == 1 else f"collector {number}"
        for label, after in _STEPS[one.at](state, rules, jobs, number):
            yield f"{who} {label}", after
        if one.at not in (BEGIN, STOPPED) and state.left.collector_kills:
            left = state.left._replace(collector_kills=state.left.collector_kills - 1)
            after = state.with_collector(number, Collector(plan=_plan_of(one, rules)))
            yield f"{who} is killed", after._replace(left=left)


def _plan_of(one: Collector, rules: Rules) -> bool:
    """Whether a killed run leaves marks that say that X may go."""
    complete = one.at in (PURGE, RESCUED, SYNCED, CONDEMN, MOVED)
    return not rules.marks_die_with_their_run and complete and not one.marked


def _ripe(state: State, rules: Rules) -> int:
    living = census(state, rules)
    return sum(
        1 << number
        for number, one in enumerate(state.trash)
        if one is not None
        and one.census != _UNSEALED
        and not (rules.purge_waits_for_census and one.census & living)
    )


def _begin(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    if not state.left.cycles:
        return
    one = state.collectors[number]
    begun = state._replace(left=state.left._replace(cycles=state.left.cycles - 1))
    if one.plan:
        after = Collector(PURGE, ripe=_ripe(state, rules))
        yield "goes on with the marks of the run that was killed", begun.with_collector(number, after)
    for generation, found in enumerate(state.trash):
        if found is not None and found.census == _UNSEALED:
            now = census(state, rules) if rules.unsealed_gets_census_of_now else 0
            after_seal = state.with_generation(generation, Generation(now, found.holds))
            yield f"seals generation {generation}, census {_names(now)}", _synced(after_seal)
            return
    if not rules.sealed_stays_closed and not state.trash:
        now = census(state, rules)
        other = state._replace(trash=(Generation(now, holds=False),))
        yield f"condemns other garbage, and seals it, census {_names(now)}", other
    yield "begins", begun.with_collector(number, Collector(SEE, unlisted=one.unlisted))


def _see(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    ripe = _ripe(state, rules) if rules.mark_begins_when_ripe else 0
    if rules.reaps:
        after = Collector(REAP, todo=_UNLISTED, ripe=ripe)
    else:
        after = Collector(MARK, todo=(1 << len(jobs)) - 1, ripe=ripe)
    if not rules.mark_lists_jobs_anew:
        after = after._replace(unlisted=state.collectors[number].unlisted or _unlisted(state, jobs))
    yield f"reads the seals, ripe are {_names(ripe)}", state.with_collector(number, after)


def _unlisted(state: State, jobs: str) -> int:
    seen = {job for job, what in zip(jobs, state.slots, strict=True) if what not in ("-0", "x0")}
    return sum(1 << slot for slot, job in enumerate(jobs) if job not in seen)


def _reap(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    one = state.collectors[number]
    if one.todo == _UNLISTED:
        listed = sum(1 << slot for slot, what in enumerate(state.slots) if _is_orphan(what, rules))
        label = f"lists maps and notes without a revision: {_names(listed)}"
        yield label, _reaping(state, number, one, listed)
        return
    slot = (one.todo & -one.todo).bit_length() - 1
    done = one.todo & (one.todo - 1)
    what = state.slots[slot]
    living = any(
        is_living(writer) and jobs[other] == jobs[slot] for other, writer in enumerate(state.writers)
    )
    if what[0] == "p" and is_living(state.writers[slot]) and not rules.spares_pending_of_living:
        after = state.with_slot(slot, f"-{what[1]}")
        yield f"removes the pending record {slot}", _reaping(after, number, one, done)
    elif what in ("f0", "p0") or (what == "-1" and not rules.note_outlives_map):
        if what == "p0" and living and rules.spares_pending_of_living:
            yield f"leaves the pending record {slot}", _reaping(state, number, one, done)
        else:
            after = state.with_slot(slot, "x0")
            what_goes = "map" if what == "-1" else "note"
            yield f"removes the {what_goes} of {slot}", _reaping(after, number, one, done)
    elif (
        what[1] == "0"
        or (rules.reap_respects_pins and is_pinned(state, rules, slot))
        or (what[0] == "r" and rules.reap_looks_again)
        or (what[0] == "v" and rules.lost_map_stops and rules.reap_needs_a_note)
    ):
        yield f"leaves the map of {slot}", _reaping(state, number, one, done)
    elif what[0] in "fp" and not rules.note_outlives_map:
        after = state.with_slot(slot, "-1")
        yield f"removes the note of {slot}", _reaping(after, number, one, one.todo)
    else:
        after = state.with_slot(slot, f"{what[0]}0")
        todo = one.todo if what[0] in "fp" else done
        yield f"reaps the map of {slot}", _reaping(after, number, one, todo)


def _is_orphan(what: str, rules: Rules) -> bool:
    if what == "v1":
        return not rules.lost_map_stops
    return what[0] in "fp"


def _reaping(state: State, number: int, one: Collector, todo: int) -> State:
    if todo:
        return state.with_collector(number, one._replace(todo=todo))
    everything = (1 << len(state.slots)) - 1
    return state.with_collector(
        number, Collector(MARK, todo=everything, ripe=one.ripe, unlisted=one.unlisted)
    )


def _mark(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    one = state.collectors[number]
    for slot, found_there in enumerate(state.slots):
        if not one.todo >> slot & 1:
            continue
        what = "x0" if one.unlisted >> slot & 1 else found_there
        if what == "-1":
            stopped = state.with_collector(number, Collector(STOPPED))
            yield f"finds the map of {slot} without any record, and stops", stopped
            continue
        if what == "v1" and rules.lost_map_stops:
            ended = state.with_collector(number, Collector())
            yield f"finds the map of {slot} without any record, and stops, as it should", ended
            continue
        counts = what[1] == "1" and (what[0] == "r" or rules.marks_maps_without_record)
        after = one._replace(todo=one.todo & ~(1 << slot), marked=one.marked or counts)
        if not after.todo:
            ripe = after.ripe if rules.mark_begins_when_ripe else _ripe(state, rules)
            after = after._replace(at=PURGE, ripe=ripe)
        found = "X is needed" if counts else "nothing"
        yield f"marks by the map of {slot}: {found}", state.with_collector(number, after)


def _purge(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    one = state.collectors[number]
    if one.ripe:
        generation = (one.ripe & -one.ripe).bit_length() - 1
        found = state.trash[generation]
        if found is None or not found.holds:
            after = state.with_generation(generation, None)
            after = after.with_collector(number, one._replace(ripe=one.ripe & (one.ripe - 1)))
            yield f"removes generation {generation}, which is empty", after
        elif one.marked and rules.rescues_what_is_marked:
            after = state if state.stored else state._replace(stored=True).changed("store")
            at = RESCUED if rules.rescue_is_synced else SYNCED
            yield "links X back", after.with_collector(number, one._replace(at=at))
        else:
            yield from _unlink(state, rules, jobs, number)
    elif state.stored and not one.marked:
        reused = [n for n, what in enumerate(state.trash) if what is not None]
        if reused and not rules.sealed_stays_closed:
            yield f"condemns X into generation {reused[-1]}", _moved(state, number, reused[-1], BEGIN)
        fresh = state._replace(trash=(*state.trash, Generation(_UNSEALED, holds=False)))
        then = one._replace(at=CONDEMN, todo=len(state.trash), census=census(state, rules))
        yield f"makes generation {len(state.trash)}", fresh.with_collector(number, then)
    else:
        yield "finds nothing to condemn", state.with_collector(number, Collector())


def _sync(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    after = state.collectors[number]._replace(at=SYNCED)
    yield "syncs", _synced(state).with_collector(number, after)


def _unlink(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    one = state.collectors[number]
    generation = (one.ripe & -one.ripe).bit_length() - 1
    after = state.with_generation(generation, None)
    found = state.trash[generation]
    if found is not None and found.holds:
        after = after.changed(f"purge {generation}")
    then = one._replace(at=PURGE, ripe=one.ripe & (one.ripe - 1))
    yield f"purges X from generation {generation}", after.with_collector(number, then)


def _condemn(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    generation = state.collectors[number].todo
    yield f"condemns X into generation {generation}", _moved(state, number, generation, MOVED)


def _moved(state: State, number: int, generation: int, at: str) -> State:
    found = state.trash[generation]
    if state.stored and found is not None:
        state = state._replace(stored=False).with_generation(generation, found._replace(holds=True))
        state = state.changed(f"move {generation}")
    then = Collector() if at == BEGIN else state.collectors[number]._replace(at=at)
    return state.with_collector(number, then)


def _seal(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    one = state.collectors[number]
    found = state.trash[one.todo]
    # What it listed serves for the second half of the run too, if it does not list anew.
    after = _synced(state).with_collector(number, Collector(unlisted=one.unlisted))
    if found is None or found.census != _UNSEALED:
        yield "ends", after
        return
    counted = census(state, rules) if rules.census_after_last_rename else one.census
    sealed = Generation(counted, found.holds) if found.holds else None
    label = f"seals generation {one.todo}, census {_names(counted)}"
    yield label, after.with_generation(one.todo, sealed)


def _stopped(state: State, rules: Rules, jobs: str, number: int) -> Steps:
    return iter(())


def _synced(state: State) -> State:
    return state._replace(unsynced=()) if state.unsynced else state


def _names(bits: int) -> list[int]:
    return [number for number in range(bits.bit_length()) if bits >> number & 1]


_STEPS = {
    BEGIN: _begin,
    SEE: _see,
    REAP: _reap,
    MARK: _mark,
    PURGE: _purge,
    RESCUED: _sync,
    SYNCED: _unlink,
    CONDEMN: _condemn,
    MOVED: _seal,
    STOPPED: _stopped,
}
