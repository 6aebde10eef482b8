"""What a benchmark has measured, and what follows from it."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobrunner.bench import amdahl, checks, growth, intervals
from jobrunner.bench.settings import SAMPLES_MOST

if TYPE_CHECKING:
    import pandas

    from jobrunner.bench import compare

__all__ = ["BenchmarkResult", "Growth", "Sample", "Scaling", "ScalingRun", "Series", "short_names"]

#: Others kept more than this of a core busy while a sample was taken: it ran beside them.
_BESIDE_CORES = 0.25

#: A function that takes less than this many times what an empty one takes is mostly the loop and the call.
_OVERHEAD_TIMES = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """What one worker has measured of one series.

    Attributes:
        round: the round that it belongs to, from 0; each series has at most one sample a round.
        values: seconds of one call, one for each timed value; empty where it failed.
        warmups: the same of what was run before and does not count.
        loops: calls of each value.
        cpu_s: CPU seconds of one call.
        elapsed_s: seconds from the first warm-up to the last value.
        cores: where the worker was pinned to; empty: nowhere.
        load: how many cores others kept busy meanwhile; None where that is not known.
        started_at: UTC epoch seconds.
        peak_rss_bytes: peak resident memory of the worker, the interpreter's own included.
        failure: how it failed: ``"raised"``, ``"crashed"``, ``"time limit"``, ``"memory limit"``, ``"not serialised"``;
            None: it did not.
        error: the failure in a sentence.
    """

    round: int
    values: tuple[float, ...] = ()
    warmups: tuple[float, ...] = ()
    loops: int = 1
    cpu_s: float | None = None
    elapsed_s: float | None = None
    cores: tuple[int, ...] = ()
    load: float | None = None
    started_at: float | None = None
    peak_rss_bytes: int | None = None
    failure: str | None = None
    error: str | None = None

    @property
    def seconds(self) -> float:
        """The median of its values: what statistics take as this sample."""
        return statistics.median(self.values)

    @property
    def beside_others(self) -> bool:
        """Whether other work kept a core of the machine busy meanwhile."""
        return self.load is not None and self.load > _BESIDE_CORES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One function at one point, with its samples.

    Attributes:
        name: implementation and parameters, such as ``"module:function size=16"``.
        implementation: the function's name.
        parameters: the point.
        samples: in the order in which they were taken.
        loops: calls for each value; None where it could not be calibrated.
        overhead_s: seconds of a call of a function that does nothing, in the same loop.
        given_up: why no more samples were taken than there are; None: for no such reason.
    """

    name: str
    implementation: str
    parameters: Mapping[str, Any]
    samples: tuple[Sample, ...] = ()
    loops: int | None = None
    overhead_s: float | None = None
    given_up: str | None = None

    @functools.cached_property
    def good(self) -> tuple[Sample, ...]:
        """The samples that did not fail."""
        return tuple(sample for sample in self.samples if sample.failure is None)

    @property
    def failed(self) -> tuple[Sample, ...]:
        """The samples that did."""
        return tuple(sample for sample in self.samples if sample.failure is not None)

    @functools.cached_property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of a call, a good sample each."""
        return tuple(sample.seconds for sample in self.good)

    @functools.cached_property
    def summary(self) -> intervals.Summary | None:
        """Median, percentiles and the like; None without samples."""
        return intervals.summarise(self.seconds) if self.seconds else None

    @functools.cached_property
    def median(self) -> intervals.Estimate | None:
        """The median with its confidence interval; None without samples."""
        return intervals.median_interval(self.seconds) if self.seconds else None

    @property
    def peak_rss_bytes(self) -> int | None:
        """The highest peak of its samples."""
        return max((sample.peak_rss_bytes for sample in self.good if sample.peak_rss_bytes is not None), default=None)

    @property
    def cpu_s(self) -> float | None:
        """The median of the CPU seconds of a call."""
        known = [sample.cpu_s for sample in self.good if sample.cpu_s is not None]
        return statistics.median(known) if known else None

    @property
    def too_fast(self) -> str | None:
        """A sentence where what was timed is mostly the loop and the call, and not what the function does."""
        if not self.median or not self.overhead_s or self.median.value >= _OVERHEAD_TIMES * self.overhead_s:
            return None
        return (
            f"too fast to be timed alone: about {self.overhead_s * 1e9:.0f} ns of each call are the loop and the call "
            "itself; let the function do more work a call"
        )

    @property
    def beside_others(self) -> int:
        """How many good samples ran beside other work on the machine."""
        return sum(sample.beside_others for sample in self.good)

    @functools.cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before trusting the figures, a sentence each."""
        found = list(checks.warnings_of(self.seconds)) if self.seconds else []
        if self.too_fast:
            found.insert(0, self.too_fast)
        if self.beside_others:
            found.append(f"{self.beside_others} of {len(self.good)} samples ran beside other work on this machine")
        return tuple(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingRun:
    """One run of a batch at one width.

    Attributes:
        round: the round that it belongs to.
        width: the number of workers.
        seconds: how long the batch took; None where it failed.
        started_at: UTC epoch seconds.
        error: the failure in a sentence.
    """

    round: int
    width: int
    seconds: float | None = None
    started_at: float | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """How the throughput of one series grows with the number of workers.

    Attributes:
        name: the series.
        widths: the numbers of workers.
        jobs: jobs of the batch.
        loops: calls of each job.
        runs: in the order in which they were made.
        given_up: widths of which no more was run, with the reason.
    """

    name: str
    widths: tuple[int, ...]
    jobs: int
    loops: int
    runs: tuple[ScalingRun, ...] = ()
    given_up: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def seconds(self, width: int) -> tuple[float, ...]:
        """How long the batch took at a width, a run each."""
        return tuple(run.seconds for run in self.runs if run.width == width and run.seconds is not None)

    def throughput(self, width: int) -> intervals.Estimate | None:
        """Calls a second at a width, with a confidence interval; None without runs."""
        seconds = self.seconds(width)
        if not seconds:
            return None
        calls = self.jobs * self.loops
        found = intervals.median_interval(seconds)
        low = calls / found.high
        return intervals.Estimate(
            value=calls / found.value, low=low, high=calls / found.low if found.low else float("inf")
        )

    def speedup(self, width: int) -> intervals.Estimate | None:
        """How many times as fast as the smallest width; None without runs of both."""
        return dict(zip(self.fit.widths, self.fit.speedups, strict=True)).get(width) if self.fit else None

    def efficiency(self, width: int) -> intervals.Estimate | None:
        """The speedup by how many times as many workers there are; None without runs of both."""
        return dict(zip(self.fit.widths, self.fit.efficiencies, strict=True)).get(width) if self.fit else None

    @functools.cached_property
    def fit(self) -> amdahl.Amdahl | None:
        """Speedup and efficiency of each width, and the serial fraction; None from fewer than two widths."""
        by_round: dict[int, dict[int, float | None]] = {}
        for run in self.runs:
            by_round.setdefault(run.round, {})[run.width] = run.seconds
        rows = [[by_round[number].get(width) for width in self.widths] for number in sorted(by_round)]
        return amdahl.fit_amdahl(self.widths, rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """A benchmark: what was measured, how, and on what.

    Attributes:
        name: its name.
        created_at: UTC epoch seconds at which it was begun.
        complete: whether it was measured to its end.
        implementations: the functions' names, the first the one that others are compared with.
        parameters: names of the parameters, in order.
        settings: how it was measured, see `jobrunner.bench.settings.Settings`.
        machine: what it was measured on, see `jobrunner.bench.machine.describe`.
        code: what identifies each implementation's code, by its name.
        series: each implementation at each point.
        scaling: each series over the numbers of workers, where that was asked for.
        notes: what a reader should know of the whole.
    """

    name: str
    created_at: float
    complete: bool
    implementations: tuple[str, ...]
    parameters: tuple[str, ...]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    code: Mapping[str, Mapping[str, Any]]
    series: tuple[Series, ...]
    scaling: tuple[Scaling, ...] = ()
    notes: tuple[str, ...] = ()

    def find(self, name: str) -> Series | None:
        """The series of that name."""
        return next((series for series in self.series if series.name == name), None)

    def beside(self, series: Series, implementation: str) -> Series | None:
        """Another implementation's series at the point of this one."""
        # By name, where values stand as JSON: for Python 1 and True are equal.
        return self.find(implementation + series.name.removeprefix(series.implementation))

    @functools.cached_property
    def varying(self) -> tuple[str, ...]:
        """The parameters of which there is more than one value."""
        return tuple(
            name for name in self.parameters if len({repr(series.parameters.get(name)) for series in self.series}) > 1
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before trusting the figures: of the whole, then of each series, by its name.

        Where most samples ran beside other work that is said of the whole, and not what follows from it.
        """
        notes = (*self.notes, *self._unreached())
        good = sum(len(series.good) for series in self.series)
        beside = sum(series.beside_others for series in self.series)
        if 2 * beside <= good or not beside:
            return (*notes, *(f"{series.name}: {text}" for series in self.series for text in series.warnings))
        whole = f"{beside} of {good} samples ran beside other work on this machine: close what else runs, and run again"
        return (*notes, whole, *(f"{series.name}: {series.too_fast}" for series in self.series if series.too_fast))

    def _unreached(self) -> list[str]:
        """The series that ended by the bound on samples, before what was asked for was reached."""
        asked = next((name for name in ("min_time", "target_rse") if self.settings.get(name) is not None), None)
        if asked is None:
            return []
        return [
            f"{series.name}: stopped at {SAMPLES_MOST} samples, before {asked} was reached"
            for series in self.series
            if len(series.samples) >= SAMPLES_MOST
        ]

    @property
    def failed(self) -> bool:
        """Whether a sample or a run has failed."""
        return any(series.failed or series.given_up for series in self.series) or any(
            run.error for scaling in self.scaling for run in scaling.runs
        )

    def ratio(self, series: Series, reference: Series) -> intervals.Estimate | None:
        """How many times as long one series takes as another of the same run.

        Samples of one round were taken near one another in time, and are resampled together: what made both slower
        does not count.

        Returns:
            The median of the rounds' ratios with its confidence interval (it may differ a little from the ratio of the
            medians); None without a round that has both.
        """
        ours = {sample.round: sample.seconds for sample in series.good}
        theirs = {sample.round: sample.seconds for sample in reference.good}
        rounds = [number for number in ours if number in theirs]
        if not rounds:
            return None
        return intervals.ratio_interval([ours[n] for n in rounds], [theirs[n] for n in rounds], paired=True)

    @functools.cached_property
    def growths(self) -> tuple[Growth, ...]:
        """How the time of each implementation grows with each parameter that has three numbers above 0, or more."""
        return tuple(
            found
            for name in self.varying
            for members in self._lines(name)
            if (found := _growth(name, self.varying, members)) is not None
        )

    def _lines(self, name: str) -> list[list[Series]]:
        """Series that differ in that parameter only."""
        groups: dict[str, list[Series]] = {}
        for series in self.series:
            rest = {key: value for key, value in series.parameters.items() if key != name}
            groups.setdefault(f"{series.implementation} {sorted(rest.items())!r}", []).append(series)
        return list(groups.values())

    # --- files ---

    def as_dict(self, compared: Sequence[compare.Comparison] | None = None) -> dict[str, Any]:
        """The result with all its samples and statistics, as `json.dumps` takes it.

        Args:
            compared: the comparisons that it tells, from `jobrunner.bench.compare`; None: with the first function.
        """
        from jobrunner.bench.document import as_document

        return as_document(self, compared)

    def write_json(self, path: str | os.PathLike[str], compared: Sequence[compare.Comparison] | None = None) -> None:
        """Write `as_dict` to a file, which `jobrunner bench --baseline` reads.

        Raises:
            StoreError: it can't be written.
        """
        from jobrunner.bench.document import write_document

        write_document(self, path, compared)

    def write_pyperf(self, path: str | os.PathLike[str]) -> None:
        """Write the samples to a file that ``python -m pyperf`` reads.

        Raises:
            StoreError: it can't be written.
        """
        from jobrunner.bench.pyperf_file import write_pyperf

        write_pyperf(self, path)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the samples to a CSV file, a timed value a line.

        Raises:
            StoreError: it can't be written.
        """
        from jobrunner.bench.csv_file import write_csv

        write_csv(self, path)

    def dataframe(self) -> pandas.DataFrame:
        """The samples as a table of pandas, with the columns of `write_csv`.

        What a sample or a point lacks is NaN among numbers, else None; a failed sample has a row without ``seconds``.

        Raises:
            ImportError: pandas is not installed (``pip install 'jobrunner[pandas]'``).
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("BenchmarkResult.dataframe() needs pandas: pip install 'jobrunner[pandas]'") from error
        from jobrunner.bench.csv_file import NUMBERS, table

        columns, rows = table(self, missing=None)
        frame = pandas.DataFrame(rows, columns=columns)
        # Of a column without any number pandas does not know that it is one of numbers.
        return frame.astype({name: float for name in NUMBERS if frame[name].dtype == object})

    def plot(
        self, directory: str | os.PathLike[str], compared: Sequence[compare.Comparison] | None = None
    ) -> list[str]:
        """Draw what there is to be drawn, as PNG and SVG files; needs the extra ``plot``.

        Args:
            directory: where they go; it is made where there is none.
            compared: the comparisons that are drawn, from `jobrunner.bench.compare`; None: with the first function.

        Returns:
            The paths of the files.

        Raises:
            SpecError: matplotlib is not installed.
            StoreError: they can't be written.
        """
        from jobrunner.bench.plots import draw

        return draw(self, directory, compared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """How the time of one implementation grows with one parameter.

    Attributes:
        implementation: the function's name.
        parameter: what grows.
        others: the other parameters that vary, as they stand here.
        sizes: the parameter's values.
        medians: the median at each, with its interval.
        fit: the growth that was fitted.
    """

    implementation: str
    parameter: str
    others: Mapping[str, Any]
    sizes: tuple[float, ...]
    medians: tuple[intervals.Estimate, ...]
    fit: growth.Growth


def _size(value: Any) -> float | None:
    """A parameter's value as a number that time can grow with; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return None
    try:
        size = float(value)
    except OverflowError:
        return None
    return size if math.isfinite(size) else None


def _growth(name: str, varying: Sequence[str], members: Sequence[Series]) -> Growth | None:
    """What `members`, which differ in the parameter `name` only, say of its growth."""
    found = [(_size(series.parameters.get(name)), series) for series in members]
    if any(size is None for size, _ in found):
        return None
    known = sorted(((size, series) for size, series in found if size and series.seconds), key=lambda each: each[0])
    if len({size for size, _ in known}) < max(3, len(known)):  # 1 and 1.0 are one size
        return None
    by_round = [{sample.round: sample.seconds for sample in series.good} for _, series in known]
    rounds = sorted({number for each in by_round for number in each})
    fit = growth.fit_growth([size for size, _ in known], [[each.get(number) for each in by_round] for number in rounds])
    if fit is None:
        return None
    first = known[0][1]
    return Growth(
        implementation=first.implementation,
        parameter=name,
        others={key: first.parameters[key] for key in varying if key != name and key in first.parameters},
        sizes=tuple(size for size, _ in known),
        medians=tuple(intervals.median_interval(series.seconds) for _, series in known),
        fit=fit,
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each implementation's name without its module, where that leaves no two alike.

    Example:
        >>> short_names(["sorting:merge", "sorting:quick"])
        {'sorting:merge': 'merge', 'sorting:quick': 'quick'}
        >>> short_names(["a:run", "b:run"])
        {'a:run': 'a:run', 'b:run': 'b:run'}
    """
    short = [name.rpartition(":")[2] for name in names]
    return dict(zip(names, short if len(set(short)) == len(short) else names, strict=True))
