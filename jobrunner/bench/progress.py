"""How far a benchmark is: a bar on a terminal, a line now and then, nothing, or a bar of tqdm's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from jobrunner.batch.tellers import open_tqdm

__all__ = ["PLAIN", "ProgressBar", "TqdmProgress"]

#: The mode of one line now and then.
PLAIN: Final = "plain"

#: Seconds between two such lines.
_LINE_S = 30.0

#: The bar is drawn anew so often a second: it is work beside what is timed.
_REFRESHES = 2


class ProgressBar:
    """Shows how far the measuring is.  A context manager, and what `jobrunner.bench.measure.Progress` says.

    Args:
        mode: True: a bar; `PLAIN`: a line each 30 seconds; False: nothing; None: a bar if stderr is a terminal.
    """

    def __init__(self, mode: bool | str | None) -> None:
        self._plain = mode == PLAIN
        self._line_at = time.monotonic() + _LINE_S
        console = Console(file=sys.stderr)
        shown = console.is_terminal if mode is None else mode is True
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            disable=not shown,
            refresh_per_second=_REFRESHES,
        )
        self._task = self._bar.add_task("", total=None)

    def __call__(self, done: float, total: float | None, doing: str) -> None:
        """See `jobrunner.bench.measure.Progress`."""
        if not self._bar.disable:
            self._bar.update(self._task, completed=done, total=total, description=doing)
        if self._plain and time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + _LINE_S
            of = "" if total is None else f" of {total:.0f}"
            print(f"{done:.0f}{of} samples and runs; {doing}", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class TqdmProgress:
    """A bar of a class of tqdm's.  A context manager, and what `jobrunner.bench.measure.Progress` says.

    Args:
        kind: the class, or a `functools.partial` of it.
        name: stands before the bar.
    """

    def __init__(self, kind: Callable[..., Any], name: str) -> None:
        self._bar = open_tqdm(kind, name)

    def __call__(self, done: float, total: float | None, doing: str) -> None:
        """See `jobrunner.bench.measure.Progress`."""
        self._bar.total = total
        self._bar.set_postfix_str(doing, refresh=False)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> TqdmProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
