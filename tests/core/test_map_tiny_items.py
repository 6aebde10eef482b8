"""`map` of items so short that many are run together: each is still a job of its own to whoever looks."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import random
import signal
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import LocalExecutor, MemoryLimitExceeded, SerializationError, TimeLimitExceeded, WorkerDiedError
from jobrunner.executors import chunked_map
from tests.core import oddities
from tests.core.gates import Gate, append_line, await_release, lines, meet_and_count

MakeLocal = Callable[..., LocalExecutor]

COUNT = 5000
# Where something happens: at both ends of the items, and among others, also one right after another.
PLACES = (0, 1, 2500, 2501, 4999)

chunksizes = pytest.mark.parametrize("chunksize", [None, COUNT, 100_000, 7])


def _at(places: tuple[int, ...], path: str, action: Callable[[], Any], number: int) -> Any:
    """The number; at some places its start is noted, and something done."""
    if number not in places:
        return number
    append_line(path, number)
    return action()


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit_without_a_word() -> None:
    os._exit(3)


def _segfault() -> None:
    ctypes.string_at(0)


def _exit_politely() -> None:
    sys.exit(3)


def _stop_iteration() -> None:
    raise StopIteration("of the item's own")


def _raise(kind: type[BaseException]) -> None:
    raise kind("of the item's own")


def _check(results: list[Any], kind: type[BaseException], places: tuple[int, ...] = PLACES) -> list[Any]:
    """The results at those places; all others are numbers, each in its place."""
    assert len(results) == COUNT
    others = [number for number in range(COUNT) if number not in places]
    assert [results[number] for number in others] == others
    failures = [results[place] for place in places]
    assert [type(failure) for failure in failures] == [kind] * len(places)
    return failures


@pytest.mark.parametrize("end", [_killed, _exit_without_a_word, _segfault, _exit_politely])
@pytest.mark.parametrize("chunksize", [None, 100_000])
def test_the_tiny_item_that_ends_its_worker_fails_alone_and_was_started_once(
    executor: LocalExecutor, tmp_path: Path, end: Callable[[], None], chunksize: int | None
) -> None:
    places = (0, 2500, 2501)
    function = functools.partial(_at, places, str(tmp_path / "starts"), end)
    results = list(executor.map(function, range(COUNT), chunksize=chunksize, return_exceptions=True))
    failures = _check(results, WorkerDiedError, places)
    if end in (_exit_without_a_word, _exit_politely):
        assert [failure.exit_code for failure in failures] == [3] * len(places)
    assert sorted(map(int, lines(tmp_path / "starts"))) == list(places)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, GeneratorExit, MemoryError])
@chunksizes
def test_the_tiny_item_that_raises_fails_alone_and_was_started_once(
    executor: LocalExecutor, tmp_path: Path, kind: type[BaseException], chunksize: int | None
) -> None:
    function = functools.partial(_at, PLACES, str(tmp_path / "starts"), functools.partial(_raise, kind))
    results = list(executor.map(function, range(COUNT), chunksize=chunksize, return_exceptions=True))
    for failure in _check(results, kind):
        assert failure.args == ("of the item's own",)
        assert "in _raise" in str(failure.__cause__)
        assert "chunk.py" not in str(failure.__cause__)
    assert sorted(map(int, lines(tmp_path / "starts"))) == list(PLACES)


@chunksizes
def test_stop_iteration_of_an_item_is_its_failure_and_ends_nothing(
    executor: LocalExecutor, tmp_path: Path, chunksize: int | None
) -> None:
    function = functools.partial(_at, PLACES, str(tmp_path / "starts"), _stop_iteration)
    results = list(executor.map(function, range(COUNT), chunksize=chunksize, return_exceptions=True))
    for failure in _check(results, StopIteration):
        assert failure.value == "of the item's own"
        assert "in _stop_iteration" in str(failure.__cause__)
    assert sorted(map(int, lines(tmp_path / "starts"))) == list(PLACES)


def test_stop_iteration_of_a_function_in_c_is_the_items_failure(executor: LocalExecutor) -> None:
    items = [iter([number] if number not in PLACES else []) for number in range(COUNT)]
    _check(list(executor.map(next, items, return_exceptions=True)), StopIteration)


@chunksizes
def test_tiny_items_whose_results_cannot_cross_fail_alone(executor: LocalExecutor, chunksize: int | None) -> None:
    function = functools.partial(_at, PLACES, os.devnull, oddities.Unpicklable)
    results = list(executor.map(function, range(COUNT), chunksize=chunksize, return_exceptions=True))
    _check(results, SerializationError)


class _Ends:
    """Ends the process that pickles it, or the one that rebuilds it."""

    def __init__(self, *, when_pickled: bool) -> None:
        self.when_pickled = when_pickled

    def __reduce__(self) -> Any:
        if self.when_pickled:
            os._exit(3)
        return os._exit, (3,)


class _EndsWhenPickledError(Exception):
    def __reduce__(self) -> Any:
        os._exit(3)


def _raise_what_ends() -> None:
    raise _EndsWhenPickledError


@pytest.mark.parametrize("chunksize", [None, COUNT])
def test_the_item_whose_result_ends_the_worker_when_it_is_sent_fails_alone(
    executor: LocalExecutor, chunksize: int | None
) -> None:
    for action in (functools.partial(_Ends, when_pickled=True), _raise_what_ends):
        function = functools.partial(_at, (2500,), os.devnull, action)
        results = list(executor.map(function, range(COUNT), chunksize=chunksize, return_exceptions=True))
        _check(results, WorkerDiedError, (2500,))


def test_the_item_whose_argument_ends_the_worker_fails_alone(executor: LocalExecutor) -> None:
    items = [number if number != 2500 else _Ends(when_pickled=False) for number in range(COUNT)]
    results = list(executor.map(oddities.identity, items, chunksize=COUNT, return_exceptions=True))
    _check(results, WorkerDiedError, (2500,))


def _look_and_poison(number: int) -> tuple[Any, ...]:
    """What an item finds; some of the items leave something behind."""
    seen = os.getcwd(), os.environ.get("JOBRUNNER_POISON"), random.random()
    if number in PLACES:
        os.chdir("/")
        os.environ["JOBRUNNER_POISON"] = str(number)
        random.seed(7)
    return seen


@chunksizes
def test_what_a_tiny_item_has_set_the_next_does_not_find(make_local: MakeLocal, chunksize: int | None) -> None:
    executor = make_local(1)
    results = list(executor.map(_look_and_poison, range(COUNT), chunksize=chunksize))
    assert {(directory, variable) for directory, variable, _ in results} == {(os.getcwd(), None)}
    assert len({drawn for *_, drawn in results}) == COUNT


def _poison_and_raise(number: int) -> str:
    if number in PLACES:
        os.chdir("/")
        raise ValueError
    return os.getcwd()


def test_what_an_item_that_raises_has_set_the_next_does_not_find(make_local: MakeLocal) -> None:
    results = list(make_local(1).map(_poison_and_raise, range(COUNT), return_exceptions=True))
    assert Counter(map(str, results)) == {os.getcwd(): COUNT - len(PLACES), "": len(PLACES)}


def _long_poison(number: int) -> bool:
    if number == 2500:
        sys.path.insert(0, "/poison")
        time.sleep(0.001)
    return "/poison" in sys.path


def test_what_a_longer_item_among_tiny_ones_has_changed_is_soon_put_back(make_local: MakeLocal) -> None:
    results = list(make_local(1).map(_long_poison, range(COUNT), chunksize=COUNT))
    assert sum(results) < COUNT - 2500
    assert not results[-1]


@chunksizes
def test_a_tiny_item_past_its_time_limit_fails_alone(
    executor: LocalExecutor, gate: Gate, tmp_path: Path, chunksize: int | None
) -> None:
    function = functools.partial(_at, (2500,), str(tmp_path / "starts"), functools.partial(await_release, gate.path))
    view = executor.with_options(time_limit=1)
    _check(
        list(view.map(function, range(COUNT), chunksize=chunksize, return_exceptions=True)), TimeLimitExceeded, (2500,)
    )
    assert lines(tmp_path / "starts") == ["2500"]


def test_a_time_limit_is_for_an_item_and_not_for_its_chunk(executor: LocalExecutor) -> None:
    assert list(executor.with_options(time_limit=2).map(time.sleep, [0.1] * 30, chunksize=30)) == [None] * 30


def _interrupted_at(fatal: int, path: str, gate: str, swallow: bool, number: int) -> int:
    append_line(path, number)
    if number == fatal:
        try:
            await_release(gate)
        except KeyboardInterrupt:
            append_line(path, "interrupted")
            if not swallow:
                raise
    return number


@pytest.mark.parametrize("swallow", [False, True])
def test_with_grace_the_item_past_its_limit_is_interrupted_and_no_other_begun_after_it(
    executor: LocalExecutor, gate: Gate, tmp_path: Path, swallow: bool
) -> None:
    path = tmp_path / "starts"
    function = functools.partial(_interrupted_at, 3, str(path), gate.path, swallow)
    # The worker imports this module first, which counts.
    view = executor.with_options(time_limit=5, grace=30)
    results = list(view.map(function, range(6), chunksize=6, return_exceptions=True))
    assert isinstance(results.pop(3), TimeLimitExceeded)
    assert results == [0, 1, 2, 4, 5]
    starts = lines(path)
    assert starts[:5] == ["0", "1", "2", "3", "interrupted"]
    assert starts.count("3") == starts.count("4") == starts.count("5") == 1


def test_tiny_items_that_die_or_raise_are_retried_by_themselves(executor: LocalExecutor, tmp_path: Path) -> None:
    path = tmp_path / "starts"

    def once(number: int) -> int:
        if number in (1000, 3000):
            append_line(str(path), number)
            if lines(path).count(str(number)) == 1:
                if number == 1000:
                    os._exit(1)
                raise ValueError
        return number

    view = executor.with_options(retries=1, retry_on=ValueError)
    assert list(view.map(once, range(COUNT), chunksize=COUNT)) == list(range(COUNT))
    assert sorted(lines(path)) == ["1000", "1000", "3000", "3000"]


def test_an_item_above_its_memory_limit_is_not_retried_unasked(executor: LocalExecutor, tmp_path: Path) -> None:
    def grow(number: int) -> int:
        append_line(str(tmp_path / "starts"), number)
        return len(bytearray(600_000_000)) if number else 0

    view = executor.with_options(retries=2, memory_limit="300MiB")
    results = list(view.map(grow, range(2), chunksize=2, return_exceptions=True))
    assert results[0] == 0
    assert isinstance(results[1], MemoryLimitExceeded)
    assert lines(tmp_path / "starts").count("1") == 1


def test_results_that_come_in_pieces_are_in_order(executor: LocalExecutor) -> None:
    def pause_now_and_then(number: int) -> int:
        if number % 500 == 0:
            time.sleep(0.006)
        return number

    results = list(executor.map(pause_now_and_then, range(COUNT), chunksize=COUNT))
    assert results == list(range(COUNT))


def test_items_that_are_given_back_are_run_once(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_map, "_GIVE_BACK_S", 1e-9)
    path = str(tmp_path / "starts")

    def note(number: int) -> int:
        append_line(path, number)
        return number

    assert list(executor.map(note, range(300))) == list(range(300))
    assert sorted(map(int, lines(tmp_path / "starts"))) == list(range(300))


class _Thing:
    """Something that can be referred to weakly."""


def _make_thing(number: int) -> _Thing:
    return _Thing()


@pytest.mark.parametrize("buffersize", [None, 100])
def test_a_result_that_was_given_out_is_not_kept(executor: LocalExecutor, buffersize: int | None) -> None:
    count = 0
    for thing in executor.map(_make_thing, range(1000), buffersize=buffersize):
        reference = weakref.ref(thing)
        del thing
        assert reference() is None
        count += 1
    assert count == 1000


@pytest.mark.parametrize("buffersize", [None, 100])
def test_a_closed_map_has_no_more_results(executor: LocalExecutor, buffersize: int | None) -> None:
    results: Any = executor.map(abs, range(1000), chunksize=1000, buffersize=buffersize)
    assert iter(results) is results
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert list(results) == []
    results.close()


def test_a_map_that_is_closed_before_it_was_begun_is_cancelled(
    make_local: MakeLocal, gate: Gate, tmp_path: Path
) -> None:
    path = str(tmp_path / "starts")
    executor = make_local(1)
    results: Any = executor.map(meet_and_count, [gate.path] * 3, [path] * 3, range(3), chunksize=1)
    gate.await_arrival()
    results.close()
    assert executor.submit(abs, -1).result() == 1
    assert lines(tmp_path / "starts") == ["0"]
    assert list(results) == []


def test_a_map_that_nobody_looks_at_is_run(make_local: MakeLocal, tmp_path: Path) -> None:
    with make_local(1) as executor:
        executor.map(append_line, [str(tmp_path / "starts")] * 100, range(100))
    assert len(lines(tmp_path / "starts")) == 100


def test_a_huge_range_is_not_kept_in_memory(executor: LocalExecutor) -> None:
    results: Any = executor.map(abs, range(10**15))
    assert list(itertools.islice(results, 1000)) == list(range(1000))
    results.close()


def _numbers(count: int) -> Iterator[int]:
    yield from range(count)


@pytest.mark.parametrize(
    "make",
    [range, _numbers, lambda count: list(range(count)), lambda count: tuple(range(count)), lambda n: set(range(n))],
    ids=["range", "iterator", "list", "tuple", "set"],
)
@chunksizes
def test_items_of_all_kinds_of_iterables_meet(
    executor: LocalExecutor, make: Callable[[int], Any], chunksize: int | None
) -> None:
    size = COUNT + 4096
    expected = [pow(number, 2) for number in range(size)]
    assert list(executor.map(pow, make(size), itertools.repeat(2), chunksize=chunksize)) == expected
    assert list(executor.map(pow, make(size), [2] * size, chunksize=chunksize)) == expected
    assert list(executor.map(abs, make(size), chunksize=chunksize)) == list(range(size))


def test_iterables_are_drawn_from_as_by_zip(executor: LocalExecutor) -> None:
    numbers = iter(range(10_000))
    assert list(executor.map(oddities.add, numbers, numbers)) == [4 * half + 1 for half in range(5000)]
    endless = itertools.count()
    assert list(executor.map(oddities.add, endless, range(10))) == [2 * number for number in range(10)]
    assert next(endless) == 11


def test_items_changed_after_the_call_are_run_as_they_were(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    blocking = executor.submit(await_release, gate.path)
    items = list(range(COUNT))
    results = executor.map(abs, items)
    items[:] = [-1] * COUNT
    gate.release()
    assert list(results) == list(range(COUNT))
    blocking.result()


def test_options_of_one_map_are_not_those_of_another(executor: LocalExecutor) -> None:
    limited = executor.with_options(time_limit=60)
    one, other = limited.map(abs, range(COUNT)), executor.map(abs, range(COUNT))
    assert list(zip(one, other, strict=True)) == [(number, number) for number in range(COUNT)]
