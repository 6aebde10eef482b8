"""A benchmark as one JSON document, which a later run can be compared with."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.bench.compare import Comparison, comparisons
from jobrunner.bench.intervals import Estimate
from jobrunner.bench.result import BenchmarkResult, Growth, Scaling, Series
from jobrunner.storage.whole_file import whole_file

__all__ = ["FORMAT", "VERSION", "as_document", "write_document"]

#: What tells a file as one of these.
FORMAT = "jobrunner-benchmark"

#: The version of the form below; one that adds keys stays.
VERSION = 1


def as_document(result: BenchmarkResult, compared: Sequence[Comparison] | None = None) -> dict[str, Any]:
    """The document of a benchmark.

    Durations are in seconds, sizes in bytes, times in UTC epoch seconds.  An interval is ``{"value", "low", "high"}``,
    with None for a bound that the samples do not give.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": result.name,
        "created_at": result.created_at,
        "complete": result.complete,
        "implementations": list(result.implementations),
        "parameters": list(result.parameters),
        "settings": dict(result.settings),
        "machine": dict(result.machine),
        "code": {name: dict(code) for name, code in result.code.items()},
        "notes": list(result.notes),
        "series": [_series(series) for series in result.series],
        "comparisons": [
            {"series": each.series.name, "reference": each.reference, "ratio": _interval(each.ratio)}
            for each in (comparisons(result) if compared is None else compared)
        ],
        "growth": [_growth(growth) for growth in result.growths],
        "scaling": [_scaling(scaling) for scaling in result.scaling],
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "implementation": series.implementation,
        "parameters": dict(series.parameters),
        "loops": series.loops,
        "overhead_s": series.overhead_s,
        "given_up": series.given_up,
        "summary": dataclasses.asdict(series.summary) if series.summary else None,
        "median": _interval(series.median),
        "cpu_s": series.cpu_s,
        "peak_rss_bytes": series.peak_rss_bytes,
        "failed": len(series.failed),
        "warnings": list(series.warnings),
        "samples": [{**dataclasses.asdict(sample), "beside_others": sample.beside_others} for sample in series.samples],
    }


def _growth(growth: Growth) -> dict[str, Any]:
    return {
        "implementation": growth.implementation,
        "parameter": growth.parameter,
        "others": dict(growth.others),
        "sizes": list(growth.sizes),
        "medians": [_interval(median) for median in growth.medians],
        "exponent": _interval(growth.fit.exponent),
        "laws": list(growth.fit.names),
        "text": growth.fit.text,
    }


def _scaling(scaling: Scaling) -> dict[str, Any]:
    fit = scaling.fit
    return {
        "name": scaling.name,
        "jobs": scaling.jobs,
        "loops": scaling.loops,
        "widths": [
            {
                "workers": width,
                "throughput_per_s": _interval(scaling.throughput(width)),
                "speedup": _interval(scaling.speedup(width)),
                "efficiency": _interval(scaling.efficiency(width)),
                "given_up": scaling.given_up.get(width),
            }
            for width in scaling.widths
        ],
        "serial_fraction": _interval(fit.serial) if fit else None,
        "text": fit.text if fit else None,
        "runs": [dataclasses.asdict(run) for run in scaling.runs],
    }


def _interval(estimate: Estimate | None) -> Mapping[str, float | None] | None:
    if estimate is None:
        return None
    return {
        name: value if math.isfinite(value) else None
        for name, value in (("value", estimate.value), ("low", estimate.low), ("high", estimate.high))
    }


def write_document(
    result: BenchmarkResult, path: str | os.PathLike[str], compared: Sequence[Comparison] | None = None
) -> None:
    """Write the document to a file, whole or not at all.

    Raises:
        StoreError: it can't be written.
    """
    with whole_file(path, "JSON file") as file:
        json.dump(as_document(result, compared), file, allow_nan=False, indent=1)
        file.write("\n")
