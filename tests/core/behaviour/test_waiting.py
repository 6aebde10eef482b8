"""Waiting for one job, for several, and in asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
from concurrent.futures import Executor

import pytest

from jobrunner import JobCancelledError, JobTimeoutError, PrimitiveJob, as_completed, gather, wait
from tests.core import oddities
from tests.core.behaviour.engines import await_running, concurrently, submitted
from tests.core.gates import Gate, meet

# --- waiting for one ---


@concurrently
@pytest.mark.parametrize("timeout", [0, 0.01, -1])
def test_a_wait_that_runs_out_raises_job_timeout_error_and_the_job_goes_on(
    engine: Executor, engine_name: str, gate: Gate, timeout: float
) -> None:
    job = submitted(engine, meet, gate.path, "late")
    gate.await_arrival()
    for waiting in (job.result, job.exception):
        with pytest.raises(JobTimeoutError) as info:
            waiting(timeout)
        assert isinstance(info.value, TimeoutError)
        assert isinstance(info.value, concurrent.futures.TimeoutError)
        assert info.value.job_id == job.job_id()
    await_running(job, engine_name)
    assert job.running()
    gate.release()
    assert job.result(timeout=60) == "late"


def test_a_final_job_answers_whatever_the_timeout(engine: Executor) -> None:
    job = submitted(engine, oddities.add, 1)
    job.result()
    assert job.result(0) == job.result(-1) == job.result(1e12) == 1


# --- several ---


def test_gather_gives_the_results_in_order(engine: Executor) -> None:
    jobs = [submitted(engine, oddities.add, n) for n in range(20)]
    assert gather(jobs) == list(range(20))
    assert gather(iter(jobs)) == list(range(20))
    assert gather([]) == []


def test_gather_raises_the_first_error_in_order_or_returns_errors_in_their_places(engine: Executor) -> None:
    jobs = [
        submitted(engine, oddities.add, 0),
        submitted(engine, oddities.raise_error, KeyError("first")),
        submitted(engine, oddities.raise_error, ValueError("second")),
        submitted(engine, oddities.add, 3),
    ]
    with pytest.raises(KeyError, match="first"):
        gather(jobs)
    results = gather(jobs, return_exceptions=True)
    assert [type(result) for result in results] == [int, KeyError, ValueError, int]
    assert jobs[3].result() == 3


def test_gather_returns_cancellations_in_their_places(engine: Executor) -> None:
    cancelled = PrimitiveJob(oddities.add, 1)
    cancelled.cancel()
    results = gather([submitted(engine, oddities.add, 1), cancelled], return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], JobCancelledError)


def test_as_completed_yields_every_job_once_even_if_it_stands_twice(engine: Executor) -> None:
    jobs = [submitted(engine, oddities.add, n) for n in range(10)]
    completed = list(as_completed([*jobs, *jobs]))
    assert len(completed) == 10
    assert set(completed) == set(jobs)
    assert list(as_completed([])) == []


@concurrently
def test_as_completed_yields_jobs_as_they_end(engine: Executor, gate: Gate) -> None:
    late = submitted(engine, meet, gate.path, "late")
    gate.await_arrival()
    early = submitted(engine, oddities.add, 1)
    completed = as_completed([late, early])
    assert next(completed) is early
    gate.release()
    assert next(completed) is late


@concurrently
def test_as_completed_that_runs_out_raises_job_timeout_error(engine: Executor, gate: Gate) -> None:
    late = submitted(engine, meet, gate.path)
    gate.await_arrival()
    early = submitted(engine, oddities.add, 1)
    early.result()
    seen = []
    with pytest.raises(JobTimeoutError, match="1 of 2"):
        for job in as_completed([late, early], timeout=0.05):
            seen.append(job)  # noqa: PERF402 (what was yielded before it raised)
    assert seen == [early]
    gate.release()
    late.result()


@concurrently
def test_wait_tells_the_done_from_the_others(engine: Executor, gate: Gate) -> None:
    late = submitted(engine, meet, gate.path)
    gate.await_arrival()
    early = submitted(engine, oddities.add, 1)
    assert wait([late, early], return_when=concurrent.futures.FIRST_COMPLETED) == ({early}, {late})
    assert wait([late, early], timeout=0) == ({early}, {late})
    done, not_done = wait([late, early], timeout=0.01)
    assert (done, not_done) == ({early}, {late})
    gate.release()
    assert wait([late, early]) == ({late, early}, set())
    assert wait([]) == (set(), set())


@concurrently
def test_wait_for_the_first_exception_returns_at_it(engine: Executor, gate: Gate) -> None:
    late = submitted(engine, meet, gate.path)
    gate.await_arrival()
    failing = submitted(engine, oddities.raise_error, ValueError())
    assert wait([late, failing], return_when="FIRST_EXCEPTION") == ({failing}, {late})
    gate.release()
    late.result()


def test_wait_refuses_nonsense(engine: Executor) -> None:
    job = submitted(engine, oddities.add, 1)
    with pytest.raises(ValueError, match=r"(?i)return"):
        wait([job], return_when="SOMETIME")
    with pytest.raises(TypeError, match="jobs"):
        wait(["job"])  # type: ignore[type-var]
    job.result()


# --- asyncio ---


def test_await_gives_the_result_or_raises_what_the_job_raised(engine: Executor) -> None:
    async def main() -> None:
        assert await submitted(engine, oddities.add, 1) == 1
        with pytest.raises(ValueError, match="no"):
            await submitted(engine, oddities.raise_error, ValueError("no"))
        jobs = [submitted(engine, oddities.add, n) for n in range(5)]
        assert await asyncio.gather(*jobs) == [0, 1, 2, 3, 4]

    asyncio.run(main())


@concurrently
def test_await_does_not_block_the_loop(engine: Executor, gate: Gate) -> None:
    async def main() -> None:
        job = submitted(engine, meet, gate.path, "value")
        waiting = asyncio.ensure_future(job)
        await asyncio.get_running_loop().run_in_executor(None, gate.await_arrival)
        assert not waiting.done()
        gate.release()
        assert await waiting == "value"

    asyncio.run(main())


def test_awaiting_a_job_that_somebody_cancelled_raises_job_cancelled_error() -> None:
    async def main() -> None:
        job = PrimitiveJob(oddities.add, 1)
        job.cancel()
        with pytest.raises(JobCancelledError) as info:
            await job
        assert not isinstance(info.value, asyncio.CancelledError)

    asyncio.run(main())
