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

from jobrunner.batch.columns import free_name, to_json
from jobrunner.cli.console import plain_console
from jobrunner.texts import printable

__all__ = ["ResultTable", "describe", "shorten"]

_CELL_WIDTH = 40

#: Ends of the names of a value, and of its error.  The second pair is that of `jobrunner.batch.replicates`.
_ERROR_SUFFIXES = (("", "_error"), ("_mean", "_sem"))


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
    """Rows of results, in the order in which they are shown.

    Parameters that are the same in all rows are told once, above the table.  A result ``x`` that has a neighbour
    ``x_error`` is shown with it, as in 1.234(5); so is ``x_mean`` with ``x_sem``.

    Args:
        name: the batch's name.
        names: the parameters, in order; what else a row has comes behind them.
        varying: those of which the batch has more than one value.
    """

    def __init__(self, name: str, names: Iterable[str], varying: Iterable[str]) -> None:
        self._name = name
        self._names = dict.fromkeys(names)
        self._varying = frozenset(varying)
        self._rows: list[tuple[dict[str, Any], dict[str, Any]]] = []  # parameters and the result's columns, as JSON
        self._gap: tuple[int, int] | None = None  # before which row how many are left out

    def add(self, parameters: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        """Add a row.

        Args:
            parameters: the point.
            columns: its result, as `flatten` gives it.
        """
        self._names.update(dict.fromkeys(parameters))
        self._rows.append((to_json(parameters), dict(columns)))

    def leave_out(self, count: int) -> None:
        """Say that so many rows between the last and the next one are not shown."""
        self._gap = len(self._rows), count

    def print(self, file: TextIO | None = None, *, hint: str = "--output keeps all") -> None:
        """Print the table, or nothing if it is empty.  Columns for which a terminal has no room are named in a note.

        Args:
            file: where; default stdout.
            hint: how to have all that is left out.
        """
        if not self._rows:
            return
        console = plain_console(file)
        constant = self._constant()
        columns, left_out = _fit(self._columns([name for name in self._names if name not in constant]), console.width)
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for column in columns:
            table.add_column(Text(column.header), justify="right", style="cyan" if column.swept else None, no_wrap=True)
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*map(Text, row))
        if constant:
            console.print(Text(f"{printable(self._name)}: {describe(constant)}"))
        console.print(table)
        if left_out:
            console.print(Text(f"too wide to be shown: {', '.join(left_out)}; {hint}"))
        if self._gap is not None:
            console.print(Text(f"{self._gap[1]} results in the middle are not shown; {hint}"))

    def _constant(self) -> dict[str, Any]:
        """The parameters that are told above the table; none, if the rows would have no parameters then."""
        (first, _), *rest = self._rows
        found = {
            name: value
            for name, value in first.items()
            if name not in self._varying and all(name in others and _same(others[name], value) for others, _ in rest)
        }
        return found if len(found) < len(self._names) else {}

    def _columns(self, names: list[str]) -> list[_Column]:
        columns = []
        for name in names:
            cells = [_cell(parameters[name]) if name in parameters else "" for parameters, _ in self._rows]
            columns.append(_Column(printable(name), cells, swept=True))
        for name in self._result_names():
            header = printable(free_name(name, self._names))
            columns.append(_Column(header, [_with_error(result, name) for _, result in self._rows]))
        if self._gap is not None:
            for column in columns:
                column.cells.insert(self._gap[0], "...")
        return columns

    def _result_names(self) -> list[str]:
        """The result's columns in the order of appearance, without those shown as another's error."""
        results = [result for _, result in self._rows]
        names = dict.fromkeys(name for result in results for name in result)
        return [name for name in names if not _is_error_of_another(name, results)]


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def describe(parameters: Mapping[str, Any]) -> str:
    """Parameters as one short text.

    Example:
        >>> describe({"size": 16, "mode": "fast"})
        'size=16 mode=fast'
    """
    return " ".join(
        f"{printable(name)}={_cell(to_json(value), number_format='')}" for name, value in parameters.items()
    )


def shorten(text: str, width: int) -> str:
    """`text` in one line of at most `width` characters, its control characters written out.

    Example:
        >>> shorten("one\\ntwo three", 9)
        'one tw...'
    """
    line = printable(" ".join(text.split()))
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
    error: Any = next((result[each] for each in _error_names(name) if each in result), None)
    if not _is_number(value) or not _is_number(error) or error <= 0:
        return _cell(value)
    # The error's two leading digits, and the value to the same place.
    places = 1 - math.floor(math.log10(error))
    if round(error * 10.0**places) >= 100:  # 0.0996 rounds to three digits
        places -= 1
    if not 0 <= places <= 12:
        return f"{_cell(value)} +- {error:.2g}"
    return f"{value:.{places}f}({round(error * 10**places)})"


def _error_names(name: str) -> list[str]:
    """What the error of the column `name` may be called."""
    return [name.removesuffix(value) + error for value, error in _ERROR_SUFFIXES if name.endswith(value)]


def _is_error_of_another(name: str, results: Iterable[Mapping[str, Any]]) -> bool:
    results = [result for result in results if name in result]
    owners = [name.removesuffix(error) + value for value, error in _ERROR_SUFFIXES if name.endswith(error)]
    return any(
        of != name and all(_is_number(result.get(of)) and _may_be_error(result[name]) for result in results)
        for of in owners
    )


def _may_be_error(value: Any) -> bool:
    return value is None or _is_number(value)  # one replicate alone has no error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
