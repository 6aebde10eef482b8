"""What runs in the worker: preparing a call, calibrating its loops, timing it.

Nothing is imported here but the standard library, so that a worker that times a function holds little besides it.

What the function raises is caught here and told as text (`Failure`): an exception of the user's own need not be one
that can be rebuilt in the caller.  What ends the process (a crash, `SystemExit`, a limit) the job's own error tells.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import itertools
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Calibration", "Failure", "Stage", "Task", "Timing", "calibrate", "run_loops", "take_sample"]

Clock = Callable[[], float]

#: Where a function was when it failed.
Stage = str

#: A call this long is timed by itself, once a sample.
_LONG_CALL_S = 1.0

#: A clock that has not moved after so many calls won't.
_UNSEEN_CALLS = 2**20

#: Calls of the empty function, to know what the loop and a call cost.
_EMPTY_CALLS = 200_000


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker is to time.

    Attributes:
        token: tells this call, its function and its arguments, from all others of the run.
        function: what is timed.
        setup: gives its arguments, untimed; None: it has none but `arguments`.
        setup_arguments: the parameters that `setup` takes.
        arguments: the parameters that go to the function by name.
        loops: calls for one value; 0: not known yet.
        values: timed values of a sample.
        warmup: values before them that do not count.
        value_s: the least seconds that a value is to take.
        gc: whether the garbage collector stays on while a value is timed.
        cores: where the worker is to run; empty: anywhere.
    """

    token: str
    function: Callable[..., Any] = dataclasses.field(compare=False)
    setup: Callable[..., Any] | None = dataclasses.field(default=None, compare=False)
    setup_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    loops: int = dataclasses.field(default=0, compare=False)
    values: int = dataclasses.field(default=3, compare=False)
    warmup: int = dataclasses.field(default=1, compare=False)
    value_s: float = dataclasses.field(default=0.1, compare=False)
    gc: bool = dataclasses.field(default=True, compare=False)
    cores: tuple[int, ...] = dataclasses.field(default=(), compare=False)


@dataclasses.dataclass(frozen=True)
class Failure:
    """What a function, or the one that sets it up, has raised.

    Attributes:
        stage: ``"setup"``, ``"first call"`` or ``"call"``; ``"clock"``: it could not be timed.
        error: type and text of what was raised.
        trace: the end of its traceback.
    """

    stage: Stage
    error: str
    trace: str = ""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often a function is called for one value.

    Attributes:
        loops: so often.
        values: how many values a sample has.
        call_s: seconds of one call, roughly.
        overhead_s: seconds of one call of a function that does nothing, in the same loop.
    """

    loops: int
    values: int
    call_s: float
    overhead_s: float


@dataclasses.dataclass(frozen=True)
class Timing:
    """One sample: what a fresh worker has measured.

    Attributes:
        values: seconds of one call, a value each.
        warmups: the same of what was run before and does not count.
        loops: calls of each value.
        cpu_s: CPU seconds of one call, on average over the values; those of children that ended included.
        elapsed_s: seconds from the first warm-up to the last value.
        cores: where the worker was pinned to; empty: nowhere.
        load: how many cores others kept busy meanwhile, on average; None where the system does not tell.
    """

    values: tuple[float, ...]
    warmups: tuple[float, ...]
    loops: int
    cpu_s: float
    elapsed_s: float
    cores: tuple[int, ...]
    load: float | None


class _FailedError(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def calibrate(task: Task, clock: Clock = time.perf_counter) -> Calibration | Failure:
    """Find how many calls make a value long enough; the first call is not timed.

    Args:
        task: the call.
        clock: seconds, from any beginning.
    """
    try:
        _pin(task.cores)
        call = _prepare(task)
        _first(call)
        loops, seconds = 1, _time(call, 1, clock)
        while seconds < task.value_s:
            if seconds <= 0 and loops >= _UNSEEN_CALLS:
                raise _FailedError(Failure("clock", f"too fast to be timed: {loops} calls take no time by the clock"))
            # Towards the goal, but no more than eightfold, for a short time tells little.
            wanted = loops * task.value_s / seconds * 1.05 if seconds > 0 else math.inf
            loops = math.ceil(min(max(wanted, loops + 1), 8 * loops))
            seconds = _time(call, loops, clock)
        call_s = seconds / loops
        values = 1 if call_s >= _LONG_CALL_S else task.values
        return Calibration(loops=loops, values=values, call_s=call_s, overhead_s=_overhead(clock))
    except _FailedError as failed:
        return failed.failure


def take_sample(task: Task, clock: Clock = time.perf_counter) -> Timing | Failure:
    """Time a call: set it up, warm up, then take the values; each value with arguments of its own.

    Args:
        task: the call, with its loops.
        clock: seconds, from any beginning.
    """
    try:
        _pin(task.cores)
        begun, used_before, busy_before = time.perf_counter(), _own_cpu(), _busy()
        warmups: list[float] = []
        values: list[float] = []
        cpu = 0.0
        for number in range(task.warmup + task.values):
            call = _prepare(task)
            cpu_before = _own_cpu()
            seconds = _timed(call, task, clock) / task.loops
            if seconds <= 0:
                raise _FailedError(Failure("clock", f"too fast to be timed: {task.loops} calls took no time"))
            if number < task.warmup:
                warmups.append(seconds)
            else:
                values.append(seconds)
                cpu += _own_cpu() - cpu_before
            del call  # its arguments may be large
        elapsed = time.perf_counter() - begun
        return Timing(
            values=tuple(values),
            warmups=tuple(warmups),
            loops=task.loops,
            cpu_s=cpu / (task.loops * task.values),
            elapsed_s=elapsed,
            cores=_pinned(task.cores),
            load=_load(_busy(), busy_before, _own_cpu() - used_before, elapsed),
        )
    except _FailedError as failed:
        return failed.failure


def run_loops(task: Task) -> int | Failure:
    """Call the function so often as its loops say, as one job of a batch; the setup is run once a worker.

    Returns:
        The worker's process id.
    """
    try:
        _pin(task.cores)
        _repeat(_prepared(task), task.loops)
        return os.getpid()
    except _FailedError as failed:
        return failed.failure


@functools.lru_cache(maxsize=1)
def _prepared(task: Task) -> Callable[[], Any]:
    call = _prepare(task)
    _first(call)
    return call


# --- the call ---------------------------------------------------------------------------------------------------------


def _prepare(task: Task) -> Callable[[], Any]:
    """The function with its arguments."""
    arguments: tuple[Any, ...] = ()
    keywords = dict(task.arguments)
    if task.setup is not None:
        with _stage("setup"):
            given = task.setup(**task.setup_arguments)
        if isinstance(given, tuple):
            arguments = given
        elif isinstance(given, Mapping):
            keywords = {**keywords, **given}
        else:
            arguments = (given,)
    if not arguments and not keywords:
        return task.function
    if keywords:
        # By position where that is the same: a call with keywords costs more.
        arguments, keywords = _by_position(task.function, arguments, keywords)
    return functools.partial(task.function, *arguments, **keywords)


def _by_position(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import inspect

    try:
        bound = inspect.signature(function).bind(*arguments, **keywords)
    except (TypeError, ValueError):  # its own call will say what is wrong, or it tells no signature
        return tuple(arguments), dict(keywords)
    return bound.args, bound.kwargs


@contextlib.contextmanager
def _stage(stage: Stage) -> Iterator[None]:
    """Tell what is raised in here as a failure at that stage."""
    try:
        yield
    except Exception as error:
        trace = "".join(traceback.format_exception(error, limit=-3))
        raise _FailedError(Failure(stage, _described(error), trace)) from error


def _described(error: BaseException) -> str:
    """An exception in a line; its text may itself fail."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text can't be had)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _first(call: Callable[[], Any]) -> None:
    with _stage("first call"):
        call()


def _repeat(call: Callable[[], Any], loops: int) -> None:
    with _stage("call"):
        for _ in range(loops):
            call()


def _time(call: Callable[[], Any], loops: int, clock: Clock) -> float:
    with _stage("call"):
        if loops == 1:
            begun = clock()
            call()
            return clock() - begun
        repeat = range(loops)
        begun = clock()
        for _ in repeat:
            call()
        return clock() - begun


def _timed(call: Callable[[], Any], task: Task, clock: Clock) -> float:
    """One value, by the task's rule on garbage collection."""
    if task.gc or not gc.isenabled():
        return _time(call, task.loops, clock)
    gc.collect()
    gc.disable()
    try:
        return _time(call, task.loops, clock)
    finally:
        gc.enable()


def _nothing() -> None:
    pass


def _overhead(clock: Clock) -> float:
    """The least of three, for it is a bound."""
    return min(_time(_nothing, _EMPTY_CALLS, clock) for _ in range(3)) / _EMPTY_CALLS


# --- the place --------------------------------------------------------------------------------------------------------


def _pin(cores: tuple[int, ...]) -> None:
    """Have this process run on these cores only, where the system can."""
    if not cores:
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
        return
    process = _affinity_process()
    if process is not None:
        process.cpu_affinity(list(cores))


def _pinned(cores: tuple[int, ...]) -> tuple[int, ...]:
    """Where this process may run, if it was to be pinned."""
    if not cores:
        return ()
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    process = _affinity_process()
    return tuple(process.cpu_affinity()) if process is not None else ()


def _affinity_process() -> Any:
    """This process as psutil's, where psutil can pin it (Windows, FreeBSD); macOS has no means for it."""
    import psutil

    process = psutil.Process()
    return process if hasattr(process, "cpu_affinity") else None


# --- CPU time ---------------------------------------------------------------------------------------------------------


def _own_cpu() -> float:
    """CPU seconds of this process and its children that have ended."""
    return sum(itertools.islice(os.times(), 4))


def _busy() -> float:
    """CPU seconds that the machine's cores were busy, or taken by other machines on the same hardware."""
    try:
        with open("/proc/stat", "rb") as file:
            user, nice, system, _idle, _waiting, *others = map(int, file.readline().split()[1:9])
        return (user + nice + system + sum(others)) / float(os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError):
        import psutil

        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _load(after: float, before: float, own: float, elapsed: float) -> float | None:
    """How many cores others kept busy; None where the system's figures are not to be trusted."""
    if elapsed <= 0 or after - before < own / 2:
        return None
    return max(0.0, (after - before - own) / elapsed)
