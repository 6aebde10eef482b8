"""What a job comes to: its result, what can't cross between processes, and what it raises."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import traceback
from concurrent.futures import Executor
from typing import Any

import pytest

from jobrunner import JobCancelledError, JobStatus, PrimitiveJob, SerializationError, WorkerDiedError
from tests.core import oddities
from tests.core.behaviour.engines import submitted

# --- the result ---


def test_result_is_what_the_function_returns(engine: Executor) -> None:
    assert submitted(engine, oddities.add, 3, b=4).result() == 7


def test_all_keyword_arguments_belong_to_the_function(engine: Executor) -> None:
    kwargs = {"function": 1, "executor": 2, "timeout": 3, "job_id": 4, "name": 5, "args": 6}
    assert submitted(engine, lambda **given: given, **kwargs).result() == kwargs


def test_lambdas_closures_and_local_classes_can_be_run(engine: Executor) -> None:
    offset = 10

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    def function(value: int) -> Local:
        return Local(value + offset)

    assert submitted(engine, function, 1).result().value == 11
    assert submitted(engine, lambda: offset).result() == 10


def test_result_can_be_asked_for_again_and_is_the_same_object(engine: Executor) -> None:
    job = submitted(engine, oddities.identity, [1, 2])
    assert job.result() is job.result()


def test_none_is_a_result(engine: Executor) -> None:
    job = submitted(engine, oddities.identity, None)
    assert job.result() is None
    assert job.exception() is None
    assert job.done()


@pytest.mark.parametrize("value", [b"x" * 3_000_000, list(range(100_000))], ids=["bytes", "list"])
def test_large_arguments_and_results_cross_unharmed(engine: Executor, value: Any) -> None:
    assert submitted(engine, oddities.identity, value).result() == value


def test_an_exception_that_is_returned_is_a_result(engine: Executor) -> None:
    job = submitted(engine, oddities.identity, ValueError("returned"))
    assert isinstance(job.result(), ValueError)
    assert job.exception() is None
    assert job.done()


def test_a_change_of_an_argument_after_submit_changes_nothing(engine: Executor) -> None:
    argument = [1]
    job = PrimitiveJob(oddities.identity, argument)
    argument.append(2)
    job.submit(engine)
    argument.append(3)
    assert job.result() == [1, 2]
    assert job.result() is not argument


# --- what can't come back ---


@pytest.mark.parametrize(("function", "words"), [
    (oddities.make_unpicklable, ["result", "Unpicklable", "this can't be pickled"]),
    (oddities.make_unloadable, ["result", "Unloadable", "this can't be loaded"]),
    (threading.Lock, ["result", "lock"]),
], ids=["unpicklable", "unloadable", "lock"])  # fmt: skip
def test_a_result_that_cannot_cross_is_a_serialization_error_that_names_it(
    engine: Executor, function: Any, words: list[str]
) -> None:
    job = submitted(engine, function)
    with pytest.raises(SerializationError) as info:
        job.result()
    assert all(word in str(info.value) for word in words), str(info.value)
    assert job.status() is JobStatus.ERROR
    assert submitted(engine, oddities.add, 1).result() == 1


@pytest.mark.parametrize(("function", "words"), [
    (oddities.raise_unpicklable, ["UnpicklableError", "with a lock"]),
    (oddities.raise_needs_two, ["NeedsTwoError", "one and two"]),
    (oddities.raise_unprintable, ["UnprintableError"]),
], ids=["unpicklable", "unloadable", "unprintable"])  # fmt: skip
def test_an_exception_that_cannot_cross_is_a_serialization_error_with_its_text_and_traceback(
    engine: Executor, function: Any, words: list[str]
) -> None:
    job = submitted(engine, function)
    with pytest.raises(SerializationError) as info:
        job.result()
    assert all(word in str(info.value) for word in words), str(info.value)
    assert function.__name__ in "".join(traceback.format_exception(info.value))
    assert job.status() is JobStatus.ERROR
    assert submitted(engine, oddities.add, 1).result() == 1


def test_an_argument_that_cannot_be_rebuilt_fails_its_job_alone(engine: Executor) -> None:
    job = submitted(engine, oddities.identity, oddities.Unloadable())
    with pytest.raises(SerializationError, match="this can't be loaded"):
        job.result()
    assert job.status() is JobStatus.ERROR
    assert submitted(engine, oddities.add, 1).result() == 1


# --- exceptions ---


@pytest.mark.parametrize("error", [
    ValueError("text"), KeyError("key"), OSError(2, "no such", "file"), StopIteration(5), TimeoutError("own"),
    concurrent.futures.CancelledError(), asyncio.CancelledError("own"), JobCancelledError("own"), MemoryError("much"),
    KeyboardInterrupt("not Ctrl-C"), GeneratorExit("odd"), oddities.OddError("own"), AssertionError(),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_what_the_function_raises_arrives_as_itself(engine: Executor, error: BaseException) -> None:
    job = submitted(engine, oddities.raise_error, error)
    arrived = job.exception()
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    with pytest.raises(type(error)) as info:
        job.result()
    assert info.value is arrived
    assert job.status() is JobStatus.ERROR
    assert not job.cancelled()
    assert submitted(engine, oddities.add, 1).result() == 1


def test_the_workers_traceback_is_chained_and_shows_the_users_lines_only(engine: Executor) -> None:
    error = submitted(engine, oddities.raise_chained).exception()
    text = "".join(traceback.format_exception(error))
    assert "raise_chained" in text
    assert "KeyError: 'inner'" in text
    assert 'raise ValueError("outer") from error' in text
    assert "execution.py" not in str(error.__cause__ if error else "")


@pytest.mark.parametrize(
    ("code", "exit_code"), [(None, 0), (0, 0), (3, 3), (-1, 255), (True, 1), (256, 0), ("message", 1)], ids=repr
)
def test_system_exit_is_the_end_of_a_process_and_its_code_is_told(engine: Executor, code: Any, exit_code: int) -> None:
    job = submitted(engine, oddities.raise_error, SystemExit(code))
    with pytest.raises(WorkerDiedError) as info:
        job.result()
    assert info.value.exit_code == exit_code
    assert info.value.job_id == job.job_id()
    assert job.status() is JobStatus.ERROR
    assert submitted(engine, oddities.add, 1).result() == 1
