"""What holds for a job wherever it runs: over our executors and over foreign ones."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import os
import pickle
import threading
import traceback
import uuid
from concurrent.futures import Executor
from typing import Any

import pytest

from jobrunner import (
    JOB_FINAL_STATES,
    AlgorithmJob,
    JobCancelledError,
    JobError,
    JobRunnerError,
    JobStatus,
    JobTimeoutError,
    PrimitiveJob,
    SerializationError,
    WorkerDiedError,
    as_completed,
    gather,
    get_executor,
    use_executor,
    wait,
)
from tests.core import oddities
from tests.core.gates import Gate, meet

#: Executors whose jobs run beside the caller.
concurrently = pytest.mark.parametrize(
    "engine_name", ["local", "threads", "processes", "loky", "dask", "ray"], indirect=True
)


#: Engines whose jobs run on nodes of a cluster.
CLUSTERS = ("dask", "ray")


def await_running(job: PrimitiveJob[Any], engine_name: str) -> None:
    """Wait until a job whose function has started is known to run: from a node, word of that takes its way."""
    for _ in range(1000 if engine_name in CLUSTERS else 0):
        if job.running():
            return
        wait([job], timeout=0.02)


def submitted(engine: Executor, function: Any, /, *args: Any, **kwargs: Any) -> PrimitiveJob[Any]:
    job: PrimitiveJob[Any] = PrimitiveJob(function, *args, **kwargs)
    job.submit(engine)
    return job


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


def test_a_change_of_an_argument_after_submit_changes_nothing(engine: Executor, gate: Gate, engine_name: str) -> None:
    argument = [1]
    job = PrimitiveJob(oddities.identity, argument)
    argument.append(2)
    job.submit(engine)
    argument.append(3)
    assert job.result() == [1, 2]
    assert job.result() is not argument


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


# --- submit ---


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


@pytest.mark.parametrize(("code", "exit_code"), [(None, 0), (0, 0), (3, 3), ("message", 1)], ids=repr)
def test_system_exit_is_the_end_of_a_process_and_its_code_is_told(engine: Executor, code: Any, exit_code: int) -> None:
    job = submitted(engine, oddities.raise_error, SystemExit(code))
    with pytest.raises(WorkerDiedError) as info:
        job.result()
    assert info.value.exit_code == exit_code
    assert info.value.job_id == job.job_id()
    assert job.status() is JobStatus.ERROR
    assert submitted(engine, oddities.add, 1).result() == 1


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


# --- callbacks ---


def test_a_callback_is_called_once_with_the_job_on_a_thread_of_its_own(engine: Executor) -> None:
    calls: list[tuple[PrimitiveJob[Any], Any, str]] = []
    over = threading.Event()

    def note(job: PrimitiveJob[Any]) -> None:
        calls.append((job, job.result(), threading.current_thread().name))
        over.set()

    job = PrimitiveJob(oddities.add, 1)
    job.add_done_callback(note)
    job.submit(engine)
    over.wait()
    over.clear()
    job.add_done_callback(note)  # final already
    over.wait()
    assert [call[:2] for call in calls] == [(job, 1), (job, 1)]
    assert threading.current_thread().name not in {call[2] for call in calls}
    assert "jobrunner-dispatcher" not in {call[2] for call in calls}


def test_a_callback_may_call_any_method(engine: Executor) -> None:
    over: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def use_all(job: PrimitiveJob[Any]) -> None:
        try:
            other = submitted(engine, oddities.add, 5)
            values = (job.result(), job.exception(), job.cancel(), job.report().status, job.status(), other.result())
            over.set_result(values)
        except BaseException as error:
            over.set_exception(error)

    job = PrimitiveJob(oddities.add, 1)
    job.add_done_callback(use_all)
    job.submit(engine)
    assert over.result() == (1, None, False, JobStatus.DONE, JobStatus.DONE, 5)


def test_a_callback_that_raises_is_logged_and_harms_nothing(engine: Executor, caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()
    job = submitted(engine, oddities.add, 1)
    job.add_done_callback(lambda _: oddities.raise_error(oddities.OddError("in a callback")))
    job.add_done_callback(lambda _: over.set())
    over.wait()
    assert "in a callback" in caplog.text
    assert submitted(engine, oddities.add, 1).result() == 1


# --- the report ---


def test_the_report_accounts_for_a_job_that_ran(engine: Executor, engine_name: str) -> None:
    job = submitted(engine, oddities.add, 1)
    assert job.report().job_id == job.job_id()
    job.result()
    report = job.report()
    assert report.status is JobStatus.DONE
    assert report.name == "add"
    assert report.attempts == 1
    assert report.pid is not None
    assert (report.pid == os.getpid()) is (engine_name in ("inline", "threads"))
    assert report.submitted_at is not None
    assert report.finished_at is not None
    assert report.submitted_at <= report.finished_at + 0.1
    assert report.run_s is not None
    assert report.run_s >= 0
    assert report.argument_bytes is not None
    assert report.argument_bytes > 0
    assert report.result_bytes is not None
    assert report.cause is None
    assert report.as_dict()["status"] == "DONE"


def test_a_report_is_known_before_submit() -> None:
    job = PrimitiveJob(oddities.add, 1)
    report = job.report()
    assert (report.job_id, report.name, report.status, report.pid, report.attempts) == (
        job.job_id(), "add", JobStatus.INITIALIZING, None, 0,
    )  # fmt: skip


def test_the_report_of_a_failed_job_tells_the_cause(engine: Executor) -> None:
    job = submitted(engine, oddities.raise_error, ValueError("no"))
    job.exception()
    assert job.report().status is JobStatus.ERROR
    assert job.report().cause


# --- metadata, repr, copies ---


def test_metadata_is_a_dict_of_ones_own(engine: Executor) -> None:
    one, other = submitted(engine, oddities.add, 1), PrimitiveJob(oddities.add, 1)
    one.metadata["note"] = "mine"
    assert other.metadata == {}
    one.result()
    assert one.metadata == {"note": "mine"}


def test_repr_names_the_job_and_its_status(engine: Executor) -> None:
    job = PrimitiveJob(oddities.add, 1)
    assert repr(job) == f"<PrimitiveJob {job.job_id()} INITIALIZING>"
    job.submit(engine)
    job.result()
    assert repr(job) == f"<PrimitiveJob {job.job_id()} DONE>"


def _copies(job: Any) -> list[Any]:
    return [copy.copy(job), copy.deepcopy(job), *(pickle.loads(pickle.dumps(job, version)) for version in range(6))]


def test_a_pickled_or_copied_final_job_carries_its_outcome(engine: Executor) -> None:
    job = AlgorithmJob(oddities.identity, [1, 2])
    job.metadata["note"] = "kept"
    job.submit(engine)
    job.result()
    for twin in _copies(job):
        assert type(twin) is AlgorithmJob
        assert twin.job_id() == job.job_id()
        assert twin.status() is JobStatus.DONE
        assert twin.result() == [1, 2]
        assert twin.metadata == {"note": "kept"}
        assert twin.report() == job.report()
        assert twin.backend() == job.backend()
        assert not twin.cancel()
        with pytest.raises(JobError):
            twin.submit(engine)


def test_a_pickled_failed_job_carries_its_error(engine: Executor) -> None:
    job = submitted(engine, oddities.raise_chained)
    job.exception()
    for twin in _copies(job):
        assert twin.status() is JobStatus.ERROR
        with pytest.raises(ValueError, match="outer") as info:
            twin.result()
        assert "raise_chained" in str(info.value.__cause__)


def test_a_pickled_cancelled_job_is_cancelled() -> None:
    job = PrimitiveJob(oddities.add, 1)
    job.cancel()
    for twin in _copies(job):
        assert twin.status() is JobStatus.CANCELLED
        with pytest.raises(JobCancelledError):
            twin.result()


@concurrently
def test_pickling_an_unfinished_job_waits_for_it(engine: Executor, gate: Gate) -> None:
    job = submitted(engine, meet, gate.path, "waited for")
    gate.await_arrival()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        pickling = thread.submit(pickle.dumps, job)
        assert not pickling.done()
        gate.release()
        assert pickle.loads(pickling.result()).result() == "waited for"


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


def test_awaiting_a_job_that_somebody_cancelled_raises_job_cancelled_error(engine: Executor) -> None:
    async def main() -> None:
        job = PrimitiveJob(oddities.add, 1)
        job.cancel()
        with pytest.raises(JobCancelledError) as info:
            await job
        assert not isinstance(info.value, asyncio.CancelledError)

    asyncio.run(main())


# --- the backend ---


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
