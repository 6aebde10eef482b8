"""The states of a job, and cancelling it."""

from __future__ import annotations

import concurrent.futures
import threading
import uuid
from concurrent.futures import Executor
from typing import Any

import pytest

from jobrunner import JOB_FINAL_STATES, JobCancelledError, JobError, JobStatus, PrimitiveJob, gather, wait
from tests.core import oddities
from tests.core.behaviour.engines import await_running, concurrently, submitted
from tests.core.gates import Gate, meet

# --- status ---


def test_a_new_job_is_initializing() -> None:
    job = PrimitiveJob(oddities.add, 1)
    assert job.status() is JobStatus.INITIALIZING
    assert not (job.done() or job.running() or job.cancelled() or job.in_final_state())


def test_job_id_is_a_uuid4_known_before_submit_and_stays(engine: Executor) -> None:
    job = PrimitiveJob(oddities.add, 1)
    before = job.job_id()
    assert uuid.UUID(before).version == 4
    assert str(uuid.UUID(before)) == before
    job.submit(engine)
    job.result()
    assert job.job_id() == before == job.report().job_id


def test_job_ids_differ() -> None:
    assert len({PrimitiveJob(oddities.add, 1).job_id() for _ in range(100)}) == 100


@concurrently
def test_a_job_whose_function_runs_is_running(engine: Executor, engine_name: str, gate: Gate) -> None:
    job = submitted(engine, meet, gate.path, "value")
    gate.await_arrival()
    await_running(job, engine_name)
    assert job.status() is JobStatus.RUNNING
    assert job.running()
    assert not (job.done() or job.cancelled() or job.in_final_state())
    gate.release()
    assert job.result() == "value"
    assert not job.running()


def test_a_job_that_ran_well_is_done(engine: Executor) -> None:
    job = submitted(engine, oddities.add, 1)
    job.result()
    assert job.status() is JobStatus.DONE
    assert job.done()
    assert job.in_final_state()
    assert not (job.running() or job.cancelled())


def test_a_job_that_raised_is_error_and_not_done(engine: Executor) -> None:
    job = submitted(engine, oddities.raise_error, ValueError("no"))
    assert isinstance(job.exception(), ValueError)
    assert job.status() is JobStatus.ERROR
    assert job.in_final_state()
    assert not (job.running() or job.cancelled() or job.done())


@concurrently
def test_a_job_behind_others_is_queued(engine: Executor, gate: Gate) -> None:
    running = [submitted(engine, meet, gate.path) for _ in range(2)]
    gate.await_arrival(2)
    # Foreign process pools call RUNNING what is in their call queue, three deep: those in front of the last.
    queued = [submitted(engine, oddities.add, 1) for _ in range(8)]
    assert queued[-1].status() is JobStatus.QUEUED
    gate.release(2)
    assert gather(running + queued) == [None, None] + [1] * 8


def test_final_states_are_the_contracts() -> None:
    assert JOB_FINAL_STATES == (JobStatus.DONE, JobStatus.CANCELLED, JobStatus.ERROR)


# --- cancel ---


@concurrently
def test_a_queued_job_that_is_cancelled_never_starts(engine: Executor, gate: Gate, tmp_path: Any) -> None:
    running = [submitted(engine, meet, gate.path) for _ in range(2)]
    gate.await_arrival(2)
    trace = tmp_path / "trace"
    between = [submitted(engine, oddities.add, 1) for _ in range(6)]
    job = submitted(engine, trace.write_text, "it ran")
    assert job.cancel()
    assert job.status() is JobStatus.CANCELLED
    assert job.cancelled()
    assert job.in_final_state()
    assert not job.done()
    assert job.cancel()  # and stays so
    for outcome in (job.result, job.exception):
        with pytest.raises(JobCancelledError) as info:
            outcome()
        assert isinstance(info.value, concurrent.futures.CancelledError)
        assert info.value.job_id == job.job_id()
    gate.release(2)
    gather(running + between)
    assert not trace.exists()


def test_a_final_job_cannot_be_cancelled(engine: Executor) -> None:
    done, failed = submitted(engine, oddities.add, 1), submitted(engine, oddities.raise_error, ValueError())
    wait([done, failed])
    assert not done.cancel()
    assert not failed.cancel()
    assert done.result() == 1
    assert done.status() is JobStatus.DONE
    assert failed.status() is JobStatus.ERROR


def test_a_job_cancelled_before_submit_is_cancelled_and_cannot_be_submitted(engine: Executor) -> None:
    job = PrimitiveJob(oddities.add, 1)
    assert job.cancel()
    assert job.cancel()
    assert job.status() is JobStatus.CANCELLED
    assert job.report().status is JobStatus.CANCELLED
    for outcome in (job.result, job.exception):
        with pytest.raises(JobCancelledError):
            outcome()
    with pytest.raises(JobError, match="cancelled"):
        job.submit(engine)
    assert wait([job]).done == {job}
    with pytest.raises(JobCancelledError):
        submitted(engine, lambda inner: inner.result(), job).result()


def test_a_job_that_was_refused_before_submit_still_reports_cancelled_to_its_callbacks() -> None:
    called: list[JobStatus] = []
    over = threading.Event()
    job = PrimitiveJob(oddities.add, 1)

    def note(job: PrimitiveJob[Any]) -> None:
        called.append(job.status())
        over.set()

    job.add_done_callback(note)
    job.cancel()
    over.wait()
    assert called == [JobStatus.CANCELLED]
