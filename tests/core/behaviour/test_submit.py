"""Handing a job in: once, whole, and to an executor."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import Executor
from typing import Any

import pytest

from jobrunner import (
    AlgorithmJob,
    JobError,
    JobStatus,
    PrimitiveJob,
    SerializationError,
    as_completed,
    gather,
    use_executor,
    wait,
)
from tests.core import oddities
from tests.core.behaviour.engines import submitted


def test_a_second_submit_raises_job_error(engine: Executor) -> None:
    job = submitted(engine, oddities.add, 1)
    with pytest.raises(JobError, match="submitted already"):
        job.submit(engine)
    with use_executor(engine), pytest.raises(JobError, match="submitted already"):
        job._submit()
    assert job.result() == 1


def test_before_submit_everything_that_would_wait_raises_job_error() -> None:
    job = AlgorithmJob(oddities.add, 1)
    waits: list[Any] = [
        job.result,
        job.exception,
        job.wait_for_final_state,
        job.backend,
        lambda: wait([job]),
        lambda: as_completed([job]),
        lambda: gather([job]),
        lambda: pickle.dumps(job),
        lambda: asyncio.run(_awaited(job)),
    ]
    for waiting in waits:
        with pytest.raises(JobError, match=r"(?i)not.*submitted"):
            waiting()
    assert job.status() is JobStatus.INITIALIZING


async def _awaited(job: PrimitiveJob[Any]) -> Any:
    return await job


def test_a_job_never_submitted_is_refused_as_an_argument(engine: Executor) -> None:
    inner = PrimitiveJob(oddities.add, 1)
    outer = PrimitiveJob(oddities.identity, inner)
    with pytest.raises(JobError):
        outer.submit(engine)
    inner.submit(engine)
    outer.submit(engine)  # it was not submitted before
    assert outer.result().result() == 1


def test_submit_goes_to_the_default_executor(engine: Executor) -> None:
    first, second = AlgorithmJob(oddities.add, 1), AlgorithmJob(oddities.add, 2)
    with use_executor(engine):
        first.submit()
        second._submit()
    assert [first.result(), second.result()] == [1, 2]
    explicit = AlgorithmJob(oddities.add, 3)
    explicit.submit(engine)
    assert first.backend() == second.backend() == explicit.backend()


@pytest.mark.parametrize("wrong", ["local", 5, object()], ids=["text", "number", "object"])
def test_submitting_to_what_is_no_executor_is_a_type_error_and_the_job_can_still_be_submitted(wrong: Any) -> None:
    job = PrimitiveJob(oddities.add, 1)
    with pytest.raises(TypeError, match="Executor"):
        job.submit(wrong)
    assert job.status() is JobStatus.INITIALIZING


@pytest.mark.parametrize("target", [None, 5, "name"])
def test_a_target_that_is_not_callable_is_a_type_error(target: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        PrimitiveJob(target)


def test_an_unpicklable_function_is_named_at_submit_and_the_job_is_error(engine: Executor) -> None:
    lock = threading.Lock()

    def function() -> Any:
        return lock

    job = PrimitiveJob(function)
    with pytest.raises(SerializationError, match=r"the function .*function") as info:
        job.submit(engine)
    assert isinstance(info.value, pickle.PicklingError)
    assert info.value.job_id == job.job_id()
    assert job.status() is JobStatus.ERROR
    with pytest.raises(SerializationError):
        job.result()
    with pytest.raises(JobError):
        job.submit(engine)


@pytest.mark.parametrize(("args", "kwargs", "part"), [
    ((oddities.Unpicklable(),), {}, r"argument 0 \(Unpicklable\)"),
    ((1, oddities.Unpicklable()), {}, r"argument 1 \(Unpicklable\)"),
    ((1,), {"value": oddities.Unpicklable()}, r"argument 'value' \(Unpicklable\)"),
    (([1, [oddities.Unpicklable()]],), {}, r"argument 0 \(list\)"),
], ids=["first", "second", "keyword", "nested"])  # fmt: skip
def test_an_unpicklable_argument_is_named_at_submit(
    engine: Executor, args: tuple[Any, ...], kwargs: dict[str, Any], part: str
) -> None:
    job = PrimitiveJob(lambda *args, **kwargs: None, *args, **kwargs)
    with pytest.raises(SerializationError, match=part):
        job.submit(engine)
    assert isinstance(job.exception(), SerializationError)
    assert submitted(engine, oddities.add, 1).result() == 1
