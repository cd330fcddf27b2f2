"""Progress as a bar with rate and time left, on a terminal.

Limits: importing this loads rich, which takes 0.1 s.
"""

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from backy.ground.units import format_size


class _RateColumn(ProgressColumn):
    """The rate in binary units, as the sizes beside it; rich's own is decimal."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{format_size(rate)}/s", style="progress.data.speed")


class BarProgress:
    """See `backy.operation.progress.Progress`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(console=self._console)
        self._task: TaskID | None = None

    def begin(self, what: str, total: int, unit: str = "") -> None:
        """See `Progress.begin`."""
        amounts = (
            [MofNCompleteColumn(), TextColumn(unit)]
            if unit
            else [DownloadColumn(binary_units=True), _RateColumn()]
        )
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *amounts,
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bars.add_task(what, total=total)
        self._bars.start()

    def advance(self, length: int) -> None:
        """See `Progress.advance`."""
        if self._task is not None:
            self._bars.advance(self._task, length)

    def end(self) -> None:
        """See `Progress.end`."""
        self._bars.stop()
