"""How far a batch is: a bar on a terminal or in a notebook, a line now and then, or whatever the user names."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from jobrunner.batch.outcomes import Outcome, OutcomeStatus
from jobrunner.batch.run import Activity
from jobrunner.batch.tellers import make_teller, misuse
from jobrunner.batch.work import Whole
from jobrunner.memory import format_bytes

__all__ = ["PLAIN", "Progress", "ProgressMode", "format_duration"]

#: See `Batch.run`.
ProgressMode = bool | str | Callable[..., object] | None

#: The mode of one line now and then.
PLAIN: Final = "plain"

#: Seconds between two such lines.
_LINE_S = 30.0

#: Tellers are told no more often than so, in seconds, and of the end.
_TOLD_S = 0.1

#: The weight of the newest job in the smoothed length of jobs.
_NEWEST = 0.05


def format_duration(seconds: float) -> str:
    """A duration for people.

    Example:
        >>> format_duration(3.2), format_duration(95), format_duration(7500), format_duration(200_000)
        ('3 s', '1 min 35 s', '2 h 05 min', '2 d 07 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"


class _RateColumn(ProgressColumn):
    """Ended jobs per second, or seconds per job where that is the readable one."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.fields["rate"]), style="progress.data.speed")


def _rate(rate: float) -> str:
    if not rate:
        return "-/s"
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


class Progress:
    """The display of one run.  A context manager.

    The time left comes from how long jobs take, and how many run at a time: the rate of a run that has just begun, or
    of one whose jobs take hours, would say nothing.

    Args:
        name: the batch's name.
        mode: as of `Batch.run`.
    """

    def __init__(self, name: str, mode: ProgressMode = None) -> None:
        _check(mode)
        self._teller = make_teller(mode, name)
        self._told_at = 0.0
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._name = name
        self._plain = isinstance(mode, str)
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            _RateColumn(),
            TextColumn("ETA {task.fields[left]}"),
            TextColumn("{task.fields[memory]}"),
            console=Console(stderr=True),
            # The results are the record; a bar that stays would stand between them and the prompt.
            transient=True,
            # What the jobs log appears above it.
            redirect_stdout=False,
            redirect_stderr=True,
            disable=self._teller is not None or not (mode is True or (mode is None and terminal)),
        )
        # The log handlers that write above the bar while it is shown, and where they write else.
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO]] = []
        self._task: Any = None
        self._preparing: Any = None
        self._total = 0
        self._ended = 0
        self._failed = 0
        # How many jobs run at a time, in all processes that run the batch, and in this one.
        self._workers = 1
        self._own_workers = 1
        self._rate = 0.0
        self._memory = 0
        self._job_s: float | None = None
        self._begun = time.monotonic()
        self._line_at = self._begun + _LINE_S

    def prepare(self, written: int, total: int) -> None:
        """Show how many points are in the store, before anything runs."""
        if self._preparing is None:
            self._preparing = self._bar.add_task(
                f"{self._name}: storing points", total=total, failed=0, rate=0.0, left="-", memory=""
            )
        self._bar.update(self._preparing, completed=written, visible=written < total)

    def begin(self, total: int, *, done: int, failed: int, workers: int) -> None:
        """Show the run itself.

        Args:
            total: points in the batch.
            done: those that are done before it.
            failed: those that have failed before it, and are not run again.
            workers: how many jobs run at a time.
        """
        self._total, self._ended, self._failed = total, done + failed, failed
        self._workers = self._own_workers = max(workers, 1)
        self._begun = time.monotonic()
        self._task = self._bar.add_task(
            self._name, total=total, completed=self._ended, failed=failed, rate=0.0, left="-", memory=""
        )
        self._update(True)

    def advance(self, outcome: Outcome) -> None:
        """Count one outcome."""
        if outcome.status in (OutcomeStatus.RETRIED, OutcomeStatus.CANCELLED):
            return
        self._ended += 1
        self._failed += outcome.status is OutcomeStatus.FAILED
        if outcome.report is not None and outcome.report.run_s is not None:
            length = outcome.report.run_s
            self._job_s = length if self._job_s is None else (1 - _NEWEST) * self._job_s + _NEWEST * length
        self._update(False)

    def end(self, *, done: int, failed: int) -> None:
        """The run is over.

        Args:
            done: points that are done.
            failed: those that have failed.
        """
        self._ended, self._failed = done + failed, failed
        self._update(True)

    def show(self, activity: Activity, whole: Whole | None = None) -> None:
        """Take note of what the run is doing, once a second.

        Args:
            activity: what this process is doing.
            whole: how the batch stands, where other processes run it, too.
        """
        if whole is not None:
            self._ended, self._failed = whole.done + whole.failed, whole.failed
            self._workers = self._own_workers + whole.other_workers
            self._update(True)
        self._rate, self._memory = activity["rate"] * self._workers / self._own_workers, activity["rss_bytes"]
        if not self._bar.disable:
            self._bar.update(self._task, rate=self._rate, left=self.left(), memory=format_bytes(self._memory))
        if self._plain and time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + _LINE_S
            print(self.line(), file=sys.stderr, flush=True)

    def _update(self, at_once: bool) -> None:
        """Show how many have ended; at once, or unless that was shown a moment ago."""
        if not self._bar.disable:
            self._bar.update(self._task, completed=self._ended, failed=self._failed)
        if self._teller is not None:
            now = time.monotonic()
            if at_once or now >= self._told_at + _TOLD_S:
                self._told_at = now
                self._teller.tell(self._ended, self._failed, self._total, self.left())

    def left(self) -> str:
        """The time left, for people."""
        remaining = self._total - self._ended
        by_length = None if self._job_s is None else remaining * self._job_s / self._workers
        # Of tiny jobs the length is not what counts.
        by_rate = remaining / self._rate if self._rate else None
        known = [each for each in (by_length, by_rate if (self._job_s or 0) < 0.01 else None) if each is not None]
        return format_duration(max(known)) if known else "-"

    def line(self) -> str:
        """The progress as one line."""
        return (
            f"{self._name}: {self._ended} of {self._total} ended, {self._failed} failed, {_rate(self._rate)}, "
            f"ETA {self.left()}, {format_bytes(self._memory)}, running for "
            f"{format_duration(time.monotonic() - self._begun)}"
        )

    def __enter__(self) -> Progress:
        plain = sys.stderr
        self._bar.start()
        if sys.stderr is not plain:
            # Handlers that were made before hold the stream that was there before, and would write into the bar.
            self._handlers = [(handler, plain) for handler in _handlers_of(plain)]
            for handler, _ in self._handlers:
                handler.setStream(sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handler, plain in self._handlers:
            handler.setStream(plain)
        self._handlers = []
        self._bar.stop()
        if self._teller is not None:
            self._teller.close()


def _check(mode: object) -> None:
    """Refuse what is no mode.

    By type: a bar of tqdm's, a likely mistake, raises when it is compared with what is none.
    """
    if isinstance(mode, str):
        known = mode == PLAIN
    elif isinstance(mode, int):
        known = mode in (True, False)
    else:
        known = mode is None or (callable(mode) and misuse(mode) is None)
    if not known:
        found = misuse(mode) or repr(mode)
        raise ValueError(f"progress must be True, False, {PLAIN!r}, None, a function or a class of tqdm's, not {found}")


def _handlers_of(stream: TextIO) -> list[logging.StreamHandler[Any]]:
    """The log handlers that write to a stream."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    return [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream
    ]
