"""What the plots of results stand over: a parameter along the axis, and series that tell all the others apart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobrunner.batch.records import BatchRecord
from jobrunner.batch.report.model import Parameter
from jobrunner.batch.report.parameters import is_number
from jobrunner.batch.store import Store
from jobrunner.batch.values import canonical_json
from jobrunner.storage.connection import store_errors

__all__ = ["Axes", "choose_axes", "key", "label", "series_key"]

_SERIES = 8
_CATEGORIES = 24
#: Characters of a value in the label of a series.
_WIDTH = 40
#: What stands for the value of a parameter that a point lacks; no JSON is empty.
_MISSING = ""


@dataclasses.dataclass(frozen=True)
class Axes:
    """What the plots stand over.

    Attributes:
        x: the parameter along the axis; None: the replicates.
        by: the parameters of the series; none: one series.
        over: the further parameters that vary, over which a mark is the mean.
        categories: the values of `x` where it is no number; else empty.
        series: the labels of the series, by their `series_key`.
        left_out: how many values of `by` have no series.
    """

    x: str | None
    by: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    categories: tuple[Any, ...] = ()
    series: Mapping[tuple[Any, ...], str] = dataclasses.field(default_factory=lambda: {(): ""})
    left_out: int = 0


def choose_axes(store: Store, batch: BatchRecord, parameters: Sequence[Parameter]) -> Axes | None:
    """The parameter of most numbers along the axis; a series for each combination of the others.

    Where there are more than eight, the series are those of one parameter, and marks are means over the rest.  A
    parameter that goes one to one with another is told by that one.
    """
    varying = [parameter for parameter in parameters if parameter.varies and parameter.distinct > 1]
    numbers = [parameter for parameter in varying if parameter.least is not None]
    few = [parameter for parameter in varying if _is_few(parameter)]
    if not varying:
        return Axes(None) if batch.replicates > 1 else None
    if not (numbers or few):
        return None
    along = max(numbers or few, key=lambda parameter: parameter.distinct)
    others: list[Parameter] = []
    for parameter in varying:
        if parameter is not along and not any(_one_to_one(store, batch, one, parameter) for one in (along, *others)):
            others.append(parameter)
    axes = Axes(x=along.name, categories=() if along.least is not None else along.values)
    if not others:
        return axes
    by = tuple(parameter.name for parameter in others)
    series = _combinations(store, batch, others)
    if series is not None:
        return dataclasses.replace(axes, by=by, series=series)
    suitable = [parameter for parameter in others if parameter.distinct <= _SERIES]
    if len(others) == 1 and _is_few(others[0]):
        values = others[0].values
        chosen = sorted({round(place * (len(values) - 1) / (_SERIES - 1)) for place in range(_SERIES)})
        series = {(key(values[place]),): label(values[place]) for place in chosen}
        return dataclasses.replace(axes, by=by, series=series, left_out=others[0].distinct - len(series))
    for parameter in sorted(suitable, key=lambda parameter: -parameter.distinct):
        found = _combinations(store, batch, [parameter])
        if found is not None:  # it would be too many with points that lack it
            rest = tuple(name for name in by if name != parameter.name)
            return dataclasses.replace(axes, by=(parameter.name,), over=rest, series=found)
    return dataclasses.replace(axes, over=by)


def series_key(parameters: Mapping[str, Any], by: Sequence[str]) -> tuple[Any, ...]:
    """The values of a point's parameters that tell its series."""
    return tuple(key(parameters[name]) if name in parameters else _MISSING for name in by)


def key(value: Any) -> Any:
    """What tells values apart: 16 and 16.0 are one."""
    return value if is_number(value) else canonical_json(value)


def label(value: Any, digits: int = 6) -> str:
    """A value for the label of a tick or a series; `digits`: the significant ones of a float."""
    if isinstance(value, str):
        return value
    return f"{value:.{digits}g}" if isinstance(value, float) else json.dumps(value)


def _is_few(parameter: Parameter) -> bool:
    return parameter.distinct <= _CATEGORIES and not parameter.more


def _points(store: Store, batch: BatchRecord) -> Iterator[Mapping[str, Any]]:
    """The parameters of each point, those of its replicates once."""
    query = """
        SELECT parameters FROM point WHERE batch = ? AND place IS NOT NULL AND replicate = 0 ORDER BY place
    """
    with store_errors(store.path):
        for (text,) in store.connection.execute(query, (batch.id,)):
            yield json.loads(text)


def _one_to_one(store: Store, batch: BatchRecord, one: Parameter, other: Parameter) -> bool:
    """Whether each value of a parameter comes with one of another only, and the other way round."""
    if (one.distinct, one.more, one.points) != (other.distinct, other.more, other.points):
        return False
    names = (one.name, other.name)
    there: dict[Any, Any] = {}
    back: dict[Any, Any] = {}
    for parameters in _points(store, batch):
        here, that = series_key(parameters, names)
        if there.setdefault(here, that) != that or back.setdefault(that, here) != here:
            return False
    return True


def _combinations(
    store: Store, batch: BatchRecord, parameters: Sequence[Parameter]
) -> Mapping[tuple[Any, ...], str] | None:
    """The combinations of values that points have, in order, with their labels; None if there are too many."""
    names = [parameter.name for parameter in parameters]
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for point in _points(store, batch):
        found.setdefault(series_key(point, names), point)
        if len(found) > _SERIES:
            return None
    # Numbers ascend, all else is in the order of the batch.
    ranks: list[dict[Any, int]] = []
    for place, parameter in enumerate(parameters):
        values = list(dict.fromkeys(combination[place] for combination in found))
        if parameter.least is not None:
            values.sort(key=lambda value: (value == _MISSING, value if value != _MISSING else 0))
        ranks.append({value: rank for rank, value in enumerate(values)})
    order = sorted(found, key=lambda combination: [rank[value] for rank, value in zip(ranks, combination, strict=True)])
    for digits, width in ((6, _WIDTH), (17, _WIDTH), (17, None)):  # the shortest that tell them apart
        labels = {combination: _combined(found[combination], names, digits, width) for combination in order}
        if len(set(labels.values())) == len(labels):
            break
    return labels


def _combined(point: Mapping[str, Any], names: Sequence[str], digits: int, width: int | None) -> str:
    values = [label(point[name], digits) if name in point else "–" for name in names]
    if len(names) == 1:
        return values[0]
    shown = (value if width is None or len(value) <= width else f"{value[:width]}…" for value in values)
    return ", ".join(f"{name}={value}" for name, value in zip(names, shown, strict=True))
