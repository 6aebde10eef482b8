"""The worker's side: what is timed, what is set up, what is told of failures and of other work."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jobrunner.bench import timing
from jobrunner.bench.timing import Calibration, Failure, Task, Timing, calibrate, run_loops, take_sample
from tests.bench.simulated import SimulatedClock


def sampled(task: Task, clock: Callable[[], float] | None = None) -> Timing:
    found = take_sample(task) if clock is None else take_sample(task, clock)
    assert isinstance(found, Timing), found
    return found


def test_setup_runs_before_each_value_and_is_not_timed() -> None:
    clock = SimulatedClock()
    made: list[list[int]] = []

    def setup(n: int) -> tuple[list[int]]:
        clock.pass_(100.0)
        made.append(list(range(n)))
        return (made[-1],)

    def work(items: list[int]) -> None:
        clock.pass_(len(items) * 0.1)

    task = Task("t", work, setup, {"n": 3}, loops=2, values=3, warmup=1)
    found = sampled(task, clock)
    assert found.values == pytest.approx([0.3, 0.3, 0.3])
    assert found.warmups == pytest.approx([0.3])
    assert len(made) == 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1, 2), ((1, 2), {"more": 5})),
        ({"a": 1}, ((), {"a": 1, "more": 5})),
        ([1, 2], (([1, 2],), {"more": 5})),
        (None, ((None,), {"more": 5})),
    ],
)
def test_what_setup_returns_is_the_arguments(given: Any, expected: Any) -> None:
    seen: list[Any] = []

    def work(*arguments: Any, **keywords: Any) -> None:
        seen.append((arguments, keywords))

    assert not isinstance(calibrate(Task("t", work, lambda: given, {}, {"more": 5}, value_s=1e-9)), Failure)
    assert seen[0] == expected


def test_a_function_without_arguments_is_called_as_it_is() -> None:
    def work() -> None: ...

    assert timing._prepare(Task("t", work)) is work


def test_parameters_go_by_position_where_that_is_the_same() -> None:
    def work(a: int, b: int, *, c: int) -> None: ...

    call: Any = timing._prepare(Task("t", work, arguments={"c": 3, "b": 2, "a": 1}))
    assert (call.args, call.keywords) == ((1, 2), {"c": 3})


def test_the_garbage_collector_is_off_while_a_value_is_timed_if_that_is_asked_for() -> None:
    states: list[bool] = []

    def work() -> None:
        states.append(gc.isenabled())

    sampled(Task("t", work, loops=1, gc=False))
    assert set(states) == {False}
    assert gc.isenabled()
    states.clear()
    sampled(Task("t", work, loops=1))
    assert set(states) == {True}


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        sampled(Task("t", int, loops=1, gc=False))
        assert not gc.isenabled()
    finally:
        gc.enable()


def broken(*arguments: Any) -> None:
    raise ValueError("no\nway")


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def unreadable() -> None:
    raise UnreadableError


@pytest.mark.parametrize(
    ("task", "stage", "error"),
    [
        (Task("t", broken), "first call", "ValueError: no way"),
        (Task("t", int, broken), "setup", "ValueError: no way"),
        (Task("t", unreadable), "first call", "UnreadableError: (its text can't be had)"),
    ],
)
def test_what_fails_is_told_with_its_stage(task: Task, stage: str, error: str) -> None:
    found = calibrate(task)
    assert isinstance(found, Failure)
    assert (found.stage, found.error) == (stage, error)
    assert "test_timing.py" in found.trace


def test_a_failing_call_of_a_sample_is_told_too() -> None:
    found = take_sample(Task("t", broken, loops=1))
    assert isinstance(found, Failure)
    assert found.stage == "call"
    assert isinstance(run_loops(Task("failing", broken, loops=1)), Failure)


def test_a_value_that_took_no_time_is_a_failure_and_no_zero() -> None:
    found = take_sample(Task("t", int, loops=5), SimulatedClock())
    assert isinstance(found, Failure)
    assert "too fast" in found.error


def test_a_batch_sets_up_once_a_worker() -> None:
    made: list[int] = []
    called: list[int] = []

    def setup() -> tuple[int]:
        made.append(1)
        return (2,)

    task = Task("once", called.append, setup, loops=3)
    assert run_loops(task) == run_loops(task) == os.getpid()
    assert len(made) == 1
    assert len(called) == 1 + 2 * 3


def test_cpu_time_is_that_of_one_call() -> None:
    def work() -> None:
        sum(range(300_000))

    found = sampled(Task("t", work, loops=10))
    assert found.cpu_s == pytest.approx(sum(found.values) / 3, rel=0.9)


def test_calibration_tells_loops_and_what_an_empty_call_costs() -> None:
    found = calibrate(Task("t", int, value_s=0.01))
    assert isinstance(found, Calibration)
    assert found.loops * found.call_s >= 0.01
    assert 0 < found.overhead_s < 1e-4


def test_other_work_is_what_was_busy_and_not_ours() -> None:
    assert timing._load(3.0, 1.0, 1.5, 1.0) == pytest.approx(0.5)
    assert timing._load(2.0, 1.0, 1.01, 1.0) == 0.0
    # Figures that can't be: the system said that less was busy than this process was.
    assert timing._load(1.1, 1.0, 1.0, 1.0) is None
    assert timing._load(1.1, 1.0, 0.0, 0.0) is None


def test_busy_time_is_read_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(file: Any, *arguments: Any, **keywords: Any) -> Any:
        raise FileNotFoundError(file)

    here = timing._busy()
    monkeypatch.setattr(timing, "open", no_proc, raising=False)
    assert timing._busy() == pytest.approx(here, rel=0.05, abs=5.0)


class OtherSystem:
    """psutil's process on a system without `os.sched_setaffinity`."""

    cores: tuple[int, ...] = (0, 1)

    def cpu_affinity(self, cores: list[int] | None = None) -> list[int] | None:
        if cores is None:
            return list(OtherSystem.cores)
        OtherSystem.cores = tuple(cores)
        return None


def test_a_worker_is_pinned_by_psutil_where_the_system_call_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr("psutil.Process", OtherSystem)
    assert sampled(Task("t", int, loops=1000, cores=(1,))).cores == (1,)
    assert OtherSystem.cores == (1,)


def test_a_worker_is_not_pinned_where_nothing_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr("psutil.Process", lambda: object())
    assert sampled(Task("t", int, loops=1000, cores=(1,))).cores == ()


def test_the_workers_side_imports_nothing_of_the_callers() -> None:
    import json
    import subprocess

    code = "import jobrunner.bench.timing, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert not {"rich", "click", "psutil", "sqlite3", "jobrunner.batch", "jobrunner.executors.local"} & set(loaded)
