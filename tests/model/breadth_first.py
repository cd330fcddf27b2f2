"""Breadth-first search through all states of a model, for the shortest way to a bad one.

A model is a first state, its steps (what any of its processes may do next, with a sentence), and a
verdict (what is wrong with a state). A search that ends without a finding has seen every interleaving
within the model's bounds.

>>> count = search(0, lambda n: [("add", n + 1), ("double", n * 2)], lambda n: "ten" if n == 10 else "")
>>> count.fault, count.trace
('ten', ('add', 'add', 'double', 'add', 'double'))

Limits: states are kept in memory, a few hundred bytes each.
"""

import gc
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)


class Outcome(NamedTuple):
    """How many states were seen, and the fault with the steps that lead to it; "" if there is none."""

    states: int
    fault: str
    trace: tuple[str, ...]

    def told(self) -> str:
        """The finding as text, one step a line."""
        steps = "".join(f"\n  {number:2} {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.fault or 'no fault'} ({self.states} states){steps}"


def search(
    first: State,
    steps: Callable[[State], Iterable[tuple[str, State]]],
    verdict: Callable[[State], str],
) -> Outcome:
    """Look at every state that can be reached; stop at the first that has a fault."""
    # States hold no cycles, and to look for some among a million of them takes a third of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _search(first, steps, verdict)
    finally:
        if was_enabled:
            gc.enable()


def _search(
    first: State,
    steps: Callable[[State], Iterable[tuple[str, State]]],
    verdict: Callable[[State], str],
) -> Outcome:
    seen: dict[State, tuple[State, str] | None] = {first: None}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        fault = verdict(state)
        if fault:
            return Outcome(len(seen), fault, tuple(_way_to(state, seen)))
        for label, following in steps(state):
            if following not in seen:
                seen[following] = (state, label)
                waiting.append(following)
    return Outcome(len(seen), "", ())


def _way_to(state: State, seen: dict[State, tuple[State, str] | None]) -> Iterable[str]:
    labels = []
    step = seen[state]
    while step is not None:
        before, label = step
        labels.append(label)
        step = seen[before]
    return reversed(labels)
