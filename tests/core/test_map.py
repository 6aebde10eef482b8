"""`map`: ordered results, each delivered once, whatever becomes of single items."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import (
    InlineExecutor,
    JobCancelledError,
    JobTimeoutError,
    LocalExecutor,
    SerializationError,
    TimeLimitExceeded,
    WorkerDiedError,
)
from tests.core import oddities
from tests.core.gates import Gate, append_line, lines, meet
from tests.core.scripts import Script

MakeLocal = Callable[..., LocalExecutor]
Run = Callable[..., Script]


@pytest.fixture(params=["local", "inline"])
def ours(request: pytest.FixtureRequest) -> Any:
    """Our executors, which have `map`."""
    if request.param == "inline":
        return InlineExecutor()
    return request.getfixturevalue("executor")


@pytest.mark.parametrize("chunksize", [None, 1, 3, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_results_come_in_the_order_of_the_items(ours: Any, count: int, chunksize: int | None) -> None:
    assert list(ours.map(pow, range(count), range(count), chunksize=chunksize)) == [n**n for n in range(count)]


def test_as_many_items_as_the_shortest_iterable_has(ours: Any) -> None:
    assert list(ours.map(oddities.add, [1, 2, 3], [10, 20])) == [11, 22]
    assert list(ours.map(oddities.add, [1, 2, 3], itertools.repeat(1))) == [2, 3, 4]


def test_many_tiny_items(executor: LocalExecutor) -> None:
    assert sum(executor.map(abs, range(200_000))) == sum(range(200_000))


@pytest.mark.parametrize(("option", "value"), [("chunksize", 0), ("chunksize", -1), ("buffersize", 0), ("timeout", -1)])
def test_bad_sizes_are_value_errors_at_once(ours: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        ours.map(abs, [1], **{option: value})


@pytest.mark.parametrize(("option", "value"), [("chunksize", 1.5), ("buffersize", "2"), ("timeout", "soon")])
def test_sizes_of_a_wrong_type_are_type_errors_at_once(ours: Any, option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=option):
        ours.map(abs, [1], **{option: value})


def test_a_target_that_is_not_callable_is_refused_at_once(ours: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        ours.map(5, [1])


def test_the_first_error_in_order_is_raised_after_what_comes_before_it(ours: Any) -> None:
    results = ours.map(lambda n: 1 // n, [2, 1, 0, 1])
    assert next(results) == 0
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("chunksize", [None, 1, 2, 10])
def test_errors_stand_in_their_places_if_asked_for(ours: Any, chunksize: int | None) -> None:
    results = list(ours.map(lambda n: 10 // n, [1, 0, 2, 0, 5], chunksize=chunksize, return_exceptions=True))
    assert [result if isinstance(result, int) else type(result) for result in results] == [
        10, ZeroDivisionError, 5, ZeroDivisionError, 2,
    ]  # fmt: skip


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_items_that_cannot_cross_fail_alone(ours: Any, chunksize: int | None) -> None:
    items = [1, oddities.Unpicklable(), 2, oddities.Unloadable(), 3]
    results = list(ours.map(oddities.identity, items, chunksize=chunksize, return_exceptions=True))
    assert [result if isinstance(result, int) else type(result) for result in results] == [
        1, SerializationError, 2, SerializationError, 3,
    ]  # fmt: skip


def _odd_result(number: int) -> Any:
    return {1: oddities.Unpicklable(), 3: oddities.Unloadable()}.get(number, number)


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_results_that_cannot_cross_fail_alone(ours: Any, chunksize: int | None) -> None:
    results = list(ours.map(_odd_result, range(5), chunksize=chunksize, return_exceptions=True))
    assert [result if isinstance(result, int) else type(result) for result in results] == [
        0, SerializationError, 2, SerializationError, 4,
    ]  # fmt: skip


def _die_at(path: str, number: int, fatal: int) -> int:
    append_line(path, number)
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("chunksize", [1, 4, 100])
def test_the_item_whose_worker_dies_fails_alone(executor: LocalExecutor, tmp_path: Path, chunksize: int) -> None:
    path = str(tmp_path / "starts")
    items = range(20)
    results = list(executor.map(_die_at, [path] * 20, items, [7] * 20, chunksize=chunksize, return_exceptions=True))
    assert [result for result in results if isinstance(result, int)] == [n for n in items if n != 7]
    assert isinstance(results[7], WorkerDiedError)
    assert results[7].signal == signal.SIGKILL
    starts = Counter(map(int, lines(tmp_path / "starts")))
    assert starts[7] == 1
    if chunksize == 1:
        assert set(starts.values()) == {1}


def test_an_item_past_its_time_limit_fails_alone(executor: LocalExecutor, gate: Gate) -> None:
    def wait_at(number: int, gate: str) -> int:
        if number == 2:
            meet(gate)
        return number

    results = list(
        executor.with_options(time_limit=1).map(wait_at, range(5), [gate.path] * 5, chunksize=5, return_exceptions=True)
    )
    assert [result for result in results if isinstance(result, int)] == [0, 1, 3, 4]
    assert isinstance(results[2], TimeLimitExceeded)


def test_items_are_retried_by_themselves(executor: LocalExecutor, tmp_path: Path) -> None:
    path = tmp_path / "starts"

    def fail_once(number: int) -> int:
        append_line(str(path), number)
        if number == 3 and lines(path).count("3") < 2:
            raise ValueError
        return number

    view = executor.with_options(retries=1, retry_on=ValueError)
    assert list(view.map(fail_once, range(6), chunksize=6)) == list(range(6))
    assert Counter(lines(path)) == {**{str(n): 1 for n in range(6)}, "3": 2}


def test_a_buffer_bounds_what_is_taken_ahead(ours: Any) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = ours.map(abs, numbers(), buffersize=3)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(taken) <= 14
    results.close()


def test_an_unfinished_map_with_a_buffer_does_not_keep_a_with_block_open() -> None:
    with LocalExecutor(1, spare_workers=0) as executor:
        results = executor.map(abs, range(10), buffersize=2)
        assert next(results) == 0
    del results


def test_items_may_run_before_anybody_asks_for_a_result(executor: LocalExecutor, gate: Gate) -> None:
    results = executor.map(meet, [gate.path] * 2, [1, 2], chunksize=1)
    gate.await_arrival(2)
    gate.release(2)
    assert list(results) == [1, 2]


def test_a_timeout_raises_job_timeout_error_and_cancels_what_is_left(executor: LocalExecutor, gate: Gate) -> None:
    results = executor.map(meet, [gate.path] * 3, range(3), chunksize=1, timeout=0.5)
    gate.await_arrival(2)
    with pytest.raises(JobTimeoutError) as info:
        list(results)
    assert isinstance(info.value, concurrent.futures.TimeoutError)
    executor.submit(oddities.add, 1).result()


def test_closing_the_iterator_cancels_what_is_left(make_local: MakeLocal, gate: Gate, tmp_path: Path) -> None:
    executor = make_local(1)
    path = tmp_path / "starts"

    def note(number: int, gate: str) -> int:
        append_line(str(path), number)
        if number == 1:
            meet(gate)
        return number

    results = executor.map(note, range(100), [gate.path] * 100, chunksize=1)
    assert next(results) == 0
    gate.await_arrival()
    results.close()  # type: ignore[attr-defined]
    assert executor.submit(oddities.add, 1).result() == 1
    assert lines(path) == ["0", "1"]


def test_shutdown_with_cancel_futures_stops_a_map(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    results = executor.map(meet, [gate.path] * 10, range(10), chunksize=1, return_exceptions=True)
    gate.await_arrival()
    executor.shutdown(wait=False, kill_workers=True)
    outcomes = list(results)
    assert len(outcomes) == 10
    assert {type(outcome) for outcome in outcomes} == {JobCancelledError}


def test_an_iterable_that_raises_raises_from_map(executor: LocalExecutor) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        list(executor.map(abs, numbers()))
    assert executor.submit(oddities.add, 1).result() == 1


def test_two_maps_side_by_side(executor: LocalExecutor) -> None:
    one, other = executor.map(abs, range(500)), executor.map(abs, range(500, 1000))
    assert list(zip(one, other, strict=True)) == list(zip(range(500), range(500, 1000), strict=True))


def test_a_map_within_a_job_runs_in_line(executor: LocalExecutor) -> None:
    def use() -> list[int]:
        from jobrunner import get_executor

        return list(get_executor().map(abs, [-1, -2]))

    assert executor.submit(use).result() == [1, 2]


def test_a_map_that_is_consumed_to_its_end_ends_no_worker(make_local: MakeLocal) -> None:
    executor = make_local(2)
    for _ in range(10):
        # Each item is sent by itself, for it takes longer than results are kept back.
        assert list(executor.map(time.sleep, [0.006] * 6, chunksize=3)) == [None] * 6
    stats = executor.stats()
    assert (stats["cancelled"], stats["restarts"]) == (0, 0)


def test_a_program_that_ends_right_after_its_first_map_has_all_items_run(script: Run, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    script(f"""
from jobrunner import LocalExecutor
from tests.core.gates import append_line
if __name__ == "__main__":
    executor = LocalExecutor(2)
    executor.map(append_line, [{str(noted)!r}] * 20, range(20))
""").check()
    assert sorted(map(int, lines(noted))) == list(range(20))
