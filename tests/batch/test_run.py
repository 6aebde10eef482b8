"""Running points: every point has one outcome, failures stay with their point, and a stop ends what runs."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobrunner import WorkerDiedError
from jobrunner.batch import Outcome, OutcomeStatus, Seeding, StopRequest, run_points, sweep
from jobrunner.batch.seeds import point_seed

Executor = concurrent.futures.Executor


class ManualExecutor(concurrent.futures.Executor):
    """Holds what is submitted until the test ends it; cancelling ends a running job, as LocalExecutor does."""

    _max_workers = 1

    def __init__(self) -> None:
        self.futures: list[concurrent.futures.Future[Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.cancelled: list[int] = []
        self.submitted = threading.Semaphore(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        executor, index = self, len(self.futures)

        class Future(concurrent.futures.Future[Any]):
            def cancel(self) -> bool:
                executor.cancelled.append(index)
                return super().cancel()

        future = Future()
        self.futures.append(future)
        self.calls.append(kwargs)
        self.submitted.release()
        return future


@pytest.fixture
def threads() -> Iterator[Executor]:
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        yield executor


def inverse(x: int) -> float:
    return 1 / x


def test_each_point_has_one_outcome_and_failures_stay_with_theirs(threads: Executor) -> None:
    outcomes: list[Outcome] = []
    summary = run_points(inverse, sweep(x=range(100)), threads, on_outcome=outcomes.append)
    assert (summary.total, summary.done, summary.failed, summary.cancelled) == (100, 99, 1, 0)
    by_index = {outcome.index: outcome for outcome in outcomes}
    assert sorted(by_index) == list(range(100))
    assert by_index[0].status is OutcomeStatus.FAILED
    assert by_index[0].cause == "ZeroDivisionError: division by zero"
    assert all(by_index[x].value == 1 / x and by_index[x].parameters == {"x": x} for x in range(1, 100))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_out_of_a_job_is_that_jobs_failure(kind: type[BaseException]) -> None:
    executor = ManualExecutor()
    outcomes: list[Outcome] = []

    def end() -> None:
        executor.submitted.acquire()
        executor.futures[0].set_exception(kind())

    ending = threading.Thread(target=end)
    ending.start()
    summary = run_points(inverse, sweep(x=[1]), executor, on_outcome=outcomes.append)
    ending.join()
    assert summary.failed == 1
    assert outcomes[0].cause == kind.__name__


def test_outcomes_are_told_on_the_calling_thread(threads: Executor) -> None:
    seen: set[int] = set()
    run_points(inverse, sweep(x=[1, 2, 3]), threads, on_outcome=lambda outcome: seen.add(threading.get_ident()))
    assert seen == {threading.get_ident()}


def test_only_so_many_jobs_are_under_way_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.batch.run._AHEAD_MOST", 5)
    executor = ManualExecutor()
    under_way: list[int] = []

    def work() -> None:
        for i in range(50):
            executor.submitted.acquire()
            under_way.append(sum(not future.done() for future in executor.futures))
            executor.futures[i].set_result(i)

    worker = threading.Thread(target=work)
    worker.start()
    summary = run_points(inverse, sweep(x=range(50)), executor)
    worker.join()
    assert summary.done == 50
    assert max(under_way) <= 5


def test_a_stop_cancels_the_last_submitted_first_and_starts_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.batch.run._AHEAD_PER_WORKER", 3)
    executor = ManualExecutor()
    stop = StopRequest()

    def work() -> None:
        for _ in range(4):
            executor.submitted.acquire()
        executor.futures[0].set_result(0)
        stop.request()

    worker = threading.Thread(target=work)
    worker.start()
    outcomes: list[Outcome] = []
    summary = run_points(inverse, sweep(x=range(50)), executor, stop=stop, on_outcome=outcomes.append)
    worker.join()
    assert executor.cancelled == [3, 2, 1]
    assert (summary.done, summary.failed, summary.cancelled) == (1, 0, 49)
    assert [outcome.status for outcome in outcomes].count(OutcomeStatus.CANCELLED) == 3


def test_a_stop_within_an_outcome_is_a_stop(threads: Executor) -> None:
    stop = StopRequest()
    summary = run_points(
        inverse, sweep(x=range(1, 10_000)), threads, stop=stop, on_outcome=lambda outcome: stop.request()
    )
    assert 1 <= summary.done < 1000
    assert summary.done + summary.cancelled == 9999


def test_what_an_outcome_raises_ends_the_run_and_cancels_what_is_under_way() -> None:
    executor = ManualExecutor()

    def work() -> None:
        for _ in range(3):
            executor.submitted.acquire()
        executor.futures[0].set_result(0)

    def fail(outcome: Outcome) -> None:
        raise OSError("disk full")

    worker = threading.Thread(target=work)
    worker.start()
    with pytest.raises(OSError, match="disk full"):
        run_points(inverse, sweep(x=range(3)), executor, on_outcome=fail)
    worker.join()
    assert all(future.cancelled() for future in executor.futures[1:])


def test_an_executor_that_was_shut_down_raises() -> None:
    executor = concurrent.futures.ThreadPoolExecutor()
    executor.shutdown()
    with pytest.raises(RuntimeError):
        run_points(inverse, sweep(x=[1]), executor)


def takes_seed(x: int, seed: int) -> tuple[int, int]:
    return x, seed


def test_seeds_do_not_depend_on_workers_or_order() -> None:
    def run(workers: int, values: list[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        points = sweep(x=values)
        seeding = Seeding.of(takes_seed, points.names, seed=5)
        with concurrent.futures.ThreadPoolExecutor(workers) as executor:
            run_points(
                takes_seed,
                points,
                executor,
                seeding=seeding,
                on_outcome=lambda outcome: found.update([outcome.value]),
            )
        return found

    assert run(1, list(range(20))) == run(4, list(range(19, -1, -1)))
    assert run(1, [3])[3] == point_seed(5, {"x": 3})


def test_a_report_comes_along_where_the_future_has_one() -> None:
    class Reported(concurrent.futures.Future[Any]):
        def report(self) -> str:
            return "the report"

    class Reporting(concurrent.futures.Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Reported:
            future = Reported()
            future.set_result(fn(*args, **kwargs))
            return future

    outcomes: list[Outcome] = []
    run_points(inverse, sweep(x=[1]), Reporting(), on_outcome=outcomes.append)
    assert outcomes[0].report == "the report"  # type: ignore[comparison-overlap]


class _LostFuture(concurrent.futures.Future[None]):
    """A job whose node is lost when it is to be cancelled."""

    def cancel(self) -> bool:
        if not self.done():
            self.set_exception(WorkerDiedError("node n was lost while it had the job"))
        return False


class _LosingExecutor(concurrent.futures.Executor):
    """Asks for a stop when it has a few jobs."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self.jobs = 0

    def submit(self, *_: Any, **__: Any) -> concurrent.futures.Future[Any]:
        self.jobs += 1
        if self.jobs == 3:
            self._stop.request()
        return _LostFuture()


def test_a_point_whose_node_is_lost_while_it_is_being_ended_has_not_failed() -> None:
    stop = StopRequest()
    executor = _LosingExecutor(stop)
    outcomes: list[Outcome] = []
    summary = run_points(inverse, sweep(x=range(10)), executor, stop=stop, on_outcome=outcomes.append)
    assert (summary.done, summary.failed, summary.cancelled) == (0, 0, 10)
    assert executor.jobs == 3
    assert [outcome.status for outcome in outcomes] == [OutcomeStatus.CANCELLED] * 3
