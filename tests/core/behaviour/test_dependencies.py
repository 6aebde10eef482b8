"""Jobs among the arguments of jobs, and jobs within jobs."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from typing import Any

import pytest

from jobrunner import JobCancelledError, JobStatus, PrimitiveJob, gather, get_executor, use_executor
from tests.core import oddities
from tests.core.behaviour.engines import concurrently, submitted
from tests.core.gates import Gate, meet

# --- dependencies ---


@concurrently
def test_a_job_handle_among_the_arguments_is_waited_for(engine: Executor, gate: Gate) -> None:
    inner = submitted(engine, meet, gate.path, 20)
    gate.await_arrival()
    outer = submitted(engine, lambda job: job.result() + 1, inner)
    assert outer.status() is JobStatus.QUEUED
    gate.release()
    assert outer.result() == 21


def test_a_dependency_arrives_as_a_finished_handle(engine: Executor) -> None:
    def look(jobs: dict[str, list[Any]]) -> Any:
        (job,) = jobs["here"]
        return job.job_id(), job.status(), job.done(), job.result(), job.exception(), job.metadata, job.cancel()

    inner = submitted(engine, oddities.add, 1)
    inner.metadata["note"] = 5
    assert submitted(engine, look, {"here": [inner]}).result() == (
        inner.job_id(), JobStatus.DONE, True, 1, None, {"note": 5}, False,
    )  # fmt: skip


def test_a_failed_dependency_raises_in_the_outer_job_which_runs(engine: Executor) -> None:
    def look(job: Any) -> Any:
        try:
            job.result()
        except ValueError as error:
            return job.status(), str(error)

    inner = submitted(engine, oddities.raise_error, ValueError("inner"))
    assert submitted(engine, look, inner).result() == (JobStatus.ERROR, "inner")
    outer = submitted(engine, lambda job: job.result(), inner)
    with pytest.raises(ValueError, match="inner"):
        outer.result()


@concurrently
def test_a_dependency_that_is_cancelled_lets_the_outer_job_run(engine: Executor, gate: Gate) -> None:
    def look(job: Any) -> Any:
        try:
            job.result()
        except JobCancelledError:
            return job.status()

    blockers = [submitted(engine, meet, gate.path) for _ in range(2)]
    gate.await_arrival(2)
    between = [submitted(engine, oddities.add, 1) for _ in range(6)]
    inner = submitted(engine, oddities.add, 1)
    outer = submitted(engine, look, inner)
    assert inner.cancel()
    gate.release(2)
    assert outer.result() is JobStatus.CANCELLED
    gather(blockers + between)


@concurrently
def test_a_job_that_waits_for_another_can_be_cancelled(engine: Executor, gate: Gate) -> None:
    inner = submitted(engine, meet, gate.path)
    gate.await_arrival()
    outer = submitted(engine, oddities.identity, inner)
    assert outer.cancel()
    assert outer.status() is JobStatus.CANCELLED
    gate.release()
    inner.result()
    assert outer.status() is JobStatus.CANCELLED


def test_a_chain_of_dependencies_runs_in_order(engine: Executor) -> None:
    job = submitted(engine, oddities.add, 0)
    for _ in range(10):
        job = submitted(engine, lambda before: before.result() + 1, job)
    assert job.result() == 10


def test_a_diamond_of_dependencies_shares_its_corner(engine: Executor) -> None:
    top = submitted(engine, oddities.add, 1)
    left, right = (submitted(engine, lambda job, n: job.result() * n, top, n) for n in (2, 3))

    def meet_again(left: Any, right: Any, top: Any) -> Any:
        return left.result() + right.result() + top.result()

    assert submitted(engine, meet_again, left, right, top).result() == 6


def test_one_job_twice_among_the_arguments_is_one_object(engine: Executor) -> None:
    inner = submitted(engine, oddities.add, 1)
    assert submitted(engine, lambda a, b, c: a is b is c[0], inner, inner, [inner]).result()


@concurrently
def test_a_dependency_between_two_executors_is_waited_for(engine: Executor, gate: Gate, executor: Executor) -> None:
    inner = submitted(engine, meet, gate.path, 1)
    gate.await_arrival()
    outer = submitted(executor, lambda job: job.result() + 1, inner)
    back = submitted(engine, lambda job: job.result() + 1, outer)
    gate.release()
    assert back.result() == 3


# --- jobs within jobs ---


def _nested(depth: int) -> int:
    if depth == 0:
        return 1
    jobs = [PrimitiveJob(_nested, depth - 1) for _ in range(2)]
    for job in jobs:
        job.submit()
    return sum(job.result() for job in jobs)


@pytest.mark.parametrize("engine_name", ["local", "inline", "processes", "loky", "dask", "ray"], indirect=True)
def test_jobs_within_jobs_three_deep_run_in_line_and_do_not_deadlock(engine: Executor) -> None:
    with use_executor(engine):
        outer = [submitted(engine, _nested, 3) for _ in range(8)]
        assert gather(outer) == [8] * 8


@pytest.mark.parametrize("engine_name", ["local", "processes", "loky", "dask", "ray"], indirect=True)
def test_the_default_executor_within_a_job_is_inline(engine: Executor) -> None:
    def look() -> Any:
        executor: Any = get_executor()
        future = executor.submit(os.getpid)
        return executor.backend.name, future.result() == os.getpid()

    assert submitted(engine, look).result() == ("inline", True)
