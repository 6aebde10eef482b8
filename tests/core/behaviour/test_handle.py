"""What a job tells and takes along: callbacks, its report, metadata, copies."""

from __future__ import annotations

import concurrent.futures
import copy
import os
import pickle
import threading
from concurrent.futures import Executor
from typing import Any

import pytest

from jobrunner import AlgorithmJob, JobCancelledError, JobError, JobStatus, PrimitiveJob
from tests.core import oddities
from tests.core.behaviour.engines import concurrently, submitted
from tests.core.gates import Gate, meet

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
