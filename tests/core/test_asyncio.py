"""Our futures and jobs in asyncio: the loop is never blocked, and a cancelled task ends its process."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobrunner import (
    JobCancelledError,
    JobError,
    JobStatus,
    JobTimeoutError,
    LocalExecutor,
    PrimitiveJob,
    as_completed,
    wait,
)
from tests.core import oddities, troubles
from tests.core.gates import Gate, meet
from tests.core.process_table import await_death, is_alive


async def _arrival(gate: Gate, count: int = 1) -> list[int]:
    return await asyncio.get_running_loop().run_in_executor(None, gate.await_arrival, count)


def test_run_in_executor_runs_a_job(executor: LocalExecutor) -> None:
    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(executor, oddities.add, 1, 2)

    assert asyncio.run(main()) == 3


def test_wrap_future_gives_results_and_errors(executor: LocalExecutor) -> None:
    async def main() -> None:
        assert await asyncio.wrap_future(executor.submit(oddities.add, 1)) == 1
        with pytest.raises(ValueError, match="no"):
            await asyncio.wrap_future(executor.submit(oddities.raise_error, ValueError("no")))

    asyncio.run(main())


@pytest.mark.parametrize("how", ["await job", "wrap_future", "run_in_executor"])
@pytest.mark.parametrize("function", [meet, troubles.hold_lock, troubles.ignore_signals], ids=lambda f: f.__name__)
def test_a_cancelled_task_ends_the_process(
    executor: LocalExecutor, gate: Gate, how: str, function: Callable[..., Any]
) -> None:
    job = PrimitiveJob(function, gate.path)

    async def run() -> None:
        if how == "await job":
            job.submit(executor)
            await job
        elif how == "wrap_future":
            await asyncio.wrap_future(executor.submit(function, gate.path))
        else:
            await asyncio.get_running_loop().run_in_executor(executor, function, gate.path)

    async def main() -> int:
        task = asyncio.create_task(run())
        (pid,) = await _arrival(gate)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    pid = asyncio.run(main())
    if how == "await job":
        wait([job])
        assert job.cancelled()
    else:
        while executor.stats()["running"]:
            pass
        executor.submit(oddities.add, 1).result()
    assert await_death(pid)


def test_cancel_on_the_loops_thread_does_not_wait_for_the_end(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> None:
        # With grace, the end takes as long as the job likes.
        job = PrimitiveJob(troubles.clean_up_slowly, gate.path)
        job.submit(executor.with_options(grace=60))
        (pid,) = await _arrival(gate)
        assert job.cancel() is True
        assert job.status() is not JobStatus.CANCELLED
        assert is_alive(pid)
        await _arrival(gate)  # in its finally block
        gate.release()
        with pytest.raises(JobCancelledError):
            await job
        assert not is_alive(pid)

    asyncio.run(main())


def test_somebody_elses_cancel_is_job_cancelled_error_not_the_tasks(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> None:
        job = PrimitiveJob(meet, gate.path)
        job.submit(executor)
        await _arrival(gate)
        task = asyncio.ensure_future(job)
        await asyncio.get_running_loop().run_in_executor(None, job.cancel)
        with pytest.raises(JobCancelledError):
            await task
        assert not task.cancelled()

    asyncio.run(main())


def test_wait_for_ends_the_job_at_its_timeout(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> PrimitiveJob[Any]:
        job = PrimitiveJob(meet, gate.path)
        job.submit(executor)
        await _arrival(gate)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(job, 0.01)
        return job

    job = asyncio.run(main())
    wait([job])
    assert job.cancelled()


@pytest.mark.parametrize("how", ["cancel at once", "wait_for", "gather"])
def test_wrap_future_ends_the_job_even_if_it_is_cancelled_at_once(
    executor: LocalExecutor, gate: Gate, how: str
) -> None:
    job = PrimitiveJob(meet, gate.path)
    job.submit(executor)
    future = executor.submit(meet, gate.path)

    async def main() -> None:
        await _arrival(gate, 2)
        wrapped = [asyncio.wrap_future(job.dependency()), asyncio.wrap_future(future)]
        if how == "cancel at once":
            for one in wrapped:
                one.cancel()
        elif how == "wait_for":
            for one in wrapped:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(one, 0)
        else:
            asyncio.gather(*wrapped).cancel()

    asyncio.run(main())
    wait([job.dependency(), future])
    assert job.cancelled()
    assert future.cancelled()


def test_a_loop_that_closes_while_a_job_runs_is_not_disturbed(executor: LocalExecutor, gate: Gate) -> None:
    job = PrimitiveJob(meet, gate.path)
    job.submit(executor)
    gate.await_arrival()

    async def look() -> bool:
        waiting = asyncio.ensure_future(job)
        await asyncio.wait([waiting], timeout=0)
        return waiting.done()

    assert asyncio.run(look()) is False  # the loop's end cancels what still waits
    wait([job])
    assert job.cancelled()


def test_a_future_of_ours_is_awaited_as_a_job_is(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> None:
        assert await executor.submit(oddities.add, 1, 2) == 3
        with pytest.raises(ValueError, match="no"):
            await executor.submit(oddities.raise_error, ValueError("no"))
        future = executor.submit(meet, gate.path)
        task = asyncio.ensure_future(future)
        (pid,) = await _arrival(gate)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.get_running_loop().run_in_executor(None, await_death, pid)
        with pytest.raises(JobCancelledError):
            await future

    asyncio.run(main())


def test_jobs_come_as_they_are_completed(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> None:
        held = PrimitiveJob(meet, gate.path)
        held.submit(executor)
        await _arrival(gate)
        quick = [executor.submit(oddities.add, n) for n in range(5)]
        failing = executor.submit(oddities.raise_error, ValueError("no"))
        seen: list[Any] = []
        jobs: list[Any] = [held, *quick, failing, held]
        async for job in as_completed(jobs):
            seen.append(job)
            if len(seen) == 6:
                gate.release()
        assert set(seen[:-1]) == {*quick, failing}
        assert seen[-1] is held

    asyncio.run(main())


def test_leaving_the_loop_over_completed_jobs_leaves_them_alone(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> None:
        held = executor.submit(meet, gate.path, "held")
        await _arrival(gate)
        with pytest.raises(JobTimeoutError, match=r"of 2 jobs are not final after 0\.05 s"):
            async for _ in as_completed([held, executor.submit(oddities.add, 1)], timeout=0.05):
                await executor.submit(oddities.add, 1)
        task = asyncio.create_task(_all_of(held))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held.running()
        gate.release()
        assert await held == "held"

    asyncio.run(main())


def test_what_an_async_loop_has_left_comes_in_a_plain_one_and_the_other_way(executor: LocalExecutor) -> None:
    jobs = [executor.submit(pow, number, 2) for number in range(9)]
    completed = as_completed(jobs)

    async def two() -> list[int]:
        return [(await anext(completed)).result() for _ in range(2)]

    found = asyncio.run(two())
    wait(jobs)
    found += [next(completed).result() for _ in range(3)]
    found += asyncio.run(two())
    found += [job.result() for job in completed]
    assert sorted(found) == [number**2 for number in range(9)]


def test_a_loop_that_is_left_early_is_not_kept_by_jobs_that_take_long(executor: LocalExecutor, gate: Gate) -> None:
    held = executor.submit(meet, gate.path)
    left = []

    async def leave() -> None:
        completed = as_completed([held, executor.submit(pow, 2, 3)])
        left.append(weakref.ref(completed))
        async for job in completed:
            assert job.result() == 8
            break

    for _ in range(3):
        asyncio.run(leave())
    gc.collect()
    assert [one() for one in left] == [None] * 3
    assert not held._done_callbacks
    gate.await_arrival()
    gate.release()
    held.result()


def test_a_job_that_becomes_final_just_before_a_plain_loop_waits_is_not_lost(
    executor: LocalExecutor, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, held = executor.submit(oddities.add, 1), executor.submit(meet, gate.path)
    completed = as_completed([quick, held])

    async def first() -> Any:
        return await anext(completed)

    assert asyncio.run(first()) is quick
    told = threading.Event()
    held.add_done_callback(lambda _: told.set())  # called after that of `completed`
    yield_final = completed._yield_final

    def yield_final_and_end_the_other() -> Iterator[Any]:
        yield from yield_final()
        if not told.is_set():
            gate.release()
            told.wait()

    monkeypatch.setattr(completed, "_yield_final", yield_final_and_end_the_other)
    assert list(completed) == [held]


def test_a_task_that_stops_waiting_for_the_next_takes_none_with_it(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> None:
        jobs = [executor.submit(meet, gate.path, number) for number in range(2)]
        await _arrival(gate, 2)
        completed = as_completed(jobs)
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(completed.__anext__(), 0.01)
        gate.release(2)
        assert {job async for job in completed} == set(jobs)

    asyncio.run(main())


def test_tasks_and_event_loops_share_what_is_completed(executor: LocalExecutor) -> None:
    jobs = [executor.submit(oddities.add, number) for number in range(20)]
    completed = as_completed(jobs)
    seen: list[Any] = []

    async def take(count: int) -> None:
        async for job in completed:
            seen.append(job)
            await asyncio.sleep(0)
            count -= 1
            if not count:
                break

    async def main(count: int) -> None:
        await asyncio.gather(take(count), take(count))

    asyncio.run(main(4))
    assert len(seen) == 8
    asyncio.run(main(100))
    assert sorted(job.result() for job in seen) == list(range(20))


def test_what_is_final_is_there_without_waiting(executor: LocalExecutor) -> None:
    jobs = [executor.submit(oddities.add, number) for number in range(3)]
    wait(jobs)

    async def main() -> set[Any]:
        return {job async for job in as_completed(jobs, timeout=0)}

    assert asyncio.run(main()) == set(jobs) == set(as_completed(jobs, timeout=0))


def test_the_time_for_all_counts_from_the_call_on(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.submit(meet, gate.path)
    completed = as_completed([job], timeout=0.05)
    wait([executor.submit(meet, gate.path)], timeout=0.1)
    # No time is left: not a moment is waited for.
    for _ in range(2):  # nor does a second loop take the first one's end for that of the jobs
        with pytest.raises(JobTimeoutError, match=r"1 of 1 jobs are not final after 0\.05 s"):
            next(completed)
    gate.release(2)
    wait([job])
    assert list(completed) == [job]
    assert list(completed) == []


@pytest.mark.parametrize("kind", ["future", "job"])
def test_asyncios_wait_is_told_to_take_tasks(executor: LocalExecutor, kind: str) -> None:
    async def main() -> None:
        job: Any = executor.submit(oddities.add, 1)
        if kind == "job":
            job = PrimitiveJob(oddities.add, 1)
            job.submit(executor)
        if sys.version_info >= (3, 11):
            with pytest.raises(TypeError, match=r"give it \[asyncio\.ensure_future\(job\)"):
                await asyncio.wait([job])
        done, _ = await asyncio.wait([asyncio.ensure_future(job)])
        assert done.pop().result() == 1

    asyncio.run(main())


def test_a_job_that_raises_cancelled_error_cancels_no_task(executor: LocalExecutor) -> None:
    async def main() -> None:
        with pytest.raises(JobError, match=r"raised asyncio\.CancelledError, though it was not cancelled"):
            await executor.submit(oddities.raise_error, asyncio.CancelledError())

    asyncio.run(main())


async def _all_of(*jobs: Any) -> None:
    async for _ in as_completed(jobs):
        pass


def test_ten_thousand_awaited_jobs_hold_no_threads(executor: LocalExecutor, gate: Gate) -> None:
    async def main() -> tuple[int, int]:
        held = [asyncio.ensure_future(executor.submit(meet, gate.path)) for _ in range(2)]
        await _arrival(gate, 2)
        before = threading.active_count()
        jobs = [PrimitiveJob(oddities.add, n) for n in range(10_000)]
        for job in jobs:
            job.submit(executor)
        results = asyncio.gather(*(_result_of(job) for job in jobs))
        for _ in range(3):
            await asyncio.sleep(0)  # each is awaited
        during = threading.active_count()
        gate.release(2)
        assert await results == list(range(10_000))
        await asyncio.gather(*held)
        return before, during

    before, during = asyncio.run(main())
    assert during <= before


async def _result_of(job: PrimitiveJob[Any]) -> Any:
    return await job
