"""What CPython's own tests (test.test_concurrent_futures) and loky's ask of an executor of processes, on LocalExecutor.

Adapted from test_executor.py, test_wait.py, test_as_completed.py, test_deadlock.py, test_shutdown.py, and from loky's
_executor_mixin and _test_process_executor.
"""

from __future__ import annotations

import concurrent.futures as futures
import gc
import itertools
import os
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from jobrunner import LocalExecutor, SerializationError, WorkerDiedError
from tests.core import oddities
from tests.core.gates import Gate, meet, meet_and_raise
from tests.core.process_table import is_alive

MakeLocal = Callable[..., LocalExecutor]


def capture(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


class MyObject:
    """Has a method to be run, and can be weakly referred to."""

    def my_method(self) -> None:
        """Does nothing."""

    def value(self) -> int:
        return 7


# --- submit and map (test_executor.py) ---


def test_submit(executor: LocalExecutor) -> None:
    assert executor.submit(pow, 2, 8).result() == 256


def test_submit_keyword(executor: LocalExecutor) -> None:
    assert executor.submit(oddities.add, 2, b=8).result() == 10
    expected = ((1,), {"self": 2, "fn": 3})
    assert executor.submit(capture, 1, self=2, fn=3).result() == expected
    with pytest.raises(TypeError):
        executor.submit(fn=capture, arg=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        executor.submit(arg=1)  # type: ignore[call-arg]


def test_map(executor: LocalExecutor) -> None:
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(10), chunksize=3)) == list(map(pow, range(10), range(10)))


def test_map_exception(executor: LocalExecutor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_submits_without_iteration(executor: LocalExecutor, gate: Gate) -> None:
    results = executor.map(meet, itertools.repeat(gate.path, 2), range(2), chunksize=1)
    gate.await_arrival(2)
    gate.release(2)
    assert list(results) == [0, 1]


def test_submit_of_a_bound_method(executor: LocalExecutor) -> None:
    assert executor.submit(MyObject().value).result() == 7


def test_no_stale_references(executor: LocalExecutor) -> None:
    """A job's function and its object are not kept alive by the executor."""
    thing = MyObject()
    collected = threading.Event()
    kept = weakref.ref(thing, lambda _: collected.set())
    executor.submit(thing.my_method).result()
    del thing
    gc.collect()
    assert collected.is_set()
    assert kept() is None


def test_free_reference(executor: LocalExecutor) -> None:
    """The results of map are not kept by its iterator."""
    for thing in executor.map(_make_object, range(10)):
        kept = weakref.ref(thing)
        del thing
        gc.collect()
        assert kept() is None


def _make_object(_: int) -> MyObject:
    return MyObject()


def test_max_workers_negative() -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_workers"):
            LocalExecutor(max_workers=number)


def test_a_future_among_the_arguments_is_no_deadlock(executor: LocalExecutor) -> None:
    """A future is no job handle: that it can't be sent is told."""
    future = executor.submit(oddities.add, 1)
    assert isinstance(executor.submit(oddities.identity, future).exception(timeout=60), SerializationError)


def test_the_remote_traceback_is_shown(executor: LocalExecutor) -> None:
    future = executor.submit(oddities.raise_chained)
    with pytest.raises(ValueError, match="outer") as info:
        future.result()
    assert type(info.value) is ValueError
    assert "raise ValueError" in str(info.value.__cause__)


def test_saturation(executor: LocalExecutor, gate: Gate) -> None:
    """More jobs than workers, all waiting for the same."""
    jobs = [executor.submit(meet, gate.path) for _ in range(20)]
    gate.release(20)
    gate.await_arrival(20)
    assert futures.wait(jobs).not_done == set()


def test_idle_workers_are_reused(make_local: MakeLocal) -> None:
    executor = make_local(4)
    for _ in range(10):
        executor.submit(oddities.add, 1).result()
    assert executor.stats()["workers"] == 1


# --- wait and as_completed (test_wait.py, test_as_completed.py) ---


def _finished(value: int = 1) -> futures.Future[int]:
    future: futures.Future[int] = futures.Future()
    future.set_result(value)
    return future


def _all(*some: futures.Future[Any]) -> list[futures.Future[Any]]:
    return list(some)


def _pending() -> futures.Future[int]:
    return futures.Future()


def test_wait_first_completed_mixed_with_foreign_futures(executor: LocalExecutor, gate: Gate) -> None:
    ours = executor.submit(meet, gate.path)
    gate.await_arrival()
    foreign, never = _finished(), _pending()
    done, not_done = futures.wait(_all(foreign, ours, never), return_when=futures.FIRST_COMPLETED)
    assert (done, not_done) == ({foreign}, {ours, never})
    gate.release()
    done, not_done = futures.wait(_all(ours, never), return_when=futures.FIRST_COMPLETED)
    assert (done, not_done) == ({ours}, {never})


def test_wait_first_exception_one_already_failed(executor: LocalExecutor) -> None:
    failed = executor.submit(oddities.raise_error, ValueError())
    failed.exception()
    never = _pending()
    done, not_done = futures.wait(_all(failed, never), return_when=futures.FIRST_EXCEPTION)
    assert (done, not_done) == ({failed}, {never})


def test_wait_first_exception_some_already_complete(executor: LocalExecutor, gate: Gate) -> None:
    fine, late = executor.submit(oddities.add, 1), executor.submit(meet_and_raise, gate.path, ValueError())
    never = _pending()
    gate.release()
    done, not_done = futures.wait(_all(fine, late, never), return_when=futures.FIRST_EXCEPTION)
    assert late in done
    assert never in not_done


def test_wait_all_completed_with_a_cancelled_one(executor: LocalExecutor, gate: Gate) -> None:
    running = executor.submit(meet, gate.path)
    gate.await_arrival()
    with futures.ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(futures.wait, [running, _finished()], None, futures.ALL_COMPLETED)
        running.cancel()
        assert waiting.result().not_done == set()


def test_wait_timeout(executor: LocalExecutor, gate: Gate) -> None:
    late = executor.submit(meet, gate.path)
    done, not_done = futures.wait([_finished(), late], timeout=0.05)
    assert not_done == {late}
    assert len(done) == 1
    gate.release()
    late.result()


def test_as_completed_zero_timeout(executor: LocalExecutor, gate: Gate) -> None:
    late, finished = executor.submit(meet, gate.path), _finished()
    seen = []
    with pytest.raises(futures.TimeoutError):
        for future in futures.as_completed([finished, late], timeout=0):
            seen.append(future)  # noqa: PERF402 (what was yielded before it raised)
    assert seen == [finished]
    gate.release()
    late.result()


def test_as_completed_duplicate_futures(executor: LocalExecutor) -> None:
    future = executor.submit(oddities.add, 1)
    assert list(futures.as_completed([future, future])) == [future]


def test_as_completed_frees_references_to_yielded_futures(executor: LocalExecutor) -> None:
    pending = [executor.submit(oddities.add, n) for n in range(5)]
    futures.wait(pending)
    completed = futures.as_completed(list(pending))
    pending.clear()
    for future in completed:
        kept = weakref.ref(future)
        del future
        gc.collect()
        assert kept() is None


# --- crashes and pickling (test_deadlock.py): each ends, and the executor works on ---


class CrashAtPickle:
    """Ends the process that pickles it, if that is a worker."""

    def __reduce__(self) -> Any:
        from jobrunner.role import is_worker

        if is_worker():
            os.kill(os.getpid(), signal.SIGKILL)
        return CrashAtPickle, ()


class ExitAtPickle:
    """Raises SystemExit in the worker that pickles it."""

    def __reduce__(self) -> Any:
        raise SystemExit(1)


class ErrorAtPickle:
    """Can't be pickled."""

    def __reduce__(self) -> Any:
        raise ValueError("error at pickle")


@pytest.mark.parametrize("function", [
    ("crash in the function", oddities.segfault), ("exit in the function", lambda: os._exit(1)),
    ("crash at pickling the result", CrashAtPickle), ("exit at pickling the result", ExitAtPickle),
    ("error at pickling the result", ErrorAtPickle), ("error at unpickling the result", oddities.Unloadable),
    ("crash at unpickling the result", oddities.ExitsWhenLoaded),
], ids=lambda case: case[0])  # fmt: skip
@pytest.mark.parametrize("shutting_down", [False, True], ids=["", "during shutdown"])
def test_no_deadlock(make_local: MakeLocal, function: tuple[str, Callable[[], Any]], shutting_down: bool) -> None:
    executor = make_local(2)
    others = [executor.submit(oddities.add, n) for n in range(4)]
    future = executor.submit(function[1])
    after = [executor.submit(oddities.add, n) for n in range(4)]
    if shutting_down:
        executor.shutdown(wait=False)
    assert future.exception(timeout=60) is not None
    assert [one.result(timeout=60) for one in others + after] == [0, 1, 2, 3] * 2
    executor.shutdown()


@pytest.mark.parametrize("argument", [
    oddities.Unpicklable(), oddities.Unloadable(), oddities.ExitsWhenLoaded(),
], ids=lambda argument: type(argument).__name__)  # fmt: skip
def test_no_deadlock_by_an_argument(make_local: MakeLocal, argument: Any) -> None:
    executor = make_local(1)
    assert executor.submit(oddities.identity, argument).exception(timeout=60) is not None
    assert executor.submit(oddities.add, 1).result(timeout=60) == 1


def test_a_killed_worker_fails_the_job_it_ran_only(executor: LocalExecutor, gate: Gate) -> None:
    future = executor.submit(meet, gate.path)
    (pid,) = gate.await_arrival()
    other = executor.submit(oddities.add, 1)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(futures.BrokenExecutor):
        future.result(timeout=60)
    assert other.result(timeout=60) == 1
    assert executor.submit(oddities.add, 2).result(timeout=60) == 2


def test_a_killed_idle_worker_is_noticed_by_nobody(make_local: MakeLocal) -> None:
    executor = make_local(1)
    pid = executor.submit(os.getpid).result()
    os.kill(pid, signal.SIGKILL)
    assert executor.submit(os.getpid).result(timeout=60) != pid
    assert not is_alive(pid)


def test_deaths_one_after_another_are_survived(make_local: MakeLocal) -> None:
    executor = make_local(1)
    for _ in range(6):
        assert isinstance(executor.submit(os._exit, 1).exception(timeout=60), WorkerDiedError)
    assert executor.submit(oddities.add, 1).result(timeout=60) == 1


def test_many_large_results_and_arguments_at_once(executor: LocalExecutor) -> None:
    """More than the channels hold in both directions, while both sides write."""
    jobs = [executor.submit(oddities.identity, bytes(2_000_000)) for _ in range(20)]
    assert all(len(job.result(timeout=60)) == 2_000_000 for job in jobs)


# --- shutdown (test_shutdown.py) ---


def test_run_after_shutdown(make_local: MakeLocal) -> None:
    executor = make_local(1)
    executor.shutdown()
    with pytest.raises(RuntimeError):
        executor.submit(pow, 2, 5)


def test_hang_of_a_future_after_the_executor_is_dropped() -> None:
    future = LocalExecutor(1, spare_workers=0).submit(abs, -5)
    gc.collect()
    assert future.result(timeout=60) == 5


def test_threads_and_processes_terminate(make_local: MakeLocal) -> None:
    executor = make_local(2)
    pids = {executor.submit(os.getpid).result() for _ in range(5)}
    executor.shutdown()
    assert [pid for pid in pids if is_alive(pid)] == []


def test_context_manager_shutdown() -> None:
    with LocalExecutor(1, spare_workers=0) as executor:
        assert list(executor.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    assert executor.stats()["workers"] == 0
