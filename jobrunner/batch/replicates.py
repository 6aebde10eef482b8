"""Replicates: the results of one point, repeated with different seeds, as one row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from jobrunner.batch.columns import as_columns, free_name

__all__ = ["aggregate", "group", "mean_and_error"]

_Record = TypeVar("_Record")


def aggregate(values: Iterable[Any]) -> dict[str, Any]:
    """The columns of the results of one point's replicates, taken together.

    Each result is taken apart (`jobrunner.batch.columns.as_columns`).  Then a column that

    - is a number in all results, NaN and the infinities included, becomes ``<column>_mean`` and ``<column>_sem``, see
      `mean_and_error`;
    - is the same in all is kept as it is;
    - is anything else becomes the list of its values, None where a result lacks it.

    Args:
        values: what the function returned, for each replicate that is done.

    Returns:
        The columns, and ``replicates``: how many results there were.

    Example:
        >>> aggregate([{"energy": 1.0, "model": "ising"}, {"energy": 3.0, "model": "ising"}])
        {'energy_mean': 2.0, 'energy_sem': 1.0, 'model': 'ising', 'replicates': 2}
    """
    rows = [as_columns(value) for value in values]
    columns: dict[str, Any] = {"replicates": len(rows)}  # first, so that no column takes its name
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        numbers = [cell for cell in cells if isinstance(cell, (int, float)) and not isinstance(cell, bool)]
        pair = mean_and_error(numbers) if len(numbers) == len(cells) else None
        if pair is not None:
            columns[free_name(f"{name}_mean", columns)], columns[free_name(f"{name}_sem", columns)] = pair
        else:
            same = all(_same(cell, cells[0]) for cell in cells)
            columns[free_name(name, columns)] = cells[0] if same else cells
    columns["replicates"] = columns.pop("replicates")
    return columns


def _same(one: Any, other: Any) -> bool:
    """Whether two values are of one type and equal, NaN being equal to NaN; False where that can't be told."""
    if type(one) is not type(other):
        return False
    try:
        if isinstance(one, list):
            return len(one) == len(other) and all(map(_same, one, other))
        if hasattr(one, "equals"):  # tables and series, of which == is another table
            return bool(one.equals(other))
        if hasattr(one, "tolist") and hasattr(one, "dtype"):  # arrays, of which == is another array
            return bool(one.dtype == other.dtype) and _same(one.tolist(), other.tolist())
        return bool(one == other) or bool(one != one and other != other)  # NaN
    except Exception:  # whatever the value's own methods raise
        return False


def mean_and_error(numbers: Iterable[float]) -> tuple[float, float | None] | None:
    """The mean of `numbers`, and its standard error.

    For n numbers x with the mean m, the standard error of the mean is ``sqrt(sum((x - m)**2) / (n - 1)) / sqrt(n)``:
    the sample standard deviation divided by the root of n (JCGM 100:2008, the "GUM", equation 5 in section 4.2.3).  It
    assumes that the numbers are independent, as results from different seeds are.

    Args:
        numbers: at least one; whole numbers are taken as floats.

    Returns:
        Mean and standard error; the latter is None for one number, which tells nothing of its error.  With NaN or an
        infinity among them, the mean is that (NaN for both infinities), and the standard error NaN.  None if one of
        the numbers is too large for a float.

    Example:
        >>> mean_and_error([1.0, 2.0, 3.0, 4.0])
        (2.5, 0.6454972243679028)
        >>> mean_and_error([0.1])
        (0.1, None)
    """
    try:
        given = [float(number) for number in numbers]
        n = len(given)
        beyond = [x for x in given if not math.isfinite(x)]
        if beyond:
            return sum(beyond), math.nan if n > 1 else None
        # Scaled by a power of two to below 1, which changes no digit: then no sum is too large for a float.
        exponent = math.frexp(max(map(abs, given)))[1]
        scaled = [math.ldexp(x, -exponent) for x in given]
        # The mean as the sum of two floats: with the remainder, the differences are right where the numbers differ in
        # their last digits only, and zero where they are equal.
        mean = math.fsum(scaled) / n
        remainder = math.fsum([*scaled, *[-mean] * n]) / n
        differences = [(x - mean) - remainder for x in scaled]
        error = math.sqrt(math.fsum(d * d for d in differences) / (n * (n - 1))) if n > 1 else None
        return math.ldexp(mean + remainder, exponent), None if error is None else math.ldexp(error, exponent)
    except OverflowError:
        return None


def group(records: Iterable[tuple[int, _Record]], replicates: int) -> Iterator[tuple[int, list[_Record]]]:
    """The records of each point together.

    Args:
        records: pairs of a place and a record, in order of place.  The place of a replicate is ``index * replicates +
            replicate``; places may be missing, such as those that failed.
        replicates: how many each point has.

    Yields:
        The point's index, and its records; only points that have any.

    Example:
        >>> list(group([(0, "a"), (1, "b"), (3, "c")], replicates=2))
        [(0, ['a', 'b']), (1, ['c'])]
    """
    for index, members in itertools.groupby(records, key=lambda record: record[0] // replicates):
        yield index, [record for _, record in members]
