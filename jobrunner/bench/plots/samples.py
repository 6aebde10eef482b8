"""The samples of each series: all of them, how they are distributed, and what is known of their median."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.bench.plots.canvas import FAILED, INK, SOFT, Canvas, Look, beside, finite, look, picked
from jobrunner.bench.plots.texts import labels, point_text, shorten
from jobrunner.bench.plots.ticks import decimal_ticks, time_text, time_unit
from jobrunner.bench.result import BenchmarkResult, Series

__all__ = ["samples_figure"]

_PANELS_MOST = 12
_ROWS_MOST = 40

#: Samples whose largest is so many times the smallest are shown on a logarithmic axis.
_LOGARITHMIC = 8.0

#: From fewer samples, a density would be a drawing of its bandwidth.
_VIOLIN_LEAST = 5

#: A density is that of so many percentiles at most.
_DENSITY_MOST = 200

#: More dots than this in a row are an image in an SVG file.
_DOTS_MOST = 500

#: Half the height of a violin, and of dots without one, in rows.
_VIOLIN, _STRIP = 0.4, 0.14


def samples_figure(result: BenchmarkResult) -> Canvas | None:
    """A panel for each point, with a row for each implementation; None where all samples have failed."""
    points: dict[str, dict[str, Series]] = {}
    for series in result.series:
        points.setdefault(repr(sorted(series.parameters.items())), {})[series.implementation] = series
    if not any(series.good for series in result.series):
        return None
    shown = picked(list(points.values()), _PANELS_MOST)
    names = result.implementations[:_ROWS_MOST]
    canvas = Canvas(
        _title((len(shown), len(points)), (len(names), len(result.implementations))),
        result,
        panels=len(shown),
        columns=3,
        width=6.0 if len(shown) == 1 else 3.7,
        height=0.75 + max(0.9, (0.5 if len(names) <= 6 else 0.36) * len(names)),
        margin=1.6,
    )
    rows_of = list(labels(result.implementations, 40 if len(shown) == 1 else 26).values())[: len(names)]
    for axes, by_name in zip(canvas.axes, shown, strict=True):
        parameters = next(iter(by_name.values())).parameters
        axes.set_title(shorten(point_text(parameters, result.varying), 60 if len(shown) == 1 else 32))
        _panel(axes, [by_name.get(name) for name in names])
        axes.set_yticks(range(len(names)), rows_of if axes in canvas.leftmost else [])
    canvas.legend(_legend([series for by_name in shown for series in by_name.values()]))
    return canvas


def _title(points: tuple[int, int], functions: tuple[int, int]) -> str:
    parts = (("points", *points), ("functions", *functions))
    told = ", ".join(f"{some} of {every} {what}" for what, some, every in parts if some < every)
    return f"Time of a call ({told})" if told else "Time of a call"


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Where times lie on a panel's axis.

    Attributes:
        unit: seconds of the unit, and its name.
        logarithmic: whether it is, so that places are decimal logarithms of seconds.
    """

    unit: tuple[float, str]
    logarithmic: bool

    def place(self, seconds: float) -> float:
        return math.log10(seconds) if self.logarithmic else seconds / self.unit[0]


def _panel(axes: Any, rows: Sequence[Series | None]) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    samples = [seconds for series in rows if series is not None for seconds in series.seconds]
    if samples:
        low, high = min(samples), max(samples)
        axis = _Axis(time_unit(high), high > _LOGARITHMIC * low)
        beside(axes, "median", None)
        _set_axis(axes, axis, *_reach(axis, low, high, rows))
    else:
        axes.set_xticks([])
    for number, series in enumerate(rows):
        if series is None:
            continue
        if series.good:
            _row(axes, axis, number, series, look(number))
        else:
            text = "failed" if series.failed or series.given_up else "no samples"
            colour = FAILED if series.failed or series.given_up else SOFT
            axes.text(0.5, number, text, transform=axes.get_yaxis_transform(), ha="center", va="center", color=colour)
        _results(axes, number, series)


def _reach(axis: _Axis, low: float, high: float, rows: Sequence[Series | None]) -> tuple[float, float]:
    """The ends of an axis: what all samples need, and intervals as far as they don't dwarf the samples."""
    first, last = axis.place(low), axis.place(high)
    span = max(last - first, 0.02 * abs(last))
    bounds = [
        bound
        for series in rows
        if series is not None and series.median is not None and finite(series.median.low, series.median.high)
        for bound in (series.median.low, series.median.high)
    ]
    middle = (first + last) / 2
    first, last = min(first, middle - span / 2), max(last, middle + span / 2)
    ends = [first, last, *(min(max(axis.place(bound), first - span), last + span) for bound in bounds)]
    return min(ends) - 0.06 * span, max(ends) + 0.06 * span


def _set_axis(axes: Any, axis: _Axis, first: float, last: float) -> None:
    axes.set_xlim(first, last)
    if axis.logarithmic:
        ticks = decimal_ticks(10**first, 10**last, most=5)
        axes.set_xticks([math.log10(tick) for tick in ticks], [time_text(tick) for tick in ticks])
        axes.set_xlabel("time of a call, logarithmic")
    else:
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(axis="x", useOffset=False, style="plain")
        axes.set_xlabel(f"time of a call [{axis.unit[1]}]")


def _row(axes: Any, axis: _Axis, number: int, series: Series, look: Look) -> None:
    places = [axis.place(seconds) for seconds in series.seconds]
    heights = [_STRIP if len(places) < _VIOLIN_LEAST else _VIOLIN] * len(places)
    density = _Density(places) if len(places) >= _VIOLIN_LEAST and max(places) > min(places) else None
    if density is not None:
        low, high = min(places), max(places)
        curve = [low + (high - low) * step / 100 for step in range(101)]
        halves = [_VIOLIN * density.at(place) for place in curve]
        axes.fill_between(
            curve,
            [number - half for half in halves],
            [number + half for half in halves],
            facecolor=look.colour,
            edgecolor=look.colour,
            alpha=0.22,
            linewidth=0.8,
        )
        heights = [0.85 * _VIOLIN * density.at(place) for place in places]
    axes.scatter(
        places,
        [number + height * _spread(n, len(places)) for n, height in enumerate(heights)],
        s=_size(len(places)),
        color=look.colour,
        alpha=0.75 if len(places) <= 100 else 0.4,
        linewidth=0,
        zorder=3,
        rasterized=len(places) > _DOTS_MOST,
    )
    _median(axes, axis, number, series)


def _size(count: int) -> float:
    """The area of a dot, in square points."""
    return 30.0 if count == 1 else 11.0 if count <= 100 else 5.0


def _spread(n: int, count: int) -> float:
    """How far dot `n` of `count` is moved from the middle of its row, from -1 to 1; always in the same way."""
    if count < _VIOLIN_LEAST:  # off the line of the interval
        return 0.0 if count == 1 else (-1.0) ** n
    return 2 * (0.5 + 0.618034 * n) % 2 - 1  # multiples of the golden ratio are spread evenly


def _median(axes: Any, axis: _Axis, number: int, series: Series) -> None:
    estimate = series.median
    if estimate is None or not finite(estimate.low, estimate.high):
        return  # a sample that is alone is all there is
    low, high = axis.place(estimate.low), axis.place(estimate.high)
    axes.plot([low, high], [number, number], color=INK, linewidth=1.8, solid_capstyle="butt", zorder=4)
    axes.plot([low, high], [number, number], "|", color=INK, markersize=8, markeredgewidth=1.4, zorder=4)
    axes.plot(axis.place(estimate.value), number, **_MEDIAN, zorder=5)


#: How the median is marked.
_MEDIAN: Mapping[str, Any] = {
    "marker": "D",
    "color": INK,
    "markersize": 5.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.9,
}


def _results(axes: Any, number: int, series: Series) -> None:
    """The median as a number right of the panel, and how many samples have failed."""
    both = series.median is not None and series.failed
    if series.median is not None:
        beside(axes, time_text(series.median.value, zeros=True), number, up=5 if both else 0)
    if series.failed:
        beside(axes, f"× {len(series.failed)}", number, up=-5 if both else 0, color=FAILED)


def _legend(shown: Sequence[Series]) -> list[tuple[str, Mapping[str, Any]]]:
    entries: list[tuple[str, Mapping[str, Any]]] = [
        ("a sample", {"marker": "o", "color": SOFT, "markersize": 4, "markeredgewidth": 0})
    ]
    if any(len(series.good) > 1 for series in shown):
        entries.append(("median, its 95 % interval", {"linestyle": "-", "linewidth": 1.8, **_MEDIAN}))
    if any(series.failed for series in shown):
        entries.append(("samples that failed", {"marker": "x", "color": FAILED, "markersize": 5}))
    return entries


class _Density:
    """A kernel density estimate, as a share of its maximum.

    The bandwidth is that of B. W. Silverman, "Density Estimation", 1986, equation 3.31, which outliers don't widen.
    """

    def __init__(self, places: Sequence[float]) -> None:
        ordered = sorted(places)
        if len(ordered) > _DENSITY_MOST:
            ordered = picked(ordered, _DENSITY_MOST)
        self._places = ordered
        quarter = len(ordered) // 4
        middle = (ordered[-1 - quarter] - ordered[quarter]) / 1.349
        spread = min(statistics.stdev(places), middle) if middle > 0 else statistics.stdev(places)
        # A violin of a few pixels' width has no shape: most samples may be equal.
        self._width = max(0.9 * spread * len(places) ** -0.2, (ordered[-1] - ordered[0]) / 200)
        self._most = max(map(self._sum, ordered))

    def _sum(self, place: float) -> float:
        return math.fsum(math.exp(-0.5 * ((place - each) / self._width) ** 2) for each in self._places)

    def at(self, place: float) -> float:
        """The density at a place, from 0 to 1."""
        return min(1.0, self._sum(place) / self._most)
