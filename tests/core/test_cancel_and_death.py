"""Processes that really end: cancelled, killed, crashed, stuck in C code, with children; and those beside them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import (
    JobCancelledError,
    JobStatus,
    LocalExecutor,
    PrimitiveJob,
    TimeLimitExceeded,
    WorkerDiedError,
    as_completed,
    wait,
)
from tests.core import oddities, troubles
from tests.core.gates import (
    Gate,
    MeetsWhenLoaded,
    append_line,
    arrive,
    lines,
    meet,
    meet_and_count,
)
from tests.core.process_table import await_death, is_alive

MakeLocal = Callable[..., LocalExecutor]


KINDS = ["forked", "program", "clean environment", "daemon", "clean daemon"]


def _both(gate: Gate) -> list[int]:
    """The pids of the process that a job of `troubles.with_child` has started, and of its worker."""
    (child,) = gate.await_arrival()
    gate.release()
    (worker,) = gate.await_arrival()
    assert child != worker
    return [child, worker]


# --- cancel ---


def test_cancel_of_a_running_job_returns_when_its_process_is_dead(executor: LocalExecutor, gate: Gate) -> None:
    job = PrimitiveJob(meet, gate.path)
    job.submit(executor)
    (pid,) = gate.await_arrival()
    assert job.report().pid == pid
    assert job.cancel() is True
    assert not is_alive(pid)
    assert job.status() is JobStatus.CANCELLED
    with pytest.raises(JobCancelledError):
        job.result()
    report = job.report()
    assert report.status is JobStatus.CANCELLED
    assert report.finished_at is not None
    assert report.cause == "it was cancelled"


@pytest.mark.parametrize(
    "stuck", [troubles.hold_lock, troubles.match_regex, troubles.ignore_signals], ids=lambda f: f.__name__
)
def test_a_job_that_would_not_listen_is_cancelled(executor: LocalExecutor, gate: Gate, stuck: Any) -> None:
    job = executor.submit(stuck, gate.path)
    (pid,) = gate.await_arrival()
    assert job.cancel()
    assert not is_alive(pid)
    assert executor.submit(oddities.add, 1).result() == 1


def test_a_stopped_worker_is_cancelled(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.submit(troubles.arrive_and_kill, gate.path, signal.SIGSTOP)
    (pid,) = gate.await_arrival()
    assert job.cancel()
    assert not is_alive(pid)


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_ends_the_processes_that_the_job_started(executor: LocalExecutor, gate: Gate, kind: str) -> None:
    job = executor.submit(troubles.with_child, gate.path, kind, troubles.stay)
    pids = _both(gate)
    assert job.cancel()
    assert [pid for pid in pids if is_alive(pid)] == []


def test_cancel_ends_a_whole_tree(executor: LocalExecutor, gate: Gate) -> None:
    def grow(gate: str, depth: int) -> None:
        for _ in range(2 if depth else 0):
            if os.fork() == 0:
                grow(gate, depth - 1)
                os._exit(0)
        meet(gate)

    job = executor.submit(grow, gate.path, 3)
    pids = gate.await_arrival(15)
    assert job.cancel()
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_job_being_validated_is_cancelled(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.submit(oddities.identity, MeetsWhenLoaded(gate.path))
    (pid,) = gate.await_arrival()
    assert job.status() is JobStatus.VALIDATING
    assert not job.running()
    assert job.cancel()
    assert not is_alive(pid)


def test_a_job_is_running_only_after_it_was_validated(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.submit(lambda path, value: meet(path, value), gate.path, MeetsWhenLoaded(gate.path))
    gate.await_arrival()
    assert job.status() is JobStatus.VALIDATING
    gate.release()
    gate.await_arrival()
    assert job.status() is JobStatus.RUNNING
    gate.release()
    assert job.result() == "loaded"


@pytest.mark.parametrize("ending", ["cancel", "kill", "exit", "segfault", "time limit"])
def test_the_job_beside_one_that_ends_badly_goes_on_and_was_started_once(
    executor: LocalExecutor, make_gate: Callable[[], Gate], tmp_path: Path, ending: str
) -> None:
    gate, other = make_gate(), make_gate()
    bystander = executor.submit(meet_and_count, gate.path, str(tmp_path / "starts"), "bystander")
    (pid,) = gate.await_arrival()
    if ending == "cancel":
        victim = executor.submit(meet, other.path)
        other.await_arrival()
        assert victim.cancel()
    else:
        ways: dict[str, tuple[LocalExecutor, Callable[..., Any], tuple[Any, ...]]] = {
            "kill": (executor, troubles.arrive_and_kill, (signal.SIGKILL,)),
            "exit": (executor, troubles.arrive_and_exit, (7,)),
            "segfault": (executor, troubles.arrive_and_segfault, ()),
            "time limit": (executor.with_options(time_limit=0.5), meet, ()),
        }
        view, function, args = ways[ending]
        victim = view.submit(function, other.path, *args)
        other.await_arrival()
        assert isinstance(victim.exception(), (WorkerDiedError, TimeLimitExceeded))
    assert bystander.running()
    assert is_alive(pid)
    after = executor.submit(oddities.add, 1)
    assert after.result() == 1
    gate.release()
    assert bystander.result() == "bystander"
    assert lines(tmp_path / "starts") == ["bystander"]
    assert bystander.report().pid == pid
    assert bystander.report().attempts == 1


def test_five_long_jobs_on_one_worker_exactly_one_is_running(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, spare_workers=1)
    jobs = [executor.submit(meet, gate.path, number) for number in range(5)]
    for number in range(5):
        gate.await_arrival()
        states = [job.status() for job in jobs[number:]]
        assert states == [JobStatus.RUNNING] + [JobStatus.QUEUED] * (4 - number)
        assert executor.stats()["running"] == 1
        gate.release()
        assert jobs[number].result() == number


def test_five_long_jobs_behind_tiny_ones_on_one_worker_exactly_one_is_running(
    make_local: MakeLocal, gate: Gate
) -> None:
    executor = make_local(1)
    assert sum(executor.submit(oddities.add, 1).result() for _ in range(50)) == 50
    jobs = [executor.submit(meet, gate.path, number) for number in range(5)]
    gate.await_arrival()
    assert [job.status() for job in jobs] == [JobStatus.RUNNING] + [JobStatus.QUEUED] * 4
    for job in jobs[1:]:
        assert job.cancel()
    assert jobs[0].running()
    gate.release()
    assert jobs[0].result() == 0
    assert [job.status() for job in jobs[1:]] == [JobStatus.CANCELLED] * 4


def test_two_long_jobs_after_tiny_ones_run_beside_each_other(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(2)
    assert sum(executor.submit(oddities.add, 1).result() for _ in range(20)) == 20
    executor.submit(os._exit, 1).exception()
    assert sum(executor.submit(oddities.add, 1).result() for _ in range(20)) == 20
    jobs = [executor.submit(meet, gate.path) for _ in range(2)]
    gate.await_arrival(2)
    assert [job.status() for job in jobs] == [JobStatus.RUNNING] * 2
    gate.release(2)
    wait(jobs)


def test_a_job_prefetched_behind_one_that_is_cancelled_starts_once_elsewhere(
    make_local: MakeLocal, make_gate: Callable[[], Gate], tmp_path: Path
) -> None:
    executor = make_local(1)
    gate = make_gate()
    starts = str(tmp_path / "starts")
    assert sum(executor.submit(oddities.add, 1).result() for _ in range(50)) == 50
    first = executor.submit(meet_and_count, gate.path, starts, "first")
    rest = [executor.submit(append_line, starts, name) for name in ("second", "third")]
    gate.await_arrival()
    assert first.cancel()
    wait(rest)
    assert lines(tmp_path / "starts") == ["first", "second", "third"]
    assert [job.report().attempts for job in rest] == [1, 1]


def test_cancel_by_many_threads_at_once_is_true_for_all(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.submit(meet, gate.path)
    (pid,) = gate.await_arrival()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: (job.cancel(), is_alive(pid)), range(8)))
    assert answers == [(True, False)] * 8


def test_cancel_in_a_callback_only_requests_the_end(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.submit(meet, gate.path)
    (pid,) = gate.await_arrival()
    answer: concurrent.futures.Future[bool] = concurrent.futures.Future()
    trigger = PrimitiveJob(oddities.add, 1)
    trigger.add_done_callback(lambda _: answer.set_result(job.cancel()))
    trigger.submit(executor)
    assert answer.result() is True
    with pytest.raises(JobCancelledError):
        job.result()
    assert not is_alive(pid)


# --- waiters are woken ---


@pytest.mark.parametrize("state", ["queued", "running"])
def test_cancel_wakes_whoever_waits_by_concurrent_futures(make_local: MakeLocal, gate: Gate, state: str) -> None:
    executor = make_local(1)
    running = executor.submit(meet, gate.path)
    gate.await_arrival()
    queued = executor.submit(oddities.add, 1)
    victim = running if state == "running" else queued
    waits: list[Callable[[], Any]] = [
        lambda: concurrent.futures.wait([victim]).done == {victim},
        lambda: list(concurrent.futures.as_completed([victim])) == [victim],
        lambda: isinstance(_error_of(victim), JobCancelledError),
        lambda: list(as_completed([victim])) == [victim],
        lambda: asyncio.run(_wrapped(victim)),
    ]
    with concurrent.futures.ThreadPoolExecutor(len(waits)) as threads:
        waiting = [threads.submit(one) for one in waits]
        assert victim.cancel()
        assert [one.result() for one in waiting] == [True] * len(waits)
    if state == "queued":
        running.cancel()


def _error_of(future: concurrent.futures.Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except concurrent.futures.CancelledError as error:
        return error


async def _wrapped(future: concurrent.futures.Future[Any]) -> bool:
    try:
        await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        return True
    return False


# --- death ---


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR1], ids=lambda n: n.name
)
def test_a_worker_killed_by_a_signal_fails_its_job_which_names_it(
    executor: LocalExecutor, gate: Gate, number: signal.Signals
) -> None:
    job = PrimitiveJob(troubles.arrive_and_kill, gate.path, number)
    job.submit(executor)
    (pid,) = gate.await_arrival()
    with pytest.raises(WorkerDiedError) as info:
        job.result()
    error = info.value
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    assert (error.pid, error.signal, error.exit_code, error.job_id) == (pid, number, None, job.job_id())
    assert number.name in str(error)
    assert str(pid) in str(error)
    assert job.status() is JobStatus.ERROR
    report = job.report()
    assert (report.pid, report.exit_signal, report.exit_code) == (pid, number, None)
    assert report.cause is not None
    assert number.name in report.cause
    assert error.report == report
    assert pickle.loads(pickle.dumps(error)).report == report


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_a_worker_that_exits_fails_its_job_which_tells_the_code(executor: LocalExecutor, gate: Gate, code: int) -> None:
    job = executor.submit(troubles.arrive_and_exit, gate.path, code)
    (pid,) = gate.await_arrival()
    with pytest.raises(WorkerDiedError, match=f"exit code {code}") as info:
        job.result()
    assert (info.value.pid, info.value.exit_code, info.value.signal) == (pid, code, None)
    assert job.report().exit_code == code


def test_a_crash_is_told_as_one(executor: LocalExecutor) -> None:
    with pytest.raises(WorkerDiedError, match="SIGSEGV") as info:
        executor.submit(oddities.segfault).result()
    assert info.value.signal == signal.SIGSEGV


def test_a_worker_that_dies_while_loading_an_argument_fails_its_job(executor: LocalExecutor) -> None:
    with pytest.raises(WorkerDiedError) as info:
        executor.submit(oddities.identity, oddities.ExitsWhenLoaded()).result()
    assert info.value.exit_code == 3


def test_a_worker_that_dies_while_rebuilding_its_result_fails_its_job(executor: LocalExecutor) -> None:
    with pytest.raises(WorkerDiedError) as info:
        executor.submit(oddities.ExitsWhenLoaded).result()
    assert info.value.exit_code == 3
    assert executor.submit(oddities.add, 1).result() == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [lambda: os._exit(9), oddities.segfault], ids=["exit", "segfault"])
def test_a_job_whose_worker_died_is_final_although_a_child_lives_and_none_is_left(
    executor: LocalExecutor, gate: Gate, kind: str, end: Callable[[], object]
) -> None:
    job = executor.submit(troubles.with_child, gate.path, kind, end)
    pids = _both(gate)
    with pytest.raises(WorkerDiedError):
        job.result()
    if kind != "clean daemon":  # without session, tag and parent, nothing tells whose it was
        assert [pid for pid in pids if is_alive(pid)] == []
    else:
        for pid in pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_job_left_running_is_ended_after_it_and_its_result_stands(
    executor: LocalExecutor, gate: Gate, kind: str
) -> None:
    job = executor.submit(troubles.with_child, gate.path, kind, lambda: "value")
    pids = _both(gate)
    assert job.result() == "value"
    assert executor.submit(oddities.add, 1).result() == 1
    assert all(await_death(pid) for pid in pids)


def test_a_job_that_leaves_a_thread_running_has_its_worker_replaced(executor: LocalExecutor) -> None:
    def leave_thread() -> int:
        threading.Thread(target=troubles.stay).start()
        return os.getpid()

    pid = executor.submit(leave_thread).result()
    assert await_death(pid)
    assert executor.submit(oddities.add, 1).result() == 1


def test_a_pool_whose_threads_wait_for_work_costs_no_worker(executor: LocalExecutor) -> None:
    def call_by_a_librarys_pool() -> tuple[int, int]:
        # As libraries do that keep a pool for all their calls (Aer, for one).
        if not hasattr(concurrent.futures, "_kept_by_a_test"):
            concurrent.futures._kept_by_a_test = concurrent.futures.ThreadPoolExecutor(1)  # type: ignore[attr-defined]
        return concurrent.futures._kept_by_a_test.submit(abs, -3).result(), os.getpid()  # type: ignore[attr-defined]

    made = [executor.submit(call_by_a_librarys_pool).result() for _ in range(20)]
    assert {value for value, _ in made} == {3}
    assert len({pid for _, pid in made}) <= 2
    assert executor.stats()["recycled"] == 0


def test_a_pool_whose_thread_goes_on_has_its_worker_replaced(executor: LocalExecutor) -> None:
    def leave_at_work() -> int:
        started = threading.Event()

        def work() -> None:
            started.set()
            troubles.stay()

        concurrent.futures.ThreadPoolExecutor(1).submit(work)
        started.wait()
        return os.getpid()

    pid = executor.submit(leave_at_work).result()
    assert await_death(pid)
    assert executor.submit(oddities.add, 1).result() == 1


def test_a_death_in_one_executor_leaves_the_jobs_of_another_alone(
    make_local: MakeLocal, gate: Gate, tmp_path: Path
) -> None:
    one, other = make_local(1), make_local(1)
    bystander = one.submit(meet_and_count, gate.path, str(tmp_path / "starts"), "bystander")
    gate.await_arrival()
    for _ in range(3):
        assert isinstance(other.submit(os._exit, 3).exception(), WorkerDiedError)
    assert bystander.running()
    gate.release()
    assert bystander.result() == "bystander"
    assert lines(tmp_path / "starts") == ["bystander"]


def test_an_executor_within_a_job_is_ended_with_the_job(executor: LocalExecutor, gate: Gate) -> None:
    def own_pool(gate: str) -> None:
        with LocalExecutor(1, spare_workers=0) as inner:
            inner.submit(meet, gate)
            arrive(gate)
            troubles.stay()

    job = executor.submit(own_pool, gate.path)
    pids = gate.await_arrival(2)
    assert job.cancel()
    assert [pid for pid in pids if is_alive(pid)] == []


# --- what jobs do to their process ---


def test_a_job_that_closes_all_descriptors_harms_itself_alone(executor: LocalExecutor, tmp_path: Path) -> None:
    def close_all(path: str) -> None:
        os.closerange(3, 1024)
        # Our number may be a file's now: nothing of ours may come into it.
        for _ in range(64):
            os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)

    file = tmp_path / "file"
    job = executor.submit(close_all, str(file))
    with pytest.raises(WorkerDiedError, match="descriptors"):
        job.result()
    assert file.read_bytes() == b""
    assert executor.submit(oddities.add, 1).result() == 1


def test_a_job_that_writes_to_every_descriptor_harms_itself_alone(executor: LocalExecutor) -> None:
    def write_everywhere() -> None:
        for fd in range(3, 256):
            try:
                os.set_blocking(fd, False)
                os.write(fd, b"\xff" * 40)
            except OSError:
                continue

    job = executor.submit(write_everywhere)
    concurrent.futures.wait([job])
    assert [executor.submit(oddities.add, n).result() for n in range(5)] == list(range(5))


def test_a_child_that_exits_like_a_script_does_not_speak_for_the_worker(executor: LocalExecutor) -> None:
    def fork_and_exit() -> int:
        child = os.fork()
        if child == 0:
            sys.exit(5)  # unwinds through the worker's own code
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    code = executor.submit(fork_and_exit).result()
    assert code != 0
    assert executor.submit(oddities.add, 1).result() == 1


def test_a_child_that_returns_does_not_speak_for_the_worker(executor: LocalExecutor, tmp_path: Path) -> None:
    starts = tmp_path / "returned"

    def fork_and_return() -> str:
        child = os.fork()
        append_line(str(starts), "returned")
        if child == 0:
            return "child"
        os.waitpid(child, 0)
        return "parent"

    assert executor.submit(fork_and_return).result() == "parent"
    assert lines(starts) == ["returned"] * 2
    assert executor.submit(oddities.add, 1).result() == 1


def test_a_job_may_fork_without_the_warning_of_a_threaded_process(executor: LocalExecutor) -> None:
    def fork() -> int:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
        return threading.active_count()

    assert executor.submit(fork).result() == 1


def test_a_job_may_use_multiprocessing(executor: LocalExecutor) -> None:
    def use() -> list[float]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(oddities.add, range(4))

    assert executor.submit(use).result() == [0, 1, 2, 3]


def test_the_workers_standard_input_is_empty(executor: LocalExecutor) -> None:
    assert executor.submit(lambda: sys.stdin.read()).result() == ""


def test_a_sigint_from_elsewhere_does_not_touch_a_job(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.submit(meet, gate.path, "untouched")
    (pid,) = gate.await_arrival()
    os.kill(pid, signal.SIGINT)
    gate.release()
    assert job.result() == "untouched"
    assert job.report().pid == pid


# --- grace ---


def test_with_grace_finally_blocks_run_before_the_end(executor: LocalExecutor, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    job = executor.with_options(grace=60).submit(troubles.clean_up, gate.path, str(path))
    (pid,) = gate.await_arrival()
    assert job.cancel()
    assert lines(path) == ["cleaned"]
    assert not is_alive(pid)
    assert job.cancelled()


def test_without_grace_nothing_runs_before_the_end(executor: LocalExecutor, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    job = executor.submit(troubles.clean_up, gate.path, str(path))
    gate.await_arrival()
    assert job.cancel()
    assert lines(path) == []


def test_a_swallowed_interrupt_is_followed_by_the_end(executor: LocalExecutor, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    job = executor.with_options(grace=0.2).submit(troubles.swallow, gate.path, str(path))
    (pid,) = gate.await_arrival()
    assert job.cancel()
    assert lines(path) == ["swallowed"]
    assert not is_alive(pid)


def test_grace_does_not_help_code_that_holds_the_interpreter_lock(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.with_options(grace=0.1).submit(troubles.hold_lock, gate.path)
    (pid,) = gate.await_arrival()
    assert job.cancel()
    assert not is_alive(pid)


def test_a_job_that_ends_well_in_its_grace_is_still_cancelled(executor: LocalExecutor, gate: Gate) -> None:
    def defiant(gate: str) -> str:
        try:
            meet(gate)
        except KeyboardInterrupt:
            return "nevertheless"
        return "regularly"

    job = executor.with_options(grace=60).submit(defiant, gate.path)
    gate.await_arrival()
    assert job.cancel()
    assert job.cancelled()


# --- limits and retries ---


@pytest.mark.parametrize(
    "stuck", [meet, troubles.hold_lock, troubles.ignore_signals], ids=["waits", "holds lock", "ignores signals"]
)
def test_a_job_past_its_time_limit_is_ended_and_says_so(executor: LocalExecutor, gate: Gate, stuck: Any) -> None:
    job = executor.with_options(time_limit=0.5).submit(stuck, gate.path)
    (pid,) = gate.await_arrival()
    with pytest.raises(TimeLimitExceeded, match=r"0\.5 s") as info:
        job.result()
    assert not is_alive(pid)
    assert not isinstance(info.value, TimeoutError)
    assert (info.value.limit, info.value.job_id, info.value.pid) == (0.5, job.job_id, pid)
    assert job.status() is JobStatus.ERROR
    report = job.report()
    assert report.cause is not None
    assert "time limit" in report.cause
    assert report.pid == pid


def test_the_time_limit_counts_the_loading_too(executor: LocalExecutor, gate: Gate) -> None:
    job = executor.with_options(time_limit=0.5).submit(oddities.identity, MeetsWhenLoaded(gate.path))
    gate.await_arrival()
    with pytest.raises(TimeLimitExceeded):
        job.result()


def test_the_time_limit_does_not_count_the_queue(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    first = executor.submit(meet, gate.path)
    gate.await_arrival()
    second = executor.with_options(time_limit=0.3).submit(oddities.add, 1)
    other = concurrent.futures.wait([second], timeout=0.5)
    assert not other.done
    gate.release()
    assert second.result() == 1
    first.result()


def test_the_time_limit_ends_children_too(executor: LocalExecutor, gate: Gate) -> None:
    # Long enough for the child to arrive; the job would stay for ever.
    job = executor.with_options(time_limit=2).submit(troubles.with_child, gate.path, "daemon", troubles.stay)
    pids = _both(gate)
    with pytest.raises(TimeLimitExceeded):
        job.result()
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_death_is_retried_as_often_as_asked_and_the_report_says_so(executor: LocalExecutor, tmp_path: Path) -> None:
    path = tmp_path / "starts"
    job = executor.with_options(retries=2).submit(troubles.die_until, str(path), 3)
    assert job.result() == 3
    assert job.report().attempts == 3


def test_after_its_retries_the_job_fails_for_good(executor: LocalExecutor, tmp_path: Path) -> None:
    path = tmp_path / "starts"
    job = executor.with_options(retries=1).submit(troubles.die_until, str(path), 5)
    with pytest.raises(WorkerDiedError):
        job.result()
    assert len(lines(path)) == 2
    assert job.report().attempts == 2


def test_without_retries_a_job_is_started_once(executor: LocalExecutor, tmp_path: Path) -> None:
    path = tmp_path / "starts"
    with pytest.raises(WorkerDiedError):
        executor.submit(troubles.die_until, str(path), 2).result()
    assert len(lines(path)) == 1


def test_named_exceptions_are_retried_and_others_are_not(executor: LocalExecutor, tmp_path: Path) -> None:
    view = executor.with_options(retries=3, retry_on=(ValueError, OSError))
    assert view.submit(troubles.raise_until, str(tmp_path / "a"), 3, ConnectionResetError("subclass")).result() == 3
    with pytest.raises(KeyError):
        view.submit(troubles.raise_until, str(tmp_path / "b"), 3, KeyError()).result()
    assert len(lines(tmp_path / "b")) == 1
    with pytest.raises(ValueError, match="always"):
        view.submit(troubles.raise_until, str(tmp_path / "c"), 9, ValueError("always")).result()
    assert len(lines(tmp_path / "c")) == 4


def test_a_time_limit_is_retried_only_if_named(executor: LocalExecutor, tmp_path: Path) -> None:
    def linger(path: str) -> None:
        append_line(path, "started")
        troubles.stay()

    plain = executor.with_options(retries=1, time_limit=0.5).submit(linger, str(tmp_path / "plain"))
    named = executor.with_options(retries=1, time_limit=0.5, retry_on=TimeLimitExceeded).submit(
        linger, str(tmp_path / "named")
    )
    for job in (plain, named):
        with pytest.raises(TimeLimitExceeded):
            job.result()
    assert len(lines(tmp_path / "plain")) == 1
    assert len(lines(tmp_path / "named")) == 2


def test_a_cancelled_job_is_not_retried(executor: LocalExecutor, gate: Gate, tmp_path: Path) -> None:
    job = executor.with_options(retries=5).submit(meet_and_count, gate.path, str(tmp_path / "starts"), "x")
    gate.await_arrival()
    assert job.cancel()
    assert executor.submit(oddities.add, 1).result() == 1
    assert lines(tmp_path / "starts") == ["x"]
