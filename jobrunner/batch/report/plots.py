"""Plots of results, as plain data; the rest of a report's is in `model`."""

from __future__ import annotations

import dataclasses

__all__ = ["Dot", "Panel", "Results", "Series"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dot:
    """One mark of a plot.

    Attributes:
        x: the parameter; of a category, its number.
        y: the result, or the mean over `count` of them.
        low, high: the ends of the error bar, or of the band.
        count: how many results it stands for.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """The marks of one value of the second parameter, or of one combination of further ones.

    Attributes:
        label: that value, or ``size=32, lattice=square``; empty where there is no second parameter.
        dots: by ascending x.
        line: whether they are a function of x, so that a line may join them.
    """

    label: str
    dots: tuple[Dot, ...]
    line: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot: a column of the results against a parameter.

    Attributes:
        column: the result's column.
        x: the parameter.
        by: the further parameters, which the series stand for.
        over: the parameters that still vary: a mark is the mean over them.
        categories: the labels of x where it is no number; else empty.
        x_log, y_log: whether the axis is logarithmic.
        errors: what `Dot.low` and `Dot.high` are: ``none``, ``given`` (the results' own ``<column>_error``),
            ``standard error`` (of the mean over replicates), ``standard deviation`` (of what a mark is the mean of,
            with `over`) or ``range`` (least and most of a bin).
        averaged: whether replicates were averaged.
        series: the marks.
    """

    column: str
    x: str
    by: tuple[str, ...]
    over: tuple[str, ...]
    categories: tuple[str, ...]
    x_log: bool
    y_log: bool
    errors: str
    averaged: bool
    series: tuple[Series, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """Plots of the results.

    Attributes:
        panels: one for each column of numbers.
        left_out: columns of numbers for which there is no room.
        done: points that have a result.
        read: how many of them were read for the plots.
        withheld: pickled results that were not loaded, since another user could have written them.
        unreadable: pickled results that can't be loaded.
        unread_pickles: pickled results that were left out, since there are many.
        too_large: results that were left out for their size.
        series_left_out: values of the second parameter that have no series, since there are many.
    """

    panels: tuple[Panel, ...]
    left_out: tuple[str, ...]
    done: int
    read: int
    withheld: int
    unreadable: int
    unread_pickles: int
    too_large: int
    series_left_out: int
