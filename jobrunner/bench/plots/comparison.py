"""How many times as long each series takes as what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.bench.compare import Comparison
from jobrunner.bench.intervals import Estimate
from jobrunner.bench.plots.canvas import FAILED, INK, SOFT, Canvas, beside, finite, look
from jobrunner.bench.plots.texts import labels, point_text, shorten
from jobrunner.bench.plots.ticks import decimal_ticks, number_text
from jobrunner.bench.result import BenchmarkResult

__all__ = ["comparison_figure"]

_ROWS_MOST = 60

#: Ratios that span more than this factor are shown on a logarithmic axis.
_LOGARITHMIC = 4.0

#: Intervals that reach this much farther than the ratios (as a logarithm), or than the ratios span, are cut off.
_REACH = 0.15

_FASTER: Mapping[str, Any] = {"color": look(0).colour, "marker": "v", "markersize": 7}
_SLOWER: Mapping[str, Any] = {"color": look(1).colour, "marker": "^", "markersize": 7}
_SAME: Mapping[str, Any] = {"color": "#777777", "marker": "o", "markersize": 6}
_UNKNOWN: Mapping[str, Any] = {**_SAME, "markerfacecolor": "white", "linestyle": "none"}


def comparison_figure(result: BenchmarkResult, compared: Sequence[Comparison], against: str | None) -> Canvas | None:
    """A row for each comparison; None where nothing can be compared.

    Args:
        result: the benchmark.
        compared: the comparisons.
        against: what they are with; None: the first implementation, or a baseline if each is with its own name.
    """
    if not any(each.ratio is not None for each in compared):
        return None
    names = labels(result.implementations, 26)
    if against is None:
        own = all(each.reference == each.series.name for each in compared)
        against = "the baseline" if own else names[result.implementations[0]]
    shown = _farthest(compared)
    less = f" ({len(shown)} of {len(compared)}, those farthest from 1)" if len(shown) < len(compared) else ""
    canvas = Canvas(
        f"Time compared with {shorten(against, 30)}{less}",
        result,
        panels=1,
        columns=1,
        width=6.4,
        height=0.9 + 0.28 * max(3, len(shown)),
        margin=3.2,
    )
    (axes,) = canvas.axes
    _set_axis(axes, [each.ratio for each in shown if each.ratio is not None])
    beside(axes, "ratio (95 % interval)", None)
    axes.axvline(1.0, color=INK, linewidth=1.1, zorder=2)
    for number, each in enumerate(shown):
        _row(axes, number, each)
    texts = [
        f"{names[each.series.implementation]} {point_text(each.series.parameters, result.varying)}" for each in shown
    ]
    axes.set_yticks(range(len(shown)), [shorten(text.strip(), 64) for text in texts])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"← faster     times as long as {shorten(against, 30)}     slower →")
    canvas.legend(
        [
            (text, {"linestyle": "-", "linewidth": 1.8, **mark})
            for text, mark in (
                ("faster", _FASTER),
                ("slower", _SLOWER),
                ("no difference seen", _SAME),
                ("no interval", _UNKNOWN),
            )
            if any(_mark(each) is mark for each in shown)
        ]
    )
    return canvas


def _farthest(compared: Sequence[Comparison]) -> list[Comparison]:
    """As many as there is room for, in their order: those with the largest differences."""

    def distance(each: Comparison) -> float:
        return abs(math.log(each.ratio.value)) if each.ratio is not None else math.inf

    kept = sorted(range(len(compared)), key=lambda number: -distance(compared[number]))[:_ROWS_MOST]
    return [compared[number] for number in sorted(kept)]


def _mark(comparison: Comparison) -> Mapping[str, Any] | None:
    if comparison.ratio is None:
        return None
    if not finite(comparison.ratio.low, comparison.ratio.high):
        return _UNKNOWN
    if not comparison.different:
        return _SAME
    return _FASTER if comparison.ratio.value < 1 else _SLOWER


def _set_axis(axes: Any, ratios: Sequence[Estimate]) -> None:
    values = [1.0, *(ratio.value for ratio in ratios)]
    bounds = [bound for each in ratios if finite(each.low, each.high) for bound in (each.low, each.high)]
    low, high = min(values), max(values)
    logarithmic = high > _LOGARITHMIC * low
    # In logarithms, so that neither the faster nor the slower have more room.
    more = max(math.log(high / low), _REACH)
    first = min(math.log(low), *(max(math.log(bound), math.log(low) - more) for bound in bounds), -0.02)
    last = max(math.log(high), *(min(math.log(bound), math.log(high) + more) for bound in bounds), 0.02)
    pad = 0.05 * (last - first)
    first, last = math.exp(first - pad), math.exp(last + pad)
    if logarithmic:
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = decimal_ticks(first, last, most=9)
        axes.set_xticks(ticks, [number_text(tick) for tick in ticks])
    else:
        axes.locator_params(axis="x", nbins=8)
        axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    axes.set_xlim(first, last)
    axes.grid(axis="y", visible=False)


def _row(axes: Any, number: int, comparison: Comparison) -> None:
    ratio, mark = comparison.ratio, _mark(comparison)
    if ratio is None or mark is None:
        series = comparison.series
        text, colour = ("failed", FAILED) if series.failed or series.given_up else ("no samples", SOFT)
    else:
        text, colour = _text(ratio.value), INK if comparison.different else SOFT
        if mark is not _UNKNOWN:
            text += f"  ({_text(ratio.low)} to {_text(ratio.high)})"
            line = {"color": mark["color"], "linewidth": 1.8, "markersize": 5, "zorder": 3}
            axes.plot([ratio.low, ratio.high], [number, number], "|-", **line)
        edge = mark["color"] if mark is _UNKNOWN else "white"
        axes.plot(ratio.value, number, **mark, markeredgecolor=edge, zorder=4)
    beside(axes, text, number, color=colour)


def _text(ratio: float) -> str:
    if ratio >= 100:
        return f"{ratio:,.0f}"
    return f"{ratio:.3f}" if 0.1 <= ratio < 10 else f"{ratio:.3g}"
