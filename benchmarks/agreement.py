"""How ``jobrunner bench`` agrees with pyperf, and with itself on a busy machine: ``python -m benchmarks.agreement``.

Both are pinned to the same core and have as many processes.  Within a run they take turns, as a machine that others
share changes its pace by more, within minutes, than what is looked for.  Reported is every run, so that a reader sees
the spread and not only the median.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.kernels import KERNELS, fold, unfold
from jobrunner import benchmark
from jobrunner.bench.cores import choose_cores

__all__ = ["KERNELS", "main", "report_agreement", "report_load"]

#: What both are given: one thread for BLAS, as the workers of a benchmark have.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

#: By ``"pyperf"`` and ``"jobrunner"`` the median of each kernel in seconds, by ``"ratio"`` that of ours by pyperf's.
Run = Mapping[str, Mapping[str, float]]


def by_pyperf(kernel: str, processes: int, fast: bool) -> list[float]:
    """The values of a kernel by so many processes of pyperf's, in seconds."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "out.json"
        command = [sys.executable, "-m", "benchmarks.pyperf_kernels", "--kernel", kernel, "--quiet", "-o", str(file)]
        # By default pyperf passes few variables on to its workers.
        command += ["--inherit-environ", ",".join([*_ONE_THREAD, "PYTHONPATH"])]
        command += ["--debug-single-value"] if fast else ["--processes", str(processes)]
        reserved = choose_cores(1).reserved
        if reserved:
            command += ["--affinity", ",".join(map(str, reserved))]
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        document = json.loads(file.read_text(encoding="utf-8"))
    return [value for run in document["benchmarks"][0]["runs"] for value in run.get("values", ())]


def by_jobrunner(kernel: str, samples: int) -> list[float]:
    """The values of a kernel by so many samples of ours, in seconds."""
    (series,) = benchmark({kernel: KERNELS[kernel]}, samples=samples).series
    return [value for sample in series.good for value in sample.values]


def side_by_side(samples: int, turns: int, fast: bool) -> Run:
    """One run: each kernel by both, which take turns, so that the machine's moods reach both alike.

    The run's ratio is the median of the ratios of its turns.
    """
    run: dict[str, dict[str, float]] = {"pyperf": {}, "jobrunner": {}, "ratio": {}}
    count = max(1, samples // turns)
    pieces: dict[str, dict[str, list[list[float]]]] = {kernel: {"pyperf": [], "jobrunner": []} for kernel in KERNELS}
    for turn, kernel in itertools.product(range(turns), KERNELS):
        for who in ("pyperf", "jobrunner") if turn % 2 else ("jobrunner", "pyperf"):
            found = by_pyperf(kernel, count, fast) if who == "pyperf" else by_jobrunner(kernel, count)
            pieces[kernel][who].append(found)
    for kernel, by in pieces.items():
        for who, values in by.items():
            run[who][kernel] = statistics.median(itertools.chain(*values))
        run["ratio"][kernel] = statistics.median(
            statistics.median(ours) / statistics.median(theirs)
            for ours, theirs in zip(by["jobrunner"], by["pyperf"], strict=True)
        )
    return run


def ratio(samples: int) -> float:
    """How many times as long `unfold` takes as `fold`."""
    result = benchmark({"fold": fold, "unfold": unfold}, samples=samples)
    found = result.ratio(result.series[1], result.series[0])
    assert found is not None
    return found.value


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Another process of this machine computes meanwhile."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def report_agreement(runs: Sequence[Run]) -> list[str]:
    """Lines on each kernel: every run, the median of the ratios, and the spreads."""
    lines = []
    for kernel in KERNELS:
        theirs, ours, ratios = ([run[what][kernel] for run in runs] for what in ("pyperf", "jobrunner", "ratio"))
        lines.append(
            f"{kernel}: jobrunner by pyperf {_listed(ratios)}; median {statistics.median(ratios):.3f}; medians "
            f"{statistics.median(theirs) * 1e6:.4g} and {statistics.median(ours) * 1e6:.4g} µs; spread "
            f"{_spread(theirs):.1f} % and {_spread(ours):.1f} %"
        )
    return lines


def report_spread(runs: Sequence[Run]) -> str:
    """A line on how far the medians of the runs lie apart, over all kernels together.

    Given are the root mean squares of the deviations from the kernel's median, and the share of 10,000 exchanges of the
    two within runs, at random, after which ours would be as much wider than pyperf's as it was found, or more: a
    permutation test of pairs (Edgington and Onghena, Randomization Tests, 4th edition, section 5.4).
    """
    pairs: list[tuple[float, float]] = []
    for kernel in KERNELS:
        squares = []
        for who in ("pyperf", "jobrunner"):
            medians = [run[who][kernel] for run in runs]
            middle = statistics.median(medians)
            squares.append([(median / middle - 1.0) ** 2 for median in medians])
        pairs += zip(*squares, strict=True)
    theirs, ours = (100.0 * math.sqrt(statistics.fmean(each)) for each in zip(*pairs, strict=True))
    differences = [our - their for their, our in pairs]
    found, draws, rng = math.fsum(differences), 10_000, random.Random(1)
    as_wide = sum(math.fsum(rng.choice((-1, 1)) * each for each in differences) >= found for _ in range(draws))
    return f"spread of all: {theirs:.1f} % and {ours:.1f} %; as much wider by chance {as_wide / draws:.2f}"


def report_load(quiet: Sequence[float], loaded: Sequence[float]) -> str:
    """A line on the ratio of two implementations, quiet and loaded."""
    change = [b / a for a, b in zip(quiet, loaded, strict=True)]
    return (
        f"unfold by fold: quiet {_listed(quiet)}; busy {_listed(loaded)}; busy by quiet {_listed(change)}; "
        f"median {statistics.median(change):.3f}"
    )


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:.3f}" for number in numbers)


def _spread(numbers: Sequence[float]) -> float:
    """The largest less the smallest, in per cent of the median."""
    return 100.0 * (max(numbers) - min(numbers)) / statistics.median(numbers)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(text, err=True)


@click.command()
@click.option("--runs", default=5, show_default=True, help="Runs of each kind.")
@click.option("--samples", default=20, show_default=True, help="Samples of a run of ours; pyperf takes 20 processes.")
@click.option("--turns", default=10, show_default=True, help="Turns of pyperf and of ours in a run.")
@click.option("--fast", is_flag=True, help="One value of each kernel by pyperf: a try, no measurement.")
@click.option("--json", "file", metavar="FILE", help="Keep every figure.")
def main(runs: int, samples: int, turns: int, fast: bool, file: str | None) -> None:
    """Compare medians with pyperf's, and the ratio of two implementations on a quiet machine and a busy one."""
    agreement: list[Run] = []
    for number in range(runs):
        agreement.append(side_by_side(samples, turns, fast))
        _progress(f"run {number + 1} of {runs}: {agreement[-1]['ratio']}")
    click.echo("\n".join([*report_agreement(agreement), report_spread(agreement)]))
    quiet, loaded = [], []
    for number in range(runs):
        quiet.append(ratio(samples))
        with busy():
            loaded.append(ratio(samples))
        _progress(f"run {number + 1} of {runs}: quiet {quiet[-1]:.3f}, busy {loaded[-1]:.3f}")
    click.echo(report_load(quiet, loaded))
    if file:
        found = {"agreement": agreement, "quiet": quiet, "busy": loaded}
        Path(file).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
