"""The parameters of a batch and the values that they take."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from jobrunner.batch.records import BatchRecord
from jobrunner.batch.report.model import Parameter
from jobrunner.batch.store import Store
from jobrunner.batch.values import canonical_json
from jobrunner.storage.connection import store_errors

__all__ = ["is_number", "read_parameters"]

#: Values of a parameter that are told apart.
_DISTINCT = 1_000
#: Values that are kept.
_KEPT = 24
_TEXT = 200
_LARGEST = 1e250


@dataclasses.dataclass
class _Seen:
    points: int = 0
    values: dict[str, Any] = dataclasses.field(default_factory=dict)  # by their JSON
    more: bool = False
    numbers: bool = True  # all are
    least: float = math.inf
    most: float = -math.inf

    def add(self, value: Any) -> None:
        self.points += 1
        if is_number(value):
            self.least, self.most = min(self.least, value), max(self.most, value)
            key: Any = value
        else:
            self.numbers = False
            key = canonical_json(value)
        if key not in self.values:
            if len(self.values) < _DISTINCT:
                self.values[key] = value
            else:
                self.more = True


def is_number(value: Any) -> bool:
    """Whether a value can be drawn: an int or float within bounds that leave room for arithmetic."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return abs(value) <= _LARGEST
    except OverflowError:  # a whole number beyond the floats
        return False


def read_parameters(store: Store, batch: BatchRecord) -> tuple[Parameter, ...]:
    """Each parameter that any point has: those that vary first, in the order of the batch."""
    seen: dict[str, _Seen] = {}
    query = "SELECT parameters FROM point WHERE batch = ? AND place IS NOT NULL ORDER BY place"
    with store_errors(store.path):
        for (text,) in store.connection.execute(query, (batch.id,)):
            for name, value in json.loads(text).items():
                seen.setdefault(name, _Seen()).add(value)
    for name, value in batch.fixed.items():
        if name not in seen:
            seen[name] = _Seen()
            seen[name].add(value)
            seen[name].points = 0
    order = list(dict.fromkeys([*batch.varying, *batch.parameters, *seen]))
    return tuple(_parameter(name, seen[name], batch) for name in order if name in seen)


def _parameter(name: str, seen: _Seen, batch: BatchRecord) -> Parameter:
    values = list(seen.values.values())
    if seen.numbers:
        values.sort()
    return Parameter(
        name=name,
        varies=name in batch.varying or len(values) > 1,
        fixed=name in batch.fixed,
        points=seen.points,
        distinct=len(values),
        more=seen.more,
        least=seen.least if seen.numbers else None,
        most=seen.most if seen.numbers else None,
        values=tuple(_short(value) for value in values[:_KEPT]),
    )


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return value if len(text) <= _TEXT else f"{text[:_TEXT]}…"
