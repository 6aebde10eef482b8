"""The points of a batch: which parameters the function is called with, one mapping a point.

A `Points` is a product of axes, and never holds the product itself: a million points take the memory of their axes.
An axis is one parameter with its values (`sweep`), or several that go together (`zip_points`), where a point may lack
some (`as_points`, which takes points given one by one).
"""

from __future__ import annotations

import difflib
import enum
import hashlib
import itertools
import keyword
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from jobrunner.batch.values import MAX_POINTS, NumberRange, canonical_json, check_finite, json_text, plain
from jobrunner.errors import SpecError

__all__ = [
    "RUNS_ONCE",
    "PointRows",
    "Points",
    "as_points",
    "check_name",
    "did_you_mean",
    "point_key",
    "show_point",
    "sweep",
    "zip_points",
]

#: What errors say about a point that is given twice.
RUNS_ONCE = "each point runs once; say replicates=N to repeat points"

#: Ranges with more numbers than this are told by their ends in a digest, others by their numbers.
_LONG_RANGE = 10_000


class _Absent(enum.Enum):  # an enum's member stays one object when it is pickled
    ABSENT = enum.auto()


#: Stands in a column for a parameter that the point does not have.
_ABSENT = _Absent.ABSENT

#: One axis: parameters that advance together, each with its values, all of one length.
_Axis = Mapping[str, Sequence[Any]]


class Points(Sequence[dict[str, Any]]):
    """Parameter points in a fixed order: the product of axes, the last axis advancing fastest.

    Made by `sweep`, `zip_points` and `as_points`, and multiplied: ``sweep(size=[16, 32]) * zip_points(a=[1, 2], b=[3,
    4])`` are four points.  Equal to any sequence of the same points.

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
        """The parameters that occur, in the order in which they first do."""
        return self._names

    @property
    def common(self) -> tuple[str, ...]:
        """The parameters that every point has, in order."""
        return tuple(name for axis in self._axes for name, values in axis.items() if not _has_absent(values))

    def varying(self) -> tuple[str, ...]:
        """The parameters that are not the same in all points, in order."""
        return tuple(name for axis in self._axes for name, values in axis.items() if _varies(values))

    def digest(self) -> str:
        """SHA-256 of the points and their order, as hexadecimal text.

        Points of one digest are the same in the same order.  It comes from the axes, without going through their
        product.  So it also tells apart the same points from different axes, such as a product and the list of its
        points; but not the order of parameters, lists from ranges of the same numbers (up to 10,000 of them), and where
        a parameter with one value stands.

        Raises:
            SpecError: a value has no JSON form; the error names its parameter.

        Example:
            >>> points = sweep(size=[16, 32], mode=["fast"])
            >>> points.digest() == (sweep(mode=["fast"]) * sweep(size=range(16, 33, 16))).digest()
            True
            >>> points.digest() == sweep(size=[32, 16], mode=["fast"]).digest()
            False
        """
        axes = [
            {name: _told(name, values) for name, values in axis.items()}
            for axis, n in zip(self._axes, self._lengths, strict=True)
            if n > 1
        ]
        single = [axis for axis, n in zip(self._axes, self._lengths, strict=True) if n == 1]
        fixed = {name: _told(name, values) for axis in single for name, values in axis.items()}
        return hashlib.sha256(canonical_json({"axes": axes, "fixed": fixed}).encode("ascii")).hexdigest()

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
        return {
            name: value
            for axis, place in rows
            for name, values in axis.items()
            if (value := values[place]) is not _ABSENT
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return _product(self._axes)

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


def as_points(points: Iterable[Mapping[str, Any]]) -> Points:
    """Points that are given one by one.

    They are kept as columns, so that many of them take little more memory than their values.

    Args:
        points: the points, in order: a mapping of parameters each, which need not all have the same ones; or a
            `Points`, which is returned as it is.  NumPy's numbers and arrays become Python's, tuples lists.

    Raises:
        SpecError: there is none, one is no mapping, stands twice, or has a name or value that a parameter can't have
            (NaN, an infinity, what has no JSON form); the error names its index.

    Example:
        >>> points = as_points([{"size": 16}, {"size": 32, "mode": "fast"}])
        >>> points.names, points.common
        (('size', 'mode'), ('size',))
        >>> as_points([{"size": 16}, {"size": 16}])
        Traceback (most recent call last):
        jobrunner.errors.SpecError: points[1]: size=16 stands twice (as points[0]): each point runs once; \
say replicates=N to repeat points
    """
    if isinstance(points, Points):
        return points
    if isinstance(points, (str, bytes, Mapping)) or not isinstance(points, Iterable):
        raise SpecError(f"expected a list of mappings, one for each point, found {points!r}", key="points")
    rows = PointRows()
    for index, point in enumerate(points):
        try:
            known = rows.add(point)
        except SpecError as error:
            raise SpecError(str(error), key=f"points[{index}]") from error
        if known is not None:
            message = f"{show_point(point)} stands twice (as points[{known}]): {RUNS_ONCE}"
            raise SpecError(message, key=f"points[{index}]")
    if not len(rows):
        raise SpecError("no points: expected at least one mapping of parameters", key="points")
    return rows.points()


class PointRows:
    """Gathers points that come one by one.

    Example:
        >>> rows = PointRows()
        >>> rows.add({"size": 16}), rows.add({"size": 32}), rows.add({"size": 16})
        (None, None, 0)
        >>> rows.points()
        <2 points of size>
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}
        self._keys: set[bytes] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, point: Mapping[str, Any]) -> int | None:
        """Add a point after the others, unless it is one of them: then return its index.

        Raises:
            SpecError: it is no mapping, has a name or value that a parameter can't have, or is one too many.
        """
        if not isinstance(point, Mapping):
            raise SpecError(f"expected a mapping of parameters, found {point!r}")
        if self._count >= MAX_POINTS:
            raise SpecError(f"more points than the bound of {MAX_POINTS:,}")
        for name in point:
            if name not in self._columns:
                check_name(name)
        for name, value in point.items():
            if isinstance(value, (list, tuple, Mapping)):
                json_text(name, value)
        row = {name: plain(value) for name, value in point.items()}
        key = point_key(row)
        if key in self._keys:
            return next(i for i, known in enumerate(self.points()) if point_key(known) == key)
        self._keys.add(key)
        for name, value in row.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = [_ABSENT] * self._count
            column.append(value)
        if len(row) < len(self._columns):
            for name, column in self._columns.items():
                if name not in row:
                    column.append(_ABSENT)
        self._count += 1
        return None

    def points(self) -> Points:
        """The points that were added; at least one."""
        return Points([self._columns]) if self._columns else Points()


def point_key(parameters: Mapping[str, Any], replicate: int = 0) -> bytes:
    """16 bytes that are a point's own: the first of SHA-256 of the canonical JSON of its parameters and replicate.

    The text is ``{"parameters":{...},"replicate":0}``, see `canonical_json`.

    Args:
        parameters: the point.
        replicate: which repetition of it, from 0.

    Raises:
        SpecError: a parameter has no JSON form; the error names it.

    Example:
        >>> point_key({"size": 16, "mode": "fast"}) == point_key({"mode": "fast", "size": 16})
        True
        >>> point_key({"size": 16}) == point_key({"size": 16.0})
        False
    """
    try:
        text = canonical_json(parameters)
    except (TypeError, ValueError, RecursionError) as error:
        for name, value in parameters.items():
            json_text(name, value)  # raises for the one that is wrong
        raise SpecError(f"the point has no JSON form ({error}): {parameters!r}") from error
    return text_key(text, replicate)


def text_key(parameters: str, replicate: int) -> bytes:
    """`point_key` of a point whose canonical JSON is at hand."""
    return hashlib.sha256(f'{{"parameters":{parameters},"replicate":{replicate:d}}}'.encode("ascii")).digest()[:16]


def show_point(parameters: Mapping[str, Any], most: int = 200) -> str:
    """A point in a line, of at most so many characters.

    Example:
        >>> show_point({"size": 16, "mode": "fast"})
        "size=16, mode='fast'"
    """
    text = ", ".join(f"{name}={value!r}" for name, value in parameters.items()) or "the point without parameters"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def check_name(name: str) -> str:
    """Return `name` if a function can have a parameter of that name.

    Raises:
        SpecError: it can't; the error names it.
    """
    if not isinstance(name, str):
        raise SpecError(f"expected a parameter's name (a Python identifier), found {name!r}")
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
            raise SpecError(f"{show_point(dict(zip(axis, row, strict=True)))} stands twice: {RUNS_ONCE}")
        seen.add(text)


def _product(axes: Sequence[_Axis]) -> Iterator[dict[str, Any]]:
    """The points of `axes` in order, as `Points.__getitem__` gives them."""
    if not axes:
        yield {}
        return
    *outer, inner = axes
    names = tuple(inner)
    sparse = any(_has_absent(values) for values in inner.values())
    for head in _product(outer):
        for row in zip(*inner.values(), strict=True):
            tail = dict(zip(names, row, strict=True))
            if sparse:
                tail = {name: value for name, value in tail.items() if value is not _ABSENT}
            yield {**head, **tail}


def _has_absent(values: Sequence[Any]) -> bool:
    return isinstance(values, list) and any(value is _ABSENT for value in values)


def _varies(values: Sequence[Any]) -> bool:
    """Whether the values are not all the same."""
    if isinstance(values, (NumberRange, range)):
        return len(values) > 1
    first = values[0]
    return any(value is not first and not _same(value, first) for value in values)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if type(one) in (str, int, bool):
        return bool(one == other)
    try:
        return canonical_json(one) == canonical_json(other)
    except TypeError:
        return False  # what has no JSON form can't be compared


def _told(name: str, values: Sequence[Any]) -> Any:
    """A column for a digest, as what has a JSON form."""
    if isinstance(values, (NumberRange, range)) and len(values) > _LONG_RANGE:
        start, step, count, scale = values.terms() if isinstance(values, NumberRange) else _terms(values)
        return {"start": start, "step": step, "count": count, "scale": scale}
    if _has_absent(values):
        # Each in a list of its own, of which an empty one says absent.
        return {"sparse": json_text(name, [[] if value is _ABSENT else [value] for value in values])}
    return json_text(name, list(values))


def _terms(values: range) -> tuple[int, int, int, None]:
    return values.start, values.step, len(values), None
