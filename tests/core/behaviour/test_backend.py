"""What the backend of a job promises, and what a foreign executor does not."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
from concurrent.futures import Executor

import pytest

from jobrunner import AlgorithmJob, JobRunnerError, JobStatus, PrimitiveJob, WorkerDiedError
from tests.core import oddities
from tests.core.behaviour.engines import CLUSTERS, submitted
from tests.core.gates import Gate, meet

_NAMES = {"local": "local", "inline": "inline", "threads": "ThreadPoolExecutor", "processes": "ProcessPoolExecutor"}
_NAMES.update((name, name) for name in CLUSTERS)


def test_the_backend_tells_where_the_job_ran_and_what_can_be_promised(engine: Executor, engine_name: str) -> None:
    job = AlgorithmJob(oddities.add, 1)
    job.submit(engine)
    backend = job.backend()
    ours = engine_name in ("local", *CLUSTERS)
    assert backend.name == _NAMES.get(engine_name, "_ReusablePoolExecutor")
    assert backend.host
    assert backend.platform
    assert backend.python_version
    assert backend.cpu_count >= 1
    assert backend.memory_bytes is not None
    assert backend.version
    assert backend.max_workers == (1 if engine_name == "inline" else 2)
    can = backend.capabilities
    assert can.cancel_running is can.time_limit is ours
    assert can.true_running_status is (ours or engine_name == "inline")
    assert can.memory_limit is can.capture_output is can.grace is ours
    assert can.shared_objects is (ours or engine_name == "inline")
    with pytest.raises(AttributeError):
        backend.name = "other"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(backend)) == backend
    job.result()


@pytest.mark.parametrize("engine_name", ["threads", "processes", "loky"], indirect=True)
def test_a_running_job_of_a_foreign_executor_cannot_be_cancelled_and_goes_on(engine: Executor, gate: Gate) -> None:
    job = submitted(engine, meet, gate.path, "unharmed")
    gate.await_arrival()
    assert job.cancel() is False
    assert job.status() is JobStatus.RUNNING
    gate.release()
    assert job.result() == "unharmed"


def test_a_job_that_a_shut_down_executor_refuses_can_be_submitted_elsewhere(executor: Executor) -> None:
    closed = concurrent.futures.ThreadPoolExecutor(1)
    closed.shutdown()
    job = PrimitiveJob(oddities.add, 1)
    with pytest.raises(RuntimeError, match="shutdown") as info:
        job.submit(closed)
    assert isinstance(info.value, JobRunnerError)
    assert job.status() is JobStatus.INITIALIZING
    job.submit(executor)
    assert job.result() == 1


def test_a_broken_foreign_executor_fails_its_jobs_with_worker_died_error() -> None:
    import multiprocessing

    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        job = submitted(processes, os._exit, 3)
        with pytest.raises(WorkerDiedError):
            job.result()
        assert job.status() is JobStatus.ERROR
        with pytest.raises(WorkerDiedError):
            submitted(processes, oddities.add, 1).result()
