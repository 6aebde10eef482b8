"""`AlgorithmJob`: waiting by polling, exactly as the contract says."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import pytest

from jobrunner import AlgorithmJob, InlineExecutor, JobError, JobStatus, JobTimeoutError, LocalExecutor, PrimitiveJob
from tests.core import oddities
from tests.core.gates import Gate, meet


def _submitted(executor: concurrent.futures.Executor, function: Any, *args: Any) -> AlgorithmJob[Any]:
    job: AlgorithmJob[Any] = AlgorithmJob(function, *args)
    job.submit(executor)
    return job


def test_it_is_a_primitive_job_of_version_1() -> None:
    assert issubclass(AlgorithmJob, PrimitiveJob)
    assert AlgorithmJob.version == 1
    assert AlgorithmJob(oddities.add, 1).version == 1


def test_backend_before_submit_is_a_job_error() -> None:
    with pytest.raises(JobError, match="not submitted"):
        AlgorithmJob(oddities.add, 1).backend()


def test_it_returns_none_at_once_for_a_final_job_without_calling_back() -> None:
    calls: list[Any] = []
    job = _submitted(InlineExecutor(), oddities.add, 1)
    assert job.wait_for_final_state(callback=lambda *args: calls.append(args)) is None  # type: ignore[func-returns-value]
    job.wait_for_final_state(timeout=0)
    assert calls == []


def test_it_returns_when_the_job_is_final_without_sleeping_out_the_interval(
    executor: LocalExecutor, gate: Gate
) -> None:
    job = _submitted(executor, meet, gate.path)
    gate.await_arrival()
    # An interval that the test's own limit does not allow to be slept out.
    job.wait_for_final_state(wait=100_000, callback=lambda *_: gate.release())
    assert job.done()


def test_the_callback_is_called_after_each_query_that_is_not_final(executor: LocalExecutor, gate: Gate) -> None:
    calls: list[tuple[str, JobStatus, Any]] = []

    def note(job_id: str, status: JobStatus, job: Any) -> None:
        calls.append((job_id, status, job))
        if len(calls) == 4:
            gate.release()
            job.result()

    job = _submitted(executor, meet, gate.path)
    gate.await_arrival()
    job.wait_for_final_state(wait=0.001, callback=note)
    assert calls == [(job.job_id(), JobStatus.RUNNING, job)] * 4


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_timeout_shorter_than_the_interval_is_honoured_and_the_job_goes_on(
    executor: LocalExecutor, gate: Gate, timeout: float
) -> None:
    job = _submitted(executor, meet, gate.path, "late")
    gate.await_arrival()
    with pytest.raises(JobTimeoutError, match=job.job_id()) as info:
        job.wait_for_final_state(timeout=timeout, wait=100_000)
    assert info.value.job_id == job.job_id()
    assert job.running()
    gate.release()
    assert job.result() == "late"


@pytest.mark.parametrize("end", ["error", "cancel", "death"])
def test_it_never_raises_the_jobs_own_error(executor: LocalExecutor, gate: Gate, end: str) -> None:
    import os

    functions: dict[str, Callable[..., Any]] = {"error": oddities.raise_error, "cancel": meet, "death": os._exit}
    function = functions[end]
    argument: Any = {"error": TimeoutError(), "cancel": gate.path, "death": 3}[end]
    job = _submitted(executor, function, argument)
    if end == "cancel":
        gate.await_arrival()
        job.wait_for_final_state(wait=100_000, callback=lambda *_: job.cancel())
    job.wait_for_final_state(wait=100_000)
    assert job.status() is (JobStatus.CANCELLED if end == "cancel" else JobStatus.ERROR)


@pytest.mark.parametrize("wait", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_not_above_zero_is_a_value_error(wait: float) -> None:
    job = _submitted(InlineExecutor(), oddities.add, 1)
    with pytest.raises(ValueError, match="wait"):
        job.wait_for_final_state(wait=wait)


@pytest.mark.parametrize("wait", [None, "5", True])
def test_an_interval_that_is_no_number_is_refused(wait: Any) -> None:
    job = _submitted(InlineExecutor(), oddities.add, 1)
    with pytest.raises((TypeError, ValueError), match="wait"):
        job.wait_for_final_state(wait=wait)


def test_what_the_callback_raises_is_raised_and_the_job_goes_on(executor: LocalExecutor, gate: Gate) -> None:
    job = _submitted(executor, meet, gate.path, 5)
    gate.await_arrival()
    with pytest.raises(KeyError, match="mine"):
        job.wait_for_final_state(callback=lambda *_: oddities.raise_error(KeyError("mine")))
    gate.release()
    assert job.result() == 5
