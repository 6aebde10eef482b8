"""The file that ``--output`` names: one line a point, or a replicate of it.

``.jsonl``: each line is an object with ``index, parameters, seed, status, result, error, run_s``, and ``replicate``
where points have more than one.

``.csv``: the columns are the parameters, ``replicate`` (where points have more than one), ``seed`` (if the function
takes one), ``status``, the result's columns, ``run_s``, ``error`` and ``extra``.  The first result fixes the result's
columns; until there is one, the lines of failed points wait.  What a later result has beside them goes into ``extra``,
as one JSON object.  A parameter that has the name of one of these columns becomes ``parameter.<name>``, a result's
column that has the name of an earlier one ``result.<name>``.

A line goes to the file in one write, so that a killed run leaves whole lines.  Cancelled points are not written.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jobrunner.batch.columns import flatten, free_name, to_json
from jobrunner.batch.outcomes import Outcome, OutcomeStatus
from jobrunner.errors import SpecError, StoreError

__all__ = ["OutputWriter", "check_output", "open_output", "outcome_as_json"]


class _LineFile:
    """A file of whole lines.  An existing file keeps its content until the first line is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = False
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise self._unusable(error) from error

    def write(self, line: str) -> None:
        data = memoryview(line.encode("utf-8", errors="backslashreplace"))
        try:
            if not self._started:
                with contextlib.suppress(OSError):  # a pipe or device has nothing to cut off
                    os.ftruncate(self._descriptor, 0)
                self._started = True
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        try:
            os.close(self._descriptor)
        except OSError as error:  # file systems over a network report lost writes here
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(f"the output file can't be written: {error.strerror}", path=str(self.path))


class OutputWriter(ABC):
    """Writes outcomes to a file.  A context manager; leaving it closes the file.

    Args:
        path: the file.
        names: the parameters that points have.
        replicated: whether points have more than one replicate.
        seeded: whether points have seeds; None: as the first that is written.
    """

    def __init__(self, path: Path, names: Sequence[str], replicated: bool, seeded: bool | None) -> None:
        self._seeded = seeded
        self._names = tuple(names)
        self._replicated = replicated
        self._file = _LineFile(path)

    @abstractmethod
    def write(self, outcome: Outcome) -> None:
        """Write the line of `outcome`; nothing for a cancelled one.

        Raises:
            StoreError: the file can't be written, such as when the disk is full.
        """

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._file.close()

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _JsonLinesWriter(OutputWriter):
    def write(self, outcome: Outcome) -> None:
        if outcome.status is not OutcomeStatus.CANCELLED:
            document = outcome_as_json(outcome, replicated=self._replicated)
            self._file.write(json.dumps(document, allow_nan=False) + "\n")


class _CsvWriter(OutputWriter):
    def __init__(self, path: Path, names: Sequence[str], replicated: bool, seeded: bool | None) -> None:
        super().__init__(path, names, replicated, seeded)
        self._waiting: list[Outcome] = []  # failed ones, until the header is written; later empty
        self._columns: tuple[str, ...] | None = None  # the result's own, without prefix; None: no header yet

    def write(self, outcome: Outcome) -> None:
        if outcome.status is OutcomeStatus.CANCELLED:
            return
        if self._columns is not None:
            self._file.write(_csv_line(self._row(outcome)))
        elif outcome.status is OutcomeStatus.FAILED:
            self._waiting.append(outcome)
        else:
            self._begin([*self._waiting, outcome], tuple(flatten(outcome.value)))
            self._waiting.clear()

    def close(self) -> None:
        try:
            if self._columns is None and self._waiting:
                self._begin(self._waiting, ())
        finally:
            super().close()

    def _begin(self, outcomes: Sequence[Outcome], columns: tuple[str, ...]) -> None:
        """Write the header and the lines of the first outcomes; `columns` are those of a result."""
        if self._seeded is None:
            self._seeded = outcomes[0].seed is not None
        seed: tuple[str, ...] = ("seed",) if self._seeded else ()
        if self._replicated:
            seed = ("replicate", *seed)
        own = {*seed, "status", "run_s", "error", "extra"}
        header = [free_name(name, own, "parameter.") for name in self._names]
        header += [*seed, "status"]
        taken = own.union(header)
        for name in columns:
            header.append(free_name(name, taken))
            taken.add(header[-1])
        header += ["run_s", "error", "extra"]
        self._columns = columns
        self._file.write("".join(map(_csv_line, [header, *map(self._row, outcomes)])))

    def _row(self, outcome: Outcome) -> list[Any]:
        columns = flatten(outcome.value) if outcome.status is OutcomeStatus.DONE else {}
        results = [columns.pop(name, None) for name in self._columns or ()]
        return [
            *(to_json(outcome.parameters.get(name)) for name in self._names),
            *([outcome.replicate] if self._replicated else []),
            *([outcome.seed] if self._seeded else []),
            outcome.status.value,
            *results,
            outcome.report.run_s if outcome.report is not None else None,
            outcome.cause,
            columns or None,
        ]


def check_output(path: str | os.PathLike[str]) -> None:
    """Check that the path's ending names a format.

    Raises:
        SpecError: it does not.

    Example:
        >>> check_output("results.xlsx")
        Traceback (most recent call last):
        jobrunner.errors.SpecError: output: expected a file name ending in .csv or .jsonl, found 'results.xlsx'
    """
    if Path(path).suffix.lower() not in _WRITERS:
        raise SpecError(f"expected a file name ending in {' or '.join(_WRITERS)}, found {str(path)!r}", key="output")


def open_output(
    path: str | os.PathLike[str], names: Sequence[str], *, replicated: bool = False, seeded: bool | None = None
) -> OutputWriter:
    """Open the output file, readable by its owner alone if it is new.

    An existing file is overwritten, once there is a line to write.

    Args:
        path: the file; its ending chooses the format, ``.csv`` or ``.jsonl``.
        names: the parameters that points have; one that a point lacks is empty.
        replicated: whether points have more than one replicate, which is then told.
        seeded: whether there is a column for seeds; None: if the first that is written has one.

    Raises:
        SpecError: another ending.
        StoreError: the file can't be written.
    """
    check_output(path)
    return _WRITERS[Path(path).suffix.lower()](Path(path), names, replicated, seeded)


def outcome_as_json(outcome: Outcome, *, replicated: bool = False) -> dict[str, Any]:
    """One outcome as an object that `json.dumps` takes.

    Example:
        >>> outcome_as_json(Outcome(index=0, parameters={"x": 4}, status=OutcomeStatus.DONE, value=2.0))["result"]
        2.0
    """
    done = outcome.status is OutcomeStatus.DONE
    return {
        "index": outcome.index,
        "parameters": to_json(outcome.parameters),
        **({"replicate": outcome.replicate} if replicated else {}),
        "seed": outcome.seed,
        "status": outcome.status.value,
        "result": to_json(outcome.value) if done else None,
        "error": outcome.cause,
        "run_s": outcome.report.run_s if outcome.report is not None else None,
    }


_WRITERS: dict[str, type[OutputWriter]] = {".csv": _CsvWriter, ".jsonl": _JsonLinesWriter}


def _csv_line(row: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_csv_cell(value) for value in row])
    return line.getvalue()


def _csv_cell(value: Any) -> str:
    """A cell: nothing for None, text as it stands, anything else as JSON (``0.1``, ``true``, ``[1, 2]``)."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
