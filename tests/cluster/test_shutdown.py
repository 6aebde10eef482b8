"""Jobs that are handed in while an executor is shut down: each is run, or refused; none is forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

import pytest

from jobrunner import ClusterLostError, ExecutorShutdownError, InlineExecutor, PrimitiveJob, SerializationError
from jobrunner.cluster.ledger import Ledger
from tests.cluster.engines import NearbyExecutor
from tests.core.gates import Gate, meet

GIB = 1 << 30


class MeetsWhenPickled:
    """A note of a job's, whose pickling arrives and waits."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def __reduce__(self) -> Any:
        meet(self.gate)
        return str, ("pickled",)


@pytest.fixture
def finished(gate: Gate) -> PrimitiveJob[int]:
    """A job that is over, and meets at the gate when it is sent along with another."""
    job: PrimitiveJob[int] = PrimitiveJob(pow, 2, 3)
    job.submit(InlineExecutor())
    job.metadata["note"] = MeetsWhenPickled(gate.path)
    return job


@pytest.mark.parametrize("max_pending", [None, 2])
def test_a_job_that_comes_after_the_shutdown_is_refused_though_its_submit_began_before(
    finished: PrimitiveJob[int], gate: Gate, max_pending: int | None
) -> None:
    executor = NearbyExecutor({"one": GIB}, max_pending=max_pending)
    with ThreadPoolExecutor(1) as threads:
        submitting = threads.submit(executor.submit, abs, finished)
        gate.await_arrival()
        executor.shutdown()
        gate.release()
        with pytest.raises(ExecutorShutdownError):
            submitting.result().result(timeout=10)


def test_a_call_that_can_not_be_sent_is_refused_after_the_shutdown() -> None:
    executor = NearbyExecutor({"one": GIB})
    with pytest.raises(SerializationError):
        executor.submit(id, Lock()).result()
    executor.shutdown()
    with pytest.raises(ExecutorShutdownError):
        executor.submit(id, Lock()).result(timeout=10)


def test_a_job_that_waits_for_another_is_run_though_the_executor_is_shut_down_meanwhile(gate: Gate) -> None:
    executor = NearbyExecutor({"one": GIB})
    with ThreadPoolExecutor(1) as threads:
        inner: PrimitiveJob[int] = PrimitiveJob(meet, gate.path, 5)
        inner.submit(threads)
        outer = executor.submit(PrimitiveJob.result, inner)
        gate.await_arrival()
        executor.shutdown(wait=False)
        gate.release()
        assert outer.result() == 5
    executor.shutdown()
    assert executor.stats()["done"] == 1


def test_jobs_that_are_handed_in_when_the_keeper_has_failed_are_told(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = NearbyExecutor({"one": GIB})
    failed = Event()

    def fail(self: Ledger) -> None:
        raise RuntimeError("a defect")

    def lose(self: Ledger, why: str) -> None:
        failed.set()
        meet(gate.path)
        told(self, why)

    told = Ledger.lose
    monkeypatch.setattr(Ledger, "proceed", fail)
    monkeypatch.setattr(Ledger, "lose", lose)
    first = executor.submit(pow, 2, 3)
    failed.wait()
    # It is not known yet.
    second = executor.submit(pow, 2, 3)
    gate.release()
    for job in (first, second):
        with pytest.raises(ClusterLostError, match="keeper has failed"):
            job.result(timeout=10)
    with pytest.raises(ExecutorShutdownError):
        executor.submit(pow, 2, 3).result(timeout=10)
    executor.shutdown()
