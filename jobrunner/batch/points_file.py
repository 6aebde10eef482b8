"""Points from a file: one a line, as CSV or JSON Lines.

::

    points.csv          size,mode             points.jsonl     {"size": 16, "mode": "fast"}
                        16,fast                                {"size": 32}
                        32,slow                                {"size": 32, "cell": [1, 2]}

A cell of CSV is a number, ``true``, ``false``, ``null`` or a text in JSON's quotes, if it reads as one; else the text
that it is (lists and ranges too, and ``True``).  Quoting after the manner of CSV makes no difference: ``"16"`` is the
number, and the text is in three quotes on each side.  JSON Lines have values of any kind, and points that differ in
their parameters.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobrunner.batch.points import RUNS_ONCE, PointRows, Points, check_name, show_point
from jobrunner.batch.values import parse_scalar
from jobrunner.errors import SpecError

__all__ = ["MAX_LINE_BYTES", "read_points"]

#: A longer line is taken for something else than a point, such as a file of another kind.
MAX_LINE_BYTES = 10_000_000


def read_points(path: str | os.PathLike[str]) -> Points:
    """The points of a ``.csv`` or ``.jsonl`` file, in the order of its lines.  Blank lines are skipped.

    Args:
        path: the file, UTF-8 text.  CSV has a header line of parameter names, and each line a cell for each of them.

    Raises:
        SpecError: the file can't be read, has another ending, a line that is no point, no points, more than
            `jobrunner.batch.values.MAX_POINTS`, or one point twice; with the file, the line and what was expected.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "points.csv")
        >>> _ = file.write_text("size,mode\\n16,fast\\n32,slow\\n")
        >>> list(read_points(file))
        [{'size': 16, 'mode': 'fast'}, {'size': 32, 'mode': 'slow'}]
    """
    path = Path(path)
    readers: dict[str, Callable[[_Lines], Iterator[tuple[int, Mapping[str, Any]]]]] = {
        ".csv": _read_csv,
        ".jsonl": _read_json_lines,
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise SpecError("expected a file of points, named *.csv or *.jsonl", file=str(path))
    lines = _Lines(path)
    rows = PointRows()
    numbers = array("L")  # the line of each row
    for number, point in read(lines):
        try:
            known = rows.add(point)
        except SpecError as error:
            message = str(error).removeprefix(f"{error.key}: ")
            raise SpecError(message, file=str(path), line=number, key=error.key) from error
        if known is not None:
            raise lines.wrong(
                f"{show_point(point)} stands twice (line {numbers[known]} says it too): {RUNS_ONCE}", number
            )
        numbers.append(number)
    if not len(rows):
        raise SpecError("has no points: expected one a line", file=str(path))
    return rows.points()


class _Lines:
    """The lines of a text file, of bounded length; what is wrong with the file is told with its line.

    Attributes:
        number: the line that was read last, from 1.
        blank: whether all lines since this was last set were blank.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.blank = True

    def __iter__(self) -> Iterator[str]:
        try:
            # In bytes, so that a line is refused before all of it has been read and decoded.
            with self.path.open("rb") as file:
                while line := file.readline(MAX_LINE_BYTES + 1):
                    self.number += 1
                    if len(line) > MAX_LINE_BYTES:
                        raise self.wrong(f"is longer than {MAX_LINE_BYTES:,} bytes: expected one point a line")
                    text = line.decode("utf-8-sig" if self.number == 1 else "utf-8")
                    self.blank = self.blank and not text.strip()
                    yield text
        except OSError as error:
            raise SpecError(f"can't be read: {error.strerror}", file=str(self.path)) from error
        except UnicodeDecodeError as error:
            raise self.wrong("is no UTF-8 text") from error

    def wrong(self, message: str, number: int | None = None, key: str | None = None) -> SpecError:
        """An error at line `number`, by default the one that was read last."""
        return SpecError(message, file=str(self.path), line=number or self.number or None, key=key)


def _read_csv(lines: _Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    names: list[str] = []
    for number, cells in _records(lines):
        if not names:
            names = _header(lines, number, cells)
            continue
        if len(cells) != len(names):
            raise lines.wrong(
                f"expected {len(names)} cells, one for each name of the header, found {len(cells)}", number
            )
        point: dict[str, Any] = {}
        for name, cell in zip(names, cells, strict=True):
            if not cell.strip():
                message = 'the cell is empty: expected a value (an empty text is written with six quotes, """""")'
                raise lines.wrong(message, number, name)
            try:
                point[name] = parse_scalar(name, cell)
            except SpecError as error:
                message = f"expected a finite number or a text, found {cell.strip()[:40]!r}"
                raise lines.wrong(f"{message} (for the text itself, write it in three quotes)", number, name) from error
        yield number, point
    if not names:
        raise SpecError(
            "is empty: expected a header line of parameter names, and lines of values", file=str(lines.path)
        )


def _records(lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file that are not blank, each with the number of its first line."""
    reader = csv.reader(lines, skipinitialspace=True, strict=True)  # strict: a quote that is not closed is an error
    while True:
        number = lines.number + 1
        lines.blank = True
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise lines.wrong(f"is no valid CSV: {error}", number) from error
        if cells is None:
            return
        if not lines.blank:
            yield number, cells


def _header(lines: _Lines, number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for place, name in enumerate(names):
        try:
            check_name(name)
        except SpecError as error:
            hint = "; columns are separated by commas" if len(names) == 1 and any(c in name for c in ";\t") else ""
            message = f"column {place + 1}: expected a header line of parameter names (Python identifiers){hint}"
            raise lines.wrong(message, number, name or "''") from error
        if name in names[:place]:
            raise lines.wrong("the header has the parameter twice", number, name)
    return names


def _read_json_lines(lines: _Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    form = 'expected one JSON object a line, such as {"size": 16}'
    for text in lines:
        if not text.strip():
            continue
        try:
            point = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            raise lines.wrong(f"is no JSON: {error.msg} at column {error.colno}; {form}") from error
        except (ValueError, RecursionError) as error:
            raise lines.wrong(f"{error}; {form}") from error
        if not isinstance(point, dict):
            raise lines.wrong(f"{form}, found {text.strip()[:40]}")
        yield lines.number, point


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"expected finite numbers, found {name}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return made
