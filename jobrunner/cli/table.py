"""The table of results that a person reads."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from jobrunner.batch import Outcome, OutcomeStatus, Points, flatten, to_json
from jobrunner.batch.columns import free_name
from jobrunner.cli.console import plain_console

__all__ = ["ResultTable", "describe", "shorten"]

#: A batch of more points than this is shown by so many from each end.
_WHOLE = 100
_ENDS = 20
_CELL_WIDTH = 40
_ERROR_SUFFIX = "_error"


@dataclasses.dataclass
class _Column:
    header: str
    cells: list[str]
    swept: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, [*self.header.split("\n"), *self.cells]))

    def fold(self) -> None:
        """Break the header at its underscores and dots where it is wider than the cells."""
        lines = [""]
        room = max(map(cell_len, self.cells))
        for word in re.findall(r".+?(?:[_.]|$)", self.header):
            if lines[-1] and cell_len(lines[-1] + word) > room:
                lines.append("")
            lines[-1] += word
        self.header = "\n".join(lines)


def _fit(columns: list[_Column], width: int) -> tuple[list[_Column], list[str]]:
    """The columns that fit, with their headers folded if need be, and the headers of those that don't."""
    gap = 2
    if sum(column.width + gap for column in columns) - gap > width:
        headers = [column.header for column in columns]
        for column in columns:
            column.fold()
        depth = max(column.header.count("\n") for column in columns)
        for column in columns:  # the last line stands next to the cells
            column.header = "\n" * (depth - column.header.count("\n")) + column.header
        ends = itertools.accumulate(column.width + gap for column in columns)
        fitting = max(1, sum(end - gap <= width for end in ends))
        return columns[:fitting], headers[fitting:]
    return columns, []


class ResultTable:
    """Collects the results that will be shown, and prints them in the order of the points.

    Of a long batch only the first and last points are kept.  Parameters that are the same for all points are told once,
    above the table.  A result ``x`` that has a neighbour ``x_error`` is shown with it, as in 1.234(5).

    Args:
        name: the batch's name.
        points: the points of the batch.
    """

    def __init__(self, name: str, points: Points) -> None:
        self._name = name
        self._total = len(points)
        self._names = points.varying() or points.names
        self._constant = {name: points[0][name] for name in points.names if name not in self._names}
        self._rows: dict[int, tuple[list[Any], dict[str, Any]]] = {}  # by index: parameters, and the result's columns
        self._left_out = 0

    def add(self, outcome: Outcome) -> None:
        """Take in one outcome; only done ones have a row."""
        if outcome.status is not OutcomeStatus.DONE:
            return
        if self._total > _WHOLE and _ENDS <= outcome.index < self._total - _ENDS:
            self._left_out += 1
            return
        self._rows[outcome.index] = [outcome.parameters[name] for name in self._names], flatten(outcome.value)

    def print(self, file: TextIO | None = None) -> None:
        """Print the table, or nothing if it is empty.  Columns for which a terminal has no room are named in a note."""
        if not self._rows:
            return
        console = plain_console(file)
        columns, left_out = _fit(self._columns(), console.width)
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for column in columns:
            table.add_column(Text(column.header), justify="right", style="cyan" if column.swept else None, no_wrap=True)
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*map(Text, row))
        if self._constant:
            console.print(Text(f"{self._name}: {describe(self._constant)}"))
        console.print(table)
        if left_out:
            console.print(Text(f"too wide to be shown: {', '.join(left_out)}; --output keeps all"))
        if self._left_out:
            console.print(Text(f"{self._left_out} results in the middle are not shown; --output keeps all"))

    def _columns(self) -> list[_Column]:
        rows = sorted(self._rows.items())
        columns = []
        for place, name in enumerate(self._names):
            columns.append(
                _Column(name, [_cell(to_json(parameters[place])) for _, (parameters, _) in rows], swept=True)
            )
        for name in self._result_names():
            header = free_name(name, self._names)
            columns.append(_Column(header, [_with_error(result, name) for _, (_, result) in rows]))
        if self._left_out:
            gap = sum(index < _ENDS for index, _ in rows)
            for column in columns:
                column.cells.insert(gap, "...")
        return columns

    def _result_names(self) -> list[str]:
        """The result's columns in the order of appearance, without those shown as another's error."""
        results = [result for _, result in self._rows.values()]
        names = dict.fromkeys(name for result in results for name in result)
        return [name for name in names if not _is_error_of_another(name, results)]


def describe(parameters: Mapping[str, Any]) -> str:
    """Parameters as one short text.

    Example:
        >>> describe({"size": 16, "mode": "fast"})
        'size=16 mode=fast'
    """
    return " ".join(f"{name}={_cell(to_json(value), number_format='')}" for name, value in parameters.items())


def shorten(text: str, width: int) -> str:
    """`text` in one line of at most `width` characters.

    Example:
        >>> shorten("one\\ntwo three", 9)
        'one tw...'
    """
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _cell(value: Any, number_format: str = ".6g") -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return format(value, number_format) if number_format else repr(value)
    return shorten(value if isinstance(value, str) else json.dumps(value), _CELL_WIDTH)


def _with_error(result: Mapping[str, Any], name: str) -> str:
    if name not in result:
        return ""
    value: Any = result[name]
    error: Any = result.get(name + _ERROR_SUFFIX)
    if not _is_number(value) or not _is_number(error) or error <= 0:
        return _cell(value)
    # The error's two leading digits, and the value to the same place.
    places = 1 - math.floor(math.log10(error))
    if round(error * 10.0**places) >= 100:  # 0.0996 rounds to three digits
        places -= 1
    if not 0 <= places <= 12:
        return f"{_cell(value)} +- {error:.2g}"
    return f"{value:.{places}f}({round(error * 10**places)})"


def _is_error_of_another(name: str, results: Iterable[Mapping[str, Any]]) -> bool:
    of = name.removesuffix(_ERROR_SUFFIX)
    if of == name:
        return False
    return all(_is_number(result.get(of)) and _is_number(result[name]) for result in results if name in result)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
