"""The charts of a report but the timeline: histograms, progress, and plots of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jobrunner.batch.report import words
from jobrunner.batch.report.chart import NARROW, Frame, legend, mark, variants
from jobrunner.batch.report.markup import Child, Markup, element, join
from jobrunner.batch.report.model import Histogram
from jobrunner.batch.report.plots import Dot, Panel, Series
from jobrunner.batch.report.scales import Scale, familiar_ticks, linear, logarithmic, round_step, time_step

__all__ = ["HALF", "THIRD", "edge_words", "histogram_figure", "panel_figure", "value_words"]

#: Widths of a figure that shares its row with one or two others.
HALF = 510
THIRD = 336

#: Marks of a series up to which each has a tooltip.
_TIPS = 150


def histogram_figure(found: Histogram, title: str) -> Markup:
    """The histogram of a quantity.

    Args:
        found: the histogram.
        title: of the quantity.
    """
    show, edge = value_words(found), edge_words(found)
    label = (
        f"Histogram of {title.lower()} over {words.spell(found.count, 'job')}: median {show(found.median)}, "
        f"from {show(found.least)} to {show(found.most)}"
    )

    def draw(width: float) -> Markup:
        frame = Frame(width, 236, left=52)
        heights = [done + failed for done, failed in zip(found.done, found.failed, strict=True)]
        up = linear(0, max(heights), whole=True, ticks=4)
        along = _histogram_scale(found, int(frame.inner_width / 64))
        tick = _shown(found, along.ticks)
        return frame.svg(
            label,
            frame.y_axis(up, lambda value: words.count(round(value)), "jobs"),
            *_columns(found, frame, along, up, edge),
            _marker(frame, along, found.median, "median"),
            frame.x_axis([(frame.x(along.at(value)), tick(value)) for value in along.ticks], title.lower()),
        )

    return variants(draw, HALF, NARROW)


def value_words(found: Histogram) -> Callable[[float], str]:
    """How to write a quantity's values: with more digits where the least and the greatest would be told alike."""
    show = words.duration if found.quantity == "run_s" else words.size
    if found.least == found.most or show(found.least) != show(found.most):
        return show
    step = found.edges[1] - found.edges[0]
    return lambda value: words.short(value, step) if found.quantity == "run_s" else words.size(value, step=step)


def edge_words(found: Histogram) -> Callable[[float], str]:
    """How to write the edges of a histogram's bins: no two are told alike."""
    return _shown(found, found.edges)


def _shown(found: Histogram, values: Sequence[float]) -> Callable[[float], str]:
    """How to write a quantity, so that these ascending values are told apart."""
    if found.quantity == "run_s":
        return lambda value: words.short(value, _gap(value, values))
    # On a linear axis all have the unit that they are round in.
    unit = None if found.log else _unit(found.edges[-1])[1]
    return lambda value: words.size(value, step=_gap(value, values), unit=unit)


def _gap(value: float, values: Sequence[float]) -> float:
    """How far the nearest of the others is."""
    return min((abs(other - value) for other in values if other != value), default=math.inf)


def _unit(most: float) -> tuple[float, str]:
    """The unit in which sizes up to `most` are round, in bytes, and its name."""
    for power, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if most >= 2.0 ** (power + 1):
            return 2.0**power, name
    return 1.0, "B"


def _histogram_scale(found: Histogram, ticks: int) -> Scale:
    least, most = found.edges[0], found.edges[-1]
    if found.log:
        return Scale(least, most, True, familiar_ticks(least, most, ticks, binary=found.quantity != "run_s"))
    if found.quantity == "run_s":
        step = time_step(most - least, ticks)
    else:
        unit, _ = _unit(most)
        step = unit * round_step((most - least) / unit, ticks)
    first, last = math.ceil(least / step - 1e-6), math.floor(most / step + 1e-6)
    return Scale(least, most, False, tuple(index * step for index in range(first, last + 1)))


def _columns(found: Histogram, frame: Frame, along: Scale, up: Scale, show: Callable[[float], str]) -> Sequence[Markup]:
    parts = []
    for place, (done, failed) in enumerate(zip(found.done, found.failed, strict=True)):
        low, high = found.edges[place], found.edges[place + 1]
        left, right = frame.x(along.at(low)), frame.x(along.at(high))
        tip = f"{show(low)} – {show(high)}\n{words.spell(done + failed, 'job')}"
        tip += f", {words.count(failed)} failed" if failed else ""
        for base, height, class_ in ((0, done, "done"), (done, failed, "failed")):
            if height:
                bottom, top = frame.y(up.at(base)), frame.y(up.at(base + height))
                parts.append(
                    element(
                        "rect",
                        x=left + 0.5,
                        y=top,
                        width=max(0.5, round(right - left - 1, 1)),
                        height=max(0.8, round(bottom - top, 1)),
                        class_=class_,
                        data_tip=tip,
                    )
                )
    return parts


def _marker(frame: Frame, along: Scale, value: float, text: str) -> Markup:
    if not along.least <= value <= along.most:
        return Markup("")
    x = frame.x(along.at(value))
    right = x > frame.width * 0.7
    return join(
        [
            element("path", d=f"M{x:g} {frame.top - 8:g}V{frame.floor:g}", class_="marker"),
            element("text", text, x=x + (-5 if right else 5), y=frame.top - 1, class_="tick end" if right else "tick"),
        ]
    )


def panel_figure(panel: Panel, wide: float) -> Markup:
    """A plot of a column of the results.

    Args:
        panel: the plot.
        wide: its width on a wide screen.
    """
    dots = [dot for series in panel.series for dot in series.dots]
    label = f"{panel.column} against {panel.x}" + (f", a series for each {', '.join(panel.by)}" if panel.by else "")

    def draw(width: float) -> Markup:
        frame = Frame(width, 250, left=58)
        along = _x_scale(panel, dots, int(frame.inner_width / 62))
        up = _y_scale(panel, dots)
        return frame.svg(
            f"{label}; {words.spell(len(dots), 'mark')}",
            frame.y_axis(up, _ticker(up), panel.column if len(panel.column) < 40 else ""),
            *(_series(panel, series, place, frame, along, up) for place, series in enumerate(panel.series)),
            frame.x_axis(_x_ticks(panel, frame, along), panel.x if len(panel.x) < 40 else ""),
        )

    entries = [(f"m{place}", series.label) for place, series in enumerate(panel.series)]
    return join(
        [legend(entries, panel.by[0] if len(panel.by) == 1 else "") if panel.by else None, variants(draw, wide, NARROW)]
    )


def _x_scale(panel: Panel, dots: Sequence[Dot], ticks: int) -> Scale:
    if panel.categories:
        return Scale(-0.5, len(panel.categories) - 0.5, False, tuple(map(float, range(len(panel.categories)))))
    least, most = min(dot.x for dot in dots), max(dot.x for dot in dots)
    if panel.x_log:
        around = math.exp((math.log(most) - math.log(least)) * 0.03)
        return logarithmic(least / around, most * around, ticks=ticks)
    around = (most - least) * 0.03
    whole = all(dot.x.is_integer() for dot in dots) and most > least
    scale = linear(least - around, most + around, ticks=ticks, whole=whole, snug=True)
    return scale


def _x_ticks(panel: Panel, frame: Frame, along: Scale) -> list[tuple[float, str]]:
    show = _ticker(along)
    if panel.categories:
        room = max(3, int(frame.inner_width / len(panel.categories) / 7))
        names = [name if len(name) <= room else f"{name[: room - 1]}…" for name in panel.categories]
        return [(frame.x(along.at(place)), name) for place, name in enumerate(names)]
    return [(frame.x(along.at(tick)), show(tick)) for tick in along.ticks]


def _y_scale(panel: Panel, dots: Sequence[Dot]) -> Scale:
    values = [dot.y for dot in dots]
    for dot in dots:
        values += [end for end in (dot.low, dot.high) if end is not None and math.isfinite(end)]
    if panel.y_log:
        values = [value for value in values if value > 0]
        around = math.exp((math.log(max(values)) - math.log(min(values))) * 0.03)
        return logarithmic(min(values) / around, max(values) * around, ticks=6)
    around = (max(values) - min(values)) * 0.04
    return linear(min(values) - around, max(values) + around, ticks=6, snug=True)


def _ticker(scale: Scale) -> Callable[[float], str]:
    """How to write ticks: with the digits that tell neighbours apart."""
    if scale.log:
        return lambda value: words.number(value, words.digits(value, _gap(value, scale.ticks), 4))
    most = max(map(abs, scale.ticks), default=0.0)
    known = words.digits(most, _gap(scale.ticks[0], scale.ticks), 1) if len(scale.ticks) > 1 else 6
    return lambda value: words.number(value, known)


def _series(panel: Panel, series: Series, place: int, frame: Frame, along: Scale, up: Scale) -> Markup:
    dots = [dot for dot in series.dots if not panel.y_log or dot.y > 0]
    spots = [(dot, frame.x(along.at(dot.x)), frame.y(up.at(dot.y))) for dot in dots]
    # Of a category, series stand beside each other.
    if panel.categories and len(panel.series) > 1:
        apart = min(8.0, frame.inner_width / len(panel.categories) / (len(panel.series) + 1))
        shift = (place - (len(panel.series) - 1) / 2) * apart
        spots = [(dot, round(x + shift, 1), y) for dot, x, y in spots]
    parts: list[Child] = [_errors(panel, spots, frame, up, place)]
    if series.line and len(spots) > 1:
        parts.append(element("path", d="M" + "L".join(f"{x:g} {y:g}" for _, x, y in spots), class_=f"s{place} line"))
    if len(spots) <= _TIPS:
        for dot, x, y in spots:
            tip = _tip(panel, series, dot)
            parts.append(element("path", d=mark(place, x, y), class_=f"s{place} mark", data_tip=tip))
    elif not (series.line and panel.errors == "range"):
        path = "".join(f"M{x:g} {y:g}h0" for _, x, y in spots)
        parts.append(element("path", d=path, class_=f"s{place} cloud"))
    return element("g", *parts)


def _errors(
    panel: Panel, spots: Sequence[tuple[Dot, float, float]], frame: Frame, up: Scale, place: int
) -> Markup | None:
    ends = []
    for dot, x, _ in spots:
        if dot.low is not None and dot.high is not None and math.isfinite(dot.low) and math.isfinite(dot.high):
            low = max(dot.low, up.least) if panel.y_log else dot.low
            ends.append((x, frame.y(up.at(low)), frame.y(up.at(max(low, dot.high)))))
    if not ends:
        return None
    if panel.errors == "range" and not panel.categories and len(ends) > 1:
        upper = "L".join(f"{x:g} {high:g}" for x, _, high in ends)
        lower = "L".join(f"{x:g} {low:g}" for x, low, _ in reversed(ends))
        return element("path", d=f"M{upper}L{lower}z", class_=f"s{place} band")
    cap = 3 if len(ends) <= 60 else 0
    path = "".join(
        f"M{x:g} {low:g}V{high:g}" + (f"M{x - cap:g} {low:g}h{2 * cap}M{x - cap:g} {high:g}h{2 * cap}" if cap else "")
        for x, low, high in ends
    )
    return element("path", d=path, class_=f"s{place} error")


def _tip(panel: Panel, series: Series, dot: Dot) -> str:
    x = panel.categories[int(dot.x)] if panel.categories else words.number(dot.x, 6)
    where = f"{panel.x} = {x}"
    if panel.by:  # of several parameters, the label names each
        where += f", {series.label}" if len(panel.by) > 1 else f", {panel.by[0]} = {series.label}"
    error = ""
    if dot.low is not None and dot.high is not None:
        error = (
            f" ({words.number(dot.low, 6)} to {words.number(dot.high, 6)})"
            if panel.errors == "range"
            else f" ± {words.number((dot.high - dot.low) / 2, 3)}"
        )
    many = f"\nmean of {words.count(dot.count)}" if dot.count > 1 else ""
    return f"{where}\n{panel.column} = {words.number(dot.y, 6)}{error}{many}"
