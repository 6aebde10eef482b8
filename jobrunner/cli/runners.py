"""The processes that run a batch, as far as that can be told from here."""

from __future__ import annotations

import time
from collections.abc import Iterable

from jobrunner.batch.records import RunnerRecord
from jobrunner.storage.owners import SILENT_S, Owner

__all__ = ["RUNNING", "is_running", "runner_state", "who_runs"]

#: The states in which a process runs the batch.
RUNNING = frozenset({"running", "stopping"})


def runner_state(runner: RunnerRecord) -> str:
    """What a process is doing.

    Returns:
        ``"running"``; ``"stopping"``, having been asked to; ``"ended"``; ``"killed"``, if it is no more and has not
        said that it left; or ``"silent"``, if it is on another machine and was not heard of for long.
    """
    if runner.ended_at is not None:
        return "ended"
    owner = Owner(runner.host, runner.machine, runner.pid, runner.pid_started)
    if owner.visible():
        if not owner.alive():
            return "killed"
    elif abs(time.time() - runner.seen_at) >= SILENT_S:
        return "silent"
    return "stopping" if runner.stop_requested else "running"


def is_running(runner: RunnerRecord) -> bool:
    """Whether a process runs the batch."""
    return runner_state(runner) in RUNNING


def who_runs(runners: Iterable[RunnerRecord]) -> str:
    """The processes that run a batch, as a text: ``"host pid 12, host pid 13"``; empty: none."""
    return ", ".join(f"{runner.host} pid {runner.pid}" for runner in runners if is_running(runner))
