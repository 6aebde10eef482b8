"""What ``jobrunner bench`` prints: tables of medians and of scaling, growth, failures and warnings."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from jobrunner.bench.compare import Baseline, Comparison
from jobrunner.bench.intervals import Estimate
from jobrunner.bench.result import BenchmarkResult, Growth, Scaling, Series, short_names
from jobrunner.cli.console import plain_console
from jobrunner.cli.table import describe
from jobrunner.memory import format_bytes
from jobrunner.texts import plural, printable

__all__ = ["print_failures", "print_result", "print_warnings"]

#: Failures and warnings told one by one.
_SHOWN_MOST = 50

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def print_result(result: BenchmarkResult, compared: Sequence[Comparison], baseline: Baseline | None) -> None:
    """Print all that was found, on stdout."""
    console = plain_console()
    names = short_names(result.implementations)
    constant = {name: value for name, value in _constant(result).items() if name not in result.varying}
    head = printable(result.name) + (f": {describe(constant)}" if constant else "")
    console.print(Text(head if result.complete else f"{head} (not complete)", style="bold"))
    console.print(_medians(result, compared, baseline, names))
    for growth in result.growths:
        console.print(Text(_growth(growth, names)))
    for scaling in result.scaling:
        console.print()
        console.print(Text(_scaling_head(scaling, result, names), style="bold"))
        console.print(_scaling(scaling))
        if scaling.fit is not None:
            console.print(Text(scaling.fit.text))


def _constant(result: BenchmarkResult) -> Mapping[str, Any]:
    """The first point, in the order of the parameters."""
    first = result.series[0].parameters
    return {name: first[name] for name in result.parameters if name in first}


# --- medians ----------------------------------------------------------------------------------------------------------


def _medians(
    result: BenchmarkResult, compared: Sequence[Comparison], baseline: Baseline | None, names: Mapping[str, str]
) -> Table:
    by_name = {each.series.name: each for each in compared}
    against = "baseline" if baseline is not None else names[result.implementations[0]]
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("function", no_wrap=True)
    for name in result.varying:
        table.add_column(Text(printable(name)), justify="right", style="cyan", no_wrap=True)
    for header in ("median", "95 % interval", "MAD", "CPU", "peak", "samples"):
        table.add_column(header, justify="right", no_wrap=True)
    if compared:
        table.add_column(Text(f"by {printable(against)}"), justify="right", no_wrap=True)
    for series in result.series:
        cells = [printable(names[series.implementation])]
        cells += [describe({name: series.parameters.get(name)}).partition("=")[2] for name in result.varying]
        cells += _figures(series)
        if compared:
            cells.append(_ratio(by_name.get(series.name)))
        table.add_row(*map(Text, cells))
    return table


def _figures(series: Series) -> list[str]:
    median, summary = series.median, series.summary
    good, taken = len(series.good), len(series.samples)
    count = str(taken) if good == taken else f"{good} of {taken}"
    if median is None or summary is None:
        return ["failed" if series.given_up or series.failed else "-", "", "", "", "", count]
    unit = _unit(median.value)
    peak = series.peak_rss_bytes
    return [
        _time(median.value, unit),
        _interval(median, unit),
        f"{100 * summary.mad / median.value:.1f} %",
        "-" if series.cpu_s is None else f"{100 * series.cpu_s / median.value:.0f} %",
        "-" if peak is None else format_bytes(peak),
        count + ("!" if series.warnings else ""),
    ]


def _unit(seconds: float) -> tuple[float, str]:
    return next((unit for unit in _UNITS if seconds >= unit[0]), _UNITS[-1])


def _time(seconds: float, unit: tuple[float, str]) -> str:
    return f"{_digits(seconds / unit[0])} {unit[1]}"


def _digits(number: float) -> str:
    """A number with four digits."""
    places = max(0, 3 - len(str(int(number)))) if number >= 1 else 3
    return f"{number:.{places + (number < 1000)}f}" if number < 1000 else f"{number:,.0f}"


def _interval(estimate: Estimate, unit: tuple[float, str]) -> str:
    if estimate.high == float("inf"):
        return "-"
    return f"{_digits(estimate.low / unit[0])} to {_digits(estimate.high / unit[0])}"


def _ratio(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    ratio = comparison.ratio
    if ratio is None:
        return "-"
    if ratio.high == float("inf"):
        return f"{ratio.value:.3f}"
    same = "" if comparison.different else " same?"
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}){same}"


# --- growth and scaling -----------------------------------------------------------------------------------------------


def _growth(growth: Growth, names: Mapping[str, str]) -> str:
    others = f" at {describe(growth.others)}" if growth.others else ""
    over = f"{printable(growth.parameter)} (n)" if growth.parameter != "n" else "n"
    return f"{printable(names[growth.implementation])} grows with {over}{others}: {growth.fit.text}"


def _scaling_head(scaling: Scaling, result: BenchmarkResult, names: Mapping[str, str]) -> str:
    series = result.find(scaling.name)
    assert series is not None
    point = {name: series.parameters[name] for name in result.varying if name in series.parameters}
    where = f" {describe(point)}" if point else ""
    calls = "" if scaling.loops == 1 else f" of {scaling.loops:,} calls"
    against = "" if scaling.widths[0] == 1 else f"; speedup over {scaling.widths[0]} workers"
    return f"{printable(names[series.implementation])}{where}: batches of {plural(scaling.jobs, 'job')}{calls}{against}"


def _scaling(scaling: Scaling) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for header in ("workers", "calls/s", "speedup", "95 % interval", "efficiency", "runs"):
        table.add_column(header, justify="right", no_wrap=True)
    for width in scaling.widths:
        throughput, speedup, efficiency = scaling.throughput(width), scaling.speedup(width), scaling.efficiency(width)
        runs = sum(run.width == width for run in scaling.runs)
        good = len(scaling.seconds(width))
        finite = speedup is not None and speedup.high != float("inf")
        table.add_row(
            str(width),
            "failed" if throughput is None else _rate(throughput.value),
            "-" if speedup is None else f"{speedup.value:.2f}",
            f"{speedup.low:.2f} to {speedup.high:.2f}" if speedup is not None and finite else "-",
            "-" if efficiency is None else f"{100 * efficiency.value:.0f} %",
            str(runs) if runs == good else f"{good} of {runs}",
        )
    return table


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


# --- what went wrong --------------------------------------------------------------------------------------------------


def print_failures(result: BenchmarkResult) -> None:
    """Print what failed on stderr, each reason of a series once."""
    _print_lines("failed", _failures(result))


def _failures(result: BenchmarkResult) -> Iterable[str]:
    for series in result.series:
        counts: dict[str, int] = {}
        for sample in series.failed:
            reason = f"{sample.failure}: {sample.error}"
            counts[reason] = counts.get(reason, 0) + 1
        if series.given_up is not None:
            yield f"{series.name}: {series.given_up}"
        else:
            for reason, count in counts.items():
                yield f"{series.name}: {plural(count, 'sample')}: {reason}"
    for scaling in result.scaling:
        errors = dict.fromkeys((run.width, run.error) for run in scaling.runs if run.error)
        for width, error in errors:
            yield f"{scaling.name} with {plural(width, 'worker')}: {error}"


def print_warnings(result: BenchmarkResult) -> None:
    """Print what a reader should know before trusting the figures, on stderr."""
    _print_lines("warning", result.warnings)


def _print_lines(kind: str, lines: Iterable[str]) -> None:
    every = list(lines)
    for line in itertools.islice(every, _SHOWN_MOST):
        click.echo(f"{kind}: {printable(line)}", err=True)
    if len(every) > _SHOWN_MOST:
        click.echo(f"{kind}: {len(every) - _SHOWN_MOST} more; --json has all", err=True)
