"""Medians, spreads and ratios: as a table for people, and as JSON in pyperf's format."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.cases import Case
from benchmarks.peers import settings_of, version_of
from benchmarks.runner import Run, Series

__all__ = ["Row", "as_pyperf", "failed", "print_table", "rows"]

#: The one that the others are peers of.
_OURS = "jobrunner"

_PER_UNIT = {"s": 1.0, "ms": 1e3, "µs": 1e6}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one series; all None where no sample succeeded.

    median, low, high: seconds: the median, and the smallest and largest sample.
    ratio: the median by that of the best peer, jobrunner not counted among them; below 1 is better than every peer.
    """

    series: Series
    median: float | None
    low: float | None
    high: float | None
    ratio: float | None


def rows(run: Run) -> list[Row]:
    """The figures of a run, in its order."""
    medians: dict[tuple[str, str], float] = {
        (series.case.name, series.peer.name): statistics.median(series.seconds)
        for series in run.series
        if series.seconds
    }
    result = []
    for series in run.series:
        case = series.case.name
        median = medians.get((case, series.peer.name))
        best = min((m for (other, peer), m in medians.items() if other == case and peer != _OURS), default=None)
        result.append(
            Row(
                series=series,
                median=median,
                low=min(series.seconds, default=None),
                high=max(series.seconds, default=None),
                ratio=median / best if median is not None and best is not None else None,
            )
        )
    return result


def print_table(run: Run, console: Console) -> None:
    """Print the figures, what the ratios mean, and the settings."""
    table = Table(title=f"{run.workers} workers, median of {run.repeats}", title_justify="left")
    for header, justify in (("case", "left"), ("", "left"), ("median", "right"), ("from", "right"), ("to", "right")):
        table.add_column(header, justify="right" if justify == "right" else "left", overflow="fold")
    table.add_column("time ÷ best peer's", justify="right")
    table.add_column("", justify="left", overflow="fold")
    shown: Case | None = None
    for row in rows(run):
        series = row.series
        if series.case is not shown:
            table.add_section()
        figures = [_figure(value, series.case.unit) for value in (row.median, row.low, row.high)]
        notes = [*series.notes, *(f"failed: {error}" for error in dict.fromkeys(series.errors))]
        table.add_row(
            Text(series.case.name if series.case is not shown else ""),
            Text(series.peer.name, style="bold" if series.peer.name == _OURS else ""),
            *map(Text, figures),
            Text("" if row.ratio is None else f"{row.ratio:.2f}"),
            Text("; ".join(notes)),
        )
        shown = series.case
    console.print(table)
    for name, title in dict.fromkeys((series.case.name, series.case.title) for series in run.series):
        console.print(Text(f"{name}: {title}"))
    for line in _settings(run):
        console.print(Text(line))


def _settings(run: Run) -> Iterator[str]:
    for peer in dict.fromkeys(series.peer for series in run.series):
        yield f"{peer.name} {version_of(peer)}: {settings_of(peer)}"


def _figure(seconds: float | None, unit: str) -> str:
    """A figure of three digits or so.

    Example:
        >>> _figure(0.0001234, "µs"), _figure(0.00005, "/s"), _figure(None, "ms")
        ('123 µs', '20,000/s', '-')
    """
    if seconds is None:
        return "-"
    if unit == "/s":
        return f"{1.0 / seconds:,.0f}/s"
    value = seconds * _PER_UNIT[unit]
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def as_pyperf(run: Run) -> dict[str, Any]:
    """The run in pyperf's JSON format: a benchmark a series, named ``case/peer``, a run of one value a sample.

    All values are seconds, also of the cases whose figures are shown as so many a second.
    """
    return {
        "version": "1.0",
        "metadata": _metadata(run),
        "benchmarks": [_benchmark(series) for series in run.series if series.measurements],
    }


def _benchmark(series: Series) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": f"{series.case.name}/{series.peer.name}",
        "unit": "second",
        "loops": 1,
        "description": series.case.title,
        "case": series.case.name,
        "peer": series.peer.name,
        "peer_version": version_of(series.peer),
        "peer_settings": settings_of(series.peer),
    }
    if series.notes:
        metadata["note"] = "; ".join(series.notes)
    return {
        "metadata": metadata,
        "runs": [
            {"metadata": {"date": _date(date)}, "values": [seconds]}
            for date, seconds in zip(series.dates, series.seconds, strict=True)
        ],
    }


def _metadata(run: Run) -> dict[str, str | int | float]:
    """The machine and the settings; nothing that names the machine or its user."""
    found: dict[str, str | int | float] = {
        "python_version": platform.python_version(),
        "python_implementation": platform.python_implementation().lower(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count() or 1,
        "workers": run.workers,
        "repeats": run.repeats,
        **{f"scale_{name}": value for name, value in dataclasses.asdict(run.scale).items()},
    }
    model = _cpu_model()
    if model:
        found["cpu_model_name"] = model
    if run.load is not None:
        found["load_avg_1min"] = run.load[0]
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _date(epoch: float) -> str:
    # As pyperf writes it: without a zone, which is UTC here.
    return datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).replace(tzinfo=None).isoformat(" ")


def failed(run: Run) -> Sequence[Series]:
    """The series of which a sample failed."""
    return [series for series in run.series if series.errors]
