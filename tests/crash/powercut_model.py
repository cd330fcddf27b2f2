"""What a repository must hold after a power cut: what was acknowledged by then, and no less.

    model = Model()
    with model.during(position) …                      see Deed
    must, may = model.revisions("vm", position)

Each deed is known by the length of the disk's log before it began and after it was acknowledged. A cut
before the one does not know of it, a cut after the other must; in between, either is right.

Limits: tells revisions by UUID and their images by SHA-256.
"""

import hashlib
from typing import NamedTuple

NEVER = 1 << 62


class Deed(NamedTuple):
    """When something began and was acknowledged, as lengths of the log."""

    began: int
    done: int = NEVER

    def surely(self, position: int) -> bool:
        """Whether it must have happened by then."""
        return self.done <= position

    def perhaps(self, position: int) -> bool:
        """Whether it may have."""
        return self.began < position or self.surely(position)


class Kept:
    """One revision: its image, its birth and its end, and the tags that it got one after another."""

    def __init__(self, job: str, uuid: str, made: Deed, image: bytes, tags: frozenset[str]) -> None:
        self.job = job
        self.uuid = uuid
        self.made = made
        self.sha256 = hashlib.sha256(image).hexdigest()
        self.gone = Deed(NEVER)
        self.tags = [(made, tags)]

    def tags_at(self, position: int) -> list[frozenset[str]]:
        """Every set of tags that it may have then."""
        acknowledged = [number for number, (deed, _) in enumerate(self.tags) if deed.surely(position)]
        first = acknowledged[-1] if acknowledged else 0
        return [
            tags
            for number, (deed, tags) in enumerate(self.tags)
            if number >= first and deed.perhaps(position)
        ]


class Model:
    """All revisions of all jobs."""

    def __init__(self, ready: int) -> None:
        """`ready` is the position at which the empty repository was acknowledged."""
        self.ready = ready
        self.kept: dict[str, Kept] = {}

    def of(self, job: str, position: int = NEVER - 1) -> list[Kept]:
        """A job's revisions that are surely there by then and whose end has not begun."""
        return [
            one
            for one in self.kept.values()
            if one.job == job and one.made.surely(position) and not one.gone.perhaps(position)
        ]

    def may_be_there(self, uuid: str, job: str, position: int) -> bool:
        """Whether a revision may be listed after a cut there."""
        one = self.kept.get(uuid)
        return (
            one is not None
            and one.job == job
            and one.made.perhaps(position)
            and not one.gone.surely(position)
        )

    def acknowledgements(self) -> list[int]:
        """Positions at which something was acknowledged, ascending: where a cut is worth most."""
        deeds = [self.ready]
        for one in self.kept.values():
            deeds += [one.gone.done, *(deed.done for deed, _ in one.tags)]
        return sorted({done for done in deeds if done < NEVER})
