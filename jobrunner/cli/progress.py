"""The progress bar on stderr; nothing where stderr is not a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from jobrunner.batch import Outcome, OutcomeStatus

__all__ = ["Progress"]


class _RateColumn(ProgressColumn):
    """Ended jobs per second, or seconds per job where that is the readable one."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("-/s", style="progress.data.speed")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="progress.data.speed")


class Progress:
    """How far a batch is: ended of all, failed, rate and time left.  A context manager.

    Args:
        name: the batch's name.
        total: how many points it has.
    """

    def __init__(self, name: str, total: int) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            _RateColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            # The results are the record; a bar that stays would stand between them and the prompt.
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=total, failed=0)
        self._failed = 0

    def advance(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self._failed += outcome.status is OutcomeStatus.FAILED
        self._bar.update(self._task, advance=1, failed=self._failed)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
