"""What a report tells, as plain data: everything that the page draws, and nothing that grows with the batch.

Times are UTC epoch seconds, durations seconds, sizes bytes.  What is not known is None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jobrunner.batch.columns import to_json
from jobrunner.batch.report.plots import Results

__all__ = [
    "Bar",
    "Failure",
    "FailureGroup",
    "Failures",
    "Histogram",
    "Lane",
    "Parameter",
    "Progress",
    "ReportData",
    "Run",
    "Segment",
    "Summary",
    "Timeline",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One process that runs, or ran, the batch.

    Attributes:
        host, pid: the process.
        workers: how many jobs it runs at a time.
        started_at: when it took the batch up.
        ended_at: when it left; of one that was killed, or still runs, the last that is known of it.
        state: ``ended``, ``running``, or ``lost`` (killed, or its machine was).
        jobs: how many jobs it ran to an end.
    """

    host: str
    pid: int
    workers: int
    started_at: float
    ended_at: float
    state: str
    jobs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The batch in numbers.

    Attributes:
        name, target, created_at, seed, seed_drawn, replicates, options, policy: as in `BatchRecord`.
        total: points of the batch, each replicate counted.
        pending, leased, done, failed, cancelled: how many of them are in each status.
        removed: points that the store keeps, and that are no longer in the batch; nothing else here counts them.
        retried: attempts that failed and were tried again.
        jobs: attempts that ran to an end, whatever the end.
        running: whether a process works on the batch at this moment.
        began_at, ended_at: the first and last moment that a process worked on it.
        workers: how many jobs could run at a time, at most.
        active_s: for how long at least one process did, pauses left out.
        run_s: run time of all jobs together.
        cpu_s: CPU time of all jobs together.
        worker_s: what the workers could have run at most: their number times their runs' length.
        rate: jobs that became final, a second of `active_s`.
        threads: how many a job was to use.
        cpu_efficiency: `cpu_s` a second and thread of run time; above 1 where jobs use more threads than that; None
            where they were too short to tell.
        busy: `run_s` as a part of `worker_s`.
        hosts: the machines that ran jobs.
        runs: the processes that ran it, the first first; at most 100, the last ones.
        runs_total: how many there were.
    """

    name: str
    target: str
    created_at: float
    seed: int | None
    seed_drawn: bool
    replicates: int
    options: Mapping[str, Any]
    policy: Mapping[str, Any]
    total: int
    pending: int
    leased: int
    done: int
    failed: int
    cancelled: int
    removed: int
    retried: int
    jobs: int
    running: bool
    began_at: float | None
    ended_at: float | None
    workers: int
    active_s: float
    run_s: float
    cpu_s: float
    worker_s: float
    rate: float | None
    threads: int
    cpu_efficiency: float | None
    busy: float | None
    hosts: tuple[str, ...]
    runs: tuple[Run, ...]
    runs_total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of time in which jobs ran; between two of them there was a pause, which the axis leaves out.

    Attributes:
        start, end: the times.
    """

    start: float
    end: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """One job on a lane.

    Attributes:
        start, end: when it ran.
        status: ``done``, ``failed`` or ``retried``.
        place: its point's place in the batch.
    """

    start: float
    end: float
    status: str
    place: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """A row of the timeline.

    Attributes:
        host: its machine.
        name: of the worker its pid, or what stands for several.
        workers: how many worker processes it shows.
        width: how many jobs ran on it at a time, at most.
        jobs, failed: how many jobs it ran, and how many of these failed (retried ones included).
        busy_s: their run time.
        start, end: the first start and the last end.
        bars: its jobs, where there are few enough in the batch; else empty.
        density: for each bin of the time axis the part of it that jobs ran (0 to 1), where there are many; else empty.
        failures: how many jobs that failed ended in each bin, likewise.
    """

    host: str
    name: str
    workers: int
    width: int
    jobs: int
    failed: int
    busy_s: float
    start: float
    end: float
    bars: tuple[Bar, ...]
    density: tuple[float, ...]
    failures: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """The jobs by worker.

    Attributes:
        segments: the time axis.
        kind: what a lane is: ``worker`` (a process), ``slot`` (processes that followed each other) or ``host``.
        lanes: by host, by the segment of their first start, by their name.
        lanes_total: how many there were; the first ones are in `lanes`.
        bins: how many bins the axis has; each segment has its share by its length.
    """

    segments: tuple[Segment, ...]
    kind: str
    lanes: tuple[Lane, ...]
    lanes_total: int
    bins: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """The queue over time.

    Attributes:
        times: moments on the timeline's axis, ascending.
        done, failed: how many points had become so by then, and are so now.
        waiting: how many points were not final then.
    """

    times: tuple[float, ...]
    done: tuple[int, ...]
    failed: tuple[int, ...]
    waiting: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """How a quantity is spread over jobs.

    Attributes:
        quantity: ``run_s`` or ``peak_rss_bytes``.
        edges: of the bins, ascending, one more than bins; a bin has its lower edge, the last one both.
        done, failed: jobs in each bin (failed: retried ones included).
        log: whether the edges are spaced evenly in the logarithm.
        count: the jobs of which the quantity is known.
        least, median, mean, p95, most: over these.
    """

    quantity: str
    edges: tuple[float, ...]
    done: tuple[int, ...]
    failed: tuple[int, ...]
    log: bool
    count: int
    least: float
    median: float
    mean: float
    p95: float
    most: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """Failures whose causes differ in numbers only.

    Attributes:
        cause: that of the first.
        count: how many.
    """

    cause: str
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """One point that failed.

    Attributes:
        place, parameters, replicate, seed, attempts, host, pid, finished_at, run_s: as in `PointRecord`.
        cause: one sentence.
        exit_code, exit_signal: of the process that died under it.
        stack: its worker's last Python stack, shortened to its end.
        stderr: the end of what it printed there.
    """

    place: int
    parameters: Mapping[str, Any]
    replicate: int
    seed: int | None
    attempts: int
    host: str | None
    pid: int | None
    finished_at: float | None
    run_s: float | None
    cause: str
    exit_code: int | None
    exit_signal: int | None
    stack: str | None
    stderr: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failures:
    """What failed.

    Attributes:
        total: how many points.
        groups: by cause, the most frequent first.
        shown: some of each group, in the order of the batch.
    """

    total: int
    groups: tuple[FailureGroup, ...]
    shown: tuple[Failure, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of the batch.

    Attributes:
        name: its name.
        varies: whether it differs from point to point.
        fixed: whether it was declared to be the same for all.
        points: how many points have it.
        distinct: how many values it takes; with `more`, at least.
        more: whether there are more values than were counted.
        least, most: of its numbers; None where not all are numbers.
        values: the first few values, numbers in ascending order.
    """

    name: str
    varies: bool
    fixed: bool
    points: int
    distinct: int
    more: bool
    least: float | None
    most: float | None
    values: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportData:
    """All of a report.

    Attributes:
        made_at: when it was made.
        version: jobrunner's, which made it.
        store: the store's path.
        summary, timeline, progress, histograms, failures, results, parameters: its sections.
        notes: what happened to the batch, ``(at, kind, text)`` each; at most 200, the last ones.
        code, machine: as in `BatchRecord`.
    """

    made_at: float
    version: str
    store: str
    summary: Summary
    timeline: Timeline | None
    progress: Progress | None
    histograms: tuple[Histogram, ...]
    failures: Failures
    results: Results
    parameters: tuple[Parameter, ...]
    notes: tuple[tuple[float, str, str], ...]
    code: Mapping[str, Any]
    machine: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The report as a dict that `json.dumps` takes."""
        found: dict[str, Any] = to_json(dataclasses.asdict(self))
        return found
