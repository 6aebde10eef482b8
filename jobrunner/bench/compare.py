"""Comparing: with the first implementation, or with what was measured before."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.bench.intervals import Estimate, ratio_interval
from jobrunner.bench.machine import differences
from jobrunner.bench.result import BenchmarkResult, Series
from jobrunner.errors import SpecError

__all__ = ["Baseline", "Comparison", "check_baseline", "comparisons", "read_baseline"]

#: A larger file is no benchmark's.
_BYTES_MOST = 256 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """What was measured before.

    Attributes:
        path: the file that it is from.
        samples: the samples of each series, in seconds, by its name.
        machine: what it was measured on, under the names of `jobrunner.bench.machine.describe`.
    """

    path: str
    samples: Mapping[str, tuple[float, ...]]
    machine: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A series beside what it is compared with.

    Attributes:
        series: the series.
        reference: the name of the series that it is compared with; for a baseline, its own.
        ratio: how many times as long it takes, with a confidence interval; None without samples on both sides.
    """

    series: Series
    reference: str
    ratio: Estimate | None

    @property
    def different(self) -> bool:
        """Whether the interval excludes that both take the same time."""
        return self.ratio is not None and self.ratio.excludes(1.0)

    @property
    def decided(self) -> bool:
        """Whether there are samples enough to tell slower from faster at all."""
        return self.ratio is not None and math.isfinite(self.ratio.high)

    def slower_by(self, share: float) -> bool:
        """Whether it is slower, and by more than `share` (0.05 is 5 %).

        The ratio is above that, and the interval leaves no room for both being the same.
        """
        return self.ratio is not None and self.ratio.value > 1.0 + share and self.ratio.low > 1.0


def comparisons(result: BenchmarkResult, baseline: Baseline | None = None) -> list[Comparison]:
    """Each series beside what it is compared with, in the result's order.

    Args:
        result: the benchmark.
        baseline: what it is compared with; None: the first implementation at the same point, which itself is not
            compared.
    """
    found = []
    if baseline is not None:
        for series in result.series:
            before = baseline.samples.get(series.name)
            if before is not None:
                ratio = ratio_interval(series.seconds, before, paired=False) if series.seconds else None
                found.append(Comparison(series=series, reference=series.name, ratio=ratio))
        return found
    first = result.implementations[0]
    for series in result.series:
        if series.implementation == first:
            continue
        reference = result.beside(series, first)
        if reference is not None:
            ratio = result.ratio(series, reference)
            found.append(Comparison(series=series, reference=reference.name, ratio=ratio))
    return found


def check_baseline(
    baseline: Baseline, names: Sequence[str], machine: Mapping[str, Any], *, any_machine: bool
) -> list[str]:
    """See that a baseline can be compared with.

    Args:
        baseline: what was measured before.
        names: the series that are to be compared.
        machine: what they run on.
        any_machine: whether another machine is accepted.

    Returns:
        What to tell the user, a sentence each.

    Raises:
        SpecError: it is of other functions or parameters, or of another machine.
    """
    missing = [name for name in names if name not in baseline.samples]
    if len(missing) == len(names):
        listed = ", ".join(list(baseline.samples)[:5]) + (", …" if len(baseline.samples) > 5 else "")
        raise SpecError(
            f"the baseline is of something else: it has {listed or 'nothing'}, and nothing of {', '.join(names[:5])}"
            f"{', …' if len(names) > 5 else ''}; a series is found by function and parameters",
            file=baseline.path,
            key="--baseline",
        )
    notes = []
    if missing:
        listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        notes.append(f"the baseline has no {listed}")
    apart = differences(machine, baseline.machine)
    if apart and not any_machine:
        raise SpecError(
            f"the baseline is of another machine: {'; '.join(apart)}; times of two machines say nothing of the "
            "function; --any-machine compares them all the same",
            file=baseline.path,
            key="--baseline",
        )
    notes += [f"the baseline is of another machine: {each}" for each in apart]
    version = baseline.machine.get("python_version")
    if version is not None and version != machine.get("python_version"):
        notes.append(f"the baseline ran on Python {version}, this runs on {machine.get('python_version')}")
    return notes


def read_baseline(path: str | os.PathLike[str]) -> Baseline:
    """Read what was measured before: a file of ``--json``, of ``--pyperf`` or of pyperf itself.

    Raises:
        SpecError: it can't be read, or is no such file.
    """
    file = Path(path)
    try:
        with open(file, "rb") as opened:
            content = opened.read(_BYTES_MOST + 1)  # a device has no size, and may have no end
        if len(content) > _BYTES_MOST:
            raise SpecError("is too large for a benchmark's file", file=str(path), key="--baseline")
        document = json.loads(content)
    except OSError as error:
        raise SpecError(f"can't be read: {error.strerror or error}", file=str(path), key="--baseline") from None
    except (ValueError, RecursionError):
        raise SpecError("is no JSON file", file=str(path), key="--baseline") from None
    try:
        if "series" in document:
            return _own(document, str(path))
        return _pyperf(document, str(path))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        raise SpecError(
            "is no benchmark's file: expected what --json, --pyperf or pyperf has written",
            file=str(path),
            key="--baseline",
        ) from None


def _own(document: Mapping[str, Any], path: str) -> Baseline:
    samples = {
        series["name"]: tuple(
            statistics.median(_times(sample["values"])) for sample in series["samples"] if sample["failure"] is None
        )
        for series in document["series"]
    }
    return Baseline(path=path, samples=_with_samples(samples), machine=dict(document["machine"]))


def _pyperf(document: Mapping[str, Any], path: str) -> Baseline:
    shared = dict(document.get("metadata", {}))
    samples: dict[str, tuple[float, ...]] = {}
    machine: dict[str, Any] = dict(shared)
    for benchmark in document["benchmarks"]:
        about = {**shared, **benchmark.get("metadata", {})}
        if about.get("unit", "second") != "second":
            continue
        runs = [run for run in benchmark["runs"] if run.get("values")]
        samples[about["name"]] = tuple(statistics.median(_times(run["values"])) for run in runs)
        machine = {**about, **(runs[0].get("metadata", {}) if runs else {}), **machine}
    return Baseline(path=path, samples=_with_samples(samples), machine=machine)


def _times(values: Sequence[Any]) -> list[float]:
    found = [float(value) for value in values]
    if not found or not all(0 < value < float("inf") for value in found):
        raise ValueError("not a duration")
    return found


def _with_samples(samples: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    return {str(name): times for name, times in samples.items() if times}
