"""How much faster batches are with more workers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.bench.amdahl import Amdahl
from jobrunner.bench.plots.canvas import FAILED, INK, SOFT, Canvas, finite, look, picked
from jobrunner.bench.plots.texts import labels, point_text, shorten
from jobrunner.bench.plots.ticks import decimal_ticks, number_text, spaced
from jobrunner.bench.result import BenchmarkResult, Scaling

__all__ = ["speedup_figure"]

_PANELS_MOST = 9

#: Widths whose largest is more than so many times the smallest are shown on logarithmic axes.
_LOGARITHMIC = 8.0

_IDEAL: Mapping[str, Any] = {"linestyle": "--", "linewidth": 1.2, "color": SOFT}
_LAW: Mapping[str, Any] = {"linestyle": "-", "linewidth": 1.4, "color": look(1).colour}
_POINT: Mapping[str, Any] = {"marker": "o", "markersize": 6, "color": look(0).colour}
_OPEN: Mapping[str, Any] = {**_POINT, "markerfacecolor": "white", "markeredgewidth": 1.4}
_FAILED: Mapping[str, Any] = {"marker": "x", "markersize": 7, "color": FAILED, "markeredgewidth": 1.6}


def speedup_figure(result: BenchmarkResult) -> Canvas | None:
    """A panel for each series that was run at two widths or more; None without such a series."""
    found = [(scaling, scaling.fit) for scaling in result.scaling if scaling.fit is not None]
    if not found:
        return None
    shown = picked(found, _PANELS_MOST)
    less = f" ({len(shown)} of {len(found)} series)" if len(shown) < len(found) else ""
    canvas = Canvas(
        f"Speedup and efficiency over workers{less}",
        result,
        panels=len(shown),
        columns=3,
        width=5.6 if len(shown) == 1 else 4.0,
        height=3.9 if len(shown) == 1 else 3.4,
        margin=0.3 if len(shown) > 1 else 1.0,
    )
    names = labels(result.implementations, 44)
    before = None
    for axes, (scaling, fit) in zip(canvas.axes, shown, strict=True):
        series = result.find(scaling.name)
        parts = [names[series.implementation], point_text(series.parameters, result.varying)] if series else []
        _panel(axes, scaling, fit)
        start = fit.widths[0]
        vertical = f"speedup over {start} worker{'s' * (start != 1)}"
        if vertical != before or axes in canvas.leftmost:
            axes.set_ylabel(vertical)
        before = vertical
        _head(axes, shorten(" ".join(parts).strip() or scaling.name, 44), fit.text)
    canvas.legend(_legend([fit for _, fit in shown], any(map(_failed, (scaling for scaling, _ in shown)))))
    return canvas


def _head(axes: Any, title: str, text: str) -> None:
    """The title, and below it what the fit says."""
    lines = textwrap.wrap(text, 56)
    axes.set_title(title, pad=8 + 11 * len(lines))
    axes.annotate(
        "\n".join(lines), (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8, color=SOFT
    )


def _panel(axes: Any, scaling: Scaling, fit: Amdahl) -> None:
    widths = sorted(scaling.widths)
    first, last = widths[0], widths[-1]
    start, end = fit.widths[0], fit.widths[-1]
    curve = [start * (end / start) ** (step / 100) for step in range(101)]
    axes.plot([first, last], [first / start, last / start], **_IDEAL, zorder=2)
    law = [(width, _law(fit, width)) for width in curve]
    law = [(width, speedup) for width, speedup in law if speedup is not None]
    axes.plot([width for width, _ in law], [speedup for _, speedup in law], **_LAW, zorder=3)
    lowest, highest = 1.0, last / start
    for width, estimate in zip(fit.widths, fit.speedups, strict=True):
        bounded = finite(estimate.low, estimate.high)
        if bounded:
            axes.plot([width, width], [estimate.low, estimate.high], "_-", color=_POINT["color"], markersize=8)
        axes.plot(width, estimate.value, **(_POINT if bounded else _OPEN), zorder=4)
        # A few rounds give intervals that would dwarf all else.
        highest = max(highest, min(estimate.high, 1.5 * max(highest, estimate.value)) if bounded else estimate.value)
        lowest = min(lowest, estimate.value)
    for width in _failed(scaling):
        axes.plot(width, 0.03, transform=axes.get_xaxis_transform(), clip_on=False, **_FAILED)
    places = _set_axes(axes, widths, lowest, highest)
    _efficiencies(axes, fit, dict(zip(widths, places, strict=True)))


def _set_axes(axes: Any, widths: Sequence[int], lowest: float, highest: float) -> list[float]:
    """Set both axes, and tell where the widths are, in widths of the panel."""
    first, last = widths[0], widths[-1]
    logarithmic = last > _LOGARITHMIC * first
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        pad = (last / first) ** 0.1
        axes.set_xlim(first / math.sqrt(pad), last * pad)
        axes.set_ylim(lowest / 1.3, highest * 1.15)
        ticks = decimal_ticks(lowest / 1.3, highest * 1.15)
        axes.set_yticks(ticks, [number_text(tick) for tick in ticks])
    else:
        pad = 0.12 * (last - first)
        axes.set_xlim(first - pad / 2, last + pad)
        axes.set_ylim(0, highest * 1.06)
    places = [math.log(width) / math.log(last / first) if logarithmic else width / (last - first) for width in widths]
    axes.set_xticks([widths[n] for n in spaced(places, 0.07)], [str(widths[n]) for n in spaced(places, 0.07)])
    axes.set_xlabel("workers, logarithmic" if logarithmic else "workers")
    return places


def _law(fit: Amdahl, width: float) -> float | None:
    """The speedup of Amdahl's law; None where it gives no time, as it may for a serial fraction below 0."""
    serial, first = fit.serial.value, fit.widths[0]
    before, now = serial + (1 - serial) / first, serial + (1 - serial) / width
    return before / now if before > 0 and now > 0 else None


def _failed(scaling: Scaling) -> list[int]:
    return [width for width in scaling.widths if any(run.error for run in scaling.runs if run.width == width)]


def _efficiencies(axes: Any, fit: Amdahl, places: Mapping[int, float]) -> None:
    """The efficiency at each point but the first, where it is 1, on the side that the lines leave free."""
    for number in spaced([places[width] for width in fit.widths], 0.13)[1:]:
        speedup = fit.speedups[number]
        efficiency = fit.efficiencies[number].value
        above = efficiency > 1.04 or speedup.value < 0.97 * fit.speedups[number - 1].value
        axes.annotate(
            f"{100 * efficiency:.0f} %",
            (fit.widths[number], speedup.value),
            (-7 if efficiency > 1.04 else 7, 4 if above else -4),
            textcoords="offset points",
            ha="right" if efficiency > 1.04 else "left",
            va="bottom" if above else "top",
            fontsize=8,
            color=INK,
        )


def _legend(fits: Sequence[Amdahl], failed: bool) -> list[tuple[str, Mapping[str, Any]]]:
    bounded = [finite(estimate.low, estimate.high) for fit in fits for estimate in fit.speedups[1:]]
    entries: list[tuple[str, Mapping[str, Any]]] = []
    if any(bounded):
        entries.append(("measured, with 95 % interval and efficiency", _POINT))
    if not all(bounded):
        entries.append(("measured, no interval", _OPEN))
    entries += [("Amdahl's law, fitted", _LAW), ("ideal", _IDEAL)]
    if failed:
        entries.append(("runs failed", _FAILED))
    return entries
