"""`LocalExecutor`: its options, its life, and what it tells of itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import gc
import math
import os
import pickle
import resource
import threading
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import (
    ExecutorShutdownError,
    InlineExecutor,
    JobCancelledError,
    JobError,
    JobFuture,
    JobStatus,
    JobTimeoutError,
    LocalExecutor,
    PrimitiveJob,
    SerializationError,
    WorkerDiedError,
)
from jobrunner.executors import local
from tests.core import oddities
from tests.core.gates import Gate, append_line, lines, meet
from tests.core.process_table import await_death, is_alive

MakeLocal = Callable[..., LocalExecutor]


# --- bad options ---


@pytest.mark.parametrize(("option", "value", "error"), [
    ("max_workers", 0, ValueError), ("max_workers", -1, ValueError), ("max_workers", 1.5, TypeError),
    ("max_workers", "2", TypeError), ("max_workers", True, TypeError),
    ("time_limit", 0, ValueError), ("time_limit", -1, ValueError), ("time_limit", math.inf, ValueError),
    ("time_limit", math.nan, ValueError), ("time_limit", "1", TypeError), ("time_limit", True, TypeError),
    ("retries", -1, ValueError), ("retries", 1.5, TypeError), ("retries", None, TypeError),
    ("retry_on", (5,), TypeError), ("retry_on", ("ValueError",), TypeError), ("retry_on", (ValueError(),), TypeError),
    ("retry_on", int, TypeError),
    ("threads", 0, ValueError), ("threads", "all", TypeError),
    ("grace", -0.1, ValueError), ("grace", math.inf, ValueError), ("grace", "1", TypeError),
    ("idle_timeout", -1, ValueError), ("idle_timeout", "soon", TypeError),
    ("max_jobs_per_worker", 0, ValueError), ("max_jobs_per_worker", 2.5, TypeError),
    ("max_pending", 0, ValueError), ("max_pending", "many", TypeError),
    ("spare_workers", -1, ValueError), ("spare_workers", 0.5, TypeError),
    ("initializer", "f", TypeError), ("initargs", 5, TypeError),
    ("env", {"A": 1}, TypeError), ("env", {1: "A"}, TypeError), ("env", {"": "A"}, (TypeError, ValueError)),
    ("env", {"A=B": "C"}, (TypeError, ValueError)), ("env", {"A": "x\0y"}, (TypeError, ValueError)),
    ("preload", "numpy", TypeError), ("preload", (5,), TypeError),
], ids=lambda value: str(value)[:20])  # fmt: skip
def test_a_bad_option_is_refused_by_its_name(option: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=option):
        LocalExecutor(**{option: value})


@pytest.mark.parametrize(
    "option", [{"time_limit": 1}, {"memory_limit": "2GiB"}, {"capture_output": True}, {"grace": 1.0}], ids=str
)
def test_what_an_inline_executor_can_not_do_it_refuses_at_submit(option: dict[str, Any]) -> None:
    (name,) = option
    executor = InlineExecutor(**option)
    assert getattr(executor.backend.capabilities, name) is False
    with pytest.raises(JobError, match=name):
        executor.submit(pow, 2, 3)


@pytest.mark.parametrize("option", [{"capture_output": True}, {"grace": 1.0}], ids=str)
def test_what_a_platform_can_not_do_is_refused_and_said(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch, option: dict[str, Any]
) -> None:
    (name,) = option
    lacking = dataclasses.replace(executor.backend.capabilities, **{name: False})
    monkeypatch.setattr(local, "_CAPABILITIES", lacking)
    assert getattr(executor.backend.capabilities, name) is False
    with pytest.raises(JobError, match=f"{name} is not possible here .*capabilities.{name} is False"):
        executor.with_options(**option)
    with pytest.raises(JobError, match=name):
        LocalExecutor(1, **option)


@pytest.mark.parametrize("option", ["max_workers", "spare_workers", "initializer", "tme_limit"])
def test_with_options_refuses_what_is_no_option_of_a_job(executor: LocalExecutor, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        executor.with_options(**{option: 1})


@pytest.mark.parametrize("priority", ["high", math.nan, True, None])
def test_a_priority_that_is_no_number_is_refused(executor: LocalExecutor, priority: Any) -> None:
    with pytest.raises(TypeError, match="priority"):
        executor.with_options(priority=priority)


def test_a_view_for_jobs_wider_than_the_pool_is_refused(executor: LocalExecutor) -> None:
    with pytest.raises(ValueError, match="threads"):
        executor.with_options(threads=3)


def test_more_threads_than_the_machine_has_are_refused() -> None:
    most = os.cpu_count()
    with pytest.raises(ValueError, match=f"threads must be at least 1 and at most {most} .*not 100000"):
        LocalExecutor(threads=100000)


@pytest.mark.parametrize("value", [10**400, 2e9, -1, float("nan"), float("inf"), 0])
def test_a_time_limit_that_is_none_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(ValueError, match="time_limit must be above 0 and at most 1e\\+09 seconds"):
        LocalExecutor(time_limit=value)


def test_the_longest_durations_that_are_allowed_are_waited_for(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, time_limit=1e9, idle_timeout=1e9, grace=1e9)
    assert executor.submit(oddities.add, 1, b=2).result() == 3
    job = executor.submit(meet, gate.path)
    gate.await_arrival()
    assert job.cancel()  # it ends at the interrupt
    assert executor.submit(oddities.add, 1, b=2).result() == 3


def test_retry_on_that_names_no_types_is_refused() -> None:
    with pytest.raises(TypeError, match="retry_on must name exception types, not 3"):
        LocalExecutor(retries=1, retry_on=3)  # type: ignore[arg-type]


def test_unknown_names_are_type_errors() -> None:
    with pytest.raises(TypeError, match="max_worker"):
        LocalExecutor(max_worker=3)  # type: ignore[call-arg]


def test_an_initializer_that_cannot_be_sent_is_refused_at_once() -> None:
    with pytest.raises(SerializationError):
        LocalExecutor(1, initializer=print, initargs=(oddities.Unpicklable(),))


def test_more_workers_than_descriptors_are_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    with pytest.raises(ValueError, match=r"100 .*256"):
        LocalExecutor(99, spare_workers=1)


def test_no_process_is_started_before_the_first_job(make_local: MakeLocal) -> None:
    executor = make_local(2, spare_workers=1)
    assert executor.stats()["workers"] == 0


# --- what it tells ---


def test_the_backend_names_the_options_that_differ_from_the_defaults(make_local: MakeLocal) -> None:
    executor = make_local(2, time_limit=5, env={"A": "B"})
    backend = executor.backend
    assert (backend.name, backend.max_workers) == ("local", 2)
    assert backend.options["time_limit"] == 5
    assert dict(backend.options["env"]) == {"A": "B"}
    assert "retries" not in backend.options
    assert pickle.loads(pickle.dumps(backend)) == backend
    assert executor.with_options(retries=2).backend.options["retries"] == 2


def test_max_workers_defaults_to_the_cpus_that_may_be_used() -> None:
    import loky

    executor = LocalExecutor()
    try:
        assert executor.backend.max_workers == loky.cpu_count()
    finally:
        executor.shutdown()


def test_stats_count_what_became_of_the_jobs(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    assert executor.stats() == dict.fromkeys(
        ["queued", "running", "done", "failed", "cancelled", "workers", "restarts", "recycled"], 0
    )
    executor.submit(oddities.add, 1).result()
    executor.submit(oddities.raise_error, ValueError()).exception()
    executor.submit(os._exit, 1).exception()
    running = executor.submit(meet, gate.path)
    queued = [executor.submit(oddities.add, 1) for _ in range(3)]
    gate.await_arrival()
    stats = executor.stats()
    assert {name: stats[name] for name in ("queued", "running", "done", "failed", "cancelled", "workers")} == {
        "queued": 3, "running": 1, "done": 1, "failed": 2, "cancelled": 0, "workers": 1,
    }  # fmt: skip
    assert stats["restarts"] == 1
    queued[0].cancel()
    running.cancel()
    concurrent.futures.wait(queued)
    assert executor.stats()["cancelled"] == 2
    assert executor.stats()["done"] == 3


def test_repr_is_readable(make_local: MakeLocal) -> None:
    executor = make_local(1)
    executor.submit(oddities.add, 1).result()
    assert repr(executor) == (
        "<LocalExecutor max_workers=1: 1 workers; 0 running, 0 queued, 1 done, 0 failed, 0 cancelled>"
    )
    assert repr(InlineExecutor()) == "<InlineExecutor>"


def test_a_future_knows_its_job(executor: LocalExecutor) -> None:
    future = executor.submit(oddities.add, 1)
    assert isinstance(future, JobFuture)
    assert isinstance(future, concurrent.futures.Future)
    assert uuid.UUID(future.job_id).version == 4
    assert future.result() == 1
    assert future.report().job_id == future.job_id
    assert future.done()
    assert repr(future) == f"<JobFuture {future.job_id} DONE>"


def test_a_futures_state_is_not_for_others_to_set(executor: LocalExecutor) -> None:
    future: Any = executor.submit(oddities.add, 1)
    future.result()
    with pytest.raises(JobError):
        future.set_running_or_notify_cancel()
    with pytest.raises(JobError):
        future.set_result(1)
    with pytest.raises(JobError):
        future.set_exception(None)


def test_submit_to_the_executor_never_raises_for_what_cannot_be_sent(executor: LocalExecutor) -> None:
    future = executor.submit(oddities.identity, oddities.Unpicklable())
    with pytest.raises(SerializationError, match="argument 0") as info:
        future.result()
    assert info.value.job_id == future.job_id
    assert future.status() is JobStatus.ERROR
    with pytest.raises(TypeError, match="callable"):
        executor.submit(5)  # type: ignore[arg-type]


def test_times_in_the_report_are_in_order(executor: LocalExecutor) -> None:
    future = executor.submit(oddities.add, 1)
    future.result()
    report = future.report()
    assert report.submitted_at is not None
    assert report.started_at is not None
    assert report.finished_at is not None
    assert report.submitted_at <= report.started_at <= report.finished_at
    assert report.queue_s == pytest.approx(report.started_at - report.submitted_at, abs=1e-3)
    assert report.run_s == pytest.approx(report.finished_at - report.started_at, abs=1e-3)
    assert report.threads == 1


def test_a_running_jobs_report_names_its_process(executor: LocalExecutor, gate: Gate) -> None:
    future = executor.submit(meet, gate.path)
    (pid,) = gate.await_arrival()
    report = future.report()
    assert (report.pid, report.status, report.attempts, report.finished_at) == (pid, JobStatus.RUNNING, 1, None)
    assert report.started_at is not None
    gate.release()
    future.result()


# --- order ---


def test_larger_priorities_run_first_and_equals_in_order(make_local: MakeLocal, gate: Gate, tmp_path: Path) -> None:
    executor = make_local(1)
    path = tmp_path / "order"
    first = executor.submit(meet, gate.path)
    gate.await_arrival()
    priorities = [0, 1, 0, 5, -1, 1.5, 1]
    jobs = [
        executor.with_options(priority=priority).submit(append_line, str(path), f"{priority}/{number}")
        for number, priority in enumerate(priorities)
    ]
    gate.release()
    concurrent.futures.wait([first, *jobs])
    assert lines(path) == ["5/3", "1.5/5", "1/1", "1/6", "0/0", "0/2", "-1/4"]


def test_a_larger_priority_overtakes_tiny_jobs_sent_ahead(make_local: MakeLocal, gate: Gate, tmp_path: Path) -> None:
    executor = make_local(1)
    path = str(tmp_path / "order")
    concurrent.futures.wait([executor.submit(oddities.add, 1) for _ in range(50)])
    first = executor.submit(meet, gate.path)
    low = [executor.submit(append_line, path, "low") for _ in range(3)]
    gate.await_arrival()
    high = executor.with_options(priority=1).submit(append_line, path, "high")
    gate.release()
    concurrent.futures.wait([first, *low, high])
    assert lines(tmp_path / "order") == ["high", "low", "low", "low"]


def test_views_share_the_pool(make_local: MakeLocal) -> None:
    executor = make_local(1)
    view = executor.with_options(name="view")
    assert view.submit(os.getpid).result() == executor.submit(os.getpid).result()
    assert view.submit(os.getpid).report().name == "view"
    view.shutdown()
    with pytest.raises(ExecutorShutdownError):
        executor.submit(os.getpid)


def test_views_of_views_add_up(executor: LocalExecutor) -> None:
    view = executor.with_options(time_limit=5).with_options(retries=1).with_options(time_limit=6)
    assert {name: view.backend.options[name] for name in ("time_limit", "retries")} == {"time_limit": 6, "retries": 1}


# --- max_pending ---


def test_a_full_queue_makes_submit_wait_for_room(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, max_pending=2)
    running = executor.submit(meet, gate.path)
    gate.await_arrival()
    queued = [executor.submit(oddities.add, n) for n in range(2)]
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        submitting = thread.submit(executor.submit, oddities.add, 5)
        assert not concurrent.futures.wait([submitting], timeout=0.1).done
        gate.release()
        assert submitting.result().result() == 5
    concurrent.futures.wait([running, *queued])


def test_a_cancel_makes_room_in_a_full_queue(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, max_pending=1)
    running = executor.submit(meet, gate.path)
    gate.await_arrival()
    queued = executor.submit(oddities.add, 1)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        submitting = thread.submit(executor.submit, oddities.add, 5)
        assert queued.cancel()
        last = submitting.result()
    gate.release()
    concurrent.futures.wait([running, last])


def test_a_full_queue_raises_in_an_event_loop_and_in_a_callback(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, max_pending=1)
    running = executor.submit(meet, gate.path)
    gate.await_arrival()
    queued = executor.submit(oddities.add, 1)

    async def main() -> None:
        with pytest.raises(JobError, match="max_pending"):
            executor.submit(oddities.add, 1)

    asyncio.run(main())
    said: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def submit(_: object) -> None:
        try:
            said.set_result(executor.submit(oddities.add, 1))
        except BaseException as error:
            said.set_exception(error)

    job = PrimitiveJob(oddities.add, 1)
    job.cancel()
    job.add_done_callback(submit)
    assert isinstance(said.exception(), JobError)
    gate.release()
    concurrent.futures.wait([running, queued])


def test_a_shutdown_lets_a_submit_that_waits_for_room_go(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, max_pending=1)
    executor.submit(meet, gate.path)
    gate.await_arrival()
    executor.submit(oddities.add, 1)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        submitting = thread.submit(executor.submit, oddities.add, 5)
        assert not concurrent.futures.wait([submitting], timeout=0.05).done
        executor.shutdown(wait=False)
        assert isinstance(submitting.exception(), ExecutorShutdownError)
    gate.release()


# --- the worker's surroundings ---


def test_threads_set_the_variables_of_blas_and_openmp(make_local: MakeLocal) -> None:
    executor = make_local(1, threads=2)
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert executor.submit(lambda: [os.environ[name] for name in names]).result() == ["2"] * 3
    one = executor.with_options(threads=1)
    assert one.submit(lambda: [os.environ[name] for name in names]).result() == ["1"] * 3


def test_jobs_with_threads_take_up_as_many_cores(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(2)
    wide = executor.with_options(threads=2)
    first, second = wide.submit(meet, gate.path), wide.submit(meet, gate.path)
    gate.await_arrival()
    assert [first.status(), second.status()] == [JobStatus.RUNNING, JobStatus.QUEUED]
    gate.release()
    gate.await_arrival()
    first.result()
    gate.release()
    second.result()


def test_env_is_set_in_the_workers_and_wins_over_the_callers(
    make_local: MakeLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBRUNNER_TEST_OUTER", "outer")
    monkeypatch.setenv("JOBRUNNER_TEST_BOTH", "outer")
    executor = make_local(1, env={"JOBRUNNER_TEST_BOTH": "inner", "OMP_NUM_THREADS": "7"})
    names = ["JOBRUNNER_TEST_OUTER", "JOBRUNNER_TEST_BOTH", "OMP_NUM_THREADS"]
    assert executor.submit(lambda: [os.environ.get(name) for name in names]).result() == ["outer", "inner", "7"]


def test_a_worker_does_not_keep_what_only_its_start_needed(make_local: MakeLocal) -> None:
    executor = make_local(1)
    assert executor.submit(lambda: os.environ.get("PYTHONSAFEPATH")).result() == os.environ.get("PYTHONSAFEPATH")


def test_preloaded_modules_are_there_before_the_first_job(make_local: MakeLocal) -> None:
    def is_loaded() -> bool:
        import sys

        return "wave" in sys.modules

    assert make_local(1, preload=["wave"]).submit(is_loaded).result() is True
    assert make_local(1).submit(is_loaded).result() is False


def test_the_initializer_runs_once_in_each_worker_before_its_jobs(make_local: MakeLocal, tmp_path: Path) -> None:
    path = tmp_path / "initialized"
    executor = make_local(1, initializer=append_line, initargs=(str(path), "here"))
    for _ in range(3):
        executor.submit(oddities.add, 1).result()
    assert lines(path) == ["here"]
    executor.submit(os._exit, 1).exception()
    executor.submit(oddities.add, 1).result()
    assert lines(path) == ["here", "here"]


@pytest.mark.parametrize("options", [
    {"initializer": oddities.raise_error, "initargs": (ValueError("cannot start"),)},
    {"initializer": oddities.raise_error, "initargs": (SystemExit("cannot start"),)},
    {"initializer": os._exit, "initargs": (5,)},
    {"initializer": oddities.segfault},
    {"preload": ["no_such_module"]},
], ids=["raises", "SystemExit", "exits", "crashes", "preload"])  # fmt: skip
def test_workers_that_cannot_start_fail_what_waits_and_do_not_start_for_ever(
    make_local: MakeLocal, options: dict[str, Any]
) -> None:
    executor = make_local(1, **options)
    jobs = [executor.submit(oddities.add, 1) for _ in range(3)]
    for job in jobs:
        with pytest.raises(WorkerDiedError, match="no worker could be started"):
            job.result()
    cause = jobs[0].exception()
    assert cause is not None
    if "initargs" in options and options["initializer"] is oddities.raise_error:
        assert "cannot start" in str(cause.__cause__)
    if "preload" in options:
        assert "no_such_module" in str(cause.__cause__)
    assert executor.stats()["failed"] == 3
    with pytest.raises(WorkerDiedError):
        executor.submit(oddities.add, 1).result()  # it tries again


def test_the_cause_of_workers_that_die_while_starting_is_told(make_local: MakeLocal) -> None:
    job = make_local(1, initializer=os._exit, initargs=(5,)).submit(pow, 2, 3)
    error = job.exception()
    assert isinstance(error, WorkerDiedError)
    assert error.exit_code == 5
    assert "left with exit code 5" in str(error)
    job = make_local(1, initializer=oddities.segfault).submit(pow, 2, 3)
    assert "crashed with SIGSEGV" in str(job.exception())
    assert "in segfault" in (job.report().stack or "")
    assert "crashed with SIGSEGV" in (job.report().cause or "")


def test_a_worker_is_replaced_after_so_many_jobs(make_local: MakeLocal) -> None:
    executor = make_local(1, max_jobs_per_worker=3)
    pids = [executor.submit(os.getpid).result() for _ in range(9)]
    assert [len(set(pids[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert len(set(pids)) == 3


def test_a_worker_is_replaced_after_so_many_jobs_though_more_are_waiting(make_local: MakeLocal) -> None:
    executor = make_local(1, max_jobs_per_worker=3)
    jobs = [executor.submit(os.getpid) for _ in range(12)]
    pids = [job.result() for job in jobs]
    assert max(pids.count(pid) for pid in pids) == 3


def test_an_idle_worker_leaves_after_its_time(make_local: MakeLocal) -> None:
    executor = make_local(1, idle_timeout=0.05)
    pid = executor.submit(os.getpid).result()
    assert await_death(pid)
    assert executor.submit(os.getpid).result() != pid


def test_without_idle_timeout_workers_stay(make_local: MakeLocal) -> None:
    executor = make_local(1, idle_timeout=None)
    pid = executor.submit(os.getpid).result()
    assert not await_death(pid, 0.2)
    assert executor.submit(os.getpid).result() == pid


def test_a_spare_is_ready_when_a_job_is_cancelled(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, spare_workers=1)
    job = executor.submit(meet, gate.path)
    gate.await_arrival()
    while executor.stats()["workers"] < 2:
        pass
    job.cancel()
    assert executor.submit(oddities.add, 1).result() == 1


# --- shutdown ---


def test_after_a_shutdown_submit_and_map_are_refused_and_what_was_submitted_is_finished(
    make_local: MakeLocal, gate: Gate
) -> None:
    executor = make_local(1)
    jobs = [executor.submit(meet, gate.path, n) for n in range(3)]
    gate.await_arrival()
    executor.shutdown(wait=False)
    with pytest.raises(ExecutorShutdownError) as info:
        executor.submit(oddities.add, 1)
    assert isinstance(info.value, RuntimeError)
    with pytest.raises(ExecutorShutdownError):
        list(executor.map(oddities.add, [1]))
    job = PrimitiveJob(oddities.add, 1)
    with pytest.raises(ExecutorShutdownError):
        job.submit(executor)
    assert job.status() is JobStatus.INITIALIZING
    gate.release(3)
    executor.shutdown()
    assert [job.result() for job in jobs] == [0, 1, 2]


def test_shutdown_waits_for_the_jobs_and_leaves_no_process(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    job = executor.submit(meet, gate.path, "done")
    (pid,) = gate.await_arrival()
    gate.release()
    executor.shutdown(wait=True)
    assert job.done()
    assert not is_alive(pid)
    executor.shutdown()  # again


def test_shutdown_with_cancel_futures_cancels_what_is_queued_only(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    running = executor.submit(meet, gate.path, "done")
    queued = [executor.submit(oddities.add, 1) for _ in range(3)]
    gate.await_arrival()
    executor.shutdown(wait=False, cancel_futures=True)
    assert [job.status() for job in queued] == [JobStatus.CANCELLED] * 3
    gate.release()
    assert running.result() == "done"


def test_shutdown_with_kill_workers_ends_what_is_running(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    jobs = [executor.submit(meet, gate.path) for _ in range(3)]
    (pid,) = gate.await_arrival()
    executor.shutdown(kill_workers=True)
    assert not is_alive(pid)
    assert [job.status() for job in jobs] == [JobStatus.CANCELLED] * 3


def test_leaving_the_with_block_by_an_exception_ends_everything(gate: Gate) -> None:
    jobs: list[JobFuture[Any]] = []
    with pytest.raises(KeyError, match="left"), LocalExecutor(1, spare_workers=0) as executor:
        jobs += [executor.submit(meet, gate.path) for _ in range(3)]
        (pid,) = gate.await_arrival()
        raise KeyError("left")
    assert not is_alive(pid)
    assert [job.status() for job in jobs] == [JobStatus.CANCELLED] * 3


def test_leaving_the_with_block_finishes_what_was_submitted() -> None:
    with LocalExecutor(1, spare_workers=0) as executor:
        jobs = [executor.submit(oddities.add, n) for n in range(5)]
        held = executor.submit(lambda job: job, 5)
    assert [job.result() for job in jobs] == list(range(5))
    assert held.result() == 5


def test_shutdown_of_an_executor_that_was_never_used(make_local: MakeLocal) -> None:
    make_local(1).shutdown()
    make_local(1).shutdown(wait=False)
    make_local(1).shutdown(kill_workers=True)


def test_shutdown_by_several_threads_at_once(make_local: MakeLocal) -> None:
    executor = make_local(1)
    job = executor.submit(oddities.add, 1)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: executor.shutdown(), range(4)))
    assert job.result() == 1


def test_shutdown_in_a_callback_does_not_deadlock(make_local: MakeLocal) -> None:
    executor = make_local(1)
    over = threading.Event()
    job = PrimitiveJob(oddities.add, 1)

    def shut_down(_: object) -> None:
        executor.shutdown()
        over.set()

    job.add_done_callback(shut_down)
    job.submit(executor)
    over.wait()
    assert job.done()


def test_an_executor_collected_with_jobs_pending_finishes_them_and_leaves_no_process(gate: Gate) -> None:
    executor = LocalExecutor(1, spare_workers=0)
    jobs = [executor.submit(meet, gate.path, n) for n in range(3)]
    (pid,) = gate.await_arrival()
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    gate.release(3)
    assert [job.result() for job in jobs] == [0, 1, 2]
    assert await_death(pid)


def test_an_idle_executor_that_is_collected_leaves_no_process() -> None:
    executor = LocalExecutor(1, spare_workers=0)
    pid = executor.submit(os.getpid).result()
    del executor
    gc.collect()
    assert await_death(pid)


def test_a_view_keeps_the_pool_alive() -> None:
    view = LocalExecutor(1, spare_workers=0).with_options(name="view")
    gc.collect()
    assert view.submit(oddities.add, 1).result() == 1
    view.shutdown()


# --- memory ---


class _Collectable:
    """An argument or a result that can be weakly referred to."""


def test_arguments_and_results_are_collected_once_nobody_holds_them(executor: LocalExecutor) -> None:
    argument = _Collectable()
    gone = weakref.ref(argument)
    future = executor.submit(oddities.identity, argument)
    del argument
    assert gone() is None  # pickled, not kept
    future.result()
    result_gone = weakref.ref(future.result())
    future_gone = weakref.ref(future)
    del future
    gc.collect()
    assert result_gone() is None
    assert future_gone() is None


def test_an_exception_does_not_keep_its_future_alive(executor: LocalExecutor) -> None:
    future = executor.submit(oddities.raise_error, ValueError())
    with contextlib.suppress(ValueError):
        future.result()
    gone = weakref.ref(future)
    gc.disable()
    try:
        del future
    finally:
        gc.enable()
    assert gone() is None


def test_a_worker_frees_arguments_and_result_before_the_next_job(make_local: MakeLocal) -> None:
    executor = make_local(1)

    def count_live() -> int:
        gc.collect()
        return sum(type(thing).__name__ == "_Collectable" for thing in gc.get_objects())

    assert isinstance(executor.submit(oddities.identity, _Collectable()).result(), _Collectable)
    assert executor.submit(count_live).result() == 0


# --- pickling an executor ---


def test_an_executor_pickled_into_a_worker_arrives_as_an_inline_one(executor: LocalExecutor) -> None:
    def use(inner: Any) -> Any:
        return inner.backend.name, inner.submit(oddities.add, 1).result(), list(inner.map(abs, [-1, -2]))

    assert executor.submit(use, executor).result() == ("inline", 1, [1, 2])
    assert executor.submit(use, InlineExecutor()).result() == ("inline", 1, [1, 2])


# --- the inline executor ---


def test_the_inline_executor_refuses_a_time_limit_at_submit() -> None:
    executor = InlineExecutor().with_options(time_limit=1)
    with pytest.raises(JobError, match="time_limit"):
        executor.submit(oddities.add, 1)
    job = PrimitiveJob(oddities.add, 1)
    with pytest.raises(JobError, match="time_limit"):
        job.submit(executor)
    assert job.status() is JobStatus.INITIALIZING


def test_the_inline_executor_retries_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "starts"

    def fail_twice() -> int:
        append_line(str(path), "started")
        if len(lines(path)) < 3:
            raise ValueError
        return len(lines(path))

    future = InlineExecutor(retries=2, retry_on=ValueError).submit(fail_twice)
    assert future.result() == 3
    assert future.report().attempts == 3


def test_the_inline_executor_refuses_after_a_shutdown() -> None:
    executor = InlineExecutor()
    with executor:
        assert executor.submit(oddities.add, 1).result() == 1
    with pytest.raises(ExecutorShutdownError):
        executor.submit(oddities.add, 1)
    with pytest.raises(ExecutorShutdownError):
        list(executor.map(oddities.add, [1]))


# --- threads of the caller ---


def test_submit_from_many_threads(executor: LocalExecutor) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda n: executor.submit(oddities.add, n), range(200)))
    assert sorted(future.result() for future in futures) == list(range(200))


def test_workers_outlive_the_thread_that_submitted_first(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    made: list[JobFuture[Any]] = []
    thread = threading.Thread(target=lambda: made.append(executor.submit(meet, gate.path, "alive")))
    thread.start()
    thread.join()
    (pid,) = gate.await_arrival()
    assert not await_death(pid, 0.1)
    gate.release()
    assert made[0].result() == "alive"
    assert executor.submit(os.getpid).result() == pid


def test_active_children_of_multiprocessing_does_not_touch_our_workers(make_local: MakeLocal) -> None:
    import multiprocessing

    executor = make_local(1)
    pid = executor.submit(os.getpid).result()
    assert pid not in [child.pid for child in multiprocessing.active_children()]
    dying = executor.submit(os._exit, 6)
    while not dying.done():
        multiprocessing.active_children()
    error = dying.exception()
    assert isinstance(error, WorkerDiedError)
    assert error.exit_code == 6


def test_waiting_with_a_timeout_while_the_worker_starts(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    future = executor.submit(meet, gate.path)
    with pytest.raises(JobTimeoutError):
        future.result(timeout=0)
    assert future.cancel()
    with pytest.raises(JobCancelledError):
        future.result()
