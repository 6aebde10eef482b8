"""Results as plots: the columns of numbers, read one result at a time."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobrunner.batch.columns import flatten
from jobrunner.batch.encoding import JSON, PICKLE, Encoded, decode
from jobrunner.batch.records import BatchRecord
from jobrunner.batch.report.axes import Axes, choose_axes, key, label, series_key
from jobrunner.batch.report.model import Parameter
from jobrunner.batch.report.panels import Sample, panel
from jobrunner.batch.report.parameters import is_number
from jobrunner.batch.report.plots import Dot, Results
from jobrunner.batch.store import Store
from jobrunner.errors import SerializationError
from jobrunner.storage.connection import store_errors

__all__ = ["read_results"]

#: At most about so many results are read, evenly over the batch; pickles cost more, and may import what they like.
_READ = {JSON: 100_000, PICKLE: 2_000}
#: A result of more bytes is left out: what is drawn are numbers, not arrays.
_LARGE = 256 * 1024
_COLUMNS = 40
_PANELS = 12
_ERROR = "_error"


@dataclasses.dataclass
class _Mean:
    """Mean and spread of numbers as they come (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    given: float | None = None  # the error that the last one came with

    def add(self, value: float, error: float | None) -> None:
        self.count += 1
        change = value - self.mean
        self.mean += change / self.count
        self.squares += change * (value - self.mean)
        self.given = error

    def dot(self, x: float, *, spread: bool) -> Dot:
        """The mark at `x`; its bar is the standard deviation (`spread`), or the standard error of the mean."""
        if self.count > 1:
            error: float | None = math.sqrt(self.squares / (self.count - 1) / (1 if spread else self.count))
        else:
            error = None if spread else self.given
        low, high = (None, None) if error is None else (self.mean - error, self.mean + error)
        return Dot(x=x, y=self.mean, low=low, high=high, count=self.count)


@dataclasses.dataclass
class _Reading:
    """What came of reading: counts of what could not be drawn, and the columns.

    Attributes:
        columns: by their name, by series, by group of results that a mark is the mean of: the x and the mean.
    """

    read: int = 0
    withheld: int = 0
    unreadable: int = 0
    too_large: int = 0
    pickles: int = 0
    columns: dict[str, dict[int, dict[Any, tuple[float, _Mean]]]] = dataclasses.field(default_factory=dict)
    with_errors: set[str] = dataclasses.field(default_factory=set)
    more_columns: dict[str, None] = dataclasses.field(default_factory=dict)

    def add(self, x: float, series: int, group: Any, columns: Mapping[str, Any]) -> None:
        for name, value in columns.items():
            if not is_number(value):
                continue
            base = name.removesuffix(_ERROR)
            if base != name and is_number(columns.get(base)):
                continue
            if name not in self.columns and len(self.columns) == _COLUMNS:
                self.more_columns[name] = None
                continue
            error = columns.get(name + _ERROR)
            if is_number(error):
                self.with_errors.add(name)
            else:
                error = None
            rows = self.columns.setdefault(name, {}).setdefault(series, {})
            rows.setdefault(group, (x, _Mean()))[1].add(float(value), error)


def read_results(store: Store, batch: BatchRecord, parameters: Sequence[Parameter]) -> Results:
    """The plots of a batch's results."""
    axes = choose_axes(store, batch, parameters)
    counts = _count(store, batch)
    reading = _Reading()
    if axes is not None:
        _read(store, batch, axes, counts, reading)
    names = sorted(reading.columns, key=lambda name: _constant(reading.columns[name]))
    return Results(
        panels=tuple(
            panel(
                name,
                x="replicate" if axes.x is None else axes.x,
                by=axes.by,
                over=axes.over,
                categories=tuple(map(label, axes.categories)),
                averaged=batch.replicates > 1 and axes.x is not None,
                given=name in reading.with_errors,
                samples=_samples(reading.columns[name], axes),
            )
            for name in names[:_PANELS]
            if axes is not None
        ),
        left_out=(*names[_PANELS:], *reading.more_columns),
        done=sum(counts.values()),
        read=reading.read,
        withheld=counts.get(PICKLE, 0) if store.distrust is not None else 0,
        unreadable=reading.unreadable,
        unread_pickles=0 if store.distrust is not None else max(0, counts.get(PICKLE, 0) - reading.pickles),
        too_large=reading.too_large,
        series_left_out=axes.left_out if axes is not None else 0,
    )


def _count(store: Store, batch: BatchRecord) -> dict[str, int]:
    """How many results there are of each format."""
    query = """
        SELECT o.format, count(*) FROM point p JOIN outcome o ON o.id = p.outcome
        WHERE p.batch = ? AND p.status = 'done' AND p.place IS NOT NULL AND o.format IS NOT NULL GROUP BY o.format
    """
    return dict(store.rows(query, batch.id))


def _rows(store: Store, batch: BatchRecord, counts: Mapping[str, int]) -> Iterator[tuple[Any, ...]]:
    """Parameters, replicate, format and result (None where it is too large) of an even sample of the points."""
    # Multiplying by 2^32 over the golden ratio spreads consecutive places evenly over 2^32 (Knuth, vol. 3, 6.4), so
    # that a part of these picks out points of all parameters alike.  Replicates of a point come or go together.
    query = f"""
        SELECT p.parameters, p.replicate, o.format, CASE WHEN length(o.result) <= {_LARGE} THEN o.result END
        FROM point p JOIN outcome o ON o.id = p.outcome
        WHERE p.batch = ? AND p.status = 'done' AND p.place IS NOT NULL
            AND ((p.place / ?) * 2654435761) % 4294967296 < CASE o.format WHEN 'json' THEN ? ELSE ? END
        ORDER BY p.place
    """  # noqa: S608 - a constant
    bounds = [math.ceil(2**32 * min(1.0, _READ[form] / max(1, counts.get(form, 0)))) for form in (JSON, PICKLE)]
    if store.distrust is not None:
        bounds[1] = 0
    with store_errors(store.path):
        yield from store.connection.execute(query, (batch.id, max(1, batch.replicates), *bounds))


def _read(store: Store, batch: BatchRecord, axes: Axes, counts: Mapping[str, int], reading: _Reading) -> None:
    categories = {key(value): place for place, value in enumerate(axes.categories)}
    series = {values: place for place, values in enumerate(axes.series)}
    for text, replicate, form, data in _rows(store, batch, counts):
        if form == PICKLE:
            if reading.pickles >= 2 * _READ[PICKLE]:
                continue
            reading.pickles += 1
        if data is None:
            reading.too_large += 1
            continue
        try:
            value = decode(Encoded(form, data), trusted=store.distrust is None)
        except SerializationError:
            reading.unreadable += 1
            continue
        reading.read += 1
        parameters = json.loads(text)
        if axes.x is None:
            reading.add(float(replicate), 0, replicate, flatten(value))
            continue
        if axes.x not in parameters:
            continue
        found = parameters[axes.x]
        x = categories.get(key(found)) if categories else found if is_number(found) else None
        place = series.get(series_key(parameters, axes.by))
        if x is not None and place is not None:
            reading.add(float(x), place, x if axes.over else text, flatten(value))


def _constant(rows: Mapping[int, Mapping[Any, tuple[float, _Mean]]]) -> bool:
    values = {mean.mean for groups in rows.values() for _, mean in groups.values()}
    return len(values) == 1


def _samples(rows: Mapping[int, Mapping[Any, tuple[float, _Mean]]], axes: Axes) -> list[Sample]:
    names = list(axes.series.values())
    spread = bool(axes.over)
    return [
        Sample(
            names[place],
            sorted((mean.dot(x, spread=spread) for x, mean in rows[place].values()), key=lambda dot: dot.x),
        )
        for place in sorted(rows)
    ]
