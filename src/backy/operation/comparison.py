"""Comparing the records of all revisions with what is in the store, a job at a time.

    found = compare(repository)
    found.damaged, found.failed              (3, {"vm01": "open …: permission denied."})

A walk over the store never meets a file that is missing, so this is how it is noticed at its end.

Limits: presence only, as `repository.damage`; reads every map.
"""

from typing import NamedTuple

from backy.ground.tries import Tries
from backy.operation.trust import FAILURES, sentence
from backy.repository import damage
from backy.repository.repository import Repository


class Compared(NamedTuple):
    """How many revisions are damaged now; which jobs could not be compared, each with the reason."""

    damaged: int
    failed: dict[str, str]


def compare(repository: Repository) -> Compared:
    """Have all records say what their revisions lack; OSError where nobody knows which jobs there are.

    A job in which that fails keeps no other from it.
    """
    damaged = 0
    failed: dict[str, str] = {}
    for name in repository.directories():
        tries = Tries(*FAILURES)
        with tries.one():
            found = damage.refresh_job(repository, name, lambda _: True)
            damaged += sum(one.damaged > 0 for one in found)
        if tries.first is not None:
            failed[name] = sentence(repository, tries.first)
    return Compared(damaged, failed)
