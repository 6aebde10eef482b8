"""A benchmark's samples as a CSV file, a timed value a line."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from typing import Any

from jobrunner.bench.result import BenchmarkResult, Sample
from jobrunner.storage.whole_file import whole_file

__all__ = ["write_csv"]

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


def write_csv(result: BenchmarkResult, path: str | os.PathLike[str]) -> None:
    """Write the samples, whole or not at all: columns for the implementation, each parameter, and the sample.

    A failed sample is a line without seconds.

    Raises:
        StoreError: it can't be written.
    """
    # A parameter may have the name of a column of ours.
    names = [f"parameter.{name}" if name in ("implementation", *_COLUMNS) else name for name in result.parameters]
    with whole_file(path, "CSV file") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["implementation", *names, *_COLUMNS])
        for series in result.series:
            point = [_cell(series.parameters[name]) if name in series.parameters else "" for name in result.parameters]
            for sample in series.samples:
                for number, seconds in _values(sample):
                    writer.writerow([series.implementation, *point, *_row(sample, number, seconds)])


def _values(sample: Sample) -> Iterator[tuple[int | str, float | str]]:
    if sample.failure is not None:
        yield "", ""
    for number, seconds in enumerate(sample.values):
        yield number, repr(seconds)


def _row(sample: Sample, number: int | str, seconds: float | str) -> list[Any]:
    return [
        sample.round,
        number,
        seconds,
        "" if sample.cpu_s is None else repr(sample.cpu_s),
        sample.loops,
        "" if sample.peak_rss_bytes is None else sample.peak_rss_bytes,
        " ".join(map(str, sample.cores)),
        "" if sample.load is None else f"{sample.load:.3f}",
        int(sample.beside_others),
        "" if sample.started_at is None else repr(sample.started_at),
        sample.failure or "",
        sample.error or "",
    ]


def _cell(value: Any) -> str:
    """A parameter's value: text as it stands, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
