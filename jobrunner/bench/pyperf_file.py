"""A benchmark as a file of pyperf's, for ``python -m pyperf stats``, ``compare_to``, ``hist`` and the rest.

A sample is a run there, as both are a process of their own with warm-ups and values.  The format is described in
pyperf's documentation, "API: JSON format".
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from typing import Any

from jobrunner.bench.result import BenchmarkResult, Sample, Series
from jobrunner.errors import SpecError
from jobrunner.storage.whole_file import whole_file

__all__ = ["as_pyperf", "write_pyperf"]

#: The version of pyperf's format.
_VERSION = "1.0"

#: What of the machine is told; pyperf knows most of these.
_MACHINE = (
    "cpu_model_name",
    "cpu_count",
    "platform",
    "python_implementation",
    "python_version",
    "python_compiler",
    "python_hash_seed",
    "jobrunner_version",
    "cpu_governor",
)


def as_pyperf(result: BenchmarkResult) -> dict[str, Any]:
    """The document in pyperf's format; series without a good sample are left out, as pyperf takes none."""
    machine = {name: result.machine[name] for name in _MACHINE if name in result.machine}
    return {
        "version": _VERSION,
        "metadata": {**machine, "unit": "second", "timer": "time.perf_counter()"},
        "benchmarks": [_benchmark(series) for series in result.series if series.good],
    }


def _benchmark(series: Series) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": series.name, "loops": series.loops}
    if series.failed:
        metadata["failed_samples"] = len(series.failed)
    return {"metadata": metadata, "runs": [_run(sample) for sample in series.good]}


def _run(sample: Sample) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if sample.started_at is not None:
        # As pyperf writes it: without a zone, which is UTC here.
        moment = datetime.datetime.fromtimestamp(sample.started_at, datetime.timezone.utc)
        metadata["date"] = moment.replace(tzinfo=None).isoformat(" ")
    if sample.elapsed_s is not None:
        metadata["duration"] = sample.elapsed_s
    if sample.cores:
        metadata["cpu_affinity"] = ",".join(map(str, sample.cores))
    if sample.peak_rss_bytes is not None:
        metadata["mem_max_rss"] = sample.peak_rss_bytes
    return {
        "metadata": metadata,
        "warmups": [[sample.loops, seconds] for seconds in sample.warmups],
        "values": list(sample.values),
    }


def write_pyperf(result: BenchmarkResult, path: str | os.PathLike[str]) -> None:
    """Write a file that pyperf reads, whole or not at all.

    Raises:
        SpecError: there is no sample to write; pyperf reads no empty file.
        StoreError: it can't be written.
    """
    document: Mapping[str, Any] = as_pyperf(result)
    if not document["benchmarks"]:
        raise SpecError("no sample has succeeded, and pyperf's format needs one", file=str(path))
    with whole_file(path, "pyperf file") as file:
        json.dump(document, file, allow_nan=False)
        file.write("\n")
