"""A source in memory whose snapshots are there from the beginning, and stay where a kill leaves them.

    source = Clones(content, frozen=True); with armed(killing(7)): site.backup(source=source)

Limits: killed within this process only (`modelfaults`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modelfaults import Killed

from backy.domain.revision import SnapshotName
from fakes import FakeSnapshot, FakeSource


class Clones(FakeSource):
    """Its snapshots are there from the beginning, as clones of files are, and a kill leaves them."""

    @contextmanager
    def snapshot(self, revision: str) -> Iterator[FakeSnapshot]:
        """See `Source.snapshot`."""
        opened = FakeSnapshot(self, revision)
        kept: list[bool] = []
        keep = opened.keep

        def note() -> None:
            kept.append(True)
            keep()

        # Only this instance is watched, which mypy takes for a mistake.
        opened.keep = note  # type: ignore[method-assign]
        self.kept[revision] = bytes(self.content)
        try:
            yield opened
        except Killed:
            raise
        except BaseException:
            del self.kept[revision]
            raise
        if not kept:
            del self.kept[revision]

    def prune(self, snapshots: Mapping[SnapshotName, str]) -> list[SnapshotName]:
        """See `Source.prune`."""
        return list(super().prune(snapshots))
