"""A benchmark's samples as a CSV file, a timed value a line."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from typing import Any

from jobrunner.bench.result import BenchmarkResult, Sample
from jobrunner.storage.whole_file import whole_file

__all__ = ["NUMBERS", "table", "write_csv"]

_COLUMNS = (
    "round",
    "value",
    "seconds",
    "cpu_seconds",
    "loops",
    "peak_rss_bytes",
    "cores",
    "load",
    "beside_others",
    "started_at",
    "failure",
    "error",
)

#: Those of numbers that not every sample has.
NUMBERS = ("value", "seconds", "cpu_seconds", "peak_rss_bytes", "load", "started_at")


def table(result: BenchmarkResult, *, missing: Any = "") -> tuple[list[str], Iterator[list[Any]]]:
    """The samples as the names of columns, and rows of values; None where there is no value.

    Columns are the implementation, each parameter, and what there is to say of a sample; a timed value is a row, and so
    is a sample that has failed.

    Args:
        result: the benchmark.
        missing: what stands for a parameter that a point lacks.
    """
    # A parameter may have the name of a column of ours.
    names = [f"parameter.{name}" if name in ("implementation", *_COLUMNS) else name for name in result.parameters]
    return ["implementation", *names, *_COLUMNS], _rows(result, missing)


def write_csv(result: BenchmarkResult, path: str | os.PathLike[str]) -> None:
    """Write the samples, whole or not at all; see `table`.

    Raises:
        StoreError: it can't be written.
    """
    columns, rows = table(result)
    first = len(columns) - len(_COLUMNS)
    with whole_file(path, "CSV file") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_parameter(value) for value in row[:first]] + [_cell(value) for value in row[first:]])


def _rows(result: BenchmarkResult, missing: Any) -> Iterator[list[Any]]:
    for series in result.series:
        point = [series.parameters.get(name, missing) for name in result.parameters]
        for sample in series.samples:
            for number, seconds in [(None, None)] if sample.failure is not None else enumerate(sample.values):
                yield [series.implementation, *point, *_row(sample, number, seconds)]


def _row(sample: Sample, number: int | None, seconds: float | None) -> list[Any]:
    return [
        sample.round,
        number,
        seconds,
        sample.cpu_s,
        sample.loops,
        sample.peak_rss_bytes,
        " ".join(map(str, sample.cores)),
        None if sample.load is None else round(sample.load, 3),
        sample.beside_others,
        sample.started_at,
        sample.failure,
        sample.error,
    ]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _parameter(value: Any) -> str:
    """A parameter's value: text as it stands, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
