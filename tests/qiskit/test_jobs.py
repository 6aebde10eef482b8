"""The job classes: what Qiskit's own do, in processes."""

from __future__ import annotations

import concurrent.futures
import copy
import os
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from qiskit.exceptions import MissingOptionalLibraryError, QiskitError
from qiskit.primitives import BackendSamplerV2, BasePrimitiveJob, StatevectorSampler
from qiskit.primitives import PrimitiveJob as QiskitPrimitiveJob
from qiskit.providers import JobError as QiskitJobError
from qiskit.providers import JobStatus
from qiskit.providers import JobTimeoutError as QiskitJobTimeoutError
from qiskit.providers.basic_provider import BasicSimulator

import jobrunner
from jobrunner import LocalExecutor, errors, gather
from jobrunner.qiskit import (
    AlgorithmJob,
    FellBackToThreadWarning,
    JobCancelledError,
    JobError,
    JobTimeoutError,
    ParallelJob,
    PrimitiveJob,
    WorkerDiedError,
    jobs,
)
from jobrunner.qiskit.cutting import Cut, Part, Piece
from jobrunner.qiskit.part_job import PartJob
from tests.core.gates import arrive_and_stay, meet
from tests.qiskit.circuits import bell, fail, fail_unpicklably, of_job, status_of_job, whereabouts

KINDS = [PrimitiveJob, AlgorithmJob]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_classes_are_qiskits_and_ours(kind: Any) -> None:
    job = kind(pow, 2, 3)
    assert isinstance(job, BasePrimitiveJob)
    assert isinstance(job, QiskitPrimitiveJob)
    assert isinstance(job, jobrunner.PrimitiveJob)
    assert kind[int].__origin__ is kind
    assert job.metadata == {}
    assert len(job.job_id()) == 36


@pytest.mark.parametrize(
    "asked", ["result", "status", "done", "running", "cancelled", "in_final_state", "cancel", "exception"]
)
def test_before_submit_everything_raises(kind: Any, asked: str) -> None:
    with pytest.raises(QiskitJobError, match=r"Primitive Job has not been submitted yet\.") as caught:
        getattr(kind(pow, 2, 3), asked)()
    assert isinstance(caught.value, errors.JobError)
    assert isinstance(caught.value, JobError)
    assert caught.value.message == "Primitive Job has not been submitted yet."


def test_a_job_runs_in_another_process(kind: Any, executor: LocalExecutor) -> None:
    job = kind(whereabouts)
    job.submit(executor)
    assert job.result()[0] != os.getpid()
    assert job.result() is job.result()
    assert job.status() is JobStatus.DONE
    assert (job.done(), job.running(), job.cancelled(), job.in_final_state()) == (True, False, False, True)
    assert job.report().backend == "local"


def test_a_second_submit_raises(kind: Any, executor: LocalExecutor) -> None:
    job = kind(pow, 2, 3)
    job.submit(executor)
    for again in (job.submit, job._submit):
        with pytest.raises(QiskitJobError, match=r"Primitive job has been submitted already\."):
            again()
    assert job.result() == 8


def test_submit_without_an_executor_takes_the_default(executor: LocalExecutor) -> None:
    with jobrunner.use_executor(executor):
        job = PrimitiveJob(whereabouts)
        job._submit()
    assert job.result()[0] != os.getpid()


def test_the_future_looks_like_one(executor: LocalExecutor) -> None:
    job = PrimitiveJob(pow, 2, 3)
    assert job._future is None
    job.submit(executor)
    future: Any = job._future
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 8
    assert (future.done(), future.running(), future.cancelled(), future.exception()) == (True, False, False, None)


def test_qiskits_keyword_for_the_function() -> None:
    job: Any = PrimitiveJob(function=dict, x=1)
    job._submit()
    assert job.result() == {"x": 1}
    with pytest.raises(TypeError, match="'function'"):
        PrimitiveJob()
    with pytest.raises(TypeError, match="callable"):
        PrimitiveJob(3)  # type: ignore[arg-type]


def test_an_error_of_the_function_arrives_each_time(kind: Any, executor: LocalExecutor) -> None:
    job = kind(fail, "no such gate")
    job.submit(executor)
    for _ in range(2):
        with pytest.raises(QiskitError, match="no such gate") as caught:
            job.result()
        assert type(caught.value) is QiskitError
    assert job.status() is JobStatus.ERROR
    assert isinstance(job.exception(), QiskitError)


def test_an_error_that_does_not_unpickle_is_told(executor: LocalExecutor) -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(MissingOptionalLibraryError("library", "this test")))
    job = PrimitiveJob(fail_unpicklably)
    job.submit(executor)
    with pytest.raises(QiskitJobError, match="MissingOptionalLibraryError") as caught:
        job.result()
    assert isinstance(caught.value, errors.SerializationError)


def test_a_running_job_is_cancelled_with_its_process(kind: Any, gate: Any, executor: LocalExecutor) -> None:
    job = kind(arrive_and_stay, gate.path)
    job.submit(executor)
    (pid,) = gate.await_arrival()
    assert job.status() is JobStatus.RUNNING
    assert job.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert job.status() is JobStatus.CANCELLED
    with pytest.raises(concurrent.futures.CancelledError) as caught:
        job.result()
    assert isinstance(caught.value, JobCancelledError)
    assert isinstance(caught.value, QiskitError)


def test_a_worker_that_dies_is_one_of_qiskits_errors(executor: LocalExecutor) -> None:
    job = PrimitiveJob(os._exit, 7)
    job.submit(executor)
    with pytest.raises(QiskitError) as caught:
        job.result()
    assert isinstance(caught.value, WorkerDiedError)
    assert caught.value.exit_code == 7


def test_a_timeout_is_one_of_qiskits_errors(gate: Any, executor: LocalExecutor) -> None:
    job = PrimitiveJob(meet, gate.path, 5)
    job.submit(executor)
    gate.await_arrival()
    for error in (QiskitJobTimeoutError, TimeoutError, JobTimeoutError, QiskitJobError):
        with pytest.raises(error, match="it goes on"):
            job.result(timeout=0)
    gate.release(1)
    assert job.result(timeout=60) == 5


def _raise_timeout() -> int:
    raise concurrent.futures.TimeoutError("the job's own")


def test_a_timeout_error_of_the_function_is_not_taken_for_ours(executor: LocalExecutor) -> None:
    remote, local = PrimitiveJob(_raise_timeout), PrimitiveJob(lambda: [_raise_timeout(), threading.Lock()])
    remote.submit(executor)
    local._start_thread()
    for job in (remote, local):
        with pytest.raises(concurrent.futures.TimeoutError, match="the job's own") as caught:
            job.result(timeout=60)
        assert not isinstance(caught.value, QiskitError)


# --- jobs as arguments ---


def test_a_job_as_an_argument_is_waited_for(gate: Any, executor: LocalExecutor) -> None:
    inner = PrimitiveJob(meet, gate.path, 21)
    inner.submit(executor)
    outer = PrimitiveJob(of_job, inner)
    outer.submit(executor)
    gate.await_arrival()
    assert outer.status() is JobStatus.QUEUED
    gate.release(1)
    assert outer.result() == 21


def test_a_failed_job_as_an_argument_raises_there(executor: LocalExecutor) -> None:
    inner = PrimitiveJob(fail, "inner")
    inner.submit(executor)
    outer = PrimitiveJob(of_job, inner)
    outer.submit(executor)
    with pytest.raises(QiskitError, match="inner"):
        outer.result()
    looked = PrimitiveJob(status_of_job, inner)
    looked.submit(executor)
    assert looked.result() == "ERROR jobrunner.qiskit.jobs"


def test_a_job_of_a_thread_as_an_argument(executor: LocalExecutor) -> None:
    go = threading.Event()
    inner = PrimitiveJob(lambda: go.wait() and 4)
    inner._start_thread()
    outer = PrimitiveJob(of_job, inner)
    outer.submit(executor)
    assert outer.status() is JobStatus.QUEUED
    go.set()
    assert outer.result() == 4


def test_an_unsubmitted_job_as_an_argument_is_refused(executor: LocalExecutor) -> None:
    outer = PrimitiveJob(of_job, PrimitiveJob(pow, 2, 3))
    with pytest.raises(QiskitJobError, match="not been submitted"):
        outer.submit(executor)


def first_of(jobs: list[Any]) -> Any:
    """The result of a job in a list."""
    return jobs[0].result()


class _Holding:
    """An object that holds a job."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def look(self) -> Any:
        return self.job.result()


def _unfinished(kind: str, go: threading.Event) -> Any:
    """A job of Qiskit's, or a parallel run, that is final once `go` is set; its result is 4."""
    if kind == "stock":
        stock: Any = QiskitPrimitiveJob(lambda: go.wait(60) and 4)
        stock._submit()
        return stock
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    job = ParallelJob([None], [Part([Piece(0, Cut())], 1.0)], [PartJob(future, 1)])

    def settle() -> None:
        go.wait(60)
        future.set_result(([(True, 4)], {}))

    threading.Thread(target=settle).start()
    return job


@pytest.mark.parametrize(
    "make",
    [
        lambda job: PrimitiveJob(of_job, job),
        lambda job: PrimitiveJob(first_of, [job]),
        lambda job: PrimitiveJob(first_of, jobs=[job]),
        lambda job: PrimitiveJob(_Holding(job).look),
    ],
    ids=["argument", "list", "keyword", "object"],
)
@pytest.mark.parametrize("inner", ["stock", "parallel"])
@pytest.mark.parametrize("shares", [True, False])
def test_submit_never_waits_for_a_job_that_it_would_have_to_pickle(
    make: Any, inner: str, shares: bool, executor: LocalExecutor
) -> None:
    go = threading.Event()
    job = _unfinished(inner, go)
    outer = make(job)
    with concurrent.futures.ThreadPoolExecutor(1) as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore", FellBackToThreadWarning)
        outer.submit(executor if shares else threads)
    assert not job.in_final_state() if inner == "parallel" else not job._future.done()
    go.set()
    result = outer.result()
    assert (result[0] if inner == "parallel" else result) == 4
    assert outer.report().backend == "thread"


def test_a_job_of_ours_in_an_object_is_not_waited_for(gate: Any, executor: LocalExecutor) -> None:
    inner = PrimitiveJob(meet, gate.path, 21)
    inner.submit(executor)
    outer = PrimitiveJob(_Holding(inner).look)
    with pytest.warns(FellBackToThreadWarning, match=f"the job {inner.job_id()}, a PrimitiveJob .* is not final yet"):
        outer.submit(executor)
    gate.release(1)
    assert outer.result() == 21


def test_gather_and_await_take_them(executor: LocalExecutor) -> None:
    made = [PrimitiveJob(pow, 2, n) for n in range(4)]
    for job in made[:3]:
        job.submit(executor)
    made[3]._start_thread()
    assert gather(made) == [1, 2, 4, 8]

    async def wait_for(job: Any) -> Any:
        return await job

    import asyncio

    assert asyncio.run(wait_for(made[3])) == 8


def test_await_raises_what_result_does(executor: LocalExecutor) -> None:
    import asyncio

    job: Any = PrimitiveJob(os._exit, 3)
    job.submit(executor)

    async def wait() -> Any:
        return await job

    with pytest.raises(WorkerDiedError) as caught:
        asyncio.run(wait())
    assert isinstance(caught.value, QiskitError)


def test_a_job_can_be_shown_at_any_time(executor: LocalExecutor) -> None:
    job = PrimitiveJob(pow, 2, 3)
    assert repr(job) == f"<PrimitiveJob {job.job_id()} INITIALIZING>"
    job.submit(executor)
    job.result()
    assert repr(job) == f"<PrimitiveJob {job.job_id()} DONE>"


# --- pickles and copies ---


@pytest.mark.parametrize("again", [lambda job: pickle.loads(pickle.dumps(job)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("where", ["process", "thread"])
def test_a_copy_of_a_finished_job_answers(again: Any, where: str, kind: Any, executor: LocalExecutor) -> None:
    job = kind(divmod, 17, 5)
    job.metadata["note"] = "mine"
    if where == "process":
        job.submit(executor)
    else:
        job._start_thread()
    twin = again(job)
    assert type(twin) is kind
    assert twin.job_id() == job.job_id()
    assert twin.metadata == {"note": "mine"}
    assert twin.result() == (3, 2)
    assert twin.status() is JobStatus.DONE


@pytest.mark.parametrize("again", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_copy_of_a_failed_job_raises_its_error(again: Any, executor: LocalExecutor) -> None:
    job = PrimitiveJob(fail, "at last")
    job.submit(executor)
    with pytest.raises(QiskitError, match="at last"):
        again(job)
    with pytest.raises(QiskitJobError, match="not been submitted"):
        again(PrimitiveJob(pow, 2, 3))


def test_a_result_that_a_subclass_changes_is_changed_once_in_a_copy(executor: LocalExecutor) -> None:
    class Wrapping(PrimitiveJob[Any]):
        def result(self, timeout: float | None = None) -> Any:
            return "wrapped", super().result(timeout)

    job = Wrapping(pow, 2, 3)
    job.submit(executor)
    assert copy.deepcopy(job).result() == copy.copy(job).result() == ("wrapped", 8)


# --- falling back to a thread ---


def test_what_cannot_be_sent_runs_in_a_thread_with_one_warning(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_told", set())
    with (tmp_path / "log").open("w") as file:

        def write(text: str) -> tuple[int, int]:
            return file.write(text), os.getpid()

        job = PrimitiveJob(write, "hello")
        with pytest.warns(FellBackToThreadWarning, match=r"write' run in a thread .* not opened for") as caught:
            job.submit(executor)
        assert caught[0].filename == __file__
        assert job.result() == (5, os.getpid())
        with warnings.catch_warnings(record=True) as further:
            warnings.simplefilter("always")
            other = PrimitiveJob(write, "again")
            other.submit(executor)
        assert further == []
        assert other.result() == (5, os.getpid())
        assert job.status() is JobStatus.DONE
        assert job.report().backend == "thread"
        assert job.output() is None
        assert not job.cancel()


def test_a_job_in_a_thread_fails_and_is_cancelled_as_qiskits_own(executor: LocalExecutor) -> None:
    job = PrimitiveJob(fail, "in the thread")
    job._start_thread()
    with pytest.raises(QiskitError, match="in the thread"):
        job.result()
    assert job.status() is JobStatus.ERROR
    waiting: Any = PrimitiveJob(pow, 2, 3)
    waiting._claim()
    waiting._adopt(concurrent.futures.Future())
    assert waiting.status() is JobStatus.QUEUED
    assert waiting.cancel()
    assert waiting.status() is JobStatus.CANCELLED
    with pytest.raises(JobCancelledError):
        waiting.result()


# --- AlgorithmJob ---


def test_an_algorithm_job_has_the_methods_of_the_former_jobs(gate: Any, executor: LocalExecutor) -> None:
    job = AlgorithmJob(meet, gate.path, 5)
    assert job.version == 1
    job.submit(executor)
    gate.await_arrival()
    seen: list[Any] = []
    with pytest.raises(QiskitJobTimeoutError, match=f"Timeout while waiting for job {job.job_id()}"):
        job.wait_for_final_state(timeout=0.05, wait=0.01, callback=lambda *told: seen.append(told))
    assert seen[0] == (job.job_id(), JobStatus.RUNNING, job)
    gate.release(1)
    job.wait_for_final_state()
    assert job.done()
    assert job.result() == 5


def test_backend_is_that_of_the_primitive() -> None:
    backend = BasicSimulator()
    sampler = BackendSamplerV2(backend=backend)
    assert AlgorithmJob(sampler._run, []).backend() is backend
    # Of a job whose result is worked on.
    assert AlgorithmJob(of_job, PrimitiveJob(sampler._run, [])).backend() is backend
    for without in (AlgorithmJob(pow, 2, 3), AlgorithmJob(StatevectorSampler()._run, [])):
        with pytest.raises(QiskitError, match=r"The job does not have any backend\."):
            without.backend()


def test_a_sampler_run_goes_through(executor: LocalExecutor) -> None:
    with jobrunner.qiskit.accelerate(executor, min_seconds=0):
        job = StatevectorSampler(seed=5).run([bell()], shots=100)
        there = job.result()
    here = StatevectorSampler(seed=5).run([bell()], shots=100).result()
    assert (there[0].data.meas.array == here[0].data.meas.array).all()
    assert there[0].metadata == here[0].metadata
