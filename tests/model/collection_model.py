"""The model of collection, put together: what is a fault, and the search for one.

    outcome = explore(Rules(), Bounds())                               no fault
    outcome = explore(replace(Rules(), trash_is_no_hit=False), Bounds())   a loss, and the way to it

Every interleaving of writers, `forget`, a restore and the collector is looked at, with all of them
killed at any step, and, if wanted, the power cut.

Limits: one chunk, which is every chunk, since no rule speaks of two (deltas have a model of their
own, `delta_model`, and so has the quarantine, `collection_quarantine`); few writers and cycles.
"""

from collections.abc import Callable, Iterator

from breadth_first import Outcome, search
from collection_collector import collector_steps
from collection_state import MISSING, STOPPED, Bounds, Rules, State, first_state
from collection_users import other_steps, reader_steps, writer_steps

LOST = "a revision has lost a chunk"
UNMAPPED = "a record has no map"
GIVEN_UP = "a revision that nobody forgot has lost a chunk"
FALSE_STOP = "collection stops, although no record was removed by hand"
FALSE_MISSING = "a restore misses a chunk that is there, or that it needs"


def explore(rules: Rules, bounds: Bounds, verdict: Callable[[State], str] | None = None) -> Outcome:
    """All that can happen, or the shortest way to a fault, or to what else is looked for."""

    def steps(state: State) -> Iterator[tuple[str, State]]:
        yield from collector_steps(state, rules, bounds.jobs)
        yield from writer_steps(state, rules, bounds.jobs)
        yield from reader_steps(state, rules)
        yield from other_steps(state, rules)

    return search(first_state(rules, bounds), steps, verdict or fault_of)


def fault_of(state: State) -> str:
    """What is wrong with a state; "" if nothing is."""
    if "r0" in state.slots:
        return UNMAPPED
    if not state.stored and not state.in_trash:
        if "r1" in state.slots:
            return LOST
        if "v1" in state.slots or "v0" in state.slots:
            return GIVEN_UP
    if state.reader[0] == MISSING:
        return FALSE_MISSING
    if any(one.at == STOPPED for one in state.collectors):
        return FALSE_STOP
    return ""
