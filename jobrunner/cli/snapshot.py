"""How far a batch is at one moment, read from its store."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.batch.records import BatchRecord, Counts, NoteRecord, RunnerRecord
from jobrunner.batch.store import Store
from jobrunner.cli.runners import RUNNING, runner_state

__all__ = ["Snapshot", "take_snapshot"]

#: From so many of the last outcomes comes how long jobs take.
_LAST = 200

#: Of jobs shorter than this, in seconds, the length is not what counts, see `jobrunner.batch.progress`.
_TINY_S = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A batch at one moment.

    Attributes:
        batch: its description.
        counts: how many points are in each status.
        removed: points that the store keeps and that are no longer in the batch.
        runners: each process that runs or ran it, with its state, see `runner_state`.
        notes: what happened to it.
        job_s: the mean length of the last jobs that the processes which run it have ended; None: there are none.
        at: when it was taken, UTC epoch seconds.
    """

    batch: BatchRecord
    counts: Counts
    removed: int
    runners: Sequence[tuple[RunnerRecord, str]]
    notes: Sequence[NoteRecord]
    job_s: float | None
    at: float

    @property
    def running(self) -> list[RunnerRecord]:
        """The processes that run it."""
        return [runner for runner, state in self.runners if state in RUNNING]

    @property
    def left(self) -> int:
        """How many points are still to be run."""
        return self.counts.pending + self.counts.leased

    @property
    def final(self) -> bool:
        """Whether nothing is left."""
        return self.left == 0

    @property
    def rate(self) -> float:
        """Ended jobs a second."""
        return float(sum(runner.activity.get("rate", 0.0) for runner in self.running))

    @property
    def eta_s(self) -> float | None:
        """Seconds until all is run, from the length of jobs, and of tiny ones from the rate; None: not known."""
        if not self.running or self.final:
            return None
        workers = sum(runner.workers for runner in self.running)
        by_length = None if self.job_s is None else max(self.left / max(workers, 1), 1.0) * self.job_s
        by_rate = self.left / self.rate if self.rate else None
        if by_length is None or (self.job_s or 0.0) >= _TINY_S:
            return by_length if by_length is not None else by_rate
        return max(by_length, by_rate or 0.0)

    def as_json(self) -> Mapping[str, Any]:
        """All of it, for `json.dumps`."""
        batch = self.batch
        return {
            "name": batch.name,
            "target": batch.target,
            "created_at": batch.created_at,
            "seed": batch.seed,
            "seed_drawn": batch.seed_drawn,
            "replicates": batch.replicates,
            "at": self.at,
            "total": self.counts.total,
            "counts": dataclasses.asdict(self.counts),
            "removed": self.removed,
            "share_done": self.counts.done / self.counts.total if self.counts.total else 1.0,
            "final": self.final,
            "running": bool(self.running),
            "rate": self.rate,
            "eta_s": self.eta_s,
            "runners": [_runner_as_json(runner, state) for runner, state in self.runners],
            "notes": [dataclasses.asdict(note) for note in self.notes],
        }


def _runner_as_json(runner: RunnerRecord, state: str) -> dict[str, Any]:
    about = {"state": state, **dataclasses.asdict(runner)}
    for internal in ("machine", "pid_started"):
        del about[internal]
    return about


def take_snapshot(store: Store, name: str | None) -> Snapshot:
    """Read how far a batch is; a few short queries, also for a million points.

    Args:
        store: the store.
        name: the batch; None: the only one.

    Raises:
        SpecError: there is no such batch.
    """
    batch = store.batch(name)
    runners = [(runner, runner_state(runner)) for runner in store.runners(batch)]
    running = {runner.id for runner, state in runners if state in RUNNING}
    # The statuses are named for the index's sake, whose second column they are.
    query = """
        SELECT count(*) FROM point WHERE batch = ? AND place IS NULL
        AND status IN ('pending', 'leased', 'done', 'failed', 'cancelled')
    """
    (removed,) = store.rows(query, batch.id)[0]
    ended = store.rows("SELECT runner, run_s FROM outcome ORDER BY id DESC LIMIT ?", _LAST) if running else []
    lengths = [run_s for runner, run_s in ended if runner in running and run_s is not None]
    return Snapshot(
        batch=batch,
        counts=store.counts(batch),
        removed=removed,
        runners=runners,
        notes=store.notes(batch),
        job_s=sum(lengths) / len(lengths) if lengths else None,
        at=time.time(),
    )
