"""What the functions of a batch returned, as rows: one bad value does not hide the others."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from jobrunner.batch.columns import flatten, free_name
from jobrunner.batch.encoding import WITHHELD
from jobrunner.batch.records import BatchRecord, PointRecord
from jobrunner.batch.replicates import aggregate
from jobrunner.batch.store import Store
from jobrunner.cli.stored_points import last_outcome, stored_points
from jobrunner.cli.table import ResultTable
from jobrunner.errors import SerializationError
from jobrunner.texts import plural

__all__ = ["StoredResult", "StoredResults", "result_table"]

#: In place of a result that is not loaded, or can't be.
_WITHHELD = "<withheld>"
_UNREADABLE = "<unreadable>"

#: A batch of more results than this is shown by so many from each end.
_WHOLE = 100
_ENDS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredResult:
    """One row of results.

    Attributes:
        point: the point; of several replicates taken together, the first that is done.
        value: what the function returned, or, of several replicates, their mean and error; None if there is a problem.
        problem: ``"<withheld>"`` or ``"<unreadable>"``; None: it is there.
    """

    point: PointRecord
    value: Any
    problem: str | None

    @property
    def columns(self) -> dict[str, Any]:
        """The value as columns, each a JSON value."""
        return flatten(self.value) if self.problem is None else {"result": self.problem}


class StoredResults:
    """The results of a batch that are in the store when this is made.

    Args:
        store: the store.
        batch: the batch.
        each: whether each replicate has a row of its own, rather than each point.

    Attributes:
        unreadable: how many results could not be loaded, the last time that all were read.
    """

    def __init__(self, store: Store, batch: BatchRecord, *, each: bool = False) -> None:
        self._store = store
        self._batch = batch
        self._until = last_outcome(store)
        self._withheld = 0
        self._first_error = ""
        self.group = 1 if each else batch.replicates
        self.unreadable = 0

    def __iter__(self) -> Iterator[StoredResult]:
        return self.rows()

    def rows(self, places: Sequence[int] | None = None) -> Iterator[StoredResult]:
        """The rows in the order of the points; with `places`, those of these points alone."""
        self._withheld = self.unreadable = 0
        points = stored_points(self._store, self._batch, "done", results=True, places=places, until=self._until)
        for _, group in itertools.groupby(points, key=lambda point: (point.place or 0) // self.group):
            yield self._row(group)

    def _row(self, group: Iterator[PointRecord]) -> StoredResult:
        first = next(group)
        values, problem = [], None
        for point in itertools.chain([first], group):
            value, wrong = self._value(point)
            values.append(value)
            problem = problem or wrong
        if problem is not None:  # a mean over those that can be read would be that of other results
            return StoredResult(point=first, value=None, problem=problem)
        value = values[0] if self.group == 1 else aggregate(values)
        return StoredResult(point=first, value=value, problem=None)

    def _value(self, point: PointRecord) -> tuple[Any, str | None]:
        try:
            value = self._store.value(point)
        except (SerializationError, ValueError, RecursionError) as error:
            self.unreadable += 1
            if self.unreadable == 1:
                self._first_error = f"point {point.place}: {error}"
            return None, _UNREADABLE
        if value is WITHHELD:
            self._withheld += 1
            return None, _WITHHELD
        return value, None

    def notes(self) -> list[str]:
        """What is to be said beside the rows that were read last."""
        found = []
        if self._withheld:
            found.append(
                f"{plural(self._withheld, 'result')} withheld: {self._store.distrust}, and loading a pickle runs what "
                "its writer put into it"
            )
        if self.unreadable:
            found.append(f"{plural(self.unreadable, 'result')} can't be loaded; {self._first_error}")
        return found


def result_table(results: StoredResults, store: Store, batch: BatchRecord) -> ResultTable:
    """The results as a table; of a long batch only the first and the last that are done.

    Args:
        results: the results.
        store: their store.
        batch: their batch.
    """
    table = ResultTable(batch.name, batch.parameters, batch.varying)
    done, group = "FROM point WHERE batch = ? AND status = 'done' AND place IS NOT NULL", results.group
    what = "count(*)" if group == 1 else f"count(DISTINCT place / {group})"
    (count,) = store.rows(f"SELECT {what} {done}", batch.id)[0]
    places: list[int] | None = None
    if count > _WHOLE:
        # So many places are those of _ENDS points at least.
        query = f"SELECT place {done} ORDER BY place {{}} LIMIT {_ENDS * group}"
        first = [place for (place,) in store.rows(query.format("ASC"), batch.id)]
        last = [place for (place,) in reversed(store.rows(query.format("DESC"), batch.id))]
        at_start = sorted({place // group for place in first})[:_ENDS]
        at_end = sorted({place // group for place in last})[-_ENDS:]
        places = [place for place in first if place // group <= at_start[-1]]
        places += [place for place in last if place // group >= at_end[0]]
    for number, row in enumerate(results.rows(places)):
        if places is not None and number == _ENDS:
            table.leave_out(count - 2 * _ENDS)
        parameters = dict(row.point.parameters)
        if group == 1 and batch.replicates > 1:
            parameters[free_name("replicate", parameters, "point.")] = row.point.replicate
        table.add(parameters, row.columns)
    return table
