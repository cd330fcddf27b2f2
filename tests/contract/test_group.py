"""The disks of a job: what happens in which order around their snapshots, and who removes these."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopdisk import Disk

from backy.domain.chunkmap import NO_DISK
from backy.domain.revision import Freeze, SnapshotName, View
from backy.ground.errors import SourceRefused
from backy.source.base import Source
from backy.source.clonefiles import clones_in
from backy.source.commands import Commands
from backy.source.file import Cloning, FileSource
from backy.source.group import Group
from cloning import OWNER, SIZE, revision, whole
from fakes import FakeSnapshot, FakeSource

ROOT, DATA = "root", "data"


class Noting(FakeSource):
    """A source that notes when its snapshot is made and goes, and what it is asked to remove."""

    def __init__(self, name: str, steps: list[str], *, frozen: bool = True) -> None:
        super().__init__(b"x" * SIZE, frozen=frozen, place=name)
        self.name = name
        self.steps = steps
        self.refuses = False
        self.asked: list[SnapshotName] = []

    @contextmanager
    def snapshot(self, revision: str) -> Iterator[FakeSnapshot]:
        """See `Source.snapshot`."""
        if self.refuses:
            raise SourceRefused(self.name, "it is not there")
        self.steps.append(f"freeze {self.name}")
        try:
            with super().snapshot(revision) as found:
                yield found
        finally:
            self.steps.append(f"release {self.name}")

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> Collection[SnapshotName]:
        """See `Source.prune`."""
        self.asked += snapshots
        return super().prune(snapshots)


class NotingBracket:
    """A guest that notes when it is held still, and when it goes on; itself the bracket."""

    def __init__(self, steps: list[str], why: str = "") -> None:
        self.steps = steps
        self.why = why
        self.freeze: Freeze | None = None
        self.known: tuple[str, str, list[str]] = ("", "", [])
        self._ended = False

    def call_off(self) -> bool:
        """See `Quiesce.call_off`."""
        return True

    @contextmanager
    def around(self, job: str, revision: str, disks: Mapping[str, Source]) -> Iterator["NotingBracket"]:
        """See `Quiesce.around`."""
        self.known = (job, revision, list(disks))
        self.steps.append("begin")
        try:
            yield self
        finally:
            self.end()

    def end(self) -> str:
        """See `Bracket.end`."""
        if not self._ended:
            self._ended = True
            self.freeze = Freeze.GUEST_FROZEN
            self.steps.append("end")
        return self.why


@pytest.fixture
def steps() -> list[str]:
    """What has happened."""
    return []


def grouped(steps: list[str], *, bound: bool = False, why: str = "") -> tuple[Group, NotingBracket]:
    """A group of two disks, of which the second may not be frozen by itself."""
    disks = {ROOT: Noting(ROOT, steps), DATA: Noting(DATA, steps, frozen=not bound)}
    bracket = NotingBracket(steps, why)
    return Group(disks, bracket, "vm01"), bracket


def test_guest_goes_on_once_all_disks_are_frozen(steps: list[str]) -> None:
    """It is held still for all of them at once, and for nothing else."""
    group, bracket = grouped(steps)
    with group.snapshot(revision(1)) as snapshots:
        assert ["begin", "freeze root", "freeze data", "end"] == steps
        assert [ROOT, DATA] == list(snapshots.disks)
        assert (Freeze.GUEST_FROZEN, ()) == (snapshots.freeze, snapshots.warnings)

    assert ["release data", "release root"] == steps[4:]
    assert ("vm01", revision(1), [ROOT, DATA]) == bracket.known


def test_guest_waits_if_one_disk_is_not_frozen_by_itself(steps: list[str]) -> None:
    """What is read of that one may be something that the beginning has made."""
    group, _ = grouped(steps, bound=True)
    with group.snapshot(revision(1)):
        assert ["begin", "freeze root", "freeze data"] == steps

    assert ["release data", "release root", "end"] == steps[3:]


def test_guest_goes_on_if_one_disk_cannot_be_frozen(steps: list[str]) -> None:
    """And what was frozen before is released."""
    group, _ = grouped(steps)
    data = group.disks[DATA]
    assert isinstance(data, Noting)
    data.refuses = True
    with pytest.raises(SourceRefused), group.snapshot(revision(1)):
        pass

    assert ["begin", "freeze root", "release root", "end"] == steps


def test_end_that_fails_is_a_warning(steps: list[str]) -> None:
    """The snapshots are good; that the guest may still be held has to be known."""
    group, _ = grouped(steps, why="it did not answer")
    with group.snapshot(revision(1)) as snapshots:
        assert ("it did not answer",) == snapshots.warnings


def test_snapshots_have_names_by_disk(steps: list[str]) -> None:
    """Those that are kept nowhere have none."""
    group, _ = grouped(steps, bound=True)

    assert {SnapshotName(revision(1), ROOT): ROOT} == group.names(revision(1))


def test_each_source_removes_its_own_and_any_those_of_lost_disks(steps: list[str]) -> None:
    """A place that nobody knows stays for the next run."""
    group, _ = grouped(steps)
    own = {SnapshotName(revision(1), name): name for name in (ROOT, DATA)}
    lost = {SnapshotName(revision(1), "old"): DATA}
    unknown = {SnapshotName(revision(1), "else"): "elsewhere"}
    never = {SnapshotName(revision(2)): ""}

    assert {*own, *lost, *never} == set(group.prune({**own, **lost, **unknown, **never}))
    root = group.disks[ROOT]
    assert isinstance(root, Noting)
    assert SnapshotName(revision(1), DATA) not in root.asked


def test_commands_know_all_disks(tmp_path: Path) -> None:
    """Their names, and their images in the same order."""
    for name in (ROOT, DATA):
        (tmp_path / name).write_bytes(b"x")
    line = f'echo "$BACKY_JOB:$BACKY_DISKS:$BACKY_SOURCE" > {tmp_path}/notes'
    group = Group(
        {name: FileSource(str(tmp_path / name)) for name in (ROOT, DATA)}, Commands(line), "vm01"
    )
    with group.snapshot(revision(1)):
        pass

    expected = f"vm01:root data:{tmp_path}/root\n{tmp_path}/data\n"
    assert expected == (tmp_path / "notes").read_text()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_clones_of_several_disks_lie_beside_each_other(
    file_systems: Callable[[str], Disk], tmp_path: Path, kind: str
) -> None:
    """Two images of one directory have a clone each, and each goes by its disk's name alone."""
    folder = file_systems(kind).folder / tmp_path.name
    folder.mkdir()
    disks = {}
    for name in (ROOT, DATA):
        (folder / name).write_bytes(name.encode() * SIZE)
        disks[name] = FileSource(str(folder / name), Cloning(OWNER._replace(disk=name)))
    group = Group(disks)
    with group.snapshot(revision(1)) as snapshots:
        for name, snapshot in snapshots.disks.items():
            assert View.CLONE is snapshot.identity.view
            assert name.encode() * SIZE == whole(snapshot)
            snapshot.keep()

    found = {one.disk: one for one in clones_in(str(folder), OWNER.repository)}
    assert {ROOT, DATA} == set(found)
    assert {("vm01", revision(1))} == {(one.job, one.revision) for one in found.values()}
    data = SnapshotName(revision(1), DATA)
    assert [data] == list(group.prune({data: str(folder)}))
    assert [ROOT] == [one.disk for one in clones_in(str(folder), OWNER.repository)]
    # A disk that the job has no more is removed by another disk's source.
    gone = {SnapshotName(revision(1), ROOT): str(folder)}
    assert set(gone) == set(Group({"other": disks[DATA]}).prune(gone))
    assert [] == list(clones_in(str(folder), OWNER.repository))


def test_group_of_one_has_no_name(tmp_path: Path) -> None:
    """As all jobs with a single image."""
    (tmp_path / "image").write_bytes(b"x")
    with Group({NO_DISK: FileSource(str(tmp_path / "image"))}).live() as snapshots:
        assert b"x" == whole(snapshots[NO_DISK])
