"""The disks of a job: frozen at one instant, with what holds the guest still meanwhile around that.

    group = Group({"root": FileSource("/srv/root.raw"), "data": …}, Commands("fsfreeze …", …), "vm01")
    with group.snapshot(uuid) as snapshots:
        snapshots.disks["root"].extents() …

An ordinary job is a group of one disk without a name:

    Group({NO_DISK: FileSource("/srv/vm01.raw")})

First comes the beginning of `quiesce`, then the snapshots, one disk after the other, then the end of
`quiesce`: as soon as all snapshots stay what they are without it; otherwise after the last read, since
what is read may be something that its beginning has made. There the revision was committed before, so
what fails at its end is only shown.

Limits: where nothing holds the guest still, the disks are frozen one after the other, with whatever is
written to them meanwhile.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple, Protocol
from uuid import uuid4

from backy.domain.revision import Freeze, SnapshotName
from backy.ground.errors import SourceRefused
from backy.source.base import Snapshot, Source
from backy.source.commands import Commands

_LOOSE = (
    "the disks are frozen one right after the other, and nothing keeps the guest from writing between "
    "that; a pre-snapshot command can"
)


# See `Source.prune`.
Prune = Callable[[Mapping[SnapshotName, str]], Collection[SnapshotName]]


class Bracket(Protocol):
    """What is open while a guest may be held still."""

    @property
    def freeze(self) -> Freeze | None:
        """What became of that, once the snapshots are made; None where nobody knows."""
        ...

    def end(self) -> str:
        """Let the guest go on, unless that has happened: why it failed, or ""."""
        ...


class Quiesce(Protocol):
    """How a guest is held still while its disks are frozen."""

    def call_off(self) -> bool:
        """Before snapshots are removed: see that nobody makes one for another run than a living one.

        False if that is not sure.
        """
        ...

    def around(
        self, job: str, revision: str, disks: Mapping[str, Source]
    ) -> AbstractContextManager[Bracket]:
        """Begin; the end of the block ends the bracket at the latest. SourceRefused."""
        ...


class Snapshots(NamedTuple):
    """The snapshots of one revision, by disk, and sentences for the operator besides theirs.

    `remark` is told once a job, as that of a `Snapshot`.
    """

    disks: Mapping[str, Snapshot]
    freeze: Freeze | None = None
    warnings: tuple[str, ...] = ()
    remark: str = ""


class Group:
    """The sources of a job's disks, by name, in the order in which they are frozen and read."""

    def __init__(
        self,
        disks: Mapping[str, Source],
        quiesce: Quiesce | None = None,
        job: str = "",
        others: Sequence[Prune] = (),
    ) -> None:
        """`others` remove snapshots of sources of other types, which the job has had before."""
        self.disks = disks
        self._quiesce = Commands() if quiesce is None else quiesce
        self._job = job
        self._others = others

    def names(self, revision: str) -> dict[SnapshotName, str]:
        """The snapshots that a revision will have, and their places, as `prune` needs to know later."""
        places = {disk: source.place for disk, source in self.disks.items()}
        return {SnapshotName(revision, disk): place for disk, place in places.items() if place}

    def call_off(self) -> bool:
        """See `Quiesce.call_off`."""
        return self._quiesce.call_off()

    @contextmanager
    def snapshot(self, revision: str) -> Iterator[Snapshots]:
        """Begin a backup of that UUID; SourceRefused where a disk cannot be backed up."""
        self.names(revision)  # places are found before anything is made in them
        with ExitStack() as stack:
            bracket = stack.enter_context(self._quiesce.around(self._job, revision, self.disks))
            disks = {
                disk: stack.enter_context(source.snapshot(revision))
                for disk, source in self.disks.items()
            }
            bound = [one.is_bound for one in disks.values()]
            why = "" if any(bound) else bracket.end()
            # All that are read in place are of one instant, unless one of them is torn.
            remark = _LOOSE if len(disks) > 1 and self._is_loose and not all(bound) else ""
            yield Snapshots(disks, bracket.freeze, (why,) if why else (), remark)

    @property
    def _is_loose(self) -> bool:
        """Whether nothing even tries to hold the guest still."""
        return isinstance(self._quiesce, Commands) and self._quiesce.pre is None

    @contextmanager
    def live(self) -> Iterator[Mapping[str, Snapshot]]:
        """The images themselves, by disk, to look at; SourceRefused.

        Nobody is held still for that. But one that is not there may be what the operator's first command
        makes; then his commands run as around a snapshot.
        """
        with ExitStack() as stack:
            try:
                disks = self._live(stack)
            except SourceRefused:
                if not isinstance(self._quiesce, Commands) or self._quiesce.pre is None:
                    raise
                stack.close()
                stack.enter_context(self._quiesce.around(self._job, str(uuid4()), self.disks))
                disks = self._live(stack)
            yield disks

    def _live(self, stack: ExitStack) -> dict[str, Snapshot]:
        return {disk: stack.enter_context(source.live()) for disk, source in self.disks.items()}

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> Collection[SnapshotName]:
        """Remove snapshots, given by their places: which of them are gone now.

        Each disk's own source is asked, then those of other disks, for disks that the job has no more or
        that are of another type by now, and then what is there for types that no disk has.
        """
        gone = {name for name, place in snapshots.items() if not place}
        for disk, source in self.disks.items():
            own = {name: place for name, place in snapshots.items() if name.disk == disk}
            gone.update(source.prune(own) if own else ())
        for source in self.disks.values():
            left = {name: place for name, place in snapshots.items() if name not in gone}
            gone.update(source.prune(left) if left else ())
        for prune in self._others:
            left = {name: place for name, place in snapshots.items() if name not in gone}
            gone.update(prune(left) if left else ())
        return gone
