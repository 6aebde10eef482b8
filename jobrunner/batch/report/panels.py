"""One plot's marks: few enough to be drawn, with what their error bars are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jobrunner.batch.report.plots import Dot, Panel, Series
from jobrunner.batch.report.scales import spread_asks_for_log

__all__ = ["Sample", "panel"]

#: A plot of more marks than this is binned.
MOST_DOTS = 2_000
#: Bins along x of such a plot.
_BINS = 120
_X_LOG_FROM = 50.0
_Y_LOG_FROM = 1_000.0


class Sample(NamedTuple):
    """All marks of one series.

    Attributes:
        label: as in `Series`.
        dots: by ascending x.
    """

    label: str
    dots: list[Dot]


def panel(
    column: str,
    *,
    x: str,
    by: tuple[str, ...],
    over: tuple[str, ...],
    categories: tuple[str, ...],
    averaged: bool,
    given: bool,
    samples: Sequence[Sample],
) -> Panel:
    """A plot of a column.

    Args:
        column, x, by, over, categories, averaged: as in `Panel`.
        given: whether the results came with errors of their own.
        samples: its marks.
    """
    dots = [dot for sample in samples for dot in sample.dots]
    x_log = not categories and spread_asks_for_log(sorted({dot.x for dot in dots}), _X_LOG_FROM)
    several = any(dot.count > 1 for dot in dots)
    if over:
        errors = "standard deviation" if several else "none"
    else:
        errors = "standard error" if averaged and several else "given" if given else "none"
    if len(dots) > MOST_DOTS:
        errors = "range"
        samples = [Sample(label, _binned(marks, x_log)) for label, marks in samples]
    values = sorted(dot.y for sample in samples for dot in sample.dots)
    return Panel(
        column=column,
        x=x,
        by=by,
        over=over,
        categories=categories,
        x_log=x_log,
        y_log=spread_asks_for_log(values, _Y_LOG_FROM),
        errors=errors,
        averaged=averaged,
        series=tuple(
            Series(label=label, dots=tuple(marks), line=not categories and len({dot.x for dot in marks}) == len(marks))
            for label, marks in samples
        ),
    )


def _binned(dots: Sequence[Dot], log: bool) -> list[Dot]:
    """Means over values of x, or over bins of it where it has many; from the least to the greatest of each."""
    places = {dot.x for dot in dots}
    if len(places) <= _BINS:
        keys = [dot.x for dot in dots]
    else:
        positions = [math.log(dot.x) if log else dot.x for dot in dots]
        least, span = positions[0], (positions[-1] - positions[0]) or 1.0
        keys = [min(_BINS - 1, int((place - least) / span * _BINS)) for place in positions]
    bins: dict[float, list[Dot]] = {}
    for key, dot in zip(keys, dots, strict=True):
        bins.setdefault(key, []).append(dot)
    return [
        Dot(
            x=math.fsum(dot.x for dot in own) / len(own),
            y=math.fsum(dot.y for dot in own) / len(own),
            low=min(dot.y for dot in own),
            high=max(dot.y for dot in own),
            count=sum(dot.count for dot in own),
        )
        for own in bins.values()
    ]
