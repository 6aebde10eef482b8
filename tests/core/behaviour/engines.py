"""What tests that run over every engine have in common."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import pytest

from jobrunner import PrimitiveJob, wait

#: Executors whose jobs run beside the caller.
concurrently = pytest.mark.parametrize(
    "engine_name", ["local", "threads", "processes", "loky", "dask", "ray"], indirect=True
)

#: Engines whose jobs run on nodes of a cluster.
CLUSTERS = ("dask", "ray")


def await_running(job: PrimitiveJob[Any], engine_name: str) -> None:
    """Wait until a job whose function has started is known to run: from a node, word of that takes its way."""
    for _ in range(1000 if engine_name in CLUSTERS else 0):
        if job.running():
            return
        wait([job], timeout=0.02)


def submitted(engine: Executor, function: Any, /, *args: Any, **kwargs: Any) -> PrimitiveJob[Any]:
    job: PrimitiveJob[Any] = PrimitiveJob(function, *args, **kwargs)
    job.submit(engine)
    return job
