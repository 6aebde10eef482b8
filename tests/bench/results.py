"""Results of benchmarks that nobody has measured, for tests of what is done with results."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobrunner.bench.result import BenchmarkResult, Sample, Scaling, ScalingRun, Series
from jobrunner.bench.settings import Settings

__all__ = ["made_result", "made_samples", "made_scaling"]


def made_samples(
    seconds: float, count: int = 20, *, noise: float = 0.02, failures: int = 0, seed: object = 0
) -> tuple[Sample, ...]:
    """Samples with lognormal noise, a round each; the last `failures` of them have failed."""
    rng = random.Random(repr(seed))
    good = [
        Sample(
            round=number,
            values=tuple(seconds * rng.lognormvariate(0, noise) if noise else seconds for _ in range(3)),
            cpu_s=seconds,
            elapsed_s=0.3,
            started_at=1_700_000_000.0 + number,
            peak_rss_bytes=50 * 2**20,
        )
        for number in range(count - failures)
    ]
    bad = [
        Sample(round=number, failure="raised", error="ValueError: no", started_at=1_700_000_000.0 + number)
        for number in range(count - failures, count)
    ]
    return (*good, *bad)


def made_scaling(
    name: str,
    widths: Sequence[int] = (1, 2, 4),
    *,
    serial: float = 0.05,
    rounds: int = 10,
    noise: float = 0.01,
    failed: Sequence[int] = (),
) -> Scaling:
    """Runs that follow Amdahl's law with lognormal noise; the widths in `failed` have failed and were given up."""
    rng = random.Random(repr(name))
    runs = [
        ScalingRun(round=number, width=width, error="MemoryError: no memory", started_at=1_700_000_000.0)
        if width in failed
        else ScalingRun(
            round=number,
            width=width,
            seconds=2.0 * (serial + (1 - serial) / width) * (rng.lognormvariate(0, noise) if noise else 1.0),
            started_at=1_700_000_000.0,
        )
        for number in range(rounds)
        for width in widths
    ]
    return Scaling(
        name=name,
        widths=tuple(widths),
        jobs=2 * max(widths),
        loops=10,
        runs=tuple(runs),
        given_up=dict.fromkeys(failed, "failed 3 times in a row"),
    )


def made_result(
    implementations: Sequence[str] = ("module:function",),
    points: Sequence[Mapping[str, Any]] = ({},),
    seconds: Callable[[str, Mapping[str, Any]], float] = lambda implementation, point: 0.01,
    *,
    samples: int = 20,
    noise: float = 0.02,
    failures: Callable[[str, Mapping[str, Any]], int] = lambda implementation, point: 0,
    widths: Sequence[int] = (),
    serial: float = 0.05,
    name: str | None = None,
    complete: bool = True,
    notes: Sequence[str] = (),
) -> BenchmarkResult:
    """A result as if it had been measured; the same arguments give the same.

    Args:
        implementations: names of the functions.
        points: the parameters of each point.
        seconds: the median of an implementation at a point.
        samples: of each series.
        noise: standard deviation of the samples' logarithms.
        failures: how many samples of a series have failed; one of which all have is given up.
        widths: numbers of workers that each series was run with; none: no scaling.
        serial: the serial fraction of that.
        name: the benchmark's; default the functions'.
        complete: whether it was measured to its end.
        notes: what a reader should know.
    """
    series = []
    for point in points:
        for implementation in implementations:
            told = " ".join([implementation, *(f"{key}={json.dumps(value)}" for key, value in point.items())])
            failed = failures(implementation, point)
            series.append(
                Series(
                    name=told,
                    implementation=implementation,
                    parameters=dict(point),
                    samples=made_samples(
                        seconds(implementation, point), samples, noise=noise, failures=failed, seed=told
                    ),
                    loops=10,
                    overhead_s=30e-9,
                    given_up="failed 3 times in a row" if failed and failed == samples else None,
                )
            )
    return BenchmarkResult(
        name=name or "+".join(implementations),
        created_at=1_700_000_000.0,
        complete=complete,
        implementations=tuple(implementations),
        parameters=tuple(dict.fromkeys(key for point in points for key in point)),
        settings=Settings(samples=samples, widths=tuple(widths)).as_dict(),
        machine={"cpu_model_name": "a made one", "cpu_count": 8, "system": "Linux", "python_version": "3.12.1"},
        code={implementation: {"source": "0" * 16} for implementation in implementations},
        series=tuple(series),
        scaling=tuple(made_scaling(each.name, widths, serial=serial) for each in series) if widths else (),
        notes=tuple(notes),
    )
