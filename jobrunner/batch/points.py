"""The points of a batch: which parameters the function is called with, one mapping a point.

A `Points` is a product of axes, and never holds the product itself: a million points take the memory of their axes.
An axis is one parameter with its values (`sweep`), or several that go together (`zip_points`).
"""

from __future__ import annotations

import difflib
import itertools
import keyword
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from jobrunner.batch.values import MAX_POINTS, NumberRange, canonical_json, check_finite, plain
from jobrunner.errors import SpecError

__all__ = ["Points", "check_name", "did_you_mean", "sweep", "zip_points"]

#: One axis: parameters that advance together, each with its values, all of one length.
_Axis = Mapping[str, Sequence[Any]]


class Points(Sequence[dict[str, Any]]):
    """Parameter points in a fixed order: the product of axes, the last axis advancing fastest.

    Made by `sweep` and `zip_points`, and multiplied: ``sweep(size=[16, 32]) * zip_points(a=[1, 2], b=[3, 4])`` are four
    points.  Equal to any sequence of the same points.

    Args:
        axes: the axes; none of them is one point without parameters.

    Raises:
        SpecError: a parameter stands in two axes, or there are more than `MAX_POINTS` points.

    Example:
        >>> points = sweep(size=[16, 32]) * zip_points(field=[0.0, 0.5], label=["off", "on"])
        >>> len(points), points[1]
        (4, {'size': 16, 'field': 0.5, 'label': 'on'})
    """

    def __init__(self, axes: Iterable[_Axis] = ()) -> None:
        self._axes = tuple(axes)
        self._lengths = tuple(len(next(iter(axis.values()))) for axis in self._axes)
        names: list[str] = [name for axis in self._axes for name in axis]
        for name in names:
            if names.count(name) > 1:
                raise SpecError("the parameter is given twice", key=name)
        self._names = tuple(names)
        self._count = math.prod(self._lengths)
        if self._count > MAX_POINTS:
            sizes = " × ".join(f"{'+'.join(axis)}: {n}" for axis, n in zip(self._axes, self._lengths, strict=True))
            raise SpecError(f"{self._count:,} points are above the bound of {MAX_POINTS:,} ({sizes})")

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that every point has, in order."""
        return self._names

    def varying(self) -> tuple[str, ...]:
        """The parameters that have more than one value over the points, in order."""
        return tuple(name for axis, n in zip(self._axes, self._lengths, strict=True) if n > 1 for name in axis)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        position = index + self._count if index < 0 else index
        if not 0 <= position < self._count:
            raise IndexError(f"point {index} of {self._count}")
        places: list[int] = []
        for length in reversed(self._lengths):
            position, place = divmod(position, length)
            places.append(place)
        rows = zip(self._axes, reversed(places), strict=True)
        return {name: values[place] for axis, place in rows for name, values in axis.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(self._count))

    def __mul__(self, other: Points) -> Points:
        if not isinstance(other, Points):
            return NotImplemented
        return Points((*self._axes, *other._axes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def __repr__(self) -> str:
        return f"<{self._count} points of {', '.join(self._names) or 'no parameters'}>"


def sweep(**values: Iterable[Any]) -> Points:
    """The product of the keywords' values, the last keyword advancing fastest.

    Args:
        values: for each parameter, the values that it takes: a list, a range, a NumPy array …

    Raises:
        SpecError: there is no keyword, one has no values, is no list of them, or holds a NaN, an infinity or the same
            value twice.

    Example:
        >>> list(sweep(size=[16, 32], temperature=[2.0, 2.5]))[1]
        {'size': 16, 'temperature': 2.5}
    """
    if not values:
        raise SpecError("a sweep without parameters: expected sweep(name=[value, ...], ...)")
    axes = [{name: _values(name, given)} for name, given in values.items()]
    for axis in axes:
        _check_distinct(axis)
    return Points(axes)


def zip_points(**values: Iterable[Any]) -> Points:
    """The keywords' values in pairs: the first of each, the second of each, and so on.

    Args:
        values: for each parameter, its values; all of one length.

    Raises:
        SpecError: as for `sweep`, and when the lengths differ.

    Example:
        >>> list(zip_points(size=[16, 32], sweeps=[1000, 4000]))
        [{'size': 16, 'sweeps': 1000}, {'size': 32, 'sweeps': 4000}]
    """
    if not values:
        raise SpecError("nothing to zip: expected zip_points(name=[value, ...], ...)")
    axis = {name: _values(name, given) for name, given in values.items()}
    lengths = {name: len(each) for name, each in axis.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise SpecError(f"lists that are zipped have one length, but {counts}")
    _check_distinct(axis)
    return Points([axis])


def check_name(name: str) -> str:
    """Return `name` if a function can have a parameter of that name.

    Raises:
        SpecError: it can't; the error names it.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise SpecError("expected a parameter's name (a Python identifier)", key=name or "''")
    return name


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'size'?"``, or nothing if no known word is near.

    Example:
        >>> did_you_mean("sise", ["size", "temperature"])
        "; did you mean 'size'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _values(name: str, given: Iterable[Any]) -> Sequence[Any]:
    check_name(name)
    if isinstance(given, (NumberRange, range)):
        values: Sequence[Any] = given
    else:
        given = plain(given)  # a NumPy array: its numbers as Python's
        if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
            raise SpecError(f"expected a list of values, not {given!r} (one value is a list of one)", key=name)
        # One more than may be, so that an endless iterator ends here too.
        values = [plain(value) for value in itertools.islice(given, MAX_POINTS + 1)]
        for value in values:
            check_finite(name, value)
    if not values:
        raise SpecError("no values: expected at least one", key=name)
    if len(values) > MAX_POINTS:
        raise SpecError(f"more values than the bound of {MAX_POINTS:,}", key=name)
    return values


def _check_distinct(axis: _Axis) -> None:
    """Refuse an axis that has one row twice: the same point would run twice, with the same seed."""
    if any(isinstance(values, (NumberRange, range)) for values in axis.values()):
        return  # strictly rising or falling
    seen: set[str] = set()
    for row in zip(*axis.values(), strict=True):
        try:
            text = canonical_json(row)
        except TypeError:
            continue  # what has no JSON form can't be compared
        if text in seen:
            shown = ", ".join(f"{name}={value!r}" for name, value in zip(axis, row, strict=True))
            raise SpecError(f"{shown} stands twice: each point runs once (replicates come in a later version)")
        seen.add(text)
