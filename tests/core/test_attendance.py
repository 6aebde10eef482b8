"""A thread that waits for a job that is alone in its lane listens to the lane itself, and nobody sees a difference."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import JobCancelledError, JobFuture, JobTimeoutError, LocalExecutor, TimeLimitExceeded, WorkerDiedError
from jobrunner.executors.attendant import CAN_ATTEND, Attendant, signals_postponed
from tests.core.gates import Gate, arrive_and_stay, meet
from tests.core.oddities import identity
from tests.core.process_table import await_death
from tests.core.scripts import Script
from tests.core.troubles import arrive_and_exit, die_until, raise_until

pytestmark = pytest.mark.skipif(not CAN_ATTEND, reason="the system has no poll")

MakeLocal = Callable[..., LocalExecutor]
Run = Callable[..., Script]

_PROGRAM = """
import sys
from tests.core import attendance_jobs
if __name__ == "__main__":
    getattr(attendance_jobs, sys.argv[1])(*map(int, sys.argv[2:]))
"""


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set as soon as a thread has begun to listen to a lane."""
    began = threading.Event()
    wait = Attendant.wait

    def noted(self: Attendant, *args: Any) -> bool:
        began.set()
        return wait(self, *args)

    monkeypatch.setattr(Attendant, "wait", noted)
    yield began


class Waiter:
    """A thread that waits for a job, and what it got."""

    def __init__(self, future: JobFuture[Any], timeout: float | None = None) -> None:
        self._got: list[Any] = []
        self._future = future
        self._timeout = timeout
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def _wait(self) -> None:
        try:
            self._got.append(self._future.result(self._timeout))
        except BaseException as error:
            self._got.append(error)

    def got(self) -> Any:
        self._thread.join()
        return self._got[0]


_PUT_BACK = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the signal handlers back."""
    before = {number: signal.getsignal(number) for number in _PUT_BACK}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Results


def test_many_threads_get_the_results_of_their_own_jobs(executor: LocalExecutor) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        source = random.Random(seed)
        for number in range(150):
            jobs = [executor.submit(identity, (seed, number, index)) for index in range(source.choice((1, 1, 1, 3)))]
            found = [job.result() for job in jobs]
            if found != [(seed, number, index) for index in range(len(jobs))]:
                wrong.append((seed, number, found))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_many_threads_wait_for_one_job(make_local: MakeLocal, gate: Gate, attended: threading.Event) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    attended.clear()
    job = executor.submit(meet, gate.path, "met")
    gate.await_arrival()
    waiters = [Waiter(job) for _ in range(5)]
    assert attended.wait(30)
    gate.release()
    assert [waiter.got() for waiter in waiters] == ["met"] * 5


def test_more_jobs_come_while_a_lane_is_attended(make_local: MakeLocal, gate: Gate, attended: threading.Event) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    attended.clear()
    waiter = Waiter(executor.submit(meet, gate.path, "first"))
    gate.await_arrival()
    assert attended.wait(30)
    others = [executor.submit(identity, number) for number in range(50)]
    mapped = executor.map(identity, range(50))
    gate.release()
    assert waiter.got() == "first"
    assert [other.result() for other in others] == list(mapped) == list(range(50))


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05])
def test_a_wait_runs_out_while_its_job_goes_on(make_local: MakeLocal, gate: Gate, seconds: float) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    job = executor.submit(meet, gate.path, "met")
    gate.await_arrival()
    for _ in range(10):
        with pytest.raises(JobTimeoutError):
            job.result(timeout=seconds)
    gate.release()
    assert job.result(timeout=30) == "met"
    assert executor.submit(identity, 2).result(timeout=30) == 2


def test_a_job_is_cancelled_while_a_thread_attends_it(
    make_local: MakeLocal, make_gate: Callable[[], Gate], attended: threading.Event
) -> None:
    executor = make_local(1)
    for _ in range(3):
        gate = make_gate()
        executor.submit(abs, 1).result()
        attended.clear()
        job = executor.submit(arrive_and_stay, gate.path)
        waiter = Waiter(job)
        gate.await_arrival()
        assert attended.wait(30)
        assert job.cancel()
        assert isinstance(waiter.got(), JobCancelledError)
    assert executor.submit(identity, 2).result() == 2


def test_a_worker_is_killed_while_a_thread_attends_it(
    make_local: MakeLocal, gate: Gate, attended: threading.Event
) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    attended.clear()
    job = executor.submit(arrive_and_stay, gate.path)
    waiter = Waiter(job)
    (pid,) = gate.await_arrival()
    assert attended.wait(30)
    os.kill(pid, signal.SIGKILL)
    error = waiter.got()
    assert isinstance(error, WorkerDiedError)
    assert error.signal == signal.SIGKILL
    assert await_death(pid)
    assert executor.submit(identity, 2).result() == 2


def test_a_time_limit_ends_an_attended_job(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    job = executor.with_options(time_limit=0.2).submit(arrive_and_stay, gate.path)
    with pytest.raises(TimeLimitExceeded):
        job.result(30)
    graceful = executor.with_options(time_limit=0.2, grace=5.0).submit(arrive_and_stay, gate.path)
    with pytest.raises(TimeLimitExceeded):
        graceful.result(30)
    assert executor.submit(identity, 2).result() == 2


def test_attended_jobs_are_retried(make_local: MakeLocal, tmp_path: Path) -> None:
    executor = make_local(1, retries=5, retry_on=ValueError)
    executor.submit(abs, 1).result()
    assert executor.submit(die_until, str(tmp_path / "deaths"), 3).result(30) == 3
    assert executor.submit(raise_until, str(tmp_path / "errors"), 3, ValueError("again")).result(30) == 3


@pytest.mark.parametrize("kill", [False, True])
def test_an_executor_is_shut_down_while_a_lane_is_attended(
    make_local: MakeLocal, gate: Gate, attended: threading.Event, kill: bool
) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    attended.clear()
    waiter = Waiter(executor.submit(meet, gate.path, "met"))
    gate.await_arrival()
    assert attended.wait(30)
    executor.shutdown(wait=False, kill_workers=kill)
    if kill:
        assert isinstance(waiter.got(), JobCancelledError)
    else:
        gate.release()
        assert waiter.got() == "met"
    executor.shutdown()


def test_what_a_job_prints_comes_before_its_result(make_local: MakeLocal) -> None:
    executor = make_local(1, capture_output=True)
    for number in range(50):
        job = executor.submit(print, f"job {number}")
        job.result()
        assert job.report().stdout_tail == f"job {number}\n"


def test_a_job_that_leaves_the_channel_open_or_closes_it_ends_with_its_worker(
    make_local: MakeLocal, gate: Gate
) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    with pytest.raises(WorkerDiedError):
        executor.submit(arrive_and_exit, gate.path, 3).result(30)
    job = executor.submit(os.closerange, 3, 1000)
    with pytest.raises(WorkerDiedError):
        job.result(30)
    assert executor.submit(identity, 2).result(30) == 2


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM, signal.SIGVTALRM, signal.SIGCHLD])
def test_hundreds_of_signals_at_any_moment_lose_nothing(script: Run, number: int) -> None:
    script(_PROGRAM, "interrupted_at_random", 300, int(number), 1).check(30)


def test_a_timer_that_raises_at_any_moment_leaves_every_handler_as_it_was(script: Run) -> None:
    # Nor is anything left unclosed, which the development mode would tell.
    script(_PROGRAM, "timer_at_random", 500, 1, options=("-X", "dev")).check()


def test_a_signal_ends_the_wait_at_once(
    make_local: MakeLocal, gate: Gate, attended: threading.Event, handlers: None
) -> None:
    # A program that a shell runs in the background begins with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    executor = make_local(1)
    executor.submit(abs, 1).result()
    job = executor.submit(meet, gate.path, "met")
    gate.await_arrival()
    attended.clear()

    def interrupt() -> None:
        attended.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        job.result(60)
    thread.join()
    gate.release()
    assert job.result() == "met"


def test_a_handler_may_wait_for_other_jobs_of_the_executor(
    make_local: MakeLocal, make_gate: Callable[[], Gate], attended: threading.Event, handlers: None
) -> None:
    executor = make_local(2)
    executor.submit(abs, 1).result()
    gate = make_gate()
    found: list[int] = []

    def handle(*_: object) -> None:
        found.append(executor.submit(identity, 7).result(30))
        found.extend(executor.map(identity, [8, 9]))
        gate.release()

    signal.signal(signal.SIGUSR1, handle)
    job = executor.submit(meet, gate.path, "met")
    gate.await_arrival()
    attended.clear()

    def interrupt() -> None:
        attended.wait(30)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert job.result(60) == "met"
    thread.join()
    assert found == [7, 8, 9]


def test_a_handler_may_cancel_the_job_that_is_waited_for(
    make_local: MakeLocal, gate: Gate, attended: threading.Event, handlers: None
) -> None:
    executor = make_local(1)
    executor.submit(abs, 1).result()
    job = executor.submit(arrive_and_stay, gate.path)
    gate.await_arrival()
    signal.signal(signal.SIGTERM, lambda *_: job.cancel())
    attended.clear()

    def interrupt() -> None:
        attended.wait(30)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(JobCancelledError):
        job.result(60)
    thread.join()


class _FromHandlerError(Exception):
    pass


def test_every_signal_that_came_is_handled_though_a_handler_raises(handlers: None) -> None:
    handled: list[int] = []

    def fail(number: int, _: object) -> None:
        handled.append(number)
        raise _FromHandlerError

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, fail)
    signal.signal(signal.SIGUSR2, lambda number, _: handled.append(number))
    with pytest.raises(_FromHandlerError), signals_postponed(lambda: None):
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert handled == []
    assert sorted(handled) == sorted([signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])


def test_a_handlers_own_error_does_not_become_the_result(executor: LocalExecutor, handlers: None) -> None:
    def fail(*_: object) -> None:
        raise _FromHandlerError

    signal.signal(signal.SIGUSR1, fail)
    job: JobFuture[Any] = executor.submit(_SignalsWhenLoaded, os.getpid())
    with pytest.raises(_FromHandlerError):
        job.result(30)
    assert job.result(30) == "loaded"


class _SignalsWhenLoaded:
    """Its first unpickling in a process is met by a signal there."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __reduce__(self) -> Any:
        return _load, (self.pid,)


_loads: list[int] = []


def _load(pid: int) -> str:
    _loads.append(pid)
    if pid == os.getpid() and len(_loads) == 1:
        os.kill(pid, signal.SIGUSR1)
    return "loaded"


# Nothing beside it


def test_an_idle_executor_wakes_nobody_up(script: Run) -> None:
    script(_PROGRAM, "idle_after_use").check()


def test_threads_that_waited_leave_no_descriptors(make_local: MakeLocal) -> None:
    executor = make_local(2)

    def work() -> None:
        for _ in range(20):
            executor.submit(abs, 1).result()

    seen = []
    for _ in range(3):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen.append(len(os.listdir("/proc/self/fd")))
    assert seen[-1] <= seen[0] + 2 * 8
    before = len(os.listdir("/proc/self/fd"))
    executor.shutdown()
    assert len(os.listdir("/proc/self/fd")) < before
