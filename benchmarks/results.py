"""What a run has measured; written and read in pyperf's JSON format."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cases import CASES, Case, Figure
from benchmarks.peers import MACHINE, OURS

__all__ = ["Row", "Run", "Series", "as_pyperf", "from_pyperf", "machine_metadata", "rows"]

# pyperf takes no 0.
_ZERO = 1e-9


@dataclasses.dataclass
class Series:
    """The samples of one figure for one peer.

    case, figure: what was measured.
    peer: the peer's name, or `benchmarks.peers.MACHINE` for the machine's limit.
    values: what the samples gave, in the figure's terms: see `benchmarks.units`.
    dates: when each began, UTC epoch seconds.
    notes: what they came with, each once.
    errors: why samples failed, each once.
    skipped: why there are none.
    """

    case: Case
    figure: Figure
    peer: str
    values: list[float] = dataclasses.field(default_factory=list)
    dates: list[float] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)
    skipped: str = ""

    @property
    def key(self) -> str:
        """The case's and the figure's name."""
        return f"{self.case.name}/{self.figure.name}" if self.figure.name else self.case.name

    @property
    def median(self) -> float | None:
        """The median of the samples."""
        return statistics.median(self.values) if self.values else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run.

    series: by case, figure and peer, in the order asked for.
    peers: each peer's version and settings, by its name, jobrunner first.
    metadata: of the machine and of how the run was made; nothing that names the machine or its user.
    """

    series: Sequence[Series]
    peers: Mapping[str, tuple[str, str]]
    metadata: Mapping[str, str | int | float]

    def find(self, key: str, peer: str) -> Series | None:
        """The series of a case and figure, as in `Series.key`, for a peer."""
        return next((series for series in self.series if series.key == key and series.peer == peer), None)

    def median(self, key: str, peer: str) -> float | None:
        """Its median."""
        series = self.find(key, peer)
        return series.median if series is not None else None

    def best(self, key: str) -> tuple[str, float] | None:
        """The best of the peers and its median."""
        medians = [
            (median, series.peer)
            for series in self.series
            if series.key == key
            and series.peer not in {OURS, MACHINE, *series.case.apart}
            and (median := series.median) is not None
        ]
        if not medians:
            return None
        median, peer = min(medians)
        return peer, median


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one series; all None where no sample succeeded.

    median, low, high: the median, and the smallest and largest sample.
    to_best: the median by that of the best peer, jobrunner not counted among them; below 1 is better than every peer.
    to_limit: the median by that of the machine's limit.
    """

    series: Series
    median: float | None
    low: float | None
    high: float | None
    to_best: float | None
    to_limit: float | None


def rows(run: Run) -> Iterator[Row]:
    """The figures of a run, in its order."""
    for series in run.series:
        best = run.best(series.key)
        limit = run.median(series.key, MACHINE)
        median = series.median
        yield Row(
            series=series,
            median=median,
            low=min(series.values, default=None),
            high=max(series.values, default=None),
            to_best=_ratio(median, best[1] if best else None) if series.peer != MACHINE else None,
            to_limit=_ratio(median, limit) if series.peer != MACHINE else None,
        )


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def machine_metadata() -> dict[str, str | int | float]:
    """The machine, under pyperf's names where it has them."""
    found: dict[str, str | int | float] = {
        "python_version": platform.python_version(),
        "python_implementation": platform.python_implementation().lower(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
    }
    model = _cpu_model()
    if model:
        found["cpu_model_name"] = model
    if hasattr(os, "getloadavg"):
        found["load_avg_1min"] = os.getloadavg()[0]
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def as_pyperf(run: Run) -> dict[str, Any]:
    """The run in pyperf's JSON format: a benchmark a series, named ``case/figure/peer``, a run of one value a sample.

    The values are what the suite keeps, the smaller the better: see `benchmarks.units`; 0 is written as 1e-9, for
    pyperf takes none.  What has no values is told in the metadata ``without_values``, as JSON.
    """
    without = [
        {"name": f"{series.key}/{series.peer}", "errors": series.errors, "skipped": series.skipped}
        for series in run.series
        if not series.values
    ]
    peers = {name: {"version": version, "settings": settings} for name, (version, settings) in run.peers.items()}
    return {
        "version": "1.0",
        "metadata": {**run.metadata, "peers": json.dumps(peers), "without_values": json.dumps(without)},
        "benchmarks": [_benchmark(series) for series in run.series if series.values],
    }


def _benchmark(series: Series) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": f"{series.key}/{series.peer}",
        "unit": series.figure.how.pyperf,
        "loops": 1,
        "description": series.figure.title,
        "case": series.case.name,
        "peer": series.peer,
    }
    if series.figure.name:
        metadata["figure"] = series.figure.name
    if series.notes:
        metadata["notes"] = json.dumps(series.notes, ensure_ascii=False)
    if series.errors:
        metadata["errors"] = json.dumps(series.errors, ensure_ascii=False)
    return {
        "metadata": metadata,
        "runs": [
            {"metadata": {"date": _date(date)}, "values": [max(value, _ZERO)]}
            for date, value in zip(series.dates, series.values, strict=True)
        ],
    }


def _date(epoch: float) -> str:
    # As pyperf writes it: without a zone, which is UTC here.
    return datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).replace(tzinfo=None).isoformat(" ")


def _epoch(date: str) -> float:
    return datetime.datetime.fromisoformat(date).replace(tzinfo=datetime.timezone.utc).timestamp()


def from_pyperf(document: Any) -> Run:
    """A run that `as_pyperf` has written.

    Raises:
        ValueError: the document is something else.
    """
    try:
        metadata = dict(document["metadata"])
        peers = {name: (each["version"], each["settings"]) for name, each in json.loads(metadata.pop("peers")).items()}
        without = json.loads(metadata.pop("without_values"))
        found = [_series(benchmark) for benchmark in document["benchmarks"]]
        found += [_empty(each["name"], each["errors"], each["skipped"], peers) for each in without]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"no results of this suite: {type(error).__name__}: {error}") from error
    places = {key: place for place, key in enumerate(_keys())}
    names = [*peers, MACHINE]
    found.sort(key=lambda series: (places[series.key], names.index(series.peer)))
    return Run(series=found, peers=peers, metadata=metadata)


def _keys() -> Iterator[str]:
    for case in CASES.values():
        for figure in case.figures:
            yield Series(case, figure, "").key


def _series(benchmark: dict[str, Any]) -> Series:
    metadata = benchmark["metadata"]
    case = CASES[metadata["case"]]
    figure = next(figure for figure in case.figures if figure.name == metadata.get("figure", ""))
    values = [value for run in benchmark["runs"] for value in run["values"]]
    return Series(
        case,
        figure,
        metadata["peer"],
        values=[0.0 if math.isclose(value, _ZERO) else value for value in values],
        dates=[_epoch(run["metadata"]["date"]) for run in benchmark["runs"]],
        notes=json.loads(metadata.get("notes", "[]")),
        errors=json.loads(metadata.get("errors", "[]")),
    )


def _empty(name: str, errors: list[str], skipped: str, peers: Mapping[str, Any]) -> Series:
    key, _, peer = name.rpartition("/")
    case_name, _, figure_name = key.partition("/")
    case = CASES[case_name]
    figure = next(figure for figure in case.figures if figure.name == figure_name)
    if peer not in peers and peer != MACHINE:
        raise ValueError(f"{peer!r} is no peer")
    return Series(case, figure, peer, errors=errors, skipped=skipped)
