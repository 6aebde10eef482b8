"""What a function returned, as columns and as JSON.

A table for people and programs that read text has `flatten`'s columns, which are JSON; a table in memory has those of
`as_columns`, which have the same names, and the values themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Container, Mapping
from typing import Any

__all__ = ["as_columns", "flatten", "free_name", "to_json"]

#: Python writes and reads no decimals of more than 4300 digits.
_MOST_BITS = 14_000


def flatten(value: Any) -> dict[str, Any]:
    """The columns of one result, each a JSON value.

    A mapping, dataclass or named tuple has a column for each field, the names of nested mappings joined by dots; any
    other value is one column, ``result``.

    Args:
        value: what a function returned.

    Example:
        >>> flatten({"energy": -1.7, "magnetisation": {"mean": 0.9, "error": 0.1}})
        {'energy': -1.7, 'magnetisation.mean': 0.9, 'magnetisation.error': 0.1}
        >>> flatten(42)
        {'result': 42}
    """
    return _as_columns(to_json(value))


def as_columns(value: Any) -> dict[str, Any]:
    """The columns of one result, as `flatten` names them, each with the value as it is.

    NaN stays a float, a datetime a datetime, an array an array.  As in `flatten`, tuples become lists, and dataclasses
    and named tuples mappings; NumPy's numbers become Python's.

    Args:
        value: what a function returned.

    Example:
        >>> as_columns({"at": 1j, "loss": {"mean": float("nan"), "range": (0, float("inf"))}})
        {'at': 1j, 'loss.mean': nan, 'loss.range': [0, inf]}
    """
    try:
        return _as_columns(_rebuilt(value, _scalar))
    except RecursionError:  # it contains itself, or nearly so
        return {"result": value}


def _as_columns(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"result": value}
    columns: dict[str, Any] = {}
    _collect(value, "", columns)
    return columns


def _collect(mapping: Mapping[str, Any], prefix: str, columns: dict[str, Any]) -> None:
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            _collect(value, f"{name}.", columns)
        else:
            columns[free_name(name, columns)] = value


def free_name(name: str, taken: Container[str], prefix: str = "result.") -> str:
    """`name`, with `prefix` in front as often as it takes not to be one of `taken`.

    Example:
        >>> free_name("size", {"size", "temperature"})
        'result.size'
    """
    while name in taken:
        name = prefix + name
    return name


def to_json(value: Any) -> Any:
    """The value that `json.dumps` takes and that says the same, as far as JSON can.

    NumPy's scalars and arrays become numbers and lists, tuples lists, dataclasses and named tuples objects, keys text;
    NaN and the infinities the texts ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` (JSON has no such numbers), integers of
    more than 4200 digits hexadecimal texts; and what has no JSON form its `repr`.

    Args:
        value: anything.

    Example:
        >>> to_json({"at": (1, 2), "limit": float("inf"), "z": 1j})
        {'at': [1, 2], 'limit': 'Infinity', 'z': '1j'}
    """
    try:
        return _rebuilt(value, _json_leaf)
    except RecursionError:  # it contains itself, or nearly so
        return _safe_repr(value)


def _rebuilt(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The value of dicts and lists alone, and of what `leaf` makes of everything else."""
    if value is None or isinstance(value, (bool, str, int, float)):
        return leaf(value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _safe_repr(key): _rebuilt(item, leaf) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _rebuilt(value._asdict(), leaf)
    if isinstance(value, (list, tuple)):
        return [_rebuilt(item, leaf) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _rebuilt(getattr(value, field.name), leaf) for field in dataclasses.fields(value)}
    return leaf(value)


def _json_leaf(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _MOST_BITS else hex(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # NumPy's, without importing it
        with contextlib.suppress(Exception):  # such as of a quantity that has a unit
            return _rebuilt(value.tolist(), _json_leaf)
    return _safe_repr(value)


def _scalar(value: Any) -> Any:
    """A number of NumPy's, or of what is made alike, as Python's; anything else as it is."""
    dtype = getattr(value, "dtype", None)
    # Python's times are coarser than NumPy's.
    if dtype is not None and getattr(value, "ndim", None) == 0 and getattr(dtype, "kind", "") not in ("m", "M"):
        with contextlib.suppress(Exception):  # such as of a quantity that has a unit
            return value.tolist()
    return value


def _safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # a user's __repr__ must not end the batch
        return object.__repr__(value)
