"""What the rows of a store say; docs/store.md explains each column."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.batch.encoding import Encoded

__all__ = [
    "POINT_COLUMNS",
    "BatchRecord",
    "Counts",
    "NoteRecord",
    "PointRecord",
    "RunnerRecord",
    "batch_record",
    "point_record",
    "runner_record",
]

#: The columns of a point and its last outcome that `point_record` expects first.
POINT_COLUMNS = """
    p.id, p.place, p.parameters, p.replicate, p.seed, p.status, p.attempts,
    o.recorded_at, o.started_at, o.finished_at, o.run_s, o.cpu_s, o.peak_rss_bytes, o.host, o.pid, o.error
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """One batch of a store, as its table ``batch`` describes it; docs/store.md has each field."""

    id: int
    name: str
    created_at: float
    target: str
    directory: str | None
    parameters: tuple[str, ...]
    varying: tuple[str, ...]
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]
    policy: Mapping[str, Any]
    seed: int | None
    seed_drawn: bool
    replicates: int
    points_digest: str
    total: int
    code: Mapping[str, Any]
    machine: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """How many points of a batch are in each status.

    Attributes:
        pending: nobody has them.
        leased: a process has taken them up, to run them now or soon.
        done: their function returned.
        failed: their job failed.
        cancelled: they were cancelled, and run again with the next run.
    """

    pending: int = 0
    leased: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All points of the batch."""
        return self.pending + self.leased + self.done + self.failed + self.cancelled


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerRecord:
    """One process that runs, or ran, a batch.

    Attributes:
        id: its number in the store.
        host: its machine's name.
        machine: the boot and pid namespace that its pid belongs to.
        pid: its process id.
        pid_started: when that process started, as the system counts it.
        workers: how many jobs it runs at a time.
        started_at: when it took the batch up.
        seen_at: its last sign of life.
        ended_at: when it left; None: it has not, or was killed.
        stop_requested: whether it was asked to stop.
        activity: what it was doing at `seen_at`: ``rate`` (jobs a second), ``running`` (a list of ``{"place", "pid",
            "since", "parameters"}``), ``workers`` (a list of ``{"pid", "rss_bytes"}``), ``rss_bytes`` of all its
            processes.
    """

    id: int
    host: str
    machine: str
    pid: int
    pid_started: str
    workers: int
    started_at: float
    seen_at: float
    ended_at: float | None
    stop_requested: bool
    activity: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteRecord:
    """Something that happened to a batch: a change that was accepted, a warning at a resume."""

    at: float
    kind: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointRecord:
    """One point (of one replicate), with the last that became of it.  What is not known is None.

    Attributes:
        id: its number in the store.
        place: its place in the batch, from 0; None: it is no longer in the batch.
        parameters: what the function is called with.
        replicate: which repetition of the point, from 0.
        seed: what its random numbers came from.
        status: ``pending``, ``leased``, ``done``, ``failed`` or ``cancelled``.
        attempts: how often it was run to an end, retries included.
        recorded_at, started_at, finished_at: UTC epoch seconds.
        run_s: seconds of the function.
        cpu_s: CPU seconds.
        peak_rss_bytes: peak memory of the job.
        host, pid: where it ran.
        error: why it failed, in one line.
        encoded: the result, if it was asked for.
        report: the job's report, if it was asked for.
        stdout, stderr: what it printed, if that was asked for.
    """

    id: int
    place: int | None
    parameters: Mapping[str, Any]
    replicate: int
    seed: int | None
    status: str
    attempts: int
    recorded_at: float | None
    started_at: float | None
    finished_at: float | None
    run_s: float | None
    cpu_s: float | None
    peak_rss_bytes: int | None
    host: str | None
    pid: int | None
    error: str | None
    encoded: Encoded | None = dataclasses.field(default=None, repr=False)
    report: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False)
    stdout: str | None = dataclasses.field(default=None, repr=False)
    stderr: str | None = dataclasses.field(default=None, repr=False)


def batch_record(row: Sequence[Any]) -> BatchRecord:
    """A row of the table ``batch``."""
    fields = dict(zip((field.name for field in dataclasses.fields(BatchRecord)), row, strict=True))
    for name in ("parameters", "varying", "fixed", "options", "policy", "code", "machine"):
        fields[name] = json.loads(fields[name])
    for name in ("parameters", "varying"):
        fields[name] = tuple(fields[name])
    fields["seed"] = None if fields["seed"] is None else int(fields["seed"])
    fields["seed_drawn"] = bool(fields["seed_drawn"])
    return BatchRecord(**fields)


def runner_record(row: Sequence[Any]) -> RunnerRecord:
    """A row of the table ``runner``."""
    number, _, *rest, stop_requested, activity = row
    names = [field.name for field in dataclasses.fields(RunnerRecord)][1:-2]
    return RunnerRecord(
        id=number,
        **dict(zip(names, rest, strict=True)),
        stop_requested=bool(stop_requested),
        activity=json.loads(activity) if activity else {},
    )


_POINT_FIELDS = [field.name for field in dataclasses.fields(PointRecord)][:-4]


def point_record(row: Sequence[Any]) -> PointRecord:
    """A row of `POINT_COLUMNS`, with format, result, report, standard output and standard error behind."""
    *plain, form, result, report, stdout, stderr = row
    fields = dict(zip(_POINT_FIELDS, plain, strict=True))
    fields["parameters"] = json.loads(fields["parameters"])
    return PointRecord(
        **fields,
        encoded=Encoded(form, result) if form is not None else None,
        report=json.loads(report) if report else None,
        stdout=stdout,
        stderr=stderr,
    )
