"""How the time of each implementation grows with a parameter."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from jobrunner.bench.plots.canvas import Canvas, Look, finite, look
from jobrunner.bench.plots.texts import labels, point_text, shorten
from jobrunner.bench.plots.ticks import decimal_ticks, number_text, spaced, time_text
from jobrunner.bench.result import BenchmarkResult, Growth

__all__ = ["growth_figure"]

_PANELS_MOST = 6
_LINES_MOST = 20

#: The axis of times spans this factor at least: what does not grow is to look like it.
_SPAN_LEAST = 5.0


def growth_figure(result: BenchmarkResult) -> Canvas | None:
    """A panel for each parameter that grows, and each point of the others; None where nothing grows."""
    groups: dict[str, list[Growth]] = {}
    for growth in result.growths:
        groups.setdefault(repr((growth.parameter, sorted(growth.others.items()))), []).append(growth)
    if not groups:
        return None
    shown = list(groups.values())[:_PANELS_MOST]
    lines = min(_LINES_MOST, max(map(len, shown)))
    less = f" ({len(shown)} of {len(groups)} panels)" if len(shown) < len(groups) else ""
    canvas = Canvas(
        f"Growth{less}",
        result,
        panels=len(shown),
        columns=2,
        width=6.6 if len(shown) == 1 else 5.4,
        height=3.5 + 0.2 * lines,
        margin=0.3,
    )
    names = labels(result.implementations, 40)
    for axes, members in zip(canvas.axes, shown, strict=True):
        others = [name for name in result.parameters if name in members[0].others]
        if others:
            axes.set_title(shorten(point_text(members[0].others, others), 60))
        drawn = members[:_LINES_MOST]
        texts = [f"{names[growth.implementation]}: {growth.fit.text}" for growth in drawn]
        for number, (growth, text) in enumerate(zip(drawn, texts, strict=True)):
            style = look(result.implementations.index(growth.implementation))
            _line(axes, growth, style, text, _thickness(number, len(drawn)))
        _set_axes(axes, drawn)
        title = f"{len(drawn)} of {len(members)} functions" if len(drawn) < len(members) else None
        axes.legend(
            ncols=2 if len(drawn) > 6 and max(map(len, texts)) < 34 else 1,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=canvas.below(axes, 38),
            borderaxespad=0,
            handlelength=2.4,
            title=title,
            alignment="left",
        )
    return canvas


def _thickness(number: int, count: int) -> float:
    """From 0 to 1; of a few lines the first is the thickest, so that what lies upon it does not hide it."""
    return 1 - number / (count - 1) if 2 <= count <= 6 else 0.3


def _line(axes: Any, growth: Growth, look: Look, text: str, thickness: float) -> None:
    fit, ends = growth.fit, [min(growth.sizes), max(growth.sizes)]
    axes.plot(
        ends,
        [math.exp(math.log(fit.factor) + fit.exponent.value * math.log(size)) for size in ends],
        linewidth=1.1 + 1.6 * thickness,
        color=look.colour,
        zorder=2,
    )
    size = max(3.5, (5 + 4 * thickness) * min(1.0, max(0.65, 14 / len(growth.sizes))))
    for place, estimate in zip(growth.sizes, growth.medians, strict=True):
        if finite(estimate.low, estimate.high):
            axes.plot([place, place], [estimate.low, estimate.high], "_-", color=look.colour, markersize=size, zorder=3)
    mark = {"color": look.colour, "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.7}
    axes.plot(growth.sizes, [median.value for median in growth.medians], look.marker, **mark, zorder=4)
    # For the legend: the mark and the line are one entry.
    axes.plot([], [], look.marker + "-", **mark, label="\n".join(textwrap.wrap(text, 76, subsequent_indent="    ")))


def _set_axes(axes: Any, members: list[Growth]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()
    sizes = sorted({size for growth in members for size in growth.sizes})
    pad = (sizes[-1] / sizes[0]) ** 0.06
    axes.set_xlim(sizes[0] / pad, sizes[-1] * pad)
    if len(sizes) > 8:
        ticks = decimal_ticks(sizes[0] / pad, sizes[-1] * pad, most=8)
    else:
        whole = math.log(sizes[-1] / sizes[0])
        ticks = [sizes[number] for number in spaced([math.log(size) / whole for size in sizes], 0.09)]
    axes.set_xticks(ticks, [number_text(size) for size in ticks])
    low, high = axes.get_ylim()
    wider = max(1.0, math.sqrt(_SPAN_LEAST * low / high))
    low, high = low / wider, high * wider
    axes.set_ylim(low, high)
    marks = decimal_ticks(low, high)
    axes.set_yticks(marks, [time_text(mark) for mark in marks])
    name = shorten(members[0].parameter, 50)
    if name != "n":  # which the laws in the legend call so
        name = f"n = {name}"
    axes.set_xlabel(f"{name}, logarithmic")
    axes.set_ylabel("time of a call, logarithmic")
