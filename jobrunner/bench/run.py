"""`jobrunner.benchmark`: a benchmark run from Python."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from jobrunner.batch import Points, StopRequest, canonical_json, is_tqdm, misuse
from jobrunner.bench.cores import Cores, choose_cores, vacated
from jobrunner.bench.journal import Journal, JournalStore, Stored, read_benchmark
from jobrunner.bench.machine import describe, warnings_of_machine
from jobrunner.bench.measure import Engine, Measurement, Progress, local_engine
from jobrunner.bench.plan import Plan, make_plan
from jobrunner.bench.progress import TqdmProgress
from jobrunner.bench.result import BenchmarkResult, Series
from jobrunner.bench.settings import Settings
from jobrunner.options import PoolOptions

__all__ = ["benchmark", "measure", "stored_result"]


def benchmark(
    *functions: str | Callable[..., Any] | Mapping[str, Callable[..., Any]],
    points: Points | Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    setup: str | Callable[..., Any] | None = None,
    samples: int | None = None,
    min_time: float | None = None,
    target_rse: float | None = None,
    warmup: int = 1,
    workers: Sequence[int] = (),
    threads: int = 1,
    gc: bool = True,
    affinity: bool | None = None,
    cpus: Sequence[int] = (),
    time_limit: float | None = None,
    memory_limit: int | str | None = None,
    name: str | None = None,
    store: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | Callable[..., Any] | None = None,
    on_message: Callable[[str], object] | None = None,
) -> BenchmarkResult:
    """Time functions, each sample a job in a worker of its own.

    A sample is taken in a fresh process that is pinned to a core which the calling process leaves: the function is set
    up, warmed up, and called in loops long enough for the clock.  In each round every function at every point is
    sampled once, in random order.  A sample that raises, crashes or exceeds a limit is told as such in the result.

    Args:
        functions: what is timed: functions, or names ``"module:function"``; or one mapping of names to functions.  The
            first is the one that others are compared with.
        points: the points: for each parameter its values, of which the product is taken, or a list of points, or what
            `jobrunner.sweep` makes.
        fixed: parameters that are the same at all points.
        setup: a function (or its name) that gives the arguments, untimed, before each timed value.  It is called with
            those of the parameters that it takes, the others go to the timed function by name.  A tuple that it
            returns is positional arguments, a mapping keyword arguments, anything else the one argument.
        samples: how many samples of each function at each point; default 20.
        min_time: seconds for which each is to be timed in all, instead.
        target_rse: relative standard error of the median that is to be reached, such as 0.01, instead.
        warmup: untimed values before those of each sample.
        workers: numbers of workers; a batch is run at each for throughput, speedup and efficiency.
        threads: BLAS/OpenMP threads and cores of a sample.
        gc: whether the garbage collector stays on while a function is timed.
        affinity: whether samples are pinned to a core; None: where the system can.
        cpus: the cores that samples are pinned to; default: chosen.
        time_limit: seconds that a sample may take, warm-up included.
        memory_limit: bytes, or text such as ``"2GiB"``, that a sample's processes may use.
        name: the benchmark's name; default the functions'.
        store: a file that keeps what was measured as it comes, so that the same call goes on after an interruption.
        fresh: begin anew although the store has a part.
        stop: ends it early; what was measured is returned.
        progress: called before each sample with how many were taken, how many there are (None: not known), and what is
            timed now; or a class of tqdm's, or a ``functools.partial`` of one.
        on_message: called with what a user should know meanwhile, a sentence each.

    Returns:
        The result.

    Raises:
        SpecError: there is no such function, it does not take the parameters, or something else is wrong.
        StoreError: the store can't be used, or another process measures the same benchmark.
        TypeError, ValueError: an option is not what it must be.

    Example:
        >>> import json
        >>> result = benchmark(json.dumps, points={"obj": [[1, 2, 3]]}, samples=2)
        >>> len(result.series[0].good), result.complete
        (2, True)
    """
    if progress is not None and (not callable(progress) or misuse(progress)):
        found = misuse(progress) or f"of type {type(progress).__name__}"
        raise ValueError(f"progress must be None, a function or a class of tqdm's, not {found}")
    named = functions[0] if len(functions) == 1 and isinstance(functions[0], Mapping) else None
    settings = Settings(
        samples=samples,
        min_time=min_time,
        target_rse=target_rse,
        warmup=warmup,
        widths=tuple(workers),
        threads=threads,
        gc=gc,
        time_limit=time_limit,
        memory_limit=memory_limit,
    )
    plan = make_plan(
        named if named is not None else list(functions),  # type: ignore[arg-type]
        points,
        fixed or {},
        setup=setup,
        name=name,
        settings=settings,
    )
    cores = choose_cores(settings.threads, pin=affinity, wanted=cpus)
    with contextlib.ExitStack() as leaving:
        told = cast("Progress | None", progress)
        if is_tqdm(progress):
            told = leaving.enter_context(TqdmProgress(progress, plan.name))
        return measure(plan, cores, store=store, fresh=fresh, stop=stop, progress=told, on_message=on_message)


def measure(
    plan: Plan,
    cores: Cores,
    *,
    store: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
    on_message: Callable[[str], object] | None = None,
    engine: Callable[[Plan, int | None], Engine] = local_engine,
    order: int | None = None,
) -> BenchmarkResult:
    """Measure a plan; see `benchmark`.

    Args:
        plan: what is measured.
        cores: which cores samples run on.
        store: where what was measured is kept.
        fresh: begin anew although the store has a part.
        stop: ends it early.
        progress: is told of it.
        on_message: is told what a user should know.
        engine: makes the workers.
        order: what the random order of samples comes from; None: drawn.

    Raises:
        StoreError: the store can't be used.
    """
    description = _describe(plan, cores, secrets.randbits(32) if order is None else order)
    with _journal(plan, description, store, fresh, on_message) as (journal, stored), vacated(cores):
        Measurement(
            plan,
            journal,
            cores,
            order=stored.description["order"],
            engine=engine,
            stop=stop,
            progress=progress,
        ).run()
    return _result(stored, journal, journal.complete)


@contextlib.contextmanager
def _journal(
    plan: Plan,
    description: Mapping[str, Any],
    store: str | os.PathLike[str] | None,
    fresh: bool,
    on_message: Callable[[str], object] | None,
) -> Iterator[tuple[Journal, Stored]]:
    """The journal of a plan, and what its store has of it; on leaving, the store is told whether it is complete."""
    if store is None:
        told = Stored(name=plan.name, created_at=time.time(), description=description, complete=False, owner=None)
        yield Journal(), told
        return
    with JournalStore(store) as opened:
        machine, pinned = description["machine"].get("cpu_model_name"), description["settings"]["cores"]
        identity = {**plan.identity(), "machine": machine, "cores": pinned}
        journal, stored, message = opened.begin(plan.name, identity, description, fresh=fresh)
        try:
            if message is not None and on_message is not None:
                on_message(message)
            yield journal, stored
        finally:
            opened.end(complete=journal.complete)


def _describe(plan: Plan, cores: Cores, order: int) -> dict[str, Any]:
    """What a store or a file tells of a plan, as `json.dumps` takes it."""
    machine = describe(cores.reserved)
    notes = [*warnings_of_machine(machine)]
    if cores.note is not None:
        notes.append(cores.note)
    count = machine["cpu_count"]
    settings = plan.settings
    wide = [width for width in settings.widths if width * settings.threads > count]
    if wide:
        notes.append(f"{', '.join(map(str, wide))} workers are more than the {count} cores of this machine can run")
    if isinstance(settings.memory_limit, int):
        room = PoolOptions().budget_bytes // settings.memory_limit
        heavy = [width for width in settings.widths if width > room]
        if heavy:
            notes.append(
                f"{', '.join(map(str, heavy))} workers don't run at a time: this memory limit leaves room for {room}"
            )
    return {
        "implementations": [each.name for each in plan.implementations],
        "targets": [each.target.text for each in plan.implementations],
        "setup": plan.setup.name if plan.setup else None,
        "parameters": list(plan.parameters),
        "series": [
            {
                "name": each.name,
                "implementation": each.implementation,
                "parameters": _plain(each.parameters),
            }
            for each in plan.series
        ],
        "settings": {**settings.as_dict(), "cores": list(cores.reserved)},
        "machine": machine,
        "code": {each.name: dict(each.code) for each in plan.implementations},
        "notes": notes,
        "order": order,
    }


def _plain(parameters: Mapping[str, Any]) -> Any:
    """A point as JSON has it: tuples as lists, NumPy's numbers as Python's."""
    return json.loads(canonical_json(parameters))


def stored_result(store: str | os.PathLike[str], name: str | None = None) -> BenchmarkResult:
    """What a store has of a benchmark.

    Args:
        store: the file.
        name: the benchmark; None: the latest.

    Raises:
        SpecError: it has none of that name.
        StoreError: it can't be read.
    """
    stored, journal = read_benchmark(store, name)
    return _result(stored, journal, stored.complete)


def _result(stored: Stored, journal: Journal, complete: bool) -> BenchmarkResult:
    about = stored.description
    series = []
    for each in about["series"]:
        calibration = journal.calibrations.get(each["name"])
        series.append(
            Series(
                name=each["name"],
                implementation=each["implementation"],
                parameters=each["parameters"],
                samples=tuple(journal.samples(each["name"])),
                loops=calibration.loops if calibration else None,
                overhead_s=calibration.overhead_s if calibration else None,
                given_up=journal.given_up.get(each["name"]),
            )
        )
    scaling = [found for each in series if (found := journal.scaling(each.name)) is not None]
    return BenchmarkResult(
        name=stored.name,
        created_at=stored.created_at,
        complete=complete,
        implementations=tuple(about["implementations"]),
        parameters=tuple(about["parameters"]),
        settings=about["settings"],
        machine=about["machine"],
        code=about["code"],
        series=tuple(series),
        scaling=tuple(scaling),
        notes=tuple(about["notes"]),
    )
