"""Cancels that nodes don't answer, for they, their places or the cluster are lost: `cancel` promises nothing then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobrunner import ClusterLostError, JobStatus, PrimitiveJob, WorkerDiedError, wait
from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.executors.future import JobFuture
from tests.cluster.engines import NearbyExecutor
from tests.core.gates import Gate, arrive_and_stay

GIB = 1 << 30

LOST: dict[str, tuple[Callable[[NearbyExecutor], None], type[Exception], str]] = {
    "node": (lambda executor: executor.link.go("one"), WorkerDiedError, "node one on one was lost"),
    "cluster": (lambda executor: executor.link.lose(), ClusterLostError, "can't be reached any more"),
}


def _await_cancelling(job: JobFuture[Any]) -> None:
    """Until the cancel is on its way."""
    record: Any = job.record
    while not record.cancelling:
        wait([job], timeout=0.01)


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("what", LOST)
def test_a_cancel_says_false_where_what_the_job_ran_on_is_lost_before_it_has_answered(
    what: str, retries: int, gate: Gate
) -> None:
    lose, error, told = LOST[what]
    with NearbyExecutor({"one": GIB}, retries=retries) as executor, ThreadPoolExecutor() as threads:
        job = executor.submit(arrive_and_stay, gate.path)
        gate.await_arrival()
        executor.link.heard.clear()
        cancel = threads.submit(job.cancel)
        _await_cancelling(job)
        lose(executor)
        executor.link.heard.set()
        assert cancel.result(timeout=60) is False
        assert job.status() is JobStatus.ERROR
        with pytest.raises(error, match=f"{told}.* was being cancelled"):
            job.result(timeout=60)
        report = job.report()
        assert report.attempts == 1
        assert report.cause is not None
        assert "before it had said that the job, which was being cancelled, has ended" in report.cause
        assert job.cancel() is False
        assert executor.stats()["failed"] == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_a_cancel_says_false_where_the_engine_takes_the_place_away_before_it_is_answered(
    retries: int, gate: Gate
) -> None:
    with NearbyExecutor({"one": GIB}, retries=retries) as executor, ThreadPoolExecutor() as threads:
        job = executor.submit(arrive_and_stay, gate.path)
        gate.await_arrival()
        executor.link.heard.clear()
        executor.link.evict("one")
        cancel = threads.submit(job.cancel)
        _await_cancelling(job)
        executor.link.heard.set()
        assert cancel.result(timeout=60) is False
        with pytest.raises(WorkerDiedError, match="has taken its place on node one on one away"):
            job.result(timeout=60)
        assert job.report().attempts == 1


def test_a_task_whose_job_is_lost_while_it_is_being_cancelled_is_cancelled_at_once(gate: Gate) -> None:
    async def main(executor: ClusterExecutor, lose: Callable[[], None]) -> PrimitiveJob[Any]:
        job: PrimitiveJob[Any] = PrimitiveJob(arrive_and_stay, gate.path)
        job.submit(executor)

        async def result() -> Any:
            return await job

        task = asyncio.create_task(result())
        await asyncio.to_thread(gate.await_arrival)
        executor.link.heard.clear()  # type: ignore[attr-defined]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(_await_cancelling, job.dependency())
        await asyncio.to_thread(lose)
        return job

    with NearbyExecutor({"one": GIB}, retries=1) as executor:

        def lose() -> None:
            executor.link.go("one")
            executor.link.heard.set()

        job = asyncio.run(main(executor, lose))
        with pytest.raises(WorkerDiedError, match="node one on one was lost"):
            job.result(timeout=60)
        assert not job.cancelled()
        assert job.cancel() is False


def test_a_shutdown_that_ends_all_returns_though_a_node_is_lost_meanwhile(gate: Gate) -> None:
    executor = NearbyExecutor({"one": GIB}, retries=1)
    job = executor.submit(arrive_and_stay, gate.path)
    gate.await_arrival()
    executor.link.heard.clear()
    executor.shutdown(wait=False, kill_workers=True)
    _await_cancelling(job)
    executor.link.go("one")
    executor.link.heard.set()
    executor.shutdown()
    with pytest.raises(WorkerDiedError, match="node one on one was lost"):
        job.result(timeout=60)
