"""A benchmark on simulated clocks: what is timed moves the clock, nothing else does, and nothing starts a process."""

from __future__ import annotations

import concurrent.futures
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from jobrunner.bench.cores import Cores
from jobrunner.bench.plan import Plan, make_plan
from jobrunner.bench.result import BenchmarkResult
from jobrunner.bench.run import measure
from jobrunner.bench.settings import Settings

__all__ = ["SimulatedClock", "SimulatedEngine", "simulate", "work"]

T = TypeVar("T")


class SimulatedClock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


class SimulatedEngine:
    """Runs tasks at once, on the calling thread, by a clock that is not the system's.

    before: called before each task.
    """

    def __init__(self, clock: Callable[[], float], before: Callable[[], object] = lambda: None) -> None:
        self.clock = clock
        self.before = before
        self.closed = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        self.before()
        try:
            future.set_result(fn(*args, self.clock, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        self.closed += 1


def work(clock: SimulatedClock, seconds: float, noise: float, rng: random.Random) -> Callable[[], None]:
    """A function that takes so many seconds, with normal noise of that share."""

    def called() -> None:
        clock.pass_(seconds * max(0.1, rng.gauss(1.0, noise)))

    return called


def simulate(
    functions: Mapping[str, Callable[..., Any]],
    clock: SimulatedClock,
    *,
    points: Mapping[str, Sequence[Any]] | None = None,
    order: int = 0,
    before: Callable[[], object] = lambda: None,
    **settings: Any,
) -> BenchmarkResult:
    """Measure functions by a simulated clock."""
    plan = make_plan(functions, points, {}, setup=None, name="simulated", settings=Settings(**settings))

    def engine(plan: Plan, width: int | None) -> SimulatedEngine:
        return SimulatedEngine(clock, before)

    return measure(plan, Cores(), engine=engine, order=order)
