"""The figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.peers import MACHINE, OURS
from benchmarks.results import Row, Run, Series, rows
from benchmarks.targets import Target, targets

__all__ = ["failed", "notes_of", "print_figures", "print_settings", "print_targets"]


def print_figures(run: Run, console: Console) -> None:
    """Print the figures, and what each says."""
    table = Table(title=f"{run.metadata['workers']} workers, median of {run.metadata['repeats']}", title_justify="left")
    for header in ("figure", ""):
        table.add_column(header, overflow="fold")
    for header in ("median", "from", "to", "÷ best peer", "÷ limit"):
        table.add_column(header, justify="right")
    table.add_column("", overflow="fold")
    shown = ""
    for row in rows(run):
        series = row.series
        new = series.key != shown
        if new:
            table.add_section()
        table.add_row(Text(series.key if new else ""), *_cells(row))
        shown = series.key
    console.print(table)
    console.print(
        Text("÷: time, memory or core-seconds by those of the best peer, of the machine's limit; 1.0 is as good.")
    )
    for key, title in dict.fromkeys((series.key, series.figure.title) for series in run.series):
        console.print(Text(f"{key}: {title}"))


def _cells(row: Row) -> Iterator[Text]:
    series = row.series
    style = {OURS: "bold", MACHINE: "dim"}.get(series.peer, "")
    yield Text(series.peer, style=style)
    for value in (row.median, row.low, row.high):
        yield Text(series.figure.how.text(value))
    for ratio in (row.to_best, row.to_limit):
        yield Text("" if ratio is None else f"{ratio:.3g}")
    yield Text("; ".join(notes_of(series)))


def notes_of(series: Series) -> list[str]:
    """What there is to say of a series, for people."""
    return [*([series.skipped] if series.skipped else []), *series.notes, *(f"failed: {e}" for e in series.errors)]


def print_settings(run: Run, console: Console) -> None:
    """Print how each peer is set."""
    for name, (version, settings) in run.peers.items():
        console.print(Text(f"{name} {version}: {settings}"))


def print_targets(run: Run, console: Console) -> None:
    """Print what jobrunner must show, and whether this run shows it; nothing if it has none of the figures."""
    found = targets(run)
    if not found:
        return
    table = Table(title="targets", title_justify="left")
    table.add_column("figure", overflow="fold")
    for header in (OURS, "against", "", "ratio", "target"):
        table.add_column(header, justify="right" if header != "against" else "left")
    table.add_column("met")
    for target in found:
        table.add_row(*map(Text, _target_cells(target)), _met(target))
    console.print(table)


def _target_cells(target: Target) -> tuple[str, ...]:
    ratio = "" if target.ratio is None else f"{target.ratio:.3g}"
    return (target.title, target.ours, target.against, target.theirs, ratio, target.wanted)


def _met(target: Target) -> Text:
    if target.met is None:
        return Text("not known" + (f": {target.note}" if target.note else ""), style="dim")
    text = "yes" if target.met else "no"
    return Text(f"{text}: {target.note}" if target.note else text, style="green" if target.met else "red")


def failed(run: Run) -> list[Series]:
    """The series of jobrunner and of the machine of which a sample failed."""
    return [series for series in run.series if series.errors and series.peer in {OURS, MACHINE}]
